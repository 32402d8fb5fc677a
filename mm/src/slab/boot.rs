//! How the slab allocator comes up: [`Slabs::new`] and [`Slabs::start`].

use core::{cell::UnsafeCell, fmt, mem::MaybeUninit};

use rcu::Rcu;

use super::{KmemCache, Machine, Slabs};
use crate::Mm;

/// There was no memory for the caches that the allocator itself needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoStart;

impl fmt::Display for NoStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory for the first slab caches")
    }
}

impl core::error::Error for NoStart {}

/// The two caches that descriptors of caches come from; their own lie here.
pub(crate) struct BootCaches<M: Machine> {
    /// `kmem_cache`: of [`KmemCache`]s.
    pub(crate) cache: UnsafeCell<MaybeUninit<KmemCache<M>>>,
    /// `kmem_cache_node`: of their parts on nodes.
    pub(crate) node: UnsafeCell<MaybeUninit<KmemCache<M>>>,
}

impl<M: Machine> Slabs<M> {
    /// An allocator without caches, until [`start`](Self::start).
    ///
    /// # Safety
    ///
    /// `mm` outlives this. Nothing but [`start`](Self::start) is called before that has
    /// returned `Ok`.
    pub unsafe fn new(mm: &Mm<M>) -> Self {
        let _ = mm;
        panic!("not written yet")
    }

    /// Makes the caches that there always are: those of descriptors, then those of kmalloc.
    /// There is dynamic per-CPU memory; the CPU that runs this is alone. Does not sleep.
    ///
    /// # Errors
    ///
    /// [`NoStart`].
    ///
    /// # Safety
    ///
    /// Called once. From now on the allocator stays where it is, for as long as anything of it
    /// is used.
    pub unsafe fn start(&self) -> Result<(), NoStart> {
        panic!("not written yet")
    }

    /// From now on TYPESAFE_BY_RCU caches can be created.
    ///
    /// # Safety
    ///
    /// The engine outlives this, and so do its callbacks.
    pub unsafe fn set_rcu(&self, rcu: &Rcu<M>) {
        let _ = rcu;
        panic!("not written yet")
    }
}
