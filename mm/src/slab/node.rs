//! What a cache has of each node: slabs with free objects, counts, and the barn.

use core::ptr::NonNull;

use platform::{NodeId, lock::IrqSpinLock, lock_class, sync::AtomicU64};

use super::{Machine, barn::Barn, stats::Contention};
use crate::frame::Frame;

lock_class! {
    /// A node's slabs of a cache.
    pub struct ListLock = ("slab list", 83);
}

/// A doubly linked list of slabs, through [`Frame::links`] (addresses of frames; 0: the end).
#[derive(Debug, Default)]
pub(crate) struct SlabList {
    pub first: Option<NonNull<Frame>>,
    pub last: Option<NonNull<Frame>>,
    pub len: usize,
}

// SAFETY: the links of listed slabs belong to who owns the list.
unsafe impl Send for SlabList {}

/// What the list lock protects.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// Slabs with free objects.
    pub partial: SlabList,
    /// (Debug caches) slabs without.
    pub full: SlabList,
}

/// A cache's part on a node: Linux's `kmem_cache_node`.
pub(crate) struct Node<M: Machine> {
    pub id: NodeId,
    pub lists: IrqSpinLock<Lists, M, ListLock>,
    /// How often the lock was taken, and had to be waited for.
    pub contention: Contention,
    /// Slabs that there are, and objects in them. Relaxed: statistics that are exact when
    /// nobody allocates or frees.
    pub slabs: AtomicU64,
    pub objects: AtomicU64,
    /// Slabs that wait for a grace period; not in `slabs` any more.
    pub waiting: AtomicU64,
    pub barn: Barn<M>,
}
