//! Dropping translations that this CPU remembers, and counts of it.

use ::x86_64::{VirtAddr, instructions::tlb};
use kernel_early::layout::{PAGE_SIZE, page_down};
use platform::CpuId;

use super::percpu::PerCpuCell;
use crate::percpu;

/// Beyond this many pages dropping everything is cheaper.
pub const SINGLE: u64 = 32;

percpu! {
    /// Pages that were dropped one by one: `invlpg` instructions.
    static PAGES: u64 = 0;
    /// Times that everything was dropped.
    static ALL: u64 = 0;
}

/// What a CPU dropped since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flushes {
    /// Single pages.
    pub pages: u64,
    /// All pages, so often.
    pub all: u64,
}

/// What a CPU dropped.
pub fn flushes(cpu: CpuId) -> Flushes {
    // Relaxed: statistics; who waited for a flush sees it counted.
    let read =
        |cell: &core::sync::atomic::AtomicU64| cell.load(core::sync::atomic::Ordering::Relaxed);
    Flushes {
        pages: read(PAGES.on(cpu)),
        all: read(ALL.on(cpu)),
    }
}

/// Drops this CPU's translations of a range. Any context.
pub fn flush_local(virt: u64, len: u64) {
    if len / PAGE_SIZE > SINGLE {
        flush_all_local();
        return;
    }
    let mut page = page_down(virt);
    while page < virt + len {
        tlb::flush(VirtAddr::new_truncate(page));
        PAGES.add(1);
        page += PAGE_SIZE;
    }
}

/// Drops all of this CPU's translations. Any context.
pub fn flush_all_local() {
    // Changing CR4.PGE drops global entries too, which a CR3 write does not.
    use ::x86_64::registers::control::{Cr4, Cr4Flags};
    ALL.add(1);
    // SAFETY: turning global pages off and on again changes no mapping.
    unsafe {
        let flags = Cr4::read();
        Cr4::write(flags - Cr4Flags::PAGE_GLOBAL);
        Cr4::write(flags);
    }
}
