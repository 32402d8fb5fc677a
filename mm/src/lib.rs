//! Memory management: portable, without assembly, page tables or globals.
//!
//! - [`mm`]: [`Mm`], the page allocator; [`zone`], [`lists`]: its parts; allocation and
//!   freeing are methods of [`Mm`]
//! - [`pages`]: [`Pages`], blocks that free themselves
//! - [`frame`]: descriptors of page frames and their states
//! - [`gfp`]: how an allocation may go about it
//! - [`reclaim`], [`oom`]: when memory is short, and when there is none
//! - [`debug`], [`poison`], [`owner`], [`fault`]: what can be switched on to find misuse
//! - [`report`]: what is said of it
//! - [`percpu`]: memory of which every CPU has its own
//! - [`slab`]: caches of objects
//! - [`kvfree_rcu`]: memory that is freed when no reader can hold it any more
//! - [`vmalloc`]: memory that is adjacent only in the address space
//! - [`text`]: what there is, in the formats of Linux's `/proc`
//! - [`machine`]: what a machine must offer
//! - `hosted` (feature): memory for machines on the host; `mm/examples/hosted.rs` shows the
//!   allocator on one
//! - [`region`], [`boot`]: who has which frames until the page allocator takes over

#![no_std]

#[cfg(all(feature = "hosted", not(model)))]
extern crate std;

mod alloc;
pub mod audit;
pub mod boot;
mod buddy;
pub mod debug;
pub mod fault;
pub mod frame;
pub mod gfp;
#[cfg(all(feature = "hosted", not(model)))]
pub mod hosted;
pub mod kvfree_rcu;
pub mod later;
pub mod lists;
pub mod machine;
pub mod mm;
pub mod oom;
pub mod owner;
pub mod pages;
pub mod percpu;
pub mod poison;
pub mod reclaim;
pub mod region;
pub mod report;
pub mod slab;
pub mod text;
pub mod vmalloc;
pub mod zone;

pub use frame::{Frame, Pfn, State, Use};
pub use gfp::Gfp;
pub use machine::{Layout, Machine};
pub use mm::{Block, BlockKind, Config, Mm};
pub use pages::Pages;

/// The size of a page frame in bytes.
pub const PAGE_SIZE: u64 = 4096;
