//! What the tests share: the sets of flags, and planting faults.

use std::ptr::NonNull;

use mm::{
    hosted::{Reports, Said},
    report::Kind,
    slab::{Flags, KmemCache, Slabs, Spec},
};
use platform::hosted::{Hosted, Machine};
use rcu::{Config, hosted::Engine};

use crate::world::World;

pub type Cache = KmemCache<Hosted>;

pub const F: Flags = Flags::CONSISTENCY_CHECKS;
pub const Z: Flags = Flags::RED_ZONE;
pub const P: Flags = Flags::POISON;
pub const U: Flags = Flags::STORE_USER;

/// Every set of debug flags but none.
pub fn all() -> impl Iterator<Item = Flags> {
    (1..16_u32).map(|bits| {
        let flags = [F, Z, P, U].into_iter().enumerate();
        flags
            .filter(|(bit, _)| bits >> bit & 1 != 0)
            .fold(Flags::empty(), |set, (_, flag)| set | flag)
    })
}

/// Those with all of `flags`.
pub fn with(flags: Flags) -> impl Iterator<Item = Flags> {
    all().filter(move |set| set.contains(flags))
}

/// A cache of objects of `size` bytes.
#[track_caller]
pub fn cache(slabs: &'static Slabs<Hosted>, size: usize, flags: Flags) -> &'static Cache {
    slabs
        .create(&Spec::new("planted", size).flags(flags))
        .expect("a cache")
}

#[track_caller]
pub fn alloc(cache: &Cache) -> NonNull<u8> {
    cache.alloc(mm::Gfp::KERNEL).expect("memory")
}

#[track_caller]
pub fn free(cache: &Cache, object: NonNull<u8>) {
    // SAFETY: the tests free what they have, or what is refused.
    unsafe { cache.free(object) };
}

/// Destroys a cache that has nothing in use.
#[track_caller]
pub fn destroy(cache: &Cache) {
    // SAFETY: created by the test, which does not use it any more.
    unsafe { cache.slabs().destroy(cache) }.expect("nothing is in use");
}

/// What lies `offset` bytes from an object's beginning.
pub fn peek(object: NonNull<u8>, offset: isize) -> u8 {
    // SAFETY: in the object's slab, which lives.
    unsafe { object.offset(offset).read_volatile() }
}

/// Writes where nobody should.
pub fn poke(object: NonNull<u8>, offset: isize, byte: u8) {
    // SAFETY: in the object's slab, which lives; a fault on purpose.
    unsafe { object.offset(offset).write_volatile(byte) };
}

/// Fills an object that is the test's.
pub fn fill(object: NonNull<u8>, size: usize, byte: u8) {
    // SAFETY: the test's, of so many bytes.
    unsafe { object.write_bytes(byte, size) };
}

/// The bytes of an object that is the test's.
pub fn bytes(object: NonNull<u8>, size: usize) -> &'static [u8] {
    // SAFETY: the test's, of so many bytes; it does not write them meanwhile.
    unsafe { std::slice::from_raw_parts(object.as_ptr(), size) }
}

/// Flips all bits of some bytes.
pub fn spoil(object: NonNull<u8>, offset: isize, len: usize) {
    for offset in offset..offset + len as isize {
        poke(object, offset, !peek(object, offset));
    }
}

/// The only report since the last look: of this kind, with all of `texts` in it.
#[track_caller]
pub fn said(kind: Kind, texts: &[&str]) -> Said {
    let said = Reports::here().expect(kind);
    for text in texts {
        assert!(said.text.contains(text), "no {text:?} in: {said}");
    }
    said
}

/// Nothing was reported since the last look.
#[track_caller]
pub fn nothing_said() {
    let said = Reports::here().take();
    assert!(said.is_empty(), "{said:#?}");
}

/// Runs `f` on a machine with an engine of RCU, which ends with it.
pub fn with_rcu(f: impl FnOnce(&'static Slabs<Hosted>)) {
    let memory = mm::hosted::Memory::builder().node(16 << 20);
    let world = World::new(Machine::builder().cpus(2), memory);
    world.run(|slabs| {
        let engine = Engine::start(&world.machine, Config::default());
        // SAFETY: nothing waits for it when it ends.
        unsafe { slabs.set_rcu(&engine) };
        f(slabs);
    });
}
