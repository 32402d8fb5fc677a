//! `kfree_rcu` on hosted machines: every road, barriers, the end of caches, with readers.

mod arrows;
mod common;
mod destructors;
mod early;
mod exact;
mod field;
mod hotplug;
mod interrupts;
mod lanes;
mod limits;
mod meets;
mod objects;
mod oom;
mod roads;
mod seeds;
mod storm;
#[allow(dead_code, reason = "shared with the suite of caches")]
#[path = "../slab_caches/world.rs"]
mod world;
