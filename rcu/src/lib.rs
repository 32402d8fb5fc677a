//! Read-copy-update: waiting for all readers that may still hold something.

#![no_std]

extern crate alloc;

pub mod blocked;
pub mod callbacks;
mod engine;
#[cfg(debug_assertions)]
pub mod fault;
mod machine;
mod reader;
pub mod seq;
mod stall;

pub use callbacks::{Function, Head};
pub use engine::{Config, ExpCookie, FullCookie, Rcu, Stats};
#[cfg(debug_assertions)]
pub use fault::Faults;
pub use machine::Machine;
pub use reader::{Guard, read};
pub use seq::{Cookie, Seq};
pub use stall::Stall;
