//! kmalloc: memory of any size.
//!
//! Small sizes come from caches of 8 to 8192 bytes, larger ones straight from pages. What was
//! allocated by any function here is freed by [`Slabs::kfree`] (and
//! [`Slabs::kfree_nolock`]), which finds out by the frame.

use core::{cell::UnsafeCell, mem::MaybeUninit, ptr::NonNull};

use platform::NodeId;

use super::{KmemCache, Machine, Slabs};
use crate::{
    Gfp,
    vmalloc::{Source, Vmalloc},
};

/// What an allocation of 0 bytes gives: not null, and no memory; may be freed.
pub const ZERO_SIZE: NonNull<u8> =
    NonNull::without_provenance(core::num::NonZero::new(16).unwrap());

/// The sizes of the caches, in ascending order.
pub const SIZES: [usize; 13] = [
    8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192,
];

/// The largest size that comes from a cache.
pub const MAX_CACHED: usize = 8192;

/// The caches; they lie here, so that their addresses are constants where the allocator is a static.
pub(crate) struct KmallocCaches<M: Machine>([UnsafeCell<MaybeUninit<KmemCache<M>>>; SIZES.len()]);

impl<M: Machine> Slabs<M> {
    /// Memory of at least `size` bytes, aligned to 8, and to `size` if that is a power of two;
    /// [`ZERO_SIZE`] for 0. `None`: no memory (reported, unless `gfp` says not to). Any
    /// context that `gfp` is for, but NMI.
    #[inline(always)]
    #[track_caller]
    pub fn kmalloc(&self, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        let _ = (size, gfp);
        panic!("not written yet")
    }

    /// [`kmalloc`](Self::kmalloc), of `node` if that has some (only then, with `THISNODE`).
    #[track_caller]
    pub fn kmalloc_node(&self, size: usize, gfp: Gfp, node: NodeId) -> Option<NonNull<u8>> {
        let _ = (size, gfp, node);
        panic!("not written yet")
    }

    /// [`kmalloc`](Self::kmalloc) of zeros.
    #[inline]
    #[track_caller]
    pub fn kzalloc(&self, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        let _ = (size, gfp);
        panic!("not written yet")
    }

    /// [`kmalloc`](Self::kmalloc) of `count * size` bytes; `None` also if that is no number.
    #[inline]
    #[track_caller]
    pub fn kmalloc_array(&self, count: usize, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        let _ = (count, size, gfp);
        panic!("not written yet")
    }

    /// [`kmalloc_array`](Self::kmalloc_array) of zeros.
    #[inline]
    #[track_caller]
    pub fn kcalloc(&self, count: usize, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        let _ = (count, size, gfp);
        panic!("not written yet")
    }

    /// Memory of another size with the same content, as far as both have it: the same memory if it
    /// fits. `None` for `memory` is [`kmalloc`](Self::kmalloc); a size of 0 frees, and gives
    /// [`ZERO_SIZE`]. With `Gfp::ZERO` bytes that were not asked for before are 0, if they were asked for
    /// so before. `None`: no memory, and nothing has changed.
    ///
    /// # Safety
    ///
    /// The memory is of kmalloc and the caller's; if there is a result, the old address is not
    /// used any more.
    #[track_caller]
    pub unsafe fn krealloc(
        &self,
        memory: Option<NonNull<u8>>,
        size: usize,
        gfp: Gfp,
    ) -> Option<NonNull<u8>> {
        let _ = (memory, size, gfp);
        panic!("not written yet")
    }

    /// [`kmalloc`](Self::kmalloc) for any context, NMI too, with any lock held; fails easily.
    /// `gfp` may have `ZERO`. Nothing larger than [`MAX_CACHED`].
    #[track_caller]
    pub fn kmalloc_nolock(
        &self,
        size: usize,
        gfp: Gfp,
        node: Option<NodeId>,
    ) -> Option<NonNull<u8>> {
        let _ = (size, gfp, node);
        panic!("not written yet")
    }

    /// Frees what a function of the kmalloc family gave, or an object of any cache. Nothing, for
    /// [`ZERO_SIZE`]. A wrong address is reported. Any context but NMI.
    ///
    /// # Safety
    ///
    /// It is the caller's, and not used any more.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn kfree(&self, memory: NonNull<u8>) {
        let _ = memory;
        panic!("not written yet")
    }

    /// [`kfree`](Self::kfree) for any context, NMI too, with any lock held: now or soon.
    ///
    /// # Safety
    ///
    /// As [`kfree`](Self::kfree).
    #[track_caller]
    pub unsafe fn kfree_nolock(&self, memory: NonNull<u8>) {
        let _ = memory;
        panic!("not written yet")
    }

    /// Bytes that may be used of what kmalloc gave: what was asked for, or more; 0 for
    /// [`ZERO_SIZE`].
    ///
    /// # Safety
    ///
    /// It is the caller's.
    pub unsafe fn ksize(&self, memory: NonNull<u8>) -> usize {
        let _ = memory;
        panic!("not written yet")
    }

    /// [`kmalloc`](Self::kmalloc), or, where that has no adjacent pages, memory of
    /// `vmalloc`. May sleep.
    #[track_caller]
    pub fn kvmalloc<S: Source>(
        &self,
        vmalloc: &Vmalloc<M, S>,
        size: usize,
        gfp: Gfp,
    ) -> Option<NonNull<u8>> {
        let _ = (vmalloc, size, gfp);
        panic!("not written yet")
    }

    /// Frees what [`kvmalloc`](Self::kvmalloc), kmalloc or vmalloc gave. May sleep.
    ///
    /// # Safety
    ///
    /// As [`kfree`](Self::kfree).
    #[track_caller]
    pub unsafe fn kvfree<S: Source>(&self, vmalloc: &Vmalloc<M, S>, memory: NonNull<u8>) {
        let _ = (vmalloc, memory);
        panic!("not written yet")
    }

    /// The cache that kmalloc takes `size` bytes from: `None` for 0, and beyond [`MAX_CACHED`].
    #[inline(always)]
    pub fn kmalloc_cache(&self, size: usize) -> Option<&KmemCache<M>> {
        let _ = size;
        panic!("not written yet")
    }
}
