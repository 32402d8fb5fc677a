//! Threads that were switched away within a section (preemptible flavour).
//!
//! A thread has an [`Entry`]. It is on the list of the leaf of the CPU that it was switched
//! away on, from then until its section ends; everything about it is guarded by that leaf's
//! lock, but for where it is queued, which only the thread itself changes.
//!
//! | state of an entry | left by |
//! |---|---|
//! | off | the thread is switched away in a section: on; it *blocks* the grace period (normal, expedited) that its CPU has not reported to yet |
//! | on, blocks none | a grace period begins on the leaf: it blocks that one |
//! | on | the section ends with preemption off, which is a section, too: on, until preemption comes on |
//! | on, blocks normal, expedited or both | the section ends: off, and who was the last to block a grace period reports for the leaf |
//!
//! A grace period that begins while the thread is queued waits for it; one that has had the
//! quiescent state of its CPU when it is queued does not, since the section began after
//! that. So the counts of a leaf are exact.

use core::{cell::UnsafeCell, ptr::NonNull};

use crate::tree::Kind;

/// Where an entry is that is on no list.
const NOWHERE: usize = usize::MAX;

/// What the engine keeps with a thread.
#[derive(Debug)]
pub struct Entry(UnsafeCell<Inner>);

#[derive(Debug)]
struct Inner {
    next: Option<NonNull<Entry>>,
    prev: Option<NonNull<Entry>>,
    /// The leaf's number.
    leaf: usize,
    /// Which grace periods it blocks, by [`Kind`].
    blocks: [bool; 2],
    thread: u32,
}

// SAFETY: touched under the lock of its leaf, or by its own thread, as the module says.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

impl Entry {
    /// Of a thread that is in no section.
    pub const fn new() -> Self {
        Self(UnsafeCell::new(Inner {
            next: None,
            prev: None,
            leaf: NOWHERE,
            blocks: [false; 2],
            thread: 0,
        }))
    }

    /// The leaf on whose list it is.
    ///
    /// # Safety
    ///
    /// The caller is the entry's thread.
    pub(crate) unsafe fn leaf(&self) -> Option<usize> {
        // SAFETY: only its own thread changes this field, and that is the caller.
        let leaf = unsafe { (*self.0.get()).leaf };
        (leaf != NOWHERE).then_some(leaf)
    }
}

impl Default for Entry {
    fn default() -> Self {
        Self::new()
    }
}

/// The entries of a leaf, under its lock.
#[derive(Debug, Default)]
pub(crate) struct List {
    first: Option<NonNull<Entry>>,
    len: usize,
    blocking: [usize; 2],
}

// SAFETY: entries belong to the list as long as they are on it.
unsafe impl Send for List {}

impl List {
    pub const fn new() -> Self {
        Self {
            first: None,
            len: 0,
            blocking: [0; 2],
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many block the grace period of that kind.
    pub fn blocking(&self, kind: Kind) -> usize {
        self.blocking[kind as usize]
    }

    /// Adds the entry of a thread, which blocks what `blocks` says.
    ///
    /// # Safety
    ///
    /// The entry is on no list, stays where it is until it is removed, and the caller is its
    /// thread, with the lock of leaf `leaf`, whose list this is.
    pub unsafe fn push(
        &mut self,
        entry: NonNull<Entry>,
        leaf: usize,
        blocks: [bool; 2],
        thread: u32,
    ) {
        // SAFETY: under the lock; entries on the list are alive.
        unsafe {
            *entry.as_ref().0.get() = Inner {
                next: self.first,
                prev: None,
                leaf,
                blocks,
                thread,
            };
            if let Some(next) = self.first {
                (*next.as_ref().0.get()).prev = Some(entry);
            }
        }
        self.first = Some(entry);
        self.len += 1;
        for (count, blocks) in self.blocking.iter_mut().zip(blocks) {
            *count += usize::from(blocks);
        }
    }

    /// Takes an entry off. Which grace periods it blocked.
    ///
    /// # Safety
    ///
    /// It is on this list, and the caller is its thread, with the lock.
    pub unsafe fn remove(&mut self, entry: NonNull<Entry>) -> [bool; 2] {
        // SAFETY: under the lock; the entry and its neighbours on the list are alive.
        let blocks = unsafe {
            let inner = &mut *entry.as_ref().0.get();
            match inner.prev {
                Some(prev) => (*prev.as_ref().0.get()).next = inner.next,
                None => self.first = inner.next,
            }
            if let Some(next) = inner.next {
                (*next.as_ref().0.get()).prev = inner.prev;
            }
            inner.leaf = NOWHERE;
            inner.blocks
        };
        self.len -= 1;
        for (count, blocks) in self.blocking.iter_mut().zip(blocks) {
            *count -= usize::from(blocks);
        }
        blocks
    }

    /// A grace period begins: all that are on the list block it.
    pub fn begin(&mut self, kind: Kind) {
        let mut next = self.first;
        while let Some(entry) = next {
            // SAFETY: under the lock; entries on the list are alive.
            let inner = unsafe { &mut *entry.as_ref().0.get() };
            inner.blocks[kind as usize] = true;
            next = inner.next;
        }
        self.blocking[kind as usize] = self.len;
    }

    /// The numbers of threads that block the grace period of that kind.
    pub fn threads(&self, kind: Kind) -> impl Iterator<Item = u32> {
        let mut next = self.first;
        core::iter::from_fn(move || {
            let entry = next?;
            // SAFETY: under the lock (the list is borrowed); entries on it are alive.
            let inner = unsafe { &*entry.as_ref().0.get() };
            next = inner.next;
            Some((inner.blocks[kind as usize], inner.thread))
        })
        .filter_map(|(blocks, thread)| blocks.then_some(thread))
    }
}
