//! Giving memory back.

use super::{KmemCache, Machine};

impl<M: Machine> KmemCache<M> {
    /// Gives back what the cache could do without: what is in CPUs' sheaves and barns, then
    /// empty slabs. Frames that were freed. May sleep.
    pub fn shrink(&self) -> usize {
        panic!("not written yet")
    }

    /// Flushes every CPU's sheaves of a live cache, on that CPU (a CPU that is offline has
    /// none). May sleep.
    pub(crate) fn drain_all(&self) {
        panic!("not written yet")
    }

    /// Flushes what is in the barns, and frees their sheaves. Not in NMI.
    pub(crate) fn empty_barns(&self) {
        panic!("not written yet")
    }
}
