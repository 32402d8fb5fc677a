//! What a cache has of each node: slabs with free objects, counts, and the barn.

use platform::{
    Mark, NodeId,
    lock::{IrqSpinGuard, IrqSpinLock},
    lock_class,
    sync::{AtomicU64, AtomicUsize, Ordering},
};

use super::{Machine, Mode, barn::Barn, list::SlabList, stats::Contention, walk::Walked};

lock_class! {
    /// A node's slabs of a cache.
    pub struct ListLock = ("slab list", 83);
}

/// What the list lock protects.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// Slabs with free objects.
    pub partial: SlabList,
    /// (Debug caches) slabs without.
    pub full: SlabList,
}

/// That the list lock is held.
pub(crate) type ListGuard<'a, M> = IrqSpinGuard<'a, Lists, M, ListLock>;

/// A cache's part on a node: Linux's `kmem_cache_node`.
pub(crate) struct Node<M: Machine> {
    pub id: NodeId,
    pub lists: IrqSpinLock<Lists, M, ListLock>,
    /// Slabs on the list of partial ones, for a glance ([`publish`](Self::publish)).
    listed: AtomicUsize,
    /// How often the lock was taken, and had to be waited for.
    pub contention: Contention,
    /// Slabs that there are, and objects in them. Relaxed: statistics that are exact when
    /// nobody allocates or frees.
    pub slabs: AtomicU64,
    pub objects: AtomicU64,
    /// Slabs that wait for a grace period; not in `slabs` any more.
    pub waiting: AtomicU64,
    pub barn: Barn<M>,
    /// What a walk of the heap found; nobody else uses it.
    pub walked: Walked,
}

impl<M: Machine> Node<M> {
    /// A node without slabs.
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            lists: IrqSpinLock::new(Lists::default()),
            listed: AtomicUsize::new(0),
            contention: Contention::default(),
            slabs: AtomicU64::new(0),
            objects: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            barn: Barn::new(),
            walked: Walked::default(),
        }
    }
}

/// What a cache has on a node. Exact when nobody allocates or frees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts {
    /// Slabs, but for those that wait for a grace period.
    pub slabs: u64,
    /// Objects in them, free or not.
    pub objects: u64,
    /// Of the slabs, those on the list of partial ones.
    pub partial: u64,
    /// Slabs that wait for a grace period.
    pub waiting: u64,
    /// How often the list lock was taken.
    pub list_locked: u64,
    /// How often it seemed held before.
    pub list_waited: u64,
}

impl<M: Machine> Node<M> {
    /// What there is. Any context but NMI.
    pub fn counts(&self) -> NodeCounts {
        // Before the lock, which this call should not count.
        let [list_locked, list_waited] =
            [&self.contention.taken, &self.contention.contended].map(|c| c.load(Ordering::Relaxed));
        let partial = self.lists.lock().partial.len() as u64;
        NodeCounts {
            // Relaxed: statistics.
            slabs: self.slabs.load(Ordering::Relaxed),
            objects: self.objects.load(Ordering::Relaxed),
            partial,
            // Acquire: pairs with the Release of callbacks.
            waiting: self.waiting.load(Ordering::Acquire),
            list_locked,
            list_waited,
        }
    }

    /// Takes the list lock, and counts that; `None`: it is taken, and `mode` does not wait.
    #[inline]
    #[track_caller]
    pub fn lock(&self, mode: Mode) -> Option<ListGuard<'_, M>> {
        let (guard, waited) = match mode {
            // A look before, so that the order checker is told of a lock that waits.
            Mode::Spin => {
                let held = self.lists.holder().is_some();
                (self.lists.lock(), held)
            }
            Mode::NoLock => (self.lists.try_lock()?, false),
        };
        self.contention.note(waited);
        // The interesting place for an NMI.
        M::mark(Mark::Step);
        Some(guard)
    }

    /// After a change of the list of partial slabs, before the lock is given back: how many there are.
    #[inline]
    pub fn publish(&self, lists: &Lists) {
        // Relaxed: for a glance.
        self.listed.store(lists.partial.len(), Ordering::Relaxed);
    }

    /// Whether there are partial slabs, at a glance: it may be out of date.
    #[inline]
    pub fn has_partial(&self) -> bool {
        // Relaxed: a glance. Who misses a slab that comes just now makes a fresh one, or looks again.
        self.listed.load(Ordering::Relaxed) > 0
    }

    /// A fresh slab is the node's.
    pub fn count_slab(&self, objects: usize) {
        // Relaxed: statistics.
        self.slabs.fetch_add(1, Ordering::Relaxed);
        self.objects.fetch_add(objects as u64, Ordering::Relaxed);
    }

    /// The opposite.
    pub fn uncount_slab(&self, objects: usize) {
        // Relaxed: statistics.
        self.slabs.fetch_sub(1, Ordering::Relaxed);
        self.objects.fetch_sub(objects as u64, Ordering::Relaxed);
    }
}
