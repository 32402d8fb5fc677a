//! No memory: at every allocation of pages, and of the order that suits best.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use mm::{
    Gfp,
    hosted::{Memory, Reports},
    report::Kind,
    slab::{Flags, Spec},
};
use platform::hosted::Machine;

use super::{
    quiet::{check, slabs_of},
    single::plain,
    world::{MIB, World},
};

fn world() -> World {
    World::new(Machine::builder().cpus(1), Memory::builder().node(32 * MIB))
}

/// Allocations of pages fail, one, two, or more in a row, beginning at every one of a sequence: an object is not to be had, or
/// is of a smaller slab; nothing is lost, and the next time all goes well.
#[test]
fn page_allocations_fail_at_every_place() {
    let world = world();
    world.run(|slabs| {
        for (size, name) in [(3000, "pieces"), (40_000, "whole")] {
            let cache = slabs.create(&plain(name, size)).unwrap();
            let each = 1_usize << cache.layout().order;
            let mut failed = [0; 6];
            for (times, failed) in failed.iter_mut().enumerate() {
                // The first so many allocations of full slabs go well.
                for place in 0..5 {
                    slabs.mm().debug().faults(|faults| {
                        faults.set("min-order", "0").unwrap();
                        faults.set("ignore-gfp-wait", "off").unwrap();
                        faults.set("space", &(place * each).to_string()).unwrap();
                        faults.set("times", &times.to_string()).unwrap();
                        faults.set("probability", "100").unwrap();
                    });
                    let mut held = Vec::new();
                    for _ in 0..60 {
                        match cache.alloc(Gfp::KERNEL | Gfp::NOWARN) {
                            Some(object) => held.push(object),
                            None => *failed += 1,
                        }
                    }
                    let faults = |name, value| {
                        let set = slabs
                            .mm()
                            .debug()
                            .faults(|faults| faults.set(name, value).is_ok());
                        assert!(set);
                    };
                    faults("probability", "0");
                    check(slabs, cache, &held);
                    assert!(held.len() > 50);
                    for object in held {
                        // SAFETY: allocated above.
                        unsafe { cache.free(object) };
                    }
                    check(slabs, cache, &[]);
                    cache.shrink();
                    assert!(slabs_of(slabs, cache).is_empty());
                }
            }
            // One failure, on the own node or of the best order, is always made up for.
            assert_eq!(failed[..2], [0, 0], "{name}");
            assert!(failed[5] > 0, "{name}");
            // SAFETY: nobody uses it.
            unsafe { slabs.destroy(cache) }.unwrap();
        }
    });
}

/// Objects that no smaller slab holds, and whose pages are not to be had.
#[test]
fn no_memory_at_all() {
    let world = world();
    world.run(|slabs| {
        let cache = slabs.create(&plain("test", 4096)).unwrap();
        let mut held = Vec::new();
        while let Some(object) = cache.alloc(Gfp::NOWAIT) {
            held.push(object);
        }
        check(slabs, cache, &held);
        assert!(held.len() * 4096 > 20 << 20, "nearly all memory");
        // Who may wait gets what lies in the CPU's page lists besides.
        while let Some(object) = cache.alloc(Gfp::KERNEL | Gfp::NOWARN) {
            held.push(object);
        }
        // It is said, unless it is not to be.
        assert!(Reports::of(&world.machine).take().is_empty());
        assert!(cache.alloc(Gfp::KERNEL).is_none());
        assert!(world.take_reports(Kind::OutOfMemory) > 0);
        // The last slabs are as small as can be.
        let last = slabs_of(slabs, cache)
            .into_iter()
            .filter(|slab| slab.order() == 0);
        assert!(last.count() > 0);
        for object in held {
            // SAFETY: allocated above.
            unsafe { cache.free(object) };
        }
        check(slabs, cache, &[]);
        // SAFETY: nobody uses it.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}

/// No block of the order that suits best: slabs of the smallest order, side by side with others, and counted.
#[test]
fn smaller_slabs_when_memory_is_in_pieces() {
    let world = world();
    world.run(|slabs| {
        let cache = slabs.create(&plain("test", 1500)).unwrap();
        let (order, least) = (cache.layout().order, cache.layout().min_order);
        assert!(order > least);
        let mut held: Vec<_> = (0..30).map(|_| cache.alloc(Gfp::KERNEL).unwrap()).collect();
        assert!(
            slabs_of(slabs, cache)
                .iter()
                .all(|slab| slab.order() == order.into())
        );
        // Every other page is taken, so no two adjacent ones are free.
        let mut pages = Vec::new();
        while let Some(page) = slabs
            .mm()
            .alloc_pages(Gfp::NOWAIT | Gfp::HIGH, 0, mm::Use::Pages)
        {
            pages.push(page);
        }
        let (odd, even): (Vec<_>, Vec<_>) = pages.into_iter().partition(|page| page.0 % 2 == 1);
        let give_back = |pages: Vec<mm::Pfn>| {
            for page in pages {
                // SAFETY: allocated above.
                unsafe { slabs.mm().free_pages(page, 0, mm::Use::Pages) };
            }
        };
        give_back(odd);
        slabs.mm().drain_all();
        let smaller = || super::arrows::count(slabs, "slab.made_smaller");
        // What the reserves had in one piece is used up first.
        while smaller() < 20 {
            assert!(held.len() < 3000, "no small slabs");
            held.push(cache.alloc(Gfp::KERNEL).unwrap());
        }
        let small = slabs_of(slabs, cache)
            .into_iter()
            .filter(|slab| slab.order() == usize::from(least));
        assert_eq!(small.count(), 20);
        check(slabs, cache, &held);
        give_back(even);
        for object in held {
            // SAFETY: allocated above.
            unsafe { cache.free(object) };
        }
        check(slabs, cache, &[]);
        // SAFETY: nobody uses it.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}

static MADE: AtomicUsize = AtomicUsize::new(0);

fn construct(object: std::ptr::NonNull<u8>) {
    MADE.fetch_add(1, Relaxed);
    // SAFETY: a fresh object of 96 bytes.
    unsafe { object.write_bytes(0x5a, 96) };
}

/// A constructor runs once for each object of a slab, however often the object is used; and what it made is
/// still there when the object comes again.
#[test]
fn constructors_run_once_for_an_object() {
    let world = world();
    world.run(|slabs| {
        let spec = Spec::new("test", 96)
            .flags(Flags::NO_MERGE)
            .sheaf_capacity(0)
            .constructor(construct);
        let cache = slabs.create(&spec).unwrap();
        let as_made = |object: std::ptr::NonNull<u8>| {
            // SAFETY: allocated, of 96 bytes.
            let bytes = unsafe { std::slice::from_raw_parts(object.as_ptr(), 96) };
            assert!(bytes.iter().all(|byte| *byte == 0x5a), "{object:p}");
        };
        for round in 0..50 {
            let held: Vec<_> = (0..40).map(|_| cache.alloc(Gfp::KERNEL).unwrap()).collect();
            for object in held {
                as_made(object);
                // SAFETY: allocated above.
                unsafe { cache.free(object) };
            }
            let objects: usize = slabs_of(slabs, cache)
                .iter()
                .map(|slab| slab.freelist().load().objects())
                .sum();
            assert_eq!(MADE.load(Relaxed), objects, "round {round}");
        }
        // SAFETY: nobody uses it.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}
