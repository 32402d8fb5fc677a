//! Files that are not on any disk: names, and functions that write their text. The shell's
//! `cat` and `ls` show them.
//!
//! A file is a line of [`FILES`]. Folders are what stands before a `/` in a name.

use core::fmt::{self, Write};

use kernel_early::layout::PAGE_SIZE;
use mm::boot::{Purpose, State};
use mm::text::{Beside, BuddyInfo, MemInfo, PageTypeInfo, ZoneInfo};

use crate::memory;

/// A file.
pub struct File {
    /// Its name, from `/` on.
    pub path: &'static str,
    /// Writes its text. May sleep.
    pub write: fn(&mut dyn Write) -> fmt::Result,
}

/// All files, by name.
pub static FILES: &[File] = &[
    File {
        path: "/proc/buddyinfo",
        write: |out| write!(out, "{}", BuddyInfo(memory::mm())),
    },
    File {
        path: "/proc/meminfo",
        write: |out| write!(out, "{}", MemInfo(memory::mm(), beside())),
    },
    File {
        path: "/proc/pagetypeinfo",
        write: |out| write!(out, "{}", PageTypeInfo(memory::mm())),
    },
    File {
        path: "/proc/vmallocinfo",
        write: |out| memory::vmalloc::vmalloc().write_info(out),
    },
    File {
        path: "/proc/zoneinfo",
        write: |out| write!(out, "{}", ZoneInfo(memory::mm())),
    },
    File {
        path: "/sys/kernel/debug/page_owner",
        write: memory::debug::write_blocks,
    },
    File {
        path: "/sys/kernel/debug/page_owner_stacks",
        write: memory::debug::write_stacks,
    },
];

/// What has a name.
pub enum Found {
    /// A file.
    File(&'static File),
    /// A folder.
    Folder,
}

/// What `path` names; a `/` at its begin or end makes no difference.
pub fn find(path: &str) -> Option<Found> {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return Some(Found::Folder);
    }
    let file = FILES.iter().find(|file| file.path[1..] == *path);
    let folder = || entries(path).next().map(|_| Found::Folder);
    file.map(Found::File).or_else(folder)
}

/// The names in a folder, in order; those of folders end in `/`.
pub fn entries(folder: &str) -> impl Iterator<Item = &'static str> {
    let folder = folder.trim_matches('/');
    let mut last = None;
    FILES.iter().filter_map(move |file| {
        let rest = match folder {
            "" => &file.path[1..],
            _ => file.path[1..].strip_prefix(folder)?.strip_prefix('/')?,
        };
        let name = match rest.find('/') {
            Some(end) => &rest[..=end],
            None => rest,
        };
        // Files are in order, so what is in one folder is together.
        (last.replace(name) != Some(name)).then_some(name)
    })
}

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
