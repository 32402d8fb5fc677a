//! A grace period that does not end.

use core::{fmt, marker::PhantomData};
use platform::CpuMask;

/// What is known of it. Its text says all but the stacks.
#[derive(Debug)]
pub struct Stall<'a>(PhantomData<&'a ()>);

impl Stall<'_> {
    /// CPUs that have not reported.
    pub fn cpus(&self) -> CpuMask {
        CpuMask::EMPTY
    }
    /// Numbers of threads that are in a section and were switched away.
    pub fn threads(&self) -> impl Iterator<Item = u32> {
        core::iter::empty()
    }
}

impl fmt::Display for Stall<'_> {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
