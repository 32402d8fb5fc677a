//! Allocations of objects that are made to fail.

use std::mem::MaybeUninit;

use mm::{
    Gfp,
    fault::{Knobs, Marks},
    slab::{Flags, Slabs, Spec},
};
use platform::hosted::Hosted;

use crate::{
    flags::{Cache, U, all, alloc, destroy, free, nothing_said},
    world::World,
};

fn off(slabs: &'static Slabs<Hosted>) {
    slabs.faults(mm::fault::SlabFaults::reset);
}

/// Allocates in every way, and frees it, wherever it is made to stop: how far it came.
fn sequence(slabs: &'static Slabs<Hosted>, cache: &Cache) -> usize {
    let mut done = 0;
    let mut held = Vec::new();
    let mut steps = || {
        held.push(cache.alloc(Gfp::KERNEL)?);
        done += 1;
        held.push(cache.alloc(Gfp::KERNEL | Gfp::ZERO)?);
        done += 1;
        held.push(cache.alloc_nolock(None)?);
        done += 1;
        let mut room = [MaybeUninit::uninit(); 30];
        if cache.alloc_bulk(Gfp::KERNEL, &mut room) == 0 {
            return None;
        }
        // SAFETY: filled.
        held.extend(room.map(|object| unsafe { object.assume_init() }));
        done += 1;
        let mut prefilled = cache.prefill(Gfp::KERNEL, 10)?;
        done += 1;
        // What is there is there.
        held.extend((0..10).map(|_| prefilled.alloc(Gfp::NOWAIT).expect("prefilled")));
        if !prefilled.refill(Gfp::KERNEL, 5) {
            return None;
        }
        done += 1;
        let block = slabs.kmalloc(100, Gfp::KERNEL)?;
        // SAFETY: just allocated.
        unsafe { slabs.kfree(block) };
        done += 1;
        Some(())
    };
    let _ = steps();
    held.into_iter().for_each(|object| free(cache, object));
    done
}

#[test]
fn every_allocation_can_fail() {
    let world = World::small();
    world.run(|slabs| {
        for flags in all().chain([Flags::NO_MERGE]) {
            let spec = Spec::new("failing", 64).flags(flags);
            let cache = slabs.create(&spec).unwrap();
            let all = sequence(slabs, cache);
            assert_eq!(all, 7);
            let mut last = 0;
            for nth in 1.. {
                slabs.faults(|slab| slab.fail_nth(nth));
                let done = sequence(slabs, cache);
                assert_eq!(cache.validate(), 0, "{flags}");
                if slabs.faults(|slab| slab.pending()) {
                    assert_eq!(done, all);
                    break;
                }
                // Allocations of sheaves may fail on the way without harm.
                assert!(done >= last.min(all), "{flags}: {done} after {last}");
                last = last.max(done);
            }
            off(slabs);
            destroy(cache);
        }
        nothing_said();
    });
}

#[test]
fn only_of_chosen_caches() {
    let world = World::small();
    world.run(|slabs| {
        for flags in [Flags::NO_MERGE, U] {
            let [chosen, other] = ["chosen", "other"]
                .map(|name| slabs.create(&Spec::new(name, 64).flags(flags)).unwrap());
            slabs.faults(|slab| {
                slab.set("cache-filter", "on").unwrap();
                slab.set("times", "-1").unwrap();
                slab.set("probability", "100").unwrap();
            });
            let fails = |cache: &Cache, gfp| match cache.alloc(gfp) {
                Some(object) => {
                    free(cache, object);
                    false
                }
                None => true,
            };
            assert!(!fails(chosen, Gfp::ATOMIC));
            assert!(slabs.set_failslab("chosen", true) && !slabs.set_failslab("nobody", true));
            assert!(chosen.failslab() && !other.failslab());
            assert!(fails(chosen, Gfp::ATOMIC) && !fails(other, Gfp::ATOMIC));
            // As on Linux: not those that may sleep, unless that is switched off.
            assert!(!fails(chosen, Gfp::KERNEL));
            slabs.faults(|slab| slab.set("ignore-gfp-wait", "off").is_ok());
            assert!(fails(chosen, Gfp::KERNEL));
            slabs.faults(|slab| slab.set("cache-filter", "off").is_ok());
            assert!(fails(other, Gfp::KERNEL));
            off(slabs);
            assert!(!fails(chosen, Gfp::ATOMIC));
            [chosen, other].into_iter().for_each(destroy);
        }
        nothing_said();
    });
}

#[test]
fn by_interval_and_times_and_task() {
    let world = World::small();
    world.run(|slabs| {
        let spec = Spec::new("counted", 64).flags(Flags::NO_MERGE);
        let cache = slabs.create(&spec).unwrap();
        let failures = |tries| {
            let fails = |_| match cache.alloc(Gfp::ATOMIC) {
                Some(object) => {
                    free(cache, object);
                    false
                }
                None => true,
            };
            (0..tries).map(fails).filter(|failed| *failed).count()
        };
        // The sheaf of this CPU is there.
        free(cache, alloc(cache));
        let set = |knobs: Knobs| slabs.faults(|slab| slab.attr.configure(&knobs));
        let base = Knobs {
            probability: 100,
            times: -1,
            ..Knobs::OFF
        };
        set(Knobs {
            interval: 5,
            ..base
        });
        assert_eq!(failures(50), 10);
        set(Knobs { times: 3, ..base });
        assert_eq!(failures(50), 3);
        // Space is in bytes.
        set(Knobs { space: 641, ..base });
        assert_eq!(failures(50), 40);
        let me = <Hosted as mm::Machine>::thread_number();
        set(Knobs {
            task: Marks::one(me + 1),
            ..base
        });
        assert_eq!(failures(50), 0);
        set(Knobs {
            task: Marks::one(me),
            ..base
        });
        assert_eq!(failures(50), 50);
        off(slabs);
        destroy(cache);
        nothing_said();
    });
}

/// Several objects at once are one point, and what is in a prefilled sheaf never fails.
#[test]
fn filling_fails_and_what_is_there_does_not() {
    let world = World::small();
    world.run(|slabs| {
        for flags in [Flags::NO_MERGE, U] {
            let spec = Spec::new("filled", 64).flags(flags);
            let cache = slabs.create(&spec).unwrap();
            let mut prefilled = cache.prefill(Gfp::ATOMIC, 10).unwrap();
            assert!(slabs.set_failslab("filled", true));
            // Memory of sheaves is there all the same.
            slabs.faults(|slab| {
                slab.set("cache-filter", "on").unwrap();
                slab.set("times", "-1").unwrap();
                slab.set("probability", "100").unwrap();
            });
            let failures = || slabs.faults(|slab| slab.attr.failures());
            let before = failures();
            assert!(cache.prefill(Gfp::ATOMIC, 3).is_none());
            assert_eq!(failures(), before + 1);
            let mut room = [MaybeUninit::uninit(); 20];
            assert_eq!(cache.alloc_bulk(Gfp::ATOMIC, &mut room), 0);
            assert_eq!(failures(), before + 2);
            assert!(prefilled.refill(Gfp::ATOMIC, 10), "that is there");
            assert!(!prefilled.refill(Gfp::ATOMIC, prefilled.len() + 1));
            assert_eq!(failures(), before + 3);
            let objects: Vec<_> = (0..10)
                .map(|_| prefilled.alloc(Gfp::ATOMIC).expect("prefilled"))
                .collect();
            assert_eq!(failures(), before + 3);
            drop(prefilled);
            objects.into_iter().for_each(|object| free(cache, object));
            off(slabs);
            destroy(cache);
        }
        nothing_said();
    });
}
