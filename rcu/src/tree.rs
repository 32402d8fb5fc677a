//! The tree through which CPUs say that they have passed a quiescent state, so that no lock
//! is taken by all of them.
//!
//! A node has a mask for each [`Kind`] of grace period: of its children (a leaf: of its CPUs)
//! that have not reported. Who clears the last bit of a node, and finds no thread on its
//! list that blocks the grace period, clears the node's bit in its parent, and so on up to
//! the root: one lock a level, never two at a time.
//!
//! | state of a node, for a grace period | left by |
//! |---|---|
//! | idle: not begun here, or over | [`begin`](Tree::begin), root first: to waiting, with the bits of all children, or of the CPUs that are online; a leaf without any reports at once |
//! | waiting: bits, or threads that block | a report that clears the last bit with no thread blocking; the end of the last section that blocks with no bit left: to reported, and goes to the parent |
//! | reported | [`end`](Tree::end), root first: to idle |
//!
//! CPUs that come and go change the leaf's mask of those that are *online*, under its lock:
//! one that comes takes part from the next beginning on; one that goes reports as it goes.
//!
//! # What the sequence number orders
//!
//! [`Tree::seq`] counts grace periods. It changes to *running* before any node begins, and to
//! *over* after all nodes have ended; each node has a copy, changed when the node begins and
//! ends. Let an updater unpublish something and then take a cookie ([`Tree::snap`]), and a
//! reader still find it. Then the grace period that the cookie names waits for the reader:
//!
//! - the reader's CPU reports after it has had the leaf's lock after the leaf began, so after
//!   `seq` said *running*, and has a `fence(SeqCst)` between that and its later sections; the
//!   updater has one between unpublishing and reading `seq`. If the reader's section came
//!   after the report and still found the thing, the reader's fence came first, so the
//!   updater saw *running*, and its cookie names the grace period after that one;
//! - a CPU that was seen idle has such a fence at the end of its idle time ([`platform::eqs`]).
//!
//! What a reader did is seen after the grace period: by the chain of locks from its report
//! to the root, [`reported`](Tree::is_reported) (Release, Acquire), and `seq` (Release,
//! Acquire in [`Tree::seq`]).

mod expedited;
#[cfg(debug_assertions)]
mod faulty;
mod members;
mod request;

use core::sync::atomic::AtomicU64 as Statistic;

use alloc::vec::Vec;
use platform::{
    Platform,
    lock::{IrqSpinGuard, IrqSpinLock},
    lock_class,
    sync::{AtomicU64, Ordering, fence},
};

use crate::{
    arrows::{Arrow, Arrows},
    blocked::List,
    expedited::Funnel,
    geometry::{Geometry, Place},
    seq::{Cookie, Seq},
};

pub use request::Request;

lock_class! {
    /// A node of the tree. One at a time.
    pub struct NodeLock = ("rcu node", 88);
}

/// The two kinds of grace period. They share nothing but the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Waits for CPUs to come by.
    Normal = 0,
    /// Interrupts them.
    Expedited = 1,
}

/// The tree of an engine. CPUs are plain indices here, so that a test can have thousands.
pub struct Tree<P: Platform> {
    geometry: Geometry,
    nodes: Vec<Node<P>>,
    /// Where both kinds of grace periods began to count: for who shows numbers, debuggers too.
    pub(crate) first: Seq,
    seq: AtomicU64,
    /// The number of the last grace period of each kind that all CPUs reported to; for
    /// expedited ones a count of its own.
    reported: [AtomicU64; 2],
    /// The furthest cookie that has been asked for at the root.
    requested: AtomicU64,
    pub(crate) arrows: Arrows,
    /// A fault: reports are lost on their way up.
    #[cfg(debug_assertions)]
    lossy: core::sync::atomic::AtomicBool,
}

/// Aligned so that nodes do not share lines.
#[repr(align(128))]
pub(crate) struct Node<P: Platform> {
    pub place: Place,
    state: IrqSpinLock<State, P, NodeLock>,
    /// How often the lock was taken.
    locked: Statistic,
    /// For those who want an expedited grace period.
    pub funnel: Funnel<P>,
}

