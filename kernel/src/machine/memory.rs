//! The kernel as a [`Machine`]: what `mm` runs on here.

use core::{fmt, ops::Range};

use kernel_early::layout::{FRAME_MAP, PAGE_SIZE, PHYS_MAP, VMALLOC, VMALLOC_END};
use mm::{
    Layout, Machine, Pfn,
    machine::{Access, NoTables},
    owner::{DEPTH, Event},
    report::Report,
};

use super::Kernel;
use crate::{
    arch::{backtrace, paging, paging::MapError},
    console, lockdep, report, sched, smp,
    symbols::Stack,
};

/// Where memory appears: constants.
#[derive(Debug, Clone, Copy)]
pub struct AddressLayout;

impl Layout for AddressLayout {
    #[inline(always)]
    fn direct_map(self) -> usize {
        PHYS_MAP as usize
    }

    #[inline(always)]
    fn frame_map(self) -> usize {
        FRAME_MAP as usize
    }

    fn vmalloc(self) -> Range<usize> {
        VMALLOC as usize..VMALLOC_END as usize
    }
}

// SAFETY: the page tables are the same for all CPUs, and a new entry is seen by each (what was
// not mapped is in no TLB); `smp::flush_tlb` returns when every CPU has flushed.
unsafe impl Machine for Kernel {
    type Layout = AddressLayout;

    unsafe fn map(
        _: AddressLayout,
        virt: usize,
        frames: &mut dyn Iterator<Item = Pfn>,
        access: Access,
    ) -> Result<(), NoTables> {
        let access = match access {
            Access::Read => paging::Access::Read,
            Access::ReadWrite => paging::Access::ReadWrite,
            Access::Execute => paging::Access::Execute,
        };
        match paging::map_frames(virt as u64, &mut frames.map(Pfn::phys), access) {
            Ok(()) => Ok(()),
            Err(MapError::OutOfFrames) => Err(NoTables),
            // The caller promised that they are free pages of the range.
            Err(error) => panic!("vmalloc: cannot map {virt:#x}: {error:?}"),
        }
    }

    unsafe fn unmap(_: AddressLayout, virt: usize, pages: usize) {
        paging::clear(virt as u64, pages as u64 * PAGE_SIZE);
    }

    fn flush(_: AddressLayout, pages: Range<usize>) {
        smp::flush_tlb(pages.start as u64, pages.len() as u64);
    }

    fn backtrace(into: &mut [usize]) -> usize {
        backtrace::callers(into)
    }

    fn memory_report(what: &Report<'_>) {
        if what.kind == mm::report::Kind::Injected {
            // Nothing is wrong, so it is no report; it may come anywhere.
            console::write_without_waiting(format_args!("{what}\n"));
            return;
        }
        let kind = report::Kind::Memory(what.kind);
        // Here: while it is being written the stack is that of the writing.
        let mut callers = [0; DEPTH];
        let count = Self::backtrace(&mut callers);
        let with_stacks = WithStacks {
            report: what,
            callers: &callers[..count],
        };
        lockdep::report_anywhere(kind, format_args!("{with_stacks}"));
    }

    fn thread_number() -> u32 {
        sched::try_current().map_or(0, |thread| thread.id)
    }
}

/// A report with the stacks of all who have a part in it, by name.
struct WithStacks<'a> {
    report: &'a Report<'a>,
    /// Return addresses of who found it.
    callers: &'a [usize],
}

impl fmt::Display for WithStacks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        let plain = Report {
            kind: report.kind,
            frame: report.frame,
            details: report.details,
            caller: report.caller,
            owner: None,
        };
        writeln!(f, "{plain}")?;
        if let Some(record) = &report.owner {
            event(f, "allocated", &record.allocated)?;
            event(f, "freed", &record.freed)?;
        }
        writeln!(f, "  found by thread {}:", Kernel::thread_number())?;
        write!(f, "{}", Stack(self.callers))
    }
}

fn event(f: &mut fmt::Formatter<'_>, what: &str, event: &Option<Event>) -> fmt::Result {
    let Some(event) = event else { return Ok(()) };
    writeln!(
        f,
        "  {what} by thread {} on cpu{} at {} ns:",
        event.thread, event.cpu, event.at_ns
    )?;
    write!(f, "{}", Stack(event.callers()))
}
