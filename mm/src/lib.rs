//! Memory management: portable, without assembly, page tables or globals.
//!
//! Today the part that runs before there is an allocator:
//!
//! - [`region`]: ranges of physical memory and bounded lists of them
//! - [`boot`]: who has which frames until the page allocator takes over
//!
//! Neither locks nor allocates; boot runs on one CPU.

#![no_std]

pub mod boot;
pub mod region;

/// The size of a page frame in bytes.
pub const PAGE_SIZE: u64 = 4096;
