//! Caches, CPUs and memory that go.

use mm::{
    Gfp, Use,
    hosted::Memory,
    reclaim::{Shrink, Wanted},
    report::Kind,
};
use platform::{
    CpuId, Mark, Platform,
    hosted::{Hosted, Machine},
};

use crate::{
    cache, count, end, is_in, lone, other, pair, walk,
    world::{MIB, World, free, take},
};

/// Only its objects leave, and the others stay in their order.
#[test]
fn the_end_of_a_cache_takes_just_its_objects() {
    lone().run(|slabs| {
        const EACH: usize = 300;
        let caches = ["one", "two", "three"].map(|name| cache(slabs, name, 64));
        slabs.set_quarantine(3 * EACH * 64);
        let objects = caches.map(|cache| take(cache, EACH));
        for number in 0..EACH {
            for (cache, objects) in caches.iter().zip(&objects) {
                free(cache, vec![objects[number]]);
            }
        }
        let before = count(slabs, "quarantine.flush");
        end(slabs, caches[1]);
        assert_eq!(count(slabs, "quarantine.flush") - before, EACH as u64);
        assert_eq!(walk(slabs), 2 * EACH as u64);
        for which in [0, 2] {
            assert_eq!(caches[which].quarantined(), EACH as u64);
            assert!(objects[which].iter().all(|object| is_in(slabs, *object)));
        }
        // In their order: the first of both leave first.
        slabs.set_quarantine(20 * 64);
        let last = EACH - 10;
        for which in [0, 2] {
            let inside = |object: &_| is_in(slabs, *object);
            assert!(!objects[which][..last].iter().any(inside));
            assert!(objects[which][last..].iter().all(inside));
        }
        end(slabs, caches[0]);
        assert_eq!(walk(slabs), 10);
        end(slabs, caches[2]);
        assert_eq!(walk(slabs), 0);
    });
}

/// A cache that is destroyed with objects in use goes with the last of them.
#[test]
fn nothing_of_a_dying_cache_comes_in() {
    let world = lone();
    world.run(|slabs| {
        let cache = cache(slabs, "dying", 64);
        slabs.set_quarantine(1 << 20);
        let objects = take(cache, 3);
        free(cache, vec![objects[0]]);
        // SAFETY: the test's; what is in use is freed below.
        let leaked = unsafe { slabs.destroy(cache) }.expect_err("two are in use");
        assert_eq!(leaked.objects, 2);
        assert_eq!(world.take_reports(Kind::SlabLeak), 2);
        // Switched anew, too.
        for bytes in [1 << 20, 0, 1 << 20] {
            slabs.set_quarantine(bytes);
            assert_eq!(walk(slabs), 0);
        }
        free(cache, vec![objects[1]]);
        assert_eq!(walk(slabs), 0);
        assert!(slabs.caches().iter().any(mm::slab::KmemCache::is_dying));
        // SAFETY: in use until now.
        unsafe { slabs.kfree(objects[2]) };
        assert!(!slabs.caches().iter().any(mm::slab::KmemCache::is_dying));
        assert_eq!(walk(slabs), 0);
    });
}

/// Frees that were deferred go to their slabs, and what was in quarantine before is found.
#[test]
fn deferred_frees_do_not_come_in() {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    let world = lone();
    // One object fills a slab, whose lock an NMI finds held.
    let (cache, objects) = world.run(|slabs| {
        let cache = cache(slabs, "deferred", 20_000);
        let objects = take(cache, 40);
        slabs.set_quarantine(1 << 20);
        (cache, objects)
    });
    let given: Vec<usize> = objects.iter().map(|object| object.addr().get()).collect();
    let next = std::sync::Arc::new(AtomicUsize::new(0));
    let taken = std::sync::Arc::clone(&next);
    let nmi = world.machine.on_nmi(1, move || {
        let Some(address) = given.get(taken.fetch_add(1, Relaxed)) else {
            return;
        };
        let object = std::ptr::NonNull::new(core::ptr::with_exposed_provenance_mut(*address));
        // SAFETY: allocated by the test; each is freed once.
        unsafe { cache.free_nolock(object.expect("an object")) };
    });
    world.run(|slabs| {
        while next.load(Relaxed) < 40 {
            cache.while_locked(mm::slab::CacheLock::Lists, || {
                Hosted::mark(Mark::Step);
            });
        }
        let _ = slabs;
    });
    drop(nmi);
    world.run(|slabs| {
        assert!(count(slabs, "deferred.push") > 0);
        assert_eq!(slabs.quarantined(CpuId::BOOT).objects, 0);
        end(slabs, cache);
        assert_eq!(walk(slabs), 0);
    });
}

