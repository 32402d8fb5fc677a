//! What debugging does with fresh slabs, and with those that go.

use core::ptr::NonNull;

use super::super::{KmemCache, Machine, Slab, arrows::Arrow};
use super::{
    info::{State, Which},
    pattern::{PADDING, Pattern},
};
use crate::slab::Flags;

impl<M: Machine> KmemCache<M> {
    /// Prepares a slab that was just made, of any cache: before its objects are. The slab's
    /// owner and word are set; nobody else knows of it.
    pub(crate) fn debug_new_slab(&self, slab: Slab<M>) {
        slab.begin_debug(self.debug.round());
        if self.flags.contains(Flags::POISON) {
            // SAFETY: the slab's bytes, which are nobody's yet.
            unsafe { Pattern::of(PADDING).fill(slab.base(), slab.bytes()) };
        }
    }

    /// Prepares an object of a fresh slab: before its constructor runs and its link is
    /// written. Nothing in a plain cache.
    #[inline]
    pub(crate) fn debug_new_object(&self, slab: Slab<M>, object: NonNull<u8>) {
        debug_assert!(self.index_of(slab, object).is_some());
        if self.is_debug() {
            self.make_object(object);
        }
    }

    #[cold]
    fn make_object(&self, object: NonNull<u8>) {
        // SAFETY: an object of a slab that nobody else knows.
        unsafe {
            self.set_state(object, State::Free);
            self.arrow(Arrow::DebugMade);
            self.fill_patterns(object, State::Free, 0);
            if self.flags.contains(Flags::STORE_USER) {
                self.clear_track(object, Which::Allocation);
                self.clear_track(object, Which::Free);
                self.set_requested(object, self.layout.object_size as usize);
            }
        }
    }

    /// Looks a last time at an empty slab that goes back to the page allocator: its bytes are
    /// still there, and nobody else knows of it. Nothing in a plain cache.
    #[inline]
    pub(crate) fn debug_old_slab(&self, slab: Slab<M>) {
        if self.is_debug() {
            self.check_old(slab);
        }
    }

    #[cold]
    fn check_old(&self, slab: Slab<M>) {
        self.check_slab(slab, None);
        for index in 0..self.layout.objects_of(slab.order()) {
            let object = self.object_at(slab, index);
            // SAFETY: an object of the slab.
            unsafe {
                if self.state_of(object) != Ok(State::Isolated) {
                    self.check_object(slab, object, State::Free, None);
                }
            }
        }
    }
}
