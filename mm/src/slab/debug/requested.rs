//! The size that a kmalloc object was asked for: what lies behind is red.

use core::{ptr::NonNull, sync::atomic::Ordering::Relaxed};

use super::super::{Flags, KmemCache, Machine, Mode, Slab};
use super::info::State;
use crate::Gfp;

impl<M: Machine> KmemCache<M> {
    /// Whether the cache keeps what was asked for ([`note_requested`](Self::note_requested)
    /// does something): a kmalloc cache with STORE_USER.
    #[inline]
    pub(crate) fn keeps_requested(&self) -> bool {
        self.flags.contains(Flags::KMALLOC.union(Flags::STORE_USER))
    }

    /// An object of which `size` bytes are its user's: the rest is red where that is kept, in a kmalloc
    /// cache of the caller's own ([`Flags::KMALLOC`]) with STORE_USER. `None`: no memory, or objects
    /// are smaller. Context as for [`alloc`](Self::alloc).
    #[track_caller]
    pub fn alloc_sized(&self, gfp: Gfp, size: usize) -> Option<NonNull<u8>> {
        if size > self.layout.object_size as usize {
            return None;
        }
        let object = self.alloc(gfp)?;
        // SAFETY: just allocated.
        unsafe { self.note_requested(object, size, Mode::Spin) };
        Some(object)
    }

    /// Notes that only the first `size` bytes of an object are its user's (after an
    /// allocation, which gives all of it; when `krealloc` stays in place): the rest becomes
    /// red, with RED_ZONE, after a look whether what was red until now still is. In `NoLock`
    /// mode it may leave all as it was. Nothing in caches that do not
    /// [keep](Self::keeps_requested) it. Context: as [`debug_take`](Self::debug_take).
    ///
    /// # Safety
    ///
    /// The object is the caller's; `size` is at most the cache's object size.
    #[track_caller]
    pub(crate) unsafe fn note_requested(&self, object: NonNull<u8>, size: usize, mode: Mode) {
        if !self.keeps_requested() {
            return;
        }
        debug_assert!(size <= self.layout.object_size as usize);
        // SAFETY: an object of a slab that lives.
        let slab = unsafe { Slab::of_object(*self.slabs().mm().frames(), object) };
        let caller = core::panic::Location::caller();
        let node = self.node(slab.frame().word().zone().node());
        let Some(_lists) = node.and_then(|node| node.lock(mode)) else {
            return;
        };
        // SAFETY: an allocated object of the slab, under the list lock.
        unsafe {
            self.check_object(slab, object, State::Allocated, Some(caller));
            self.set_requested(object, size);
            self.fill_patterns(object, State::Allocated, size);
        }
    }

    /// Bytes of an object that are its user's: what was noted, else all that were asked for when the
    /// cache was created.
    ///
    /// # Safety
    ///
    /// The object is the caller's, or the caller has the list lock.
    pub(crate) unsafe fn requested(&self, object: NonNull<u8>) -> usize {
        let all = self.layout.object_size as usize;
        if !self.keeps_requested() {
            return all;
        }
        // SAFETY: it is kept. Relaxed: written by the object's owner.
        let requested = unsafe { self.requested_word(object) }.load(Relaxed);
        // A number that was overwritten is not believed.
        all.min(usize::try_from(requested).unwrap_or(all))
    }

    /// Writes the size, where it is kept.
    ///
    /// # Safety
    ///
    /// An object of a slab of this cache, under the list lock, or that nobody else knows.
    pub(super) unsafe fn set_requested(&self, object: NonNull<u8>, size: usize) {
        if self.keeps_requested() {
            // SAFETY: as the caller promises. Relaxed: as above.
            unsafe { self.requested_word(object) }.store(size as u64, Relaxed);
        }
    }
}
