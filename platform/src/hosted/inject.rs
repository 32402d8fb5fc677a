//! Interrupts that a test has come at points.
//!
//! Each CPU has a list of its own. One that all share would have a lock that orders all that CPUs do at their points,
//! and so hide races from a sanitizer.

use core::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
};
use std::{
    boxed::Box,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    vec::Vec,
};

use super::{here::Here, machine::Inner};
use crate::Context;

struct Handler {
    one_in: u32,
    nmi: bool,
    run: Box<dyn Fn() + Send + Sync>,
}

/// An injected interrupt; it comes until this is dropped.
#[must_use = "it comes until this is dropped"]
pub struct Injection {
    machine: Arc<Inner>,
    handler: Arc<Handler>,
}

/// Those of a CPU.
pub(super) struct Injections {
    handlers: Mutex<Vec<Arc<Handler>>>,
    /// How many: a hint that saves the lock.
    count: AtomicUsize,
}

impl Injections {
    pub(super) fn new() -> Self {
        Self {
            handlers: Mutex::new(Vec::new()),
            count: AtomicUsize::new(0),
        }
    }

    fn handlers(&self) -> MutexGuard<'_, Vec<Arc<Handler>>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Handler>>)) {
        let mut handlers = self.handlers();
        change(&mut handlers);
        // Relaxed: a hint.
        self.count.store(handlers.len(), Ordering::Relaxed);
    }

    /// Runs those whose turn it is.
    pub(super) fn at_point(&self, here: &Here) {
        // Relaxed: a hint.
        let none = self.count.load(Ordering::Relaxed) == 0;
        if none || here.context.get() == Context::Nmi || here.calm.get() {
            return;
        }
        let random = &here.own().random;
        let due: Vec<Arc<Handler>> = self
            .handlers()
            .iter()
            .filter(|handler| handler.nmi || !here.irqs_off.get())
            .filter(|handler| random.one_in(handler.one_in))
            .cloned()
            .collect();
        for handler in due {
            let context = if handler.nmi {
                Context::Nmi
            } else {
                Context::HardIrq
            };
            here.as_interrupt(context, &handler.run);
        }
    }
}

impl Injection {
    pub(super) fn new(
        machine: &Arc<Inner>,
        one_in: u32,
        nmi: bool,
        run: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let handler = Arc::new(Handler { one_in, nmi, run });
        for cpu in &machine.cpus {
            let added = Arc::clone(&handler);
            cpu.injections.change(|handlers| handlers.push(added));
        }
        Self {
            machine: Arc::clone(machine),
            handler,
        }
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        let handler = &self.handler;
        for cpu in &self.machine.cpus {
            let others = |other: &Arc<Handler>| !Arc::ptr_eq(other, handler);
            cpu.injections.change(|handlers| handlers.retain(others));
        }
        // A run that is under way on another CPU is waited for, where that can be.
        let in_task = super::here::try_with(|here| here.may_sleep()) == Some(true);
        while in_task
            && Arc::strong_count(handler) > 1
            && !self.machine.has_failed()
            && !std::thread::panicking()
        {
            super::here::with(Here::relax);
        }
    }
}

impl fmt::Debug for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injection")
            .field("one_in", &self.handler.one_in)
            .field("nmi", &self.handler.nmi)
            .finish_non_exhaustive()
    }
}
