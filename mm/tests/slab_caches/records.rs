//! What is kept of caches that were destroyed.

use mm::{
    Gfp,
    hosted::{Memory, Reports, called_from},
    kvfree_rcu::{Head, InFlight},
    report::Kind,
    slab::{
        Cache, Flags, KmemCache, Slabs, Spec,
        records::{Histogram, RECORDS, STACKS},
        text::{Destroys, plain_stack},
    },
};
use platform::{
    Platform,
    hosted::{Hosted, Machine},
};

use crate::world::{MIB, World, free, rounds, take};

fn world() -> World {
    let memory = Memory::builder().node(16 * MIB);
    World::new(Machine::builder().cpus(2), memory)
}

fn create(slabs: &'static Slabs<Hosted>, name: &str, flags: Flags) -> &'static KmemCache<Hosted> {
    let spec = Spec::new(name, 200).flags(flags | Flags::NO_MERGE);
    slabs.create(&spec).unwrap()
}

#[test]
fn an_idle_cache_waits_for_nothing() {
    world().run_with_rcu(|slabs, _| {
        assert!(slabs.last_destroy().is_none());
        let cache = create(slabs, "idle", Flags::empty());
        let id = cache.id();
        free(cache, take(cache, 100));
        let all = cache.usage().slabs;
        // SAFETY: the test's, and not used any more.
        called_from(0x77, || unsafe { slabs.destroy(cache) }).unwrap();
        let record = slabs.last_destroy().unwrap();
        assert_eq!((record.name.as_str(), record.id), ("idle", id));
        assert_eq!(record.did, InFlight::default());
        assert_eq!((record.leaked, record.lingering), (0, false));
        assert!(record.slabs == all && all > 0, "{record:?}");
        assert_eq!(record.callers(), [0x77]);
        assert!(record.took_ns == record.call_ns && record.took_ns > 0);
    });
}

#[test]
fn objects_in_flight_cost_one_grace_period_and_none_if_it_has_passed() {
    world().run_with_rcu(|slabs, engine| {
        for passed in [false, true] {
            let cache = create(slabs, "busy", Flags::empty());
            for object in take(cache, 100) {
                // SAFETY: the test's, and large enough.
                unsafe { slabs.kfree_rcu(object, object.cast::<Head>()) };
            }
            // Not those that are still open: these have no name yet.
            if passed {
                slabs.kvfree_rcu_barrier_on_cache(cache);
            } else {
                // The drainers would be first.
                engine.hurry();
            }
            // SAFETY: the test's, and not used any more.
            unsafe { slabs.destroy(cache) }.unwrap();
            let did = slabs.last_destroy().unwrap().did;
            assert_eq!((did.calls, did.works), (0, 0));
            if passed {
                assert_eq!(did, InFlight::default());
            } else {
                assert!(did.freed > 0 && did.requested == 1, "{did:?}");
                assert!(did.grace_ns > 0);
            }
        }
    });
}

#[test]
fn boxes_cost_calls_and_objects_in_use_are_counted() {
    let world = world();
    world.run_with_rcu(|slabs, _| {
        let cache = Cache::<[u64; 40], _>::new(slabs, "boxed", Flags::NO_MERGE).unwrap();
        let boxed = cache.try_new([1; 40], Gfp::KERNEL).unwrap();
        cache.destroy().unwrap_err();
        let record = slabs.last_destroy().unwrap();
        assert_eq!((record.leaked, record.slabs), (1, 0));
        assert!(record.did.calls >= 1, "{record:?}");
        let calls = record.did.calls;
        assert_eq!(
            record.did,
            InFlight {
                calls,
                ..InFlight::default()
            }
        );
        drop(boxed);
    });
    assert_eq!(world.take_reports(Kind::SlabLeak), 1);
}

#[test]
fn slabs_that_wait_are_freed_by_the_destroyer_after_one_grace_period() {
    let world = world();
    world.run_with_rcu(|slabs, engine| {
        let waits = |slabs: &Slabs<Hosted>| {
            let mut arrows = slabs.arrows();
            arrows.find(|(name, _)| *name == "slab.waits").unwrap().1
        };
        let barriers = engine.stats().barriers;
        for round in 0..rounds(2000, 30) {
            let before = waits(slabs);
            let cache = create(slabs, "typesafe", Flags::TYPESAFE_BY_RCU);
            free(cache, take(cache, 200));
            if round % 2 == 1 {
                // Now some of them wait by themselves.
                cache.shrink();
                assert!(waits(slabs) > before);
                // Their callbacks come now, or now.
                engine.hurry();
                Hosted::park_until(Hosted::now_ns() + round * 20_000);
            }
            let usage = cache.usage();
            // SAFETY: the test's, and not used any more.
            unsafe { slabs.destroy(cache) }.unwrap();
            assert!(!slabs.caches().iter().any(KmemCache::is_dying));
            let did = slabs.last_destroy().unwrap().did;
            if round % 2 == 0 {
                assert_eq!(waits(slabs), before, "no slab has a callback");
                assert_eq!((did.requested, did.slab_waits), (1, 0), "{did:?}");
                assert!(did.slabs == usage.slabs && did.slabs > 0, "{did:?}");
            }
            assert!(did.requested <= 1, "{did:?}");
        }
        assert_eq!(
            engine.stats().barriers,
            barriers,
            "nobody else's are waited for"
        );
    });
}

#[test]
fn sums_are_of_all_and_the_last_ones_are_kept() {
    world().run(|slabs| {
        let destroy = |caller: usize| {
            let cache = create(slabs, "summed", Flags::empty());
            // SAFETY: the test's, and not used.
            called_from(caller, || unsafe { slabs.destroy(cache) }).unwrap();
        };
        let callers = STACKS + 4;
        for caller in 1..=callers {
            destroy(0x1000 * caller);
            destroy(0x1000 * caller);
        }
        let all = slabs.destroy_times();
        assert_eq!(all.direct.count, 2 * callers as u64);
        assert_eq!(all.histogram.0.iter().sum::<u64>(), all.direct.count);
        assert_eq!((all.lingering.count, all.others.count), (0, 8));
        let mut total = all.others.total_ns;
        for number in 0..STACKS {
            let stack = slabs.destroy_stack(number).unwrap();
            assert_eq!(stack.callers(), [0x1000 * (number + 1)]);
            assert_eq!(stack.times.count, 2);
            total += stack.times.total_ns;
        }
        assert_eq!(total, all.direct.total_ns);
        assert!(slabs.destroy_stack(STACKS).is_none());
        let records: Vec<_> = (0..)
            .map_while(|before| slabs.destroy_record(before))
            .collect();
        assert_eq!(records.len(), RECORDS);
        for (before, record) in records.iter().enumerate() {
            assert_eq!(record.callers(), [0x1000 * (callers - before / 2)]);
        }
        assert!(records.is_sorted_by_key(|record| core::cmp::Reverse(record.id)));
        let text = Destroys(slabs, plain_stack).to_string();
        assert!(text.starts_with("destroyed: 40, "), "{text}");
        assert!(text.contains("\n  others: 8, "), "{text}");
        assert_eq!(text.matches("nothing in flight").count(), RECORDS, "{text}");
        slabs.reset_destroys();
        assert!(slabs.last_destroy().is_none() && slabs.destroy_stack(0).is_none());
        assert_eq!(slabs.destroy_times().direct.count, 0);
        assert!(Reports::here().take().is_empty());
    });
    assert_eq!(Histogram::bucket(0), 0);
    assert_eq!(Histogram::bucket(1023), 10);
    assert_eq!(Histogram::bucket(1024), 11);
    assert_eq!(Histogram::bucket(u64::MAX), 39);
}
