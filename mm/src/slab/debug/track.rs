//! Who allocated and who freed an object: two *tracks* and the size that was asked for, behind
//! the object.

use core::ptr::NonNull;

use super::super::{KmemCache, Machine};
use crate::owner::Record;

/// Bytes of a track.
pub const TRACK_BYTES: usize = 80;
/// Bytes of what lies at [`tracks`](super::super::layout::ObjectLayout::tracks), with STORE_USER: two
/// tracks, and the size that was asked for. A multiple of 8, aligned to 8.
pub const TRACKS_BYTES: usize = 2 * TRACK_BYTES + 8;

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
