//! What a debug cache keeps of an object, behind it.

use core::ptr::NonNull;

use super::super::{Flags, KmemCache, Machine};
use crate::owner::Record;

/// Bytes of a track.
pub const TRACK_BYTES: usize = 80;

/// Bytes of what lies at [`tracks`](super::super::layout::ObjectLayout::tracks) of each object: in every debug cache a
/// word with the object's state, and with STORE_USER two tracks and the size that was asked for. A multiple of 8, aligned to 8; 0
/// in plain caches, which have nothing there.
pub const fn bytes_behind(flags: Flags) -> usize {
    if !flags.intersects(Flags::DEBUG) {
        0
    } else if flags.contains(Flags::STORE_USER) {
        8 + 2 * TRACK_BYTES + 8
    } else {
        8
    }
}

impl<M: Machine> KmemCache<M> {
    /// Who last allocated and freed an object of the cache, with STORE_USER. Any context.
    ///
    /// # Safety
    ///
    /// `object` is an object of this cache, free or not, in a slab that lives.
    pub unsafe fn record_of(&self, object: NonNull<u8>) -> Option<Record> {
        let _ = object;
        panic!("not written yet")
    }
}