#[test]
fn a_cpu_that_goes_keeps_nothing() {
    let world = pair();
    let cache = world.run(|slabs| {
        slabs.set_quarantine(1 << 20);
        cache(slabs, "gone", 64)
    });
    let fill = || {
        let there = world
            .machine
            .spawn_on(other(), move || free(cache, take(cache, 50)));
        there.join();
    };
    world.run(|slabs| {
        for _ in 0..2 {
            fill();
            assert_eq!(cache.quarantined_on(other()), 50);
            Hosted::offline(other(), || {});
            // SAFETY: it does not run until it is brought back below.
            unsafe { slabs.flush_offline(other()) };
            assert_eq!((cache.quarantined(), walk(slabs)), (0, 0));
            Hosted::online(other(), || {});
        }
        // A cache that ends, or is shrunk, while the CPU is away and nobody has flushed it.
        fill();
        Hosted::offline(other(), || {});
        cache.shrink();
        assert_eq!(cache.quarantined(), 0);
        Hosted::online(other(), || {});
        fill();
        Hosted::offline(other(), || {});
        end(slabs, cache);
        assert_eq!(walk(slabs), 0);
        // SAFETY: as above.
        unsafe { slabs.flush_offline(other()) };
        Hosted::online(other(), || {});
    });
}

#[test]
fn memory_pressure_empties_it() {
    let world = World::new(Machine::builder(), Memory::builder().node(8 * MIB));
    let slabs = world.slabs();
    world.run(|slabs| {
        let cache = cache(slabs, "kept", 2048);
        slabs.set_quarantine(1 << 20);
        free(cache, take(cache, 500));
        assert!(cache.quarantined() > 400);
        assert!(slabs.count() >= 200);
        // It comes first: sheaves stay as they are.
        let freed = slabs.scan(Wanted {
            frames: 50,
            gfp: Gfp::KERNEL,
        });
        assert!(freed >= 50, "{freed}");
        assert_eq!(cache.quarantined(), 0);
        assert_eq!(
            count(slabs, "cpu.drained") + count(slabs, "barn.emptied"),
            0
        );
        free(cache, take(cache, 500));
        assert!(cache.quarantined() > 400);
        world.mm().register_shrinker(slabs).expect("room");
        let mut blocks = Vec::new();
        while let Some(pfn) = world
            .mm()
            .alloc_pages(Gfp::KERNEL | Gfp::NOWARN, 0, Use::Pages)
        {
            blocks.push(pfn);
        }
        assert_eq!(cache.quarantined(), 0);
        assert!(world.mm().unregister_shrinker(slabs));
        for pfn in blocks {
            // SAFETY: allocated above.
            unsafe { world.mm().free_pages(pfn, 0, Use::Pages) };
        }
        // It goes on.
        free(cache, take(cache, 5));
        assert_eq!(cache.quarantined(), 5);
        end(slabs, cache);
    });
    let _ = slabs;
}

/// Without a page for the queue objects are freed as ever.
#[test]
fn without_memory_objects_do_not_come_in() {
    let world = lone();
    let cache = world.run(|slabs| {
        slabs.set_quarantine(1 << 20);
        cache(slabs, "poor", 64)
    });
    let objects = world.run(|_| take(cache, 1000));
    world.fail_pages(Some(2));
    world.run(|slabs| {
        free(cache, objects);
        // A page or two of entries.
        let inside = slabs.quarantined(CpuId::BOOT).objects;
        assert!((100..300).contains(&inside), "{inside}");
        assert!(count(slabs, "quarantine.no_memory") > 0);
        assert_eq!(walk(slabs), inside as u64);
    });
    world.fail_pages(None);
    world.run(|slabs| {
        free(cache, take(cache, 700));
        assert!(cache.quarantined() >= 700);
        end(slabs, cache);
    });
}
