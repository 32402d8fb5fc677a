//! The quarantine on hosted machines: the order in which objects leave it, what is found, caches, CPUs and
//! memory that go, interrupts in the middle.

mod arrows;
mod found;
mod goes;
mod interrupts;
mod queue;
mod storm;
#[path = "../slab_caches/world.rs"]
#[allow(dead_code, reason = "shared with the tests of caches")]
mod world;

use std::ptr::NonNull;

use mm::{
    hosted::Memory,
    slab::{Flags, KmemCache, Slabs, Spec, walk::Room},
};
use platform::{
    CpuId,
    hosted::{Hosted, Machine},
};

use world::{MIB, World};

type Cache = KmemCache<Hosted>;

/// One CPU, one node.
fn lone() -> World {
    World::new(Machine::builder(), Memory::builder().node(16 * MIB))
}

/// Two CPUs, one node.
fn pair() -> World {
    World::new(Machine::builder().cpus(2), Memory::builder().node(16 * MIB))
}

/// The second CPU.
fn other() -> CpuId {
    CpuId::new(1).expect("a CPU")
}

/// A cache of its own.
fn cache(slabs: &'static Slabs<Hosted>, name: &str, size: usize) -> &'static Cache {
    let spec = Spec::new(name, size).flags(Flags::NO_MERGE);
    slabs.create(&spec).expect("memory for a cache")
}

/// The cache ends; nothing of it is in use.
#[track_caller]
fn end(slabs: &'static Slabs<Hosted>, cache: &'static Cache) {
    // SAFETY: the test's, which does not use it any more.
    unsafe { slabs.destroy(cache) }.expect("nothing is in use");
}

/// Where an object is, by `whatis`.
fn state(slabs: &Slabs<Hosted>, object: NonNull<u8>) -> String {
    // SAFETY: the caller's thread is the only one.
    let what = unsafe { slabs.whatis(object.addr().get()) };
    what.to_string().lines().last().unwrap().to_string()
}

/// Whether it is in the quarantine of CPU 0.
fn is_in(slabs: &Slabs<Hosted>, object: NonNull<u8>) -> bool {
    state(slabs, object) == "free: quarantined on cpu0"
}

/// Walks the heap, which must be sound: objects in quarantine. Nobody else uses it.
#[track_caller]
fn walk(slabs: &Slabs<Hosted>) -> u64 {
    let mut room = Box::new(Room::new());
    // SAFETY: the caller's thread is the only one.
    match unsafe { slabs.walk(&mut room) } {
        Ok(tally) => tally.quarantined,
        Err(fault) => panic!("{fault}"),
    }
}

/// How often an arrow was taken.
#[track_caller]
fn count(slabs: &Slabs<Hosted>, arrow: &str) -> u64 {
    let found = slabs.arrows().find(|(name, _)| *name == arrow);
    found.expect("an arrow's name").1
}
