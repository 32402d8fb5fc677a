//! Memory management: portable, without assembly, page tables or globals.
//!
//! - [`region`], [`boot`]: who has which frames until the page allocator takes over
//! - [`frame`]: descriptors of page frames and their states
//! - [`gfp`]: how an allocation may go about it
//! - [`machine`]: what a machine must offer
//! - [`report`], [`owner`]: what is said when memory is used wrongly

#![no_std]

pub mod boot;
pub mod frame;
pub mod gfp;
pub mod machine;
pub mod owner;
pub mod region;
pub mod report;

pub use frame::{Frame, Pfn, State, Use};
pub use gfp::Gfp;
pub use machine::{Layout, Machine};

/// The size of a page frame in bytes.
pub const PAGE_SIZE: u64 = 4096;
