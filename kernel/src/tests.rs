//! The in-kernel suites, one file each. They register themselves; see
//! [`kunit`](crate::kunit).

mod apic;
mod bench;
mod boot;
mod cmdline;
mod deferred;
mod exceptions;
mod files;
mod heap;
mod ipi;
mod lockdep;
mod log;
mod machine;
mod memory;
mod page_debug;
mod pages;
mod paging;
mod percpu;
mod percpu_area;
mod ramdisk;
mod stacks;
mod sweep;
mod symbols;
mod threads;
mod time;
mod timers;
