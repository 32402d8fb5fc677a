//! Debug caches on hosted machines: silent while they are used well, one report for each planted
//! fault, and otherwise as plain caches; and what can be switched on for all caches.

// The machine is that of the tests of caches.
#[path = "../slab_caches/world.rs"]
#[allow(dead_code, reason = "not all of it is used here")]
mod world;

mod faults;
mod flags;
mod frees;
mod links;
mod plain;
mod requested;
mod silent;
mod switches;
mod threads;
mod tracks;
mod written;
