//! Hosted machines as [`Machine`]s with memory.

use core::{cell::RefCell, iter, ops::Range, panic::Location};
use std::{sync::Arc, vec::Vec};

use platform::{Context, Platform, hosted::Hosted};

use super::{HostedLayout, Inner, Reports};
use crate::{
    frame::Pfn,
    machine::{Access, Machine, NoTables},
    report::Report,
};

std::thread_local! {
    /// What [`called_from`] put on this thread's stack, outermost first.
    static STACK: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Runs `f` with `address` on the stack that [`Machine::backtrace`] shows: return addresses
/// of the host are no use to a test, which can neither know nor choose them.
pub fn called_from<R>(address: usize, f: impl FnOnce() -> R) -> R {
    struct Return;
    impl Drop for Return {
        fn drop(&mut self) {
            STACK.with_borrow_mut(Vec::pop);
        }
    }
    STACK.with_borrow_mut(|stack| stack.push(address));
    let _return = Return;
    f()
}

/// Runs of frames that follow each other, with the place of their first in `frames`.
fn runs(frames: &[Pfn]) -> impl Iterator<Item = (usize, &[Pfn])> {
    let mut start = 0;
    iter::from_fn(move || {
        let rest = &frames[start..];
        let follow = |pair: &[Pfn]| pair[0].add(1) == pair[1];
        let len = match rest {
            [] => return None,
            rest => 1 + rest.windows(2).take_while(|pair| follow(pair)).count(),
        };
        let run = (start, &rest[..len]);
        start += len;
        Some(run)
    })
}

#[track_caller]
fn assert_may_wait(what: &str) {
    assert_eq!(Hosted::context(), Context::Task, "{what} in an interrupt");
    assert!(
        Hosted::may_sleep(),
        "{what} with preemption or interrupts off"
    );
    if Hosted::CHECK_LOCKS {
        Hosted::might_sleep(Location::caller());
    }
}

impl Inner {
    fn map(self: &Arc<Self>, virt: usize, frames: &[Pfn], access: Access) -> Result<(), NoTables> {
        for &frame in frames {
            assert!(self.has(frame), "frame {frame} is mapped, but is no memory");
        }
        let mut translations = self.translations();
        if !translations.begin_map() {
            return Err(NoTables);
        }
        translations.map(virt, frames, access);
        for (index, run) in runs(frames) {
            let at = virt + index * super::PAGE as usize;
            // SAFETY: not mapped, so not used.
            if unsafe { self.mappings.map(at, run[0], run.len(), access) }.is_err() {
                // The host has no more mappings.
                // SAFETY: the caller does not know of them yet.
                let undone = unsafe { self.mappings.unmap(virt, frames.len()) };
                undone.expect("the host cannot unmap");
                translations.forget(virt, frames.len());
                return Err(NoTables);
            }
        }
        Ok(())
    }
}

// SAFETY: `map` has the host map the frames for all its threads at once, and `flush` has every
// CPU drop the translations that are simulated; the host's own are never stale.
unsafe impl Machine for Hosted {
    type Layout = HostedLayout;

    unsafe fn map(
        layout: HostedLayout,
        virt: usize,
        frames: &mut dyn Iterator<Item = Pfn>,
        access: Access,
    ) -> Result<(), NoTables> {
        assert_may_wait("maps");
        // Taken first: the iterator may have points, where the CPU changes hands.
        let frames: Vec<Pfn> = frames.collect();
        layout.memory().map(virt, &frames, access)
    }

    unsafe fn unmap(layout: HostedLayout, virt: usize, pages: usize) {
        assert_may_wait("unmaps");
        let memory = layout.memory();
        let mut translations = memory.translations();
        translations.unmap(virt, pages);
        // SAFETY: nobody uses them any more (contract).
        let unmapped = unsafe { memory.mappings.unmap(virt, pages) };
        unmapped.expect("the host cannot unmap");
    }

    fn flush(layout: HostedLayout, pages: Range<usize>) {
        assert_may_wait("flushes");
        let memory = layout.memory();
        let stale = {
            let mut translations = memory.translations();
            translations.note_flush(&pages);
            translations.stale_in(&pages)
        };
        Self::call(Self::online_cpus(), &|| {
            let mut translations = memory.translations();
            translations.flush_cpu(Self::current_cpu(), &pages);
        });
        memory.translations().end_flush(&stale);
    }

    fn backtrace(into: &mut [usize]) -> usize {
        STACK.with_borrow(|stack| {
            let shown = stack.iter().rev();
            into.iter_mut()
                .zip(shown)
                .map(|(to, from)| *to = *from)
                .count()
        })
    }

    fn memory_report(report: &Report<'_>) {
        Reports::here().add(report);
    }

    fn thread_number() -> u32 {
        Self::current_thread().number()
    }
}
