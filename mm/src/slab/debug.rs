//! Debug caches: red zones, poison, tracks, checks; and what can be switched on for all caches.
//! `docs/slab.md`, section "Debugging".
//!
//! - [`pattern`]: the bytes that memory is filled with, and their comparison
//! - `parts`: which bytes of an object's slot must have which pattern
//! - [`info`]: what is kept of an object: its state, who allocated and freed it
//! - `check`: the checks, and what is done about what they find
//! - `path`: allocating and freeing; `setup`: fresh and old slabs; `requested`: what kmalloc was
//!   asked for
//! - `validate`: looking at a whole cache
//! - `leave`: what is left of a cache that is destroyed
//! - `found`: the one form of all reports; `plain`, `quarantined`: those about plain caches
//! - `switches`, [`options`]: what is on, and `slub_debug=`

mod check;
mod found;
pub mod info;
mod leave;
pub mod options;
mod parts;
mod path;
pub mod pattern;
mod plain;
mod quarantined;
mod requested;
mod setup;
mod switches;
mod validate;

pub(crate) use plain::WrongFree;
pub use switches::{CacheDebug, Switches};
