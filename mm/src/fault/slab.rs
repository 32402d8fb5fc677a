//! Faults of allocations of objects: which allocations are points at all.

use core::{
    fmt,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use super::{FaultAttr, KnobError, knobs};
use crate::{gfp::Gfp, machine::Machine};

/// As Linux's `failslab`: its points are allocations of objects, their size is in bytes, and
/// two more knobs say which of them are points.
pub struct SlabFaults<M: Machine> {
    /// The knobs that all kinds of points have.
    pub attr: FaultAttr<M>,
    /// `ignore-gfp-wait`: allocations that may sleep are no points.
    ignore_gfp_wait: AtomicBool,
    /// `cache-filter`: only allocations of caches that were chosen are.
    cache_filter: AtomicBool,
}

impl<M: Machine> SlabFaults<M> {
    /// None fails. As on Linux, once armed only allocations that may not sleep do, unless
    /// `ignore-gfp-wait` is set otherwise.
    pub const fn new() -> Self {
        Self {
            attr: FaultAttr::new("failslab"),
            ignore_gfp_wait: AtomicBool::new(true),
            cache_filter: AtomicBool::new(false),
        }
    }

    /// Whether an allocation of `size` bytes fails. Any context.
    pub fn should_fail(&self, gfp: Gfp, size: usize) -> bool {
        // Relaxed: see the module above.
        let exempt = self.ignore_gfp_wait.load(Relaxed) && gfp.contains(Gfp::RECLAIM);
        if exempt || !self.attr.is_armed() {
            return false;
        }
        if gfp.intersects(Gfp::NOWARN | Gfp::NOLOCK) {
            self.attr.should_fail_quietly(size)
        } else {
            self.attr.should_fail(size)
        }
    }

    /// Makes exactly the `nth` allocation from now fail, whether it may sleep or not, in the
    /// threads that are marked; 0: none. See [`PageFaults::fail_nth`](super::PageFaults::fail_nth).
    pub fn fail_nth(&self, nth: u32) {
        self.ignore_gfp_wait.store(false, Relaxed);
        self.attr.fail_nth(nth);
    }

    /// Whether the point that [`fail_nth`](Self::fail_nth) named is still to come.
    pub fn pending(&self) -> bool {
        self.attr.knobs().nth != 0
    }

    /// Whether only allocations of chosen caches are points.
    pub fn cache_filter(&self) -> bool {
        self.cache_filter.load(Relaxed)
    }

    /// Sets a knob by its name.
    ///
    /// # Errors
    ///
    /// [`KnobError`]; then nothing has changed.
    pub fn set<'a>(&self, name: &'a str, value: &'a str) -> Result<(), KnobError<'a>> {
        match name {
            "ignore-gfp-wait" => self
                .ignore_gfp_wait
                .store(knobs::switch(name, value)?, Relaxed),
            "cache-filter" => self
                .cache_filter
                .store(knobs::switch(name, value)?, Relaxed),
            _ => self.attr.set(name, value)?,
        }
        Ok(())
    }

    /// All knobs as they are at first.
    pub fn reset(&self) {
        self.attr.configure(&super::Knobs::OFF);
        self.ignore_gfp_wait.store(true, Relaxed);
        self.cache_filter.store(false, Relaxed);
    }
}

impl<M: Machine> Default for SlabFaults<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> fmt::Display for SlabFaults<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |on| if on { "on" } else { "off" };
        let wait = on(self.ignore_gfp_wait.load(Relaxed));
        writeln!(f, "{:<16} {wait}", "ignore-gfp-wait")?;
        writeln!(f, "{:<16} {}", "cache-filter", on(self.cache_filter()))?;
        fmt::Display::fmt(&self.attr, f)
    }
}

impl<M: Machine> fmt::Debug for SlabFaults<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlabFaults")
            .field("attr", &self.attr)
            .field("ignore_gfp_wait", &self.ignore_gfp_wait)
            .field("cache_filter", &self.cache_filter)
            .finish()
    }
}
