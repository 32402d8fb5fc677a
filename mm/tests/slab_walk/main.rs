//! Looking at the heap on hosted machines: the walk, `whatis`, and the text of caches.

mod lanes;
mod planted;
mod sound;
mod text;
mod whatis;
#[path = "../slab_caches/world.rs"]
#[allow(dead_code, reason = "shared with the tests of caches")]
mod world;

use mm::{
    frame::PAGE_SIZE,
    hosted::Memory,
    slab::{
        KmemCache, Slabs, Spec,
        walk::{Fault, Room, Tally},
    },
};
use platform::hosted::{Hosted, Machine};

use world::{MIB, World};

/// Walks the heap. Nobody else uses it.
fn walk(slabs: &Slabs<Hosted>) -> Result<Tally, Fault> {
    let mut room = Box::new(Room::new());
    // SAFETY: the caller's thread is the only one.
    unsafe { slabs.walk(&mut room) }
}

/// Walks a heap that must be sound.
#[track_caller]
fn tally(slabs: &Slabs<Hosted>) -> Tally {
    match walk(slabs) {
        Ok(tally) => tally,
        Err(fault) => panic!("{fault}"),
    }
}

/// What must be wrong with it.
#[track_caller]
fn fault(slabs: &Slabs<Hosted>) -> String {
    walk(slabs).expect_err("the fault is not found").to_string()
}

/// A cache of its own.
fn cache(slabs: &'static Slabs<Hosted>, name: &str, size: usize) -> &'static KmemCache<Hosted> {
    let spec = Spec::new(name, size).flags(mm::slab::Flags::NO_MERGE);
    slabs.create(&spec).expect("memory for a cache")
}

/// One CPU, one node.
fn lone() -> World {
    let memory = Memory::builder().node(16 * MIB);
    World::new(Machine::builder().cpus(1), memory)
}

const PAGE: u64 = PAGE_SIZE as u64;
