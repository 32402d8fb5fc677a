//! Frees that could not be made where they were asked for.

use core::marker::PhantomData;

use super::{Machine, Slabs};
use crate::frame::FrameMap;

/// Every CPU's deferred frees.
pub(crate) struct Deferred<M: Machine> {
    types: PhantomData<fn(M)>,
}

impl<M: Machine> Deferred<M> {
    /// Nothing is deferred.
    pub fn new(map: FrameMap<M::Layout>) -> Self {
        let _ = map;
        Self { types: PhantomData }
    }
}

impl<M: Machine> Slabs<M> {
    /// Waits until all frees that were deferred before this are made. Task context with
    /// interrupts on, no spinning lock held.
    pub(crate) fn deferred_sync(&self) {
        panic!("not written yet")
    }
}
