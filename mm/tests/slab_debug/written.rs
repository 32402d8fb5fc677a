//! Bytes that were written to by those who should not: each is found once, by the next look, and
//! restored; a free object that was written to is never used again.

use mm::{
    hosted::Reports,
    report::Kind,
    slab::{Flags, Spec, debug::info::bytes_behind},
};

use crate::{
    flags::{F, P, U, Z, alloc, cache, destroy, free, nothing_said, peek, poke, said, spoil, with},
    world::World,
};

/// A user writes behind its object, and before it.
#[test]
fn beside_an_object_in_use() {
    let world = World::small();
    world.run(|slabs| {
        for flags in with(Z) {
            for size in [5, 16, 60, 64, 1000] {
                for at in [size as isize, -1] {
                    let cache = cache(slabs, size, flags);
                    let object = alloc(cache);
                    assert_eq!(peek(object, at), 0xcc);
                    poke(object, at, 0x12);
                    assert_eq!(cache.validate(), 1);
                    let side = if at < 0 { "left" } else { "right" };
                    let place = format!("1 byte is wrong, at {at}: 0x12 instead of 0xcc");
                    said(
                        Kind::SlabRedZone,
                        &[
                            side,
                            &place,
                            "object #",
                            ", allocated",
                            "bytes are restored",
                        ],
                    );
                    assert_eq!((peek(object, at), cache.validate()), (0xcc, 0));
                    // And when it is freed.
                    poke(object, at, 0x13);
                    free(cache, object);
                    said(Kind::SlabRedZone, &["0x13 instead of 0xcc", "written.rs"]);
                    assert_eq!((peek(object, at), cache.validate()), (0xbb, 0));
                    assert_eq!(cache.faults_found(), 2);
                    destroy(cache);
                    nothing_said();
                }
            }
        }
    });
}

#[test]
fn beside_a_free_object() {
    let world = World::small();
    world.run(|slabs| {
        for flags in with(Z) {
            for at in [64, -1] {
                let cache = cache(slabs, 64, flags);
                let (object, _keeper) = (alloc(cache), alloc(cache));
                free(cache, object);
                poke(object, at, 0xab);
                assert_eq!(cache.validate(), 1);
                said(Kind::SlabRedZone, &["0xab instead of 0xbb", ", free"]);
                assert_eq!((peek(object, at), cache.validate()), (0xbb, 0));
                poke(object, at, 0xac);
                assert_eq!(alloc(cache), object, "{flags}: it is good for use");
                said(Kind::SlabRedZone, &["0xac instead of 0xbb"]);
                assert_eq!((peek(object, at), cache.validate()), (0xcc, 0));
                free(cache, object);
                free(cache, _keeper);
                destroy(cache);
                nothing_said();
            }
        }
    });
}

/// Somebody uses an object that was freed.
#[test]
fn a_free_object() {
    let world = World::small();
    world.run(|slabs| {
        for flags in with(P) {
            for at in [0, 50, 99] {
                let cache = cache(slabs, 100, flags);
                let (object, keeper) = (alloc(cache), alloc(cache));
                free(cache, object);
                let expected = if at == 99 { 0xa5 } else { 0x6b };
                assert_eq!(peek(object, at), expected);
                poke(object, at, 0x78);
                let other = alloc(cache);
                assert_ne!(other, object, "{flags}: it was handed out");
                let what = format!("at {at}: 0x78 instead of {expected:#04x}");
                said(
                    Kind::SlabPoison,
                    &["free object (0..100)", &what, "never used again"],
                );
                assert_eq!(cache.validate(), 0);
                // Nobody gets it any more.
                let rest: Vec<_> = (0..200).map(|_| alloc(cache)).collect();
                assert!(!rest.contains(&object));
                assert_eq!(cache.validate(), 0);
                for object in rest.into_iter().chain([other, keeper]) {
                    free(cache, object);
                }
                destroy(cache);
                nothing_said();
            }
        }
    });
}

/// The same, found by looking.
#[test]
fn a_free_object_found_by_validation() {
    let world = World::small();
    world.run(|slabs| {
        for flags in with(P) {
            let cache = cache(slabs, 100, flags);
            let objects: Vec<_> = (0..5).map(|_| alloc(cache)).collect();
            objects.iter().for_each(|object| free(cache, *object));
            poke(objects[2], 50, 0x78);
            assert_eq!(cache.validate(), 1);
            said(
                Kind::SlabPoison,
                &["at 50: 0x78 instead of 0x6b", "isolated"],
            );
            assert_eq!(cache.validate(), 0);
            let rest: Vec<_> = (0..200).map(|_| alloc(cache)).collect();
            assert!(!rest.contains(&objects[2]));
            rest.into_iter().for_each(|object| free(cache, object));
            destroy(cache);
            nothing_said();
        }
    });
}

/// All of it is one fault, and told as one.
#[test]
fn all_of_a_free_object() {
    let world = World::small();
    world.run(|slabs| {
        let cache = cache(slabs, 32, P);
        let (object, keeper) = (alloc(cache), alloc(cache));
        free(cache, object);
        spoil(object, 0, 32);
        assert_eq!(cache.validate(), 1);
        said(
            Kind::SlabPoison,
            &["32 bytes are wrong, from 0 to 31, the first: 0x94"],
        );
        free(cache, keeper);
        destroy(cache);
    });
}

