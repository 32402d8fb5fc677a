//! The slab allocator on hosted machines against a simple model: what is held, and what was
//! written to it.
//!
//! - [`world`]: a machine with memory, all allocators and RCU; at its end a walk of the heap finds it sound, and
//!   everything is back
//! - [`model`]: what is held: nothing overlaps, contents stay, nodes are those asked for
//! - [`caches`]: caches by chance, and what their objects must look like
//! - [`actor`]: operations on all of it, from threads and from interrupts
//! - [`sequences`]: on one CPU, with cases that get smaller
//! - [`storm`]: on several CPUs and nodes, with interrupts, NMIs and CPUs that go
//! - [`coverage`]: each arrow of the state tables is taken
//! - [`failures`]: each allocation of pages fails once

mod actor;
mod caches;
mod coverage;
mod failures;
mod model;
mod sequences;
mod storm;
mod world;
