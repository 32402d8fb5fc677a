//! Read-copy-update: waiting for all readers that may still hold something.
//!
//! Readers find things by pointers, in *sections* ([`read`]) that cost next to nothing. Who
//! takes a thing out of their reach waits for a *grace period* before it reclaims it: until
//! every section that was there has ended. An engine ([`Rcu`]) makes grace periods for a
//! machine ([`Machine`]); it has no globals, and a machine may be the kernel or a hosted one.
//!
//! | room | what is in it |
//! |---|---|
//! | [`seq`] | numbers of grace periods, and cookies: what to wait for |
//! | `geometry`, [`tree`] | nodes, masks, reports of quiescent states |
//! | [`grace_period`] | the machine that makes grace periods, state by state |
//! | `quiescent` | where CPUs report, and how they are asked to |
//! | [`callbacks`], `call` | `call_rcu`: lists by what they wait for, and who runs them |
//! | `expedited` | grace periods by interrupts |
//! | `barrier` | waiting for callbacks |
//! | `poll` | waiting for grace periods, and asking whether one would have to |
//! | [`Pointer`], [`list`], [`hash`] | what users hold things by |
//! | `boxed`, [`Retired`] | what can be freed by way of a grace period, and only so |
//! | [`blocked`] | threads that were switched away in a section |
//! | `stall`, `stats`, `text`, [`arrows`] | looking inside |
//! | `torture` | everything at once, for a set time (feature `torture`) |
//!
//! `docs/rcu.md` has the protocols as state tables, with a counter for each arrow.

#![no_std]

extern crate alloc;
#[cfg(any(feature = "hosted", model, test))]
extern crate std;

pub mod arrows;
mod barrier;
pub mod blocked;
mod boxed;
mod call;
pub mod callbacks;
mod config;
mod cpu;
mod engine;
mod expedited;
#[cfg(debug_assertions)]
pub mod fault;
pub mod geometry;
pub mod grace_period;
pub mod hash;
#[cfg(all(feature = "hosted", not(model)))]
pub mod hosted;
pub mod list;
mod machine;
mod memory;
#[cfg(model)]
pub mod model;
mod pointer;
mod poll;
mod quiescent;
mod reader;
mod retired;
pub mod seq;
mod stall;
mod stats;
mod text;
#[cfg(feature = "torture")]
pub mod torture;
pub mod tree;
mod waiters;

pub use boxed::RcuBox;
pub use callbacks::{Function, Head};
pub use config::Config;
pub use engine::Rcu;
#[cfg(debug_assertions)]
pub use fault::Faults;
pub use machine::Machine;
pub use pointer::Pointer;
pub use poll::{ExpCookie, FullCookie, PackedCookie};
pub use reader::{Guard, read};
pub use retired::Retired;
pub use seq::{Cookie, Seq};
pub use stall::Stall;
pub use stats::Stats;
