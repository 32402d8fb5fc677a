//! One CPU alone: which sheaf an object comes from and goes to.

use mm::{
    Gfp,
    hosted::Memory,
    slab::{Flags, Slabs, Spec},
};
use platform::hosted::{Hosted, Machine};

use crate::{
    arrows::{Taken, count, taken},
    objects::{Cache, alloc, give, take},
    world::{MIB, World},
};

/// Objects of a sheaf.
pub const CAPACITY: usize = 4;

/// One CPU and one node.
pub fn alone() -> World {
    World::new(Machine::builder(), Memory::builder().node(16 * MIB))
}

/// A cache with small sheaves.
pub fn small_sheaves(slabs: &'static Slabs<Hosted>, name: &str) -> &'static Cache {
    small_sheaves_of(slabs, name, 64)
}

/// The same, of objects of `size` bytes.
pub fn small_sheaves_of(slabs: &'static Slabs<Hosted>, name: &str, size: usize) -> &'static Cache {
    let spec = Spec::new(name, size)
        .sheaf_capacity(CAPACITY as u32)
        .flags(Flags::NO_MERGE);
    slabs.create(&spec).expect("a cache")
}

/// The cache ends; nothing of it is in use.
pub fn end(slabs: &'static Slabs<Hosted>, cache: &'static Cache) {
    // SAFETY: created by the test, which does not use it any more.
    unsafe { slabs.destroy(cache) }.expect("nothing is in use");
}

pub fn sheaves_change_places() -> Taken {
    let world = alone();
    world.run(|slabs| {
        let cache = small_sheaves(slabs, "places");
        // Main is filled from slabs.
        let first = take(cache, 1);
        assert_eq!(count(&world, "alloc.first_main"), 1);
        assert_eq!(count(&world, "alloc.refill"), 1);
        // Then it is popped from, until it is empty.
        let more = take(cache, CAPACITY - 1);
        assert_eq!(count(&world, "alloc.refill"), 1);
        // Two sheaves full: main, and the spare after it.
        let rest = take(cache, CAPACITY);
        give(cache, first.into_iter().chain(more).chain(rest));
        assert_eq!(count(&world, "free.main_to_spare"), 1);
        assert_eq!(count(&world, "free.allocate"), 1);
        // Both are used up without going further, and filled again.
        let refills = count(&world, "alloc.refill");
        let all = take(cache, 2 * CAPACITY);
        assert_eq!(count(&world, "alloc.swap"), 1);
        assert_eq!(count(&world, "alloc.refill"), refills);
        give(cache, all);
        assert_eq!(count(&world, "free.swap"), 1);
        end(slabs, cache);
    });
    taken(&world)
}

pub fn barns_exchange() -> Taken {
    let world = alone();
    world.run(|slabs| {
        let cache = small_sheaves(slabs, "barn");
        // Four sheaves full: two go to the barn, one after the other.
        let all = take(cache, 4 * CAPACITY);
        give(cache, all);
        assert_eq!(count(&world, "barn.put_full"), 2);
        // They come back, and leave empty ones, which are exchanged for full ones again.
        let refills = count(&world, "alloc.refill");
        let all = take(cache, 4 * CAPACITY);
        assert_eq!(count(&world, "alloc.exchange"), 2);
        assert_eq!(count(&world, "alloc.refill"), refills);
        let allocated = count(&world, "free.allocate");
        give(cache, all);
        assert_eq!(count(&world, "free.exchange"), 2);
        assert_eq!(count(&world, "free.allocate"), allocated);
        // A CPU that has lost its sheaves gets some of the barn's.
        cache.shrink();
        let all = take(cache, 4 * CAPACITY);
        give(cache, all);
        end(slabs, cache);
    });
    taken(&world)
}

pub fn barns_have_room_for_ten() -> Taken {
    let world = alone();
    world.run(|slabs| {
        let cache = small_sheaves(slabs, "full");
        // Main, spare and ten of the barn's; further ones are flushed.
        let all = take(cache, 14 * CAPACITY);
        give(cache, all);
        assert_eq!(count(&world, "free.flush_barn_full"), 2);
        assert_eq!(count(&world, "barn.put_full"), 10);
        // Ten empty ones in the barn, and two that the CPU has: one too many to be kept.
        let all = take(cache, 12 * CAPACITY);
        assert_eq!(count(&world, "alloc.exchange"), 10);
        assert_eq!(count(&world, "barn.too_many_empty"), 0);
        give(cache, all);
        end(slabs, cache);
    });
    taken(&world)
}

#[test]
fn main_and_spare_change_places() {
    sheaves_change_places();
}

#[test]
fn a_barn_takes_full_sheaves_for_empty_ones_and_back() {
    barns_exchange();
}

#[test]
fn a_barn_has_room_for_ten() {
    barns_have_room_for_ten();
}

/// What is freed last is allocated first, and everything that a CPU frees it gets again.
#[test]
fn the_latest_object_comes_first() {
    let world = alone();
    world.run(|slabs| {
        let cache = small_sheaves(slabs, "latest");
        let mut all = take(cache, 3);
        let last = all.pop().map(|object| object.0);
        give(cache, all);
        let again = alloc(cache, Gfp::KERNEL).expect("there are free ones");
        assert_ne!(Some(again.0), last, "that one is in use");
        let address = again.0;
        give(cache, [again]);
        let again = alloc(cache, Gfp::KERNEL).expect("as above");
        assert_eq!(again.0, address);
        give(cache, [again]);
        if let Some(last) = last {
            // SAFETY: allocated above, and still in use.
            unsafe { cache.free(last) };
        }
        end(slabs, cache);
    });
}

/// `Gfp::ZERO` clears an object that comes from a sheaf, and a constructor's work is left alone.
#[test]
fn zeroed_where_that_is_asked_for() {
    let world = alone();
    world.run(|slabs| {
        let cache = small_sheaves(slabs, "zeroed");
        for _ in 0..3 * CAPACITY {
            let object = cache.alloc(Gfp::KERNEL | Gfp::ZERO).expect("memory");
            // SAFETY: 64 bytes, the test's.
            unsafe {
                let bytes = std::slice::from_raw_parts_mut(object.as_ptr(), 64);
                assert!(bytes.iter().all(|byte| *byte == 0));
                bytes.fill(0xa5);
                cache.free(object);
            }
        }
        end(slabs, cache);
        let spec = Spec::new("made", 64).constructor(|object| {
            // SAFETY: a fresh object of 64 bytes.
            unsafe { object.write_bytes(0x11, 64) };
        });
        let cache = slabs.create(&spec).expect("a cache");
        for gfp in [Gfp::KERNEL, Gfp::KERNEL | Gfp::ZERO] {
            let object = cache.alloc(gfp).expect("memory");
            // SAFETY: 64 bytes, the test's.
            unsafe {
                let bytes = std::slice::from_raw_parts(object.as_ptr(), 64);
                assert!(bytes.iter().all(|byte| *byte == 0x11));
                cache.free(object);
            }
        }
        end(slabs, cache);
    });
}
