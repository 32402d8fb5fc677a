//! The order graph: which class was taken while holding which, and paths through it.

use super::classes::{ClassId, MAX_CLASSES};
use crate::sync::{AtomicU64, Ordering, const_unless_model, fence};

/// Words of a row.
const WORDS: usize = MAX_CLASSES.div_ceil(64);

/// A bit for each pair of classes.
#[derive(Debug)]
struct Matrix([[AtomicU64; WORDS]; MAX_CLASSES]);

impl Matrix {
    #[cfg(not(model))]
    const fn new() -> Self {
        Self([const { [const { AtomicU64::new(0) }; WORDS] }; MAX_CLASSES])
    }

    #[cfg(model)]
    fn new() -> Self {
        Self(core::array::from_fn(|_| {
            core::array::from_fn(|_| AtomicU64::new(0))
        }))
    }

    /// The word and the bit of a pair.
    #[inline(always)]
    fn place(&self, from: ClassId, to: ClassId) -> (&AtomicU64, u64) {
        let bit = to.index();
        (&self.0[from.index()][bit / 64], 1 << (bit % 64))
    }

    #[inline(always)]
    fn get(&self, from: ClassId, to: ClassId, order: Ordering) -> bool {
        let (word, bit) = self.place(from, to);
        word.load(order) & bit != 0
    }

    fn set(&self, from: ClassId, to: ClassId) {
        let (word, bit) = self.place(from, to);
        // Release: the place noted before is found by who finds the bit.
        word.fetch_or(bit, Ordering::AcqRel);
    }

    fn clear(&self, from: ClassId, to: ClassId) {
        let (word, bit) = self.place(from, to);
        // Nothing is published by a bit that goes.
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}

/// The graph. See the protocol in [`lockdep`](crate::lockdep).
#[derive(Debug)]
pub struct Graph {
    /// Edges that were looked at, whatever came of it.
    known: Matrix,
    /// Edges that paths are made of.
    order: Matrix,
}

impl Graph {
    const_unless_model! {
        /// Without edges.
        pub fn new() -> Self {
            Self { known: Matrix::new(), order: Matrix::new() }
        }
    }

    /// Whether the edge was looked at.
    #[inline(always)]
    pub fn is_known(&self, from: ClassId, to: ClassId) -> bool {
        // Relaxed: a bit not seen yet costs a second look, no more.
        self.known.get(from, to, Ordering::Relaxed)
    }

    /// The edge was looked at.
    pub fn set_known(&self, from: ClassId, to: ClassId) {
        self.known.set(from, to);
    }

    /// Adds the edge to the order. What is searched after this sees it or is seen by who
    /// adds what it does not see.
    pub fn add(&self, from: ClassId, to: ClassId) {
        self.order.set(from, to);
        // The bit is set before anything is searched, on every CPU in one order of fences.
        fence(Ordering::SeqCst);
    }

    /// Takes the edge out of the order.
    pub fn withdraw(&self, from: ClassId, to: ClassId) {
        self.order.clear(from, to);
    }

    /// Whether the edge is in the order.
    pub fn has(&self, from: ClassId, to: ClassId) -> bool {
        self.order.get(from, to, Ordering::Acquire)
    }

    /// A shortest path from `from` to a class that is `wanted`; `from` itself may be.
    pub fn path_from(&self, from: ClassId, wanted: impl Fn(ClassId) -> bool) -> Option<Path> {
        let mut search = Search::new(from);
        while let Some(class) = search.next() {
            if wanted(class) {
                let mut path = search.trace(class);
                path.reverse();
                return Some(path);
            }
            let row = &self.order.0[class.index()];
            for (word, bits) in row.iter().enumerate() {
                // Acquire: the edge's place is seen.
                let mut bits = bits.load(Ordering::Acquire);
                while bits != 0 {
                    search.reach(word * 64 + bits.trailing_zeros() as usize, class);
                    bits &= bits - 1;
                }
            }
        }
        None
    }

    /// A shortest path to `to` from a class that is `wanted`; `to` itself may be.
    pub fn path_to(&self, to: ClassId, wanted: impl Fn(ClassId) -> bool) -> Option<Path> {
        let mut search = Search::new(to);
        while let Some(class) = search.next() {
            if wanted(class) {
                return Some(search.trace(class));
            }
            for index in 0..MAX_CLASSES {
                if let Some(before) = ClassId::from_index(index)
                    && self.has(before, class)
                {
                    search.reach(index, class);
                }
            }
        }
        None
    }

    /// Forgets all edges of a class.
    pub fn forget(&self, class: ClassId) {
        for other in (0..MAX_CLASSES).filter_map(ClassId::from_index) {
            for matrix in [&self.known, &self.order] {
                matrix.clear(class, other);
                matrix.clear(other, class);
            }
        }
    }
}

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

/// A breadth-first search.
struct Search {
    /// By which class each one was reached; the start by itself.
    parent: [Option<ClassId>; MAX_CLASSES],
    /// Those reached, in order.
    queue: [Option<ClassId>; MAX_CLASSES],
    reached: usize,
    visited: usize,
}

impl Search {
    fn new(start: ClassId) -> Self {
        let mut search = Self {
            parent: [None; MAX_CLASSES],
            queue: [None; MAX_CLASSES],
            reached: 0,
            visited: 0,
        };
        search.reach(start.index(), start);
        search
    }

    fn reach(&mut self, index: usize, by: ClassId) {
        let parent = &mut self.parent[index];
        if parent.is_none() {
            *parent = Some(by);
            self.queue[self.reached] = ClassId::from_index(index);
            self.reached += 1;
        }
    }

    fn next(&mut self) -> Option<ClassId> {
        let next = *self.queue.get(self.visited)?;
        self.visited += 1;
        next
    }

    /// From a class that was reached back to the start.
    fn trace(&self, from: ClassId) -> Path {
        let mut path = Path::new();
        let mut class = from;
        path.push(class);
        while let Some(parent) = self.parent[class.index()]
            && parent != class
        {
            path.push(parent);
            class = parent;
        }
        path
    }
}

/// Classes of which each was held when the next was taken.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    classes: [Option<ClassId>; MAX_CLASSES],
    len: usize,
}

impl Path {
    pub(super) const fn new() -> Self {
        Self {
            classes: [None; MAX_CLASSES],
            len: 0,
        }
    }

    /// A path has every class at most once; another would not fit and is left out.
    pub(super) fn push(&mut self, class: ClassId) {
        if let Some(slot) = self.classes.get_mut(self.len) {
            *slot = Some(class);
            self.len += 1;
        }
    }

    fn reverse(&mut self) {
        self.classes[..self.len].reverse();
    }

    /// How many classes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The classes, the one held first in front.
    pub fn classes(&self) -> impl DoubleEndedIterator<Item = ClassId> + '_ {
        self.classes[..self.len].iter().copied().flatten()
    }

    /// The edges.
    pub fn edges(&self) -> impl Iterator<Item = (ClassId, ClassId)> + '_ {
        self.classes().zip(self.classes().skip(1))
    }
}
