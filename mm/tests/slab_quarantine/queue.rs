//! Who comes into quarantine, and in which order objects leave it.

use std::ptr::NonNull;

use mm::{
    Gfp,
    slab::{Flags, Spec, quarantine::POISON_QUARANTINE},
};
use platform::{CpuId, hosted::Hosted};

use crate::{
    cache, count, end, is_in, lone, other, pair, state, walk,
    world::{free, take},
};

#[test]
fn the_oldest_leave_first() {
    lone().run(|slabs| {
        const KEPT: usize = 200;
        let cache = cache(slabs, "queued", 64);
        slabs.set_quarantine(KEPT * 64);
        let objects = take(cache, 3 * KEPT);
        for (freed, object) in (1..).zip(&objects) {
            free(cache, vec![*object]);
            let inside = slabs.quarantined(CpuId::BOOT);
            assert_eq!(inside.objects, freed.min(KEPT));
            assert_eq!(inside.bytes, 64 * inside.objects);
            assert_eq!(cache.quarantined(), inside.objects as u64);
            // Those that were freed last.
            let first = freed - inside.objects;
            assert!(is_in(slabs, objects[first]) && is_in(slabs, *object));
            assert!(first == 0 || !is_in(slabs, objects[first - 1]));
        }
        assert_eq!(walk(slabs), KEPT as u64);
        // None of them is handed out.
        let last = &objects[2 * KEPT..];
        let again = take(cache, 4 * KEPT);
        assert!(again.iter().all(|object| !last.contains(object)));
        free(cache, again);
        slabs.set_quarantine(0);
        assert_eq!((cache.quarantined(), walk(slabs)), (0, 0));
        end(slabs, cache);
    });
}

#[test]
fn all_bytes_of_an_object_are_poison() {
    lone().run(|slabs| {
        slabs.set_quarantine(1 << 20);
        for size in [1, 7, 8, 9, 64, 100, 5000] {
            let cache = cache(slabs, "filled", size);
            let object = take(cache, 1)[0];
            free(cache, vec![object]);
            // SAFETY: memory of a slab.
            let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), size) };
            assert!(bytes.iter().all(|byte| *byte == POISON_QUARANTINE));
            end(slabs, cache);
        }
    });
}

/// Objects of all sizes share the bytes; what is larger than these does not come in.
#[test]
fn there_are_never_more_bytes_than_the_limit() {
    lone().run(|slabs| {
        const LIMIT: usize = 10_000;
        slabs.set_quarantine(LIMIT);
        assert_eq!(slabs.quarantine_limit(), LIMIT);
        let mut most = 0;
        for round in 0..2_000 {
            let size = [8, 3000, 64, 500, 8000, 24][round % 6] + round % 7;
            let memory = slabs.kmalloc(size, Gfp::KERNEL).expect("memory");
            // SAFETY: allocated above.
            unsafe { slabs.kfree(memory) };
            let inside = slabs.quarantined(CpuId::BOOT);
            assert!(inside.bytes <= LIMIT, "{inside:?}");
            most = most.max(inside.bytes);
        }
        assert!(most > LIMIT / 2, "{most} bytes at most");
        let large = cache(slabs, "large", LIMIT + 8);
        let objects = take(large, 1);
        let before = slabs.quarantined(CpuId::BOOT);
        free(large, objects);
        assert_eq!(slabs.quarantined(CpuId::BOOT), before);
        assert_eq!(large.quarantined(), 0);
        assert!(count(slabs, "quarantine.too_large") > 0);
        end(slabs, large);
        // A lower limit holds at once.
        slabs.set_quarantine(1000);
        assert!(slabs.quarantined(CpuId::BOOT).bytes <= 1000);
        walk(slabs);
    });
}

fn constructor(_: NonNull<u8>) {}

