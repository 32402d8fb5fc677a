//! Free objects that are written to, and frees of what is no object: reported, and nothing is handed out twice.

use std::{mem::MaybeUninit, ptr::NonNull};

use mm::{
    Gfp,
    hosted::Memory,
    report::Kind,
    slab::{KmemCache, Slabs},
};
use platform::hosted::{Hosted, Machine};

use super::{
    single::plain,
    world::{MIB, World},
};

fn world() -> World {
    World::new(Machine::builder().cpus(1), Memory::builder().node(32 * MIB))
}

fn take_all_of_a_slab(cache: &KmemCache<Hosted>) -> Vec<NonNull<u8>> {
    let take = |_| cache.alloc(Gfp::KERNEL).unwrap();
    (0..cache.layout().objects).map(take).collect()
}

fn write_link(cache: &KmemCache<Hosted>, object: NonNull<u8>, word: u64) {
    // SAFETY: the word of the link, in a slab that has objects in use.
    unsafe { object.add(cache.layout().link as usize).cast().write(word) };
}

/// Frees four objects, writes `word` over the link of the one that was freed last but one, and takes all objects of the
/// slab again: how many there were.
fn damage(slabs: &Slabs<Hosted>, cache: &KmemCache<Hosted>, word: u64) -> usize {
    let held = take_all_of_a_slab(cache);
    for object in &held[..4] {
        // SAFETY: allocated above.
        unsafe { cache.free(*object) };
    }
    write_link(cache, held[2], word);
    let map = *slabs.mm().frames();
    let slab = |object: NonNull<u8>| {
        mm::slab::Slab::<Hosted>::of_address(map, object.addr().get()).unwrap()
    };
    let damaged = slab(held[0]);
    let mut again = Vec::new();
    let stray = loop {
        let object = cache.alloc(Gfp::KERNEL).unwrap();
        if slab(object) != damaged {
            break object;
        }
        assert!(held[..4].contains(&object), "{object:p} is in use");
        assert!(!again.contains(&object), "{object:p} is handed out twice");
        again.push(object);
    };
    assert_eq!(damaged.freelist().load().in_use(), held.len());
    for object in again.iter().chain(&held[4..]).chain([&stray]) {
        // SAFETY: allocated above.
        unsafe { cache.free(*object) };
    }
    again.len()
}

/// Whatever was written over a link, it is found, reported once, and two objects are lost: those behind it.
#[test]
fn overwritten_links_are_found() {
    for hardened in [false, true] {
        let words = [
            0,
            1,
            0x7f,
            0x4141_4141_4141_4141,
            u64::MAX - 40_000,
            0xffff_8880_0012_3450,
        ];
        for word in words {
            let world = world();
            world.run(|slabs| {
                slabs.debug().set_hardened(hardened);
                let cache = slabs.create(&plain("test", 256)).unwrap();
                assert_eq!(damage(slabs, cache, word), 2, "{word:#x}");
                assert_eq!(world.take_reports(Kind::SlabFreelist), 1, "{word:#x}");
                assert_eq!(super::arrows::count(slabs, "slab.cut"), 1);
            });
            world.leaked.set(1);
        }
    }
}

/// Without hardening a link to another object goes unnoticed until the count of free objects is found wrong.
/// With hardening it does not.
#[test]
fn a_forged_link_is_found_with_hardening() {
    let world = world();
    world.run(|slabs| {
        slabs.debug().set_hardened(true);
        let cache = slabs.create(&plain("test", 256)).unwrap();
        assert_eq!(damage(slabs, cache, !1), 2);
        assert_eq!(world.take_reports(Kind::SlabFreelist), 1);
    });
    world.leaked.set(1);
}

/// The same when many objects are taken at once.
#[test]
fn overwritten_links_are_found_in_bulk() {
    for hardened in [false, true] {
        let world = world();
        world.run(|slabs| {
            slabs.debug().set_hardened(hardened);
            let cache = slabs.create(&plain("test", 256)).unwrap();
            let held = take_all_of_a_slab(cache);
            for object in &held[..6] {
                // SAFETY: allocated above.
                unsafe { cache.free(*object) };
            }
            // Taken in this order: 5, 4, 3, and then the one that was written to.
            write_link(cache, held[3], 0x4141_4141);
            let mut many = [const { MaybeUninit::uninit() }; 5];
            assert_eq!(cache.alloc_bulk(Gfp::KERNEL, &mut many), 5);
            assert_eq!(world.take_reports(Kind::SlabFreelist), 1);
            // SAFETY: all were filled.
            let many = many.map(|object| unsafe { object.assume_init() });
            assert_eq!(many[..3], [held[5], held[4], held[3]]);
            assert!(!held.contains(&many[3]) && !held.contains(&many[4]));
            for object in many.iter().chain(&held[6..]) {
                // SAFETY: allocated above.
                unsafe { cache.free(*object) };
            }
        });
        world.leaked.set(1);
    }
}

/// An address within an object is no object's.
#[test]
fn frees_of_what_is_no_object_change_nothing() {
    let world = world();
    world.run(|slabs| {
        let cache = slabs.create(&plain("test", 256)).unwrap();
        let held = take_all_of_a_slab(cache);
        for within in [1, 8, 128, 255] {
            // SAFETY: none: it is to be refused.
            unsafe { cache.free(held[3].add(within)) };
            assert_eq!(world.take_reports(Kind::SlabWrongFree), 1, "{within}");
        }
        super::quiet::check(slabs, cache, &held);
        for object in held {
            // SAFETY: allocated above.
            unsafe { cache.free(object) };
        }
        super::quiet::check(slabs, cache, &[]);
        // SAFETY: nobody uses it.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}
