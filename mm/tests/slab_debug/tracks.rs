//! Who allocated and who freed an object.

use mm::{hosted::called_from, report::Kind};

use crate::{
    flags::{P, U, Z, alloc, cache, destroy, free, nothing_said, poke, said, with},
    world::World,
};

#[test]
fn both_are_known() {
    let world = World::small();
    world.run(|slabs| {
        for flags in with(U) {
            let cache = cache(slabs, 64, flags);
            let object = called_from(0x1111, || alloc(cache));
            // SAFETY: an object of the cache.
            let record = unsafe { cache.record_of(object) }.expect("it is kept");
            let allocated = record.allocated.expect("it was");
            assert!(record.in_use && record.freed.is_none());
            assert_eq!(allocated.stack[..2], [0x1111, 0]);
            assert_eq!(allocated.cpu, 0);
            called_from(0x2222, || free(cache, object));
            // SAFETY: as above.
            let record = unsafe { cache.record_of(object) }.expect("it is kept");
            let freed = record.freed.expect("it was");
            assert!(!record.in_use && record.allocated == Some(allocated));
            assert_eq!(freed.stack[..2], [0x2222, 0]);
            assert!(freed.at_ns >= allocated.at_ns);
            destroy(cache);
        }
        for flags in [Z, P] {
            let cache = cache(slabs, 64, flags);
            let object = alloc(cache);
            // SAFETY: as above.
            assert_eq!(unsafe { cache.record_of(object) }, None);
            free(cache, object);
            destroy(cache);
        }
        nothing_said();
    });
}

/// Deeper stacks are cut.
#[test]
fn as_deep_as_there_is_room() {
    let world = World::small();
    world.run(|slabs| {
        let cache = cache(slabs, 64, U);
        fn nested<R>(depth: usize, f: impl FnOnce() -> R) -> R {
            let mut f = Some(f);
            let mut result = None;
            fn go(depth: usize, f: &mut dyn FnMut()) {
                if depth == 0 {
                    f();
                } else {
                    called_from(depth, || go(depth - 1, f));
                }
            }
            go(depth, &mut || result = f.take().map(|f| f()));
            result.expect("it ran")
        }
        let object = nested(20, || alloc(cache));
        // SAFETY: an object of the cache.
        let record = unsafe { cache.record_of(object) }.expect("it is kept");
        assert_eq!(record.allocated.unwrap().stack[..7], [1, 2, 3, 4, 5, 6, 0]);
        free(cache, object);
        destroy(cache);
    });
}

/// A report has all of it.
#[test]
fn in_a_report() {
    let world = World::small();
    world.run(|slabs| {
        let cache = cache(slabs, 64, U | Z);
        let (object, keeper) = (alloc(cache), alloc(cache));
        free(cache, object);
        let object = called_from(0x3333, || alloc(cache));
        poke(object, 64, 0);
        assert_eq!(cache.validate(), 1);
        let address = format!("at {:#x}, allocated", object.addr());
        let said = said(
            Kind::SlabRedZone,
            &[
                "a slab object's red zone was written to: frame ",
                "\n  cache planted (id ",
                ", RED_ZONE | STORE_USER), objects of 64 bytes",
                "\n  slab: 2 of ",
                "\n  object #",
                &address,
                "\n  right red zone (64..72): 1 byte is wrong, at 64: 0x00 instead of 0xcc",
                "\n    +0040: !00  cc  cc",
                "\n  allocated ",
                " ago on cpu0 by thread ",
                "tracks.rs:",
                "\n  freed ",
                "\n  the bytes are restored",
            ],
        );
        let record = said.owner.expect("the tracks");
        assert_eq!(record.allocated.unwrap().stack[0], 0x3333);
        assert!(record.freed.is_some());
        free(cache, object);
        free(cache, keeper);
        destroy(cache);
        nothing_said();
    });
}

/// Also of objects that are left when their cache is destroyed.
#[test]
fn of_what_is_left() {
    let world = World::small();
    world.run(|slabs| {
        let cache = cache(slabs, 64, U);
        let object = called_from(0x4444, || alloc(cache));
        // SAFETY: created above.
        let leaked = unsafe { slabs.destroy(cache) }.unwrap_err();
        assert_eq!(leaked.objects, 1);
        let address = format!("at {:#x}, allocated", object.addr());
        let said = said(
            Kind::SlabLeak,
            &[
                &address,
                "\n  allocated ",
                " ago on cpu0 by thread ",
                "tracks.rs:",
                "stay until it is freed",
            ],
        );
        let record = said.owner.expect("the tracks");
        assert_eq!(record.allocated.unwrap().stack[..2], [0x4444, 0]);
        assert_eq!(record.freed, None);
        free(cache, object);
        nothing_said();
    });
}