/// What a node's lock protects.
#[derive(Debug)]
pub(crate) struct State {
    /// The grace period, as far as this node knows.
    pub seq: Seq,
    /// The furthest cookie that has been asked for through this node.
    pub needed: Cookie,
    /// Who has not reported, by [`Kind`].
    pub mask: [u64; 2],
    /// Leaf: CPUs that take part from the next beginning on.
    pub online: u64,
    /// Leaf: threads in sections that were switched away.
    pub blocked: List,
}

impl State {
    fn is_empty(&self, kind: Kind) -> bool {
        self.mask[kind as usize] == 0 && self.blocked.blocking(kind) == 0
    }
}

impl<P: Platform> Node<P> {
    /// The node's state, under its lock.
    #[inline]
    pub fn lock(&self) -> IrqSpinGuard<'_, State, P, NodeLock> {
        let state = self.state.lock();
        // Relaxed: a statistic, and only one at a time adds to it.
        let locked = self.locked.load(Ordering::Relaxed);
        self.locked.store(locked + 1, Ordering::Relaxed);
        state
    }
}

impl<P: Platform> Tree<P> {
    /// A tree of that shape, no CPU online. `None`: no memory.
    pub fn try_new(geometry: Geometry) -> Option<Self> {
        let mut nodes = Vec::new();
        nodes.try_reserve_exact(geometry.nodes()).ok()?;
        for node in 0..geometry.nodes() {
            nodes.push(Node {
                place: geometry.place(node),
                state: IrqSpinLock::new(State {
                    seq: Seq::INITIAL,
                    needed: Cookie::COMPLETED,
                    mask: [0; 2],
                    online: 0,
                    blocked: List::new(),
                }),
                locked: Statistic::new(0),
                funnel: Funnel::new(),
            });
        }
        Some(Self {
            geometry,
            nodes,
            first: Seq::INITIAL,
            seq: AtomicU64::new(Seq::INITIAL.to_bits()),
            reported: [const { 0 }; 2].map(AtomicU64::new),
            requested: AtomicU64::new(Cookie::COMPLETED.to_bits()),
            arrows: Arrows::new(),
            #[cfg(debug_assertions)]
            lossy: core::sync::atomic::AtomicBool::new(false),
        })
    }

