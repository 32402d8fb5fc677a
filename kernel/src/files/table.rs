//! Files that are always there: a line of [`FILES`] each.

use core::fmt::{self, Write};

use kernel_early::layout::PAGE_SIZE;
use mm::boot::{Purpose, State};
use mm::slab::text::SlabInfo;
use mm::text::{Beside, BuddyInfo, MemInfo, PageTypeInfo, ZoneInfo};

use crate::memory::{self, slab::slabs};

/// A file.
pub struct File {
    /// Its name, from `/` on.
    pub path: &'static str,
    /// Writes its text. May sleep.
    pub show: fn(&mut dyn Write) -> fmt::Result,
}

/// All files, by name.
pub static FILES: &[File] = &[
    File {
        path: "/proc/buddyinfo",
        show: |out| write!(out, "{}", BuddyInfo(memory::mm())),
    },
    File {
        path: "/proc/meminfo",
        show: |out| write!(out, "{}", MemInfo(memory::mm(), beside())),
    },
    File {
        path: "/proc/pagetypeinfo",
        show: |out| write!(out, "{}", PageTypeInfo(memory::mm())),
    },
    File {
        path: "/proc/slabinfo",
        show: |out| write!(out, "{}", SlabInfo(&slabs().caches())),
    },
    File {
        path: "/proc/vmallocinfo",
        show: |out| memory::vmalloc::vmalloc().write_info(out),
    },
    File {
        path: "/proc/zoneinfo",
        show: |out| write!(out, "{}", ZoneInfo(memory::mm())),
    },
    File {
        path: "/sys/kernel/debug/page_owner",
        show: memory::debug::write_blocks,
    },
    File {
        path: "/sys/kernel/debug/page_owner_stacks",
        show: memory::debug::write_stacks,
    },
];

/// What the page allocator does not know.
fn beside() -> Beside {
    let boot = |purpose| memory::with_frames(|frames| frames.bytes(State::Used(purpose)));
    Beside {
        stacks: boot(Purpose::Stacks),
        page_tables: boot(Purpose::PageTables),
        percpu: boot(Purpose::PerCpu),
        // Bytes, like the others.
        vmalloc_used: memory::vmalloc::vmalloc().stats().mapped as u64 * PAGE_SIZE,
        ..Beside::default()
    }
}
