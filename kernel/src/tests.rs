//! The in-kernel suites, one file each. They register themselves; see
//! [`kunit`](crate::kunit).

mod cmdline;
mod heap;
mod ipi;
mod paging;
mod percpu;
mod ramdisk;
mod stacks;
mod time;
