//! Debug caches: red zones, poison, tracks, checks; and what can be switched on for all caches.
//! `docs/slab.md`, section "Debugging".

pub mod info;
mod options;
mod path;
mod requested;
mod setup;
mod switches;

pub use switches::{CacheDebug, Switches};