    /// Its shape.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(crate) fn nodes(&self) -> &[Node<P>] {
        &self.nodes
    }

    pub(crate) fn leaves(&self) -> impl Iterator<Item = usize> {
        self.geometry.first_leaf()..self.nodes.len()
    }

    /// How often the locks of a node were taken so far.
    pub fn locked(&self, node: usize) -> u64 {
        // Relaxed: a statistic.
        self.nodes[node].locked.load(Ordering::Relaxed)
    }

    /// The number of grace periods. What readers did that it waited for is seen after it.
    #[inline]
    pub fn seq(&self) -> Seq {
        // Acquire pairs with the Release in `end`.
        Seq::from_bits(self.seq.load(Ordering::Acquire))
    }

    /// What to wait for so that all sections of now are over.
    pub fn snap(&self) -> Cookie {
        // SeqCst: what the caller unpublished comes before the number is read; see the module.
        fence(Ordering::SeqCst);
        self.seq().snap()
    }

    /// Begins a grace period, for who makes it; none runs. `true`: there was no CPU and no
    /// thread to wait for.
    pub fn begin(&self) -> bool {
        let root = &self.nodes[0];
        let seq = {
            let _state = root.lock();
            // Relaxed: only who makes grace periods writes it.
            let seq = Seq::from_bits(self.seq.load(Ordering::Relaxed)).start();
            // Release: whoever sees it running sees what came before; more is in the fences.
            self.seq.store(seq.to_bits(), Ordering::Release);
            seq
        };
        let mut done = false;
        for (number, node) in self.nodes.iter().enumerate() {
            let mut state = node.lock();
            state.seq = seq;
            let is_leaf = number >= self.geometry.first_leaf();
            if is_leaf {
                state.mask[0] = state.online;
                state.blocked.begin(Kind::Normal);
                if state.is_empty(Kind::Normal) {
                    drop(state);
                    done |= self.up(number, Kind::Normal);
                }
            } else {
                state.mask[0] = node.place.children;
            }
        }
        done
    }

    /// Whether all CPUs have reported to the running grace period. What their sections did
    /// is seen then.
    pub fn is_reported(&self) -> bool {
        // Acquire pairs with the Release in `up`.
        self.reported[0].load(Ordering::Acquire) == self.seq().to_bits()
    }

    /// Ends the running grace period, to which all have reported. Whether another one has
    /// been asked for.
    pub fn end(&self) -> bool {
        // Relaxed: only who makes grace periods writes it.
        let seq = Seq::from_bits(self.seq.load(Ordering::Relaxed)).end();
        let mut needed = Cookie::COMPLETED;
        for node in &self.nodes {
            let mut state = node.lock();
            debug_assert!(state.is_empty(Kind::Normal), "the end comes too early");
            state.seq = seq;
            needed = needed.later(state.needed);
        }
        let more = !needed.is_done(seq);
        if more {
            // Once, however many nodes have a mark.
            let _root = self.nodes[0].lock();
            self.note_requested(needed);
        }
        // Release: what the sections did comes before it; see the module.
        self.seq.store(seq.to_bits(), Ordering::Release);
        more
    }

    /// A CPU that is in no section says so. `true`: it was the last that the grace period
    /// waited for.
    ///
    /// The caller has a `fence(SeqCst)` before its CPU's next section.
    pub fn report(&self, cpu: usize, kind: Kind) -> bool {
        let (leaf, bit) = self.geometry.leaf_of(cpu);
        self.report_on(leaf, kind, |mask| mask & bit)
    }

    /// Looks at those CPUs of a leaf that have not reported: `quiescent` says of a mask
    /// which of them have passed a quiescent state. `true`: they were the last.
    pub fn report_on(&self, leaf: usize, kind: Kind, quiescent: impl FnOnce(u64) -> u64) -> bool {
        let mut state = self.nodes[leaf].lock();
        let waiting = state.mask[kind as usize];
        if waiting == 0 {
            return false;
        }
        let passed = quiescent(waiting) & waiting;
        if passed == 0 {
            return false;
        }
        state.mask[kind as usize] = waiting & !passed;
        if state.mask[kind as usize] != 0 {
            return false;
        }
        if !state.is_empty(kind) {
            self.arrows.take(Arrow::NodeBlocked);
            return false;
        }
        drop(state);
        #[cfg(debug_assertions)]
        if self.lossy.load(Ordering::Relaxed) {
            return false;
        }
        self.up(leaf, kind)
    }

    /// A node waits for nothing any more, since a moment ago: clears its bit in the parent,
    /// and so on. `true`: nor does the root.
    ///
    /// Nobody else does this for the node and this grace period: who calls saw, under the
    /// node's lock, how the last of what it waited for went.
    fn up(&self, node: usize, kind: Kind) -> bool {
        let mut node = node;
        while let Some((parent, bit)) = self.nodes[node].place.parent {
            self.arrows.take(Arrow::NodeUp);
            let mut state = self.nodes[parent].lock();
            state.mask[kind as usize] &= !bit;
            if !state.is_empty(kind) {
                return false;
            }
            node = parent;
        }
        self.arrows.take(Arrow::RootDone);
        let number = match kind {
            // Relaxed: it cannot change while this has not been stored.
            Kind::Normal => self.seq.load(Ordering::Relaxed),
            Kind::Expedited => REPORTED,
        };
        // Release pairs with the Acquire in `is_reported` and `expedited_reported`.
        self.reported[kind as usize].store(number, Ordering::Release);
        true
    }
}

/// Of an expedited grace period: all have reported.
const REPORTED: u64 = 1;
