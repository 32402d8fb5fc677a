//! What kmalloc was asked for: what lies behind is red, and follows `krealloc`.

use mm::{Gfp, report::Kind, slab::Flags};

use crate::{
    flags::{Cache, F, P, U, Z, cache, destroy, free, nothing_said, peek, poke, said},
    world::World,
};

const K: Flags = Flags::KMALLOC;

fn red(cache: &Cache, object: std::ptr::NonNull<u8>, from: isize) {
    let end = cache.layout().object_size as isize;
    for at in from..end {
        assert_eq!(peek(object, at), 0xcc, "byte {at}");
    }
}

#[test]
fn behind_what_was_asked_for() {
    let world = World::small();
    world.run(|slabs| {
        for flags in [U | Z, U | Z | F, U | Z | P, Flags::DEBUG] {
            let cache = cache(slabs, 32, flags | K);
            for size in [1, 7, 8, 18, 31, 32] {
                let object = cache.alloc_sized(Gfp::KERNEL, size).unwrap();
                (0..size as isize).for_each(|at| poke(object, at, 0x11));
                red(cache, object, size as isize);
                assert_eq!(cache.validate(), 0);
                if size < 32 {
                    poke(object, size as isize, 0xab);
                    assert_eq!(cache.validate(), 1);
                    let place = format!("at {size}: 0xab instead of 0xcc");
                    said(Kind::SlabRedZone, &[&place]);
                    poke(object, 31, 0xab);
                    free(cache, object);
                    said(Kind::SlabRedZone, &["at 31: 0xab instead of 0xcc"]);
                } else {
                    free(cache, object);
                }
            }
            assert_eq!(cache.alloc_sized(Gfp::KERNEL, 33), None);
            assert_eq!(cache.validate(), 0);
            destroy(cache);
            nothing_said();
        }
    });
}

/// Without STORE_USER nothing is kept: all of an object is its user's.
#[test]
fn not_kept_without_tracks() {
    let world = World::small();
    world.run(|slabs| {
        let cache = cache(slabs, 32, K | Z);
        let object = cache.alloc_sized(Gfp::KERNEL, 5).unwrap();
        (0..32).for_each(|at| poke(object, at, 0x11));
        assert_eq!(cache.validate(), 0);
        free(cache, object);
        destroy(cache);
        nothing_said();
    });
}

#[test]
fn the_red_zone_follows_krealloc() {
    let world = World::small();
    world.run(|slabs| {
        let cache = cache(slabs, 64, K | U | Z);
        let zero = Gfp::KERNEL | Gfp::ZERO;
        let object = cache.alloc_sized(Gfp::KERNEL, 48).unwrap();
        (0..48).for_each(|at| poke(object, at, 0xff));
        // SAFETY: the test's object.
        let resize = |object, size| unsafe { slabs.krealloc(Some(object), size, zero) }.unwrap();
        assert_eq!(resize(object, 40), object);
        red(cache, object, 40);
        assert_eq!(resize(object, 56), object);
        assert!((0..40).all(|at| peek(object, at) == 0xff));
        assert!((40..56).all(|at| peek(object, at) == 0));
        red(cache, object, 56);
        assert_eq!(cache.validate(), 0);
        // SAFETY: as above.
        assert_eq!(unsafe { slabs.ksize(object) }, 56);
        // What was wrong until now is told of before it becomes the user's.
        poke(object, 60, 1);
        assert_eq!(resize(object, 64), object);
        said(Kind::SlabRedZone, &["at 60: 0x01 instead of 0xcc"]);
        (0..64).for_each(|at| poke(object, at, 0xff));
        assert_eq!(cache.validate(), 0);
        let larger = resize(object, 112);
        assert_ne!(larger, object);
        assert!((0..64).all(|at| peek(larger, at) == 0xff));
        assert!((64..112).all(|at| peek(larger, at) == 0));
        // SAFETY: as above.
        unsafe { slabs.kfree(larger) };
        destroy(cache);
        nothing_said();
    });
}

/// The kmalloc caches themselves.
#[test]
fn kmalloc_with_slub_debug() {
    let machine = platform::hosted::Machine::builder().cpus(1);
    let memory = mm::hosted::Memory::builder().node(32 << 20);
    let world = World::asleep(machine, memory);
    world.run(|slabs| {
        slabs.debug().set_slub_debug("FZPU,kmalloc-*").unwrap();
        // SAFETY: once; it stays where it is until the world ends.
        unsafe { slabs.start() }.expect("memory for the first caches");
        for size in [1_usize, 8, 9, 50, 96, 100, 192, 500, 4096, 8192] {
            let memory = slabs.kzalloc(size, Gfp::KERNEL).unwrap();
            assert!((0..size as isize).all(|at| peek(memory, at) == 0), "{size}");
            if size.is_power_of_two() && size <= 4096 {
                assert!(memory.addr().get().is_multiple_of(size), "{size}");
            }
            // SAFETY: the test's.
            assert_eq!(unsafe { slabs.ksize(memory) }, size);
            assert_eq!(peek(memory, size as isize), 0xcc, "{size}");
            poke(memory, size as isize, 5);
            // SAFETY: the test's.
            unsafe { slabs.kfree(memory) };
            said(
                Kind::SlabRedZone,
                &["cache kmalloc-", "0x05 instead of 0xcc"],
            );
        }
        assert_eq!(slabs.kmalloc(0, Gfp::KERNEL), Some(mm::slab::ZERO_SIZE));
        nothing_said();
    });
}
