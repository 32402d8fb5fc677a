//! What checks of the page allocator are on.

use core::{fmt, marker::PhantomData, panic::Location};

use crate::{
    frame::{FrameMap, Pfn, Use},
    gfp::Gfp,
    machine::Machine,
    owner::Record,
};

/// The checks.
#[derive(Debug)]
pub struct Debug<M: Machine> {
    machine: PhantomData<fn(M)>,
}

/// A free block was written to.
#[derive(Clone, Copy, Debug)]
pub struct Damage;

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("damaged")
    }
}

impl<M: Machine> Debug<M> {
    /// None.
    pub const fn off() -> Self {
        Self {
            machine: PhantomData,
        }
    }

    /// Whether any is on.
    #[inline(always)]
    pub fn any(&self) -> bool {
        false
    }

    /// Whether this allocation shall fail.
    pub fn before_alloc(&self, _gfp: Gfp, _order: usize) -> bool {
        false
    }

    /// A block was allocated.
    ///
    /// # Errors
    ///
    /// [`Damage`].
    pub fn on_alloc(
        &self,
        _map: &FrameMap<M::Layout>,
        _pfn: Pfn,
        _order: usize,
        _usage: Use,
        _gfp: Gfp,
        _caller: &'static Location<'static>,
    ) -> Result<(), Damage> {
        Ok(())
    }

    /// A block is being freed.
    pub fn on_free(&self, _map: &FrameMap<M::Layout>, _pfn: Pfn, _order: usize, _usage: Use) {}

    /// Who allocated and freed a frame.
    pub fn record(&self, _pfn: Pfn) -> Option<Record> {
        None
    }
}