#[test]
fn a_flipped_bit_is_told_of() {
    let world = World::small();
    world.run(|slabs| {
        let cache = cache(slabs, 32, P);
        let (object, keeper) = (alloc(cache), alloc(cache));
        free(cache, object);
        poke(object, 3, 0x6b ^ 0x10);
        assert_eq!(cache.validate(), 1);
        said(Kind::SlabPoison, &["a single bit, 4, is flipped"]);
        free(cache, keeper);
        destroy(cache);
    });
}

/// Bytes that nobody uses: behind the object, between objects, behind the last one.
#[test]
fn padding() {
    let world = World::small();
    world.run(|slabs| {
        for (flags, align) in with(P).flat_map(|flags| [(flags, 0), (flags, 64)]) {
            let spec = Spec::new("padded", 60).flags(flags).align(align);
            let cache = slabs.create(&spec).expect("a cache");
            let (object, keeper) = (alloc(cache), alloc(cache));
            let layout = *cache.layout();
            let mut places = Vec::new();
            if !flags.contains(Z) {
                places.push(60);
            }
            let slot_end = (layout.size - layout.red_left) as isize;
            let info_end = layout.tracks as isize + bytes_behind(flags) as isize;
            assert!(align == 0 || info_end < slot_end);
            if info_end < slot_end {
                places.extend([info_end, slot_end - 1]);
            }
            let slab_bytes = 4096_usize << layout.order;
            let used = usize::from(layout.objects) * layout.size as usize;
            if used < slab_bytes {
                let slab = object.addr().get() & !(slab_bytes - 1);
                let end = (slab + slab_bytes) as isize - object.addr().get() as isize;
                places.push(end - 1);
            }
            for at in places {
                assert_eq!(peek(object, at), 0x5a, "{flags}: {at}");
                poke(object, at, 0x12);
                assert_eq!(cache.validate(), 1, "{flags}: {at}");
                said(
                    Kind::SlabPadding,
                    &["padding", "0x12 instead of 0x5a", "restored"],
                );
                assert_eq!((peek(object, at), cache.validate()), (0x5a, 0));
            }
            free(cache, object);
            free(cache, keeper);
            destroy(cache);
            nothing_said();
        }
    });
}

/// What the allocator keeps of an object.
#[test]
fn the_state_of_an_object() {
    let world = World::small();
    world.run(|slabs| {
        for flags in crate::flags::all() {
            let cache = cache(slabs, 64, flags);
            let at = cache.layout().tracks as isize;
            let (object, keeper) = (alloc(cache), alloc(cache));
            spoil(object, at, 8);
            assert_eq!(cache.validate(), 1);
            said(Kind::SlabInfo, &["the state word", "taken for allocated"]);
            assert_eq!(cache.validate(), 0);
            spoil(object, at + 3, 1);
            free(cache, object);
            said(Kind::SlabInfo, &["taken for allocated"]);
            spoil(object, at, 8);
            assert_eq!(cache.validate(), 1);
            said(Kind::SlabInfo, &["taken for free"]);
            assert_eq!(cache.validate(), 0);
            spoil(object, at, 8);
            assert_eq!(alloc(cache), object);
            said(Kind::SlabInfo, &["taken for free"]);
            free(cache, object);
            free(cache, keeper);
            destroy(cache);
            nothing_said();
        }
    });
}

#[test]
fn the_track_of_an_object() {
    let world = World::small();
    world.run(|slabs| {
        for flags in with(U) {
            let cache = cache(slabs, 64, flags);
            let at = cache.layout().tracks as isize + 8;
            let object = alloc(cache);
            for at in at..at + 80 {
                spoil(object, at, 1);
                assert_eq!(cache.validate(), 1, "byte {at}");
                said(Kind::SlabInfo, &["a track is not as it was written"]);
                assert_eq!(cache.validate(), 0);
                // A new track.
                free(cache, object);
                assert_eq!(alloc(cache), object);
            }
            free(cache, object);
            destroy(cache);
            nothing_said();
        }
    });
}

/// An overflow that goes on and on is found in each part that it went through, and is put right.
#[test]
fn an_overflow_into_the_neighbour() {
    let world = World::small();
    world.run(|slabs| {
        let flags = Flags::DEBUG;
        let cache = cache(slabs, 64, flags);
        let objects = [alloc(cache), alloc(cache)];
        let size = cache.layout().size as usize;
        assert_eq!(objects[0].addr().get() + size, objects[1].addr().get());
        // To the neighbour's first byte.
        spoil(objects[0], 64, size - 64);
        let faults = cache.validate();
        let kinds: Vec<_> = Reports::here()
            .take()
            .iter()
            .map(|said| said.kind)
            .collect();
        assert_eq!(kinds.len(), faults);
        for kind in [Kind::SlabRedZone, Kind::SlabInfo] {
            assert!(kinds.contains(&kind), "{kinds:?}");
        }
        assert_eq!(cache.validate(), 0);
        objects.iter().for_each(|object| free(cache, *object));
        destroy(cache);
        nothing_said();
    });
}

/// What was not found before is found when the slab goes.
#[test]
fn an_empty_slab_that_goes() {
    let world = World::small();
    world.run(|slabs| {
        for flags in with(P).filter(|flags| !flags.contains(F)) {
            let cache = cache(slabs, 64, flags);
            let object = alloc(cache);
            free(cache, object);
            poke(object, 7, 0);
            cache.shrink();
            said(Kind::SlabPoison, &["at 7: 0x00 instead of 0x6b"]);
            destroy(cache);
            nothing_said();
        }
    });
}
