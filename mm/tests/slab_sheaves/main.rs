//! Sheaves and barns on hosted machines: every arrow of the tables in `docs/slab.md`, interrupts and
//! NMIs in the middle of everything, memory that ends, CPUs that go.

mod arrows;
mod bulk;
mod hotplug;
mod interrupts;
mod nodes;
mod objects;
mod oom;
mod paths;
mod prefill;
mod shrink;
mod stats;
mod storm;
#[allow(dead_code, reason = "shared with the suite of caches")]
#[path = "../slab_caches/world.rs"]
mod world;