#[test]
fn caches_whose_free_objects_are_looked_at_do_not_take_part() {
    let world = lone();
    world.run_with_rcu(|slabs, _| {
        let specs = || {
            let spec = Spec::new("any", 64);
            [
                (spec.flags(Flags::NO_MERGE), true),
                (spec.flags(Flags::TYPESAFE_BY_RCU), false),
                (spec.constructor(constructor), false),
                (spec.flags(Flags::POISON), false),
                (spec.flags(Flags::STORE_USER), false),
            ]
        };
        for before in [true, false] {
            for (spec, takes_part) in specs() {
                if !before {
                    slabs.set_quarantine(1 << 20);
                }
                let cache = slabs.create(&spec).expect("a cache");
                slabs.set_quarantine(1 << 20);
                free(cache, take(cache, 3));
                let expected = if takes_part { 3 } else { 0 };
                assert_eq!(cache.quarantined(), expected, "{}", cache.flags());
                slabs.set_quarantine(0);
                free(cache, take(cache, 3));
                assert_eq!(cache.quarantined(), 0);
                end(slabs, cache);
            }
        }
        // Nor do those that caches are made of, and the memory of sheaves.
        slabs.set_quarantine(1 << 20);
        for round in 0..100 {
            let cache = cache(slabs, "short", 64);
            free(cache, take(cache, 200));
            cache.shrink();
            end(slabs, cache);
            assert_eq!(walk(slabs), 0, "round {round}");
        }
        slabs.set_quarantine(0);
    });
}

/// Each function that frees, and each CPU.
#[test]
fn every_free_comes_in_but_those_that_wait_for_nothing() {
    let world = pair();
    let cache = world.run(|slabs| {
        slabs.set_quarantine(1 << 20);
        cache(slabs, "freed", 64)
    });
    world.run(|slabs| {
        let objects = take(cache, 40);
        // SAFETY: allocated above, each freed once; here and below.
        unsafe {
            cache.free(objects[0]);
            slabs.kfree(objects[1]);
            cache.free_bulk(&objects[2..20]);
        }
        assert_eq!(cache.quarantined_on(CpuId::BOOT), 20);
        // SAFETY: as above.
        unsafe {
            cache.free_nolock(objects[20]);
            slabs.kfree_nolock(objects[21]);
        }
        assert_eq!(cache.quarantined(), 20);
        assert!(!is_in(slabs, objects[20]) && !is_in(slabs, objects[21]));
        // Objects that nobody has had are not freed.
        drop(cache.prefill(Gfp::KERNEL, 10).expect("memory"));
        assert_eq!(cache.quarantined(), 20);
        let there: Vec<usize> = objects[22..]
            .iter()
            .map(|object| object.addr().get())
            .collect();
        let first = objects[22];
        let thread = world.machine.spawn_on(other(), move || {
            for address in there {
                let object = NonNull::new(core::ptr::with_exposed_provenance_mut(address));
                // SAFETY: allocated by the test.
                unsafe { cache.free(object.expect("an object")) };
            }
        });
        thread.join();
        assert_eq!(cache.quarantined_on(other()), 18);
        assert_eq!(state(slabs, first), "free: quarantined on cpu1");
        assert_eq!(walk(slabs), 38);
        end(slabs, cache);
    });
    let _: &mm::slab::KmemCache<Hosted> = cache;
}

/// What zeroing is for holds when the object is free.
#[test]
fn objects_that_leave_are_zeroed_if_that_is_on() {
    lone().run(|slabs| {
        slabs.set_zero_on_free(true);
        let cache = cache(slabs, "zeroed", 64);
        let objects = take(cache, 2);
        slabs.set_quarantine(1 << 20);
        free(cache, vec![objects[0]]);
        assert!(is_in(slabs, objects[0]));
        slabs.set_quarantine(0);
        let link = cache.layout().link as usize;
        for at in (0..64).filter(|at| !(link..link + 8).contains(at)) {
            // SAFETY: memory of a slab.
            assert_eq!(unsafe { objects[0].add(at).read() }, 0);
        }
        free(cache, vec![objects[1]]);
        end(slabs, cache);
    });
}

#[test]
fn files_and_texts_tell_how_many_there_are() {
    use mm::slab::text::{Attribute, OneCache, Snapshot};
    lone().run(|slabs| {
        let cache = cache(slabs, "told", 64);
        slabs.set_quarantine(1 << 20);
        free(cache, take(cache, 5));
        let mut text = String::new();
        let attribute = Attribute::named("quarantined").expect("a file");
        attribute.show(&slabs.caches(), cache, &mut text).unwrap();
        assert_eq!(text, "5 C0=5\n");
        let mut now = Snapshot::new();
        // SAFETY: this thread is the only one.
        unsafe { now.take(cache) };
        let text = OneCache(&slabs.caches(), cache, &now).to_string();
        assert!(
            text.contains(" 0 frees deferred, 5 quarantined, flags NO_MERGE"),
            "{text}"
        );
        end(slabs, cache);
    });
}
