//! Faults of page allocations: which allocations are points at all.

use core::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
};

use super::{FaultAttr, KnobError, knobs};
use crate::{frame::MAX_ORDER, gfp::Gfp, machine::Machine};

/// As Linux's `fail_page_alloc`: its points are allocations of pages, their size is in
/// pages, and two more knobs say which of them are points.
pub struct PageFaults<M: Machine> {
    /// The knobs that all kinds of points have.
    pub attr: FaultAttr<M>,
    /// `ignore-gfp-wait`: allocations that may sleep are no points.
    ignore_gfp_wait: AtomicBool,
    /// `min-order`: allocations of a smaller order are no points.
    min_order: AtomicU32,
}

impl<M: Machine> PageFaults<M> {
    /// None fails. As on Linux, once armed only allocations of order 1 and above that may
    /// not sleep do, unless `min-order` and `ignore-gfp-wait` are set otherwise.
    pub const fn new() -> Self {
        Self {
            attr: FaultAttr::new("fail_page_alloc"),
            ignore_gfp_wait: AtomicBool::new(true),
            min_order: AtomicU32::new(1),
        }
    }

    /// Whether an allocation fails. Any context.
    pub fn should_fail(&self, gfp: Gfp, order: usize) -> bool {
        // Relaxed: see the module above.
        let exempt = order < self.min_order.load(Relaxed) as usize
            || self.ignore_gfp_wait.load(Relaxed) && gfp.contains(Gfp::RECLAIM);
        if exempt || !self.attr.is_armed() {
            return false;
        }
        let pages = 1 << order;
        if gfp.intersects(Gfp::NOWARN | Gfp::NOLOCK) {
            self.attr.should_fail_quietly(pages)
        } else {
            self.attr.should_fail(pages)
        }
    }

    /// Makes exactly the `nth` allocation from now fail, of any order and whether it may
    /// sleep or not, in the threads that are marked; 0: none. To fail at every point of a
    /// sequence, run it with 1, 2, 3, ... until [`pending`](Self::pending) says afterwards
    /// that it was too short.
    pub fn fail_nth(&self, nth: u32) {
        self.ignore_gfp_wait.store(false, Relaxed);
        self.min_order.store(0, Relaxed);
        self.attr.fail_nth(nth);
    }

    /// Whether the point that [`fail_nth`](Self::fail_nth) named is still to come.
    pub fn pending(&self) -> bool {
        self.attr.knobs().nth != 0
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
            "min-order" => {
                let order = knobs::number(name, value, 0, MAX_ORDER as i128 + 1)?;
                self.min_order.store(order as u32, Relaxed);
            }
            _ => self.attr.set(name, value)?,
        }
        Ok(())
    }
}

impl<M: Machine> Default for PageFaults<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> fmt::Display for PageFaults<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |on| if on { "on" } else { "off" };
        let wait = on(self.ignore_gfp_wait.load(Relaxed));
        writeln!(f, "{:<16} {wait}", "ignore-gfp-wait")?;
        let order = self.min_order.load(Relaxed);
        writeln!(f, "{:<16} {order}", "min-order")?;
        fmt::Display::fmt(&self.attr, f)
    }
}

impl<M: Machine> fmt::Debug for PageFaults<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageFaults")
            .field("attr", &self.attr)
            .field("ignore_gfp_wait", &self.ignore_gfp_wait)
            .field("min_order", &self.min_order)
            .finish()
    }
}
