//! Sizes of what was allocated, and other ones.
//!
//! # In place
//!
//! Memory keeps its place where the new size fits into what is there: an object of the same cache, or a block of pages of
//! the same order. With `ZERO`, bytes are 0 that were not asked for before, as long as all the calls for this memory
//! had `ZERO`: what is behind the new size is zeroed when it shrinks, so that it is when it grows. Where the size is kept
//! that was asked for (debug caches), only what is new is zeroed, and what is behind is a red
//! zone, which moves.

use core::{alloc::Layout, ptr::NonNull};

use super::{
    super::{KmemCache, Machine, Mode, Slabs},
    ZERO_SIZE,
    free::At,
    large::order_of,
    size::aligned,
};
use crate::{Gfp, frame::PAGE_SIZE};

impl<M: Machine> Slabs<M> {
    /// Bytes that may be used of what kmalloc gave: what was asked for, or more; 0 for
    /// [`ZERO_SIZE`]. Of a debug cache that keeps what was asked for, just that.
    ///
    /// # Safety
    ///
    /// It is the caller's.
    #[track_caller]
    pub unsafe fn ksize(&self, memory: NonNull<u8>) -> usize {
        match self.at(memory) {
            // SAFETY: the object keeps its slab, and that its cache.
            At::Slab(slab) => unsafe { usable(slab.cache().as_ref(), memory) },
            At::Large(_, order) => PAGE_SIZE << order,
            At::Nothing => 0,
            At::Wrong => {
                self.bad_address(memory, core::panic::Location::caller());
                0
            }
        }
    }

    /// Memory of another size with the same content, as far as both have it: the same memory if it
    /// fits. `None` for `memory` is [`kmalloc`](Self::kmalloc); a size of 0 frees, and gives
    /// [`ZERO_SIZE`]. With `Gfp::ZERO` what was not asked for before is 0 (see the module). `None`: no memory, and nothing has changed.
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
        let Some(memory) = memory else {
            return self.kmalloc(size, gfp);
        };
        if size == 0 {
            // SAFETY: as the caller promises.
            unsafe { self.kfree(memory) };
            return Some(ZERO_SIZE);
        }
        // SAFETY: as the caller promises.
        unsafe { self.resize(memory, size, 1, gfp) }
    }

    /// [`krealloc`](Self::krealloc) for memory that is aligned to `align`, and stays so. `size` is not 0.
    ///
    /// # Safety
    ///
    /// As [`krealloc`](Self::krealloc).
    #[track_caller]
    pub(crate) unsafe fn resize(
        &self,
        memory: NonNull<u8>,
        size: usize,
        align: usize,
        gfp: Gfp,
    ) -> Option<NonNull<u8>> {
        let (old, fits) = match self.at(memory) {
            // SAFETY: as the caller promises; the object keeps its slab, and that its cache.
            At::Slab(slab) => unsafe {
                let cache = slab.cache();
                let cache = cache.as_ref();
                let old = usable(cache, memory);
                if self.is_for(cache, size, align) {
                    cache.resize_in_place(memory, old, size, gfp);
                    return Some(memory);
                }
                (old, false)
            },
            At::Large(_, order) => {
                let small = size <= super::MAX_CACHED && align <= PAGE_SIZE;
                let wanted = aligned(size, align)?;
                let fits = !small && order_of(wanted) == order;
                (PAGE_SIZE << order, fits)
            }
            At::Nothing => (0, false),
            At::Wrong => {
                self.bad_address(memory, core::panic::Location::caller());
                return None;
            }
        };
        if fits {
            if gfp.contains(Gfp::ZERO) {
                // SAFETY: the caller's, of `old` bytes.
                unsafe { memory.add(size).write_bytes(0, old - size) };
            }
            return Some(memory);
        }
        let layout = Layout::from_size_align(size, align).ok()?;
        let new = self.alloc_layout(layout, gfp)?;
        // SAFETY: both are at least so large; the old one is the caller's, and the new one ours.
        unsafe {
            new.copy_from_nonoverlapping(memory, old.min(size));
            self.kfree(memory);
        }
        Some(new)
    }

    /// Whether an object of `cache` does for `size` bytes with this alignment: the caches of kmalloc that are larger would
    /// be a waste; others do whatever they are.
    fn is_for(&self, cache: &KmemCache<M>, size: usize, align: usize) -> bool {
        let Some(wanted) = aligned(size, align).filter(|_| align <= PAGE_SIZE) else {
            return false;
        };
        let object = cache.layout().object_size as usize;
        let is_right = |size| {
            let right = self.kmalloc_cache(size);
            right.is_some_and(|right| core::ptr::eq(right, cache))
        };
        // Also a caller's own that is like a kmalloc cache.
        if !is_right(object) {
            return size <= object && align <= cache.layout().align as usize;
        }
        is_right(wanted)
    }
}

/// Bytes of an object that are its user's.
///
/// # Safety
///
/// The object is the caller's.
unsafe fn usable<M: Machine>(cache: &KmemCache<M>, object: NonNull<u8>) -> usize {
    if cache.keeps_requested() {
        // SAFETY: as the caller promises.
        unsafe { cache.requested(object) }
    } else {
        cache.layout().usable as usize
    }
}

impl<M: Machine> KmemCache<M> {
    /// Gives an object another size that it has room for; it had `old` bytes.
    ///
    /// # Safety
    ///
    /// The object is the caller's.
    unsafe fn resize_in_place(&self, object: NonNull<u8>, old: usize, size: usize, gfp: Gfp) {
        let keeps = self.keeps_requested();
        if keeps {
            // SAFETY: as the caller promises. First, since it may write red where zeros belong.
            unsafe { self.note_requested(object, size, Mode::Spin) };
        }
        if gfp.contains(Gfp::ZERO) {
            let (from, to) = if keeps {
                (old.min(size), size)
            } else {
                (size, self.layout().usable as usize)
            };
            // SAFETY: within the object.
            unsafe { object.add(from).write_bytes(0, to.saturating_sub(from)) };
        }
    }
}
