//! Caches whose end is left to the background.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use mm::{
    Gfp, Use,
    hosted::{Memory, Reports},
    kvfree_rcu::Head,
    report::Kind,
    slab::{Cache, Flags, KmemCache, SlabBox, Slabs, Spec, Stage, records::RECORDS},
};
use platform::{
    CpuId, Platform,
    hosted::{Hosted, Machine},
};

use crate::world::{MIB, World, rounds, take};

fn world(cpus: usize) -> World {
    let memory = Memory::builder().node(32 * MIB);
    World::new(Machine::builder().cpus(cpus), memory)
}

fn create(slabs: &'static Slabs<Hosted>, flags: Flags) -> &'static KmemCache<Hosted> {
    let spec = Spec::new("same", 200).flags(flags | Flags::NO_MERGE);
    slabs.create(&spec).expect("its name is free")
}

fn free_rcu(slabs: &Slabs<Hosted>, cache: &KmemCache<Hosted>, count: usize) {
    for object in take(cache, count) {
        // SAFETY: the test's, and large enough.
        unsafe { slabs.kfree_rcu(object, object.cast::<Head>()) };
    }
}

fn arrow(slabs: &Slabs<Hosted>, name: &str) -> u64 {
    let found = slabs.arrows().find(|(arrow, _)| *arrow == name);
    found.expect("an arrow's name").1
}

fn any_is_dying(slabs: &Slabs<Hosted>) -> bool {
    slabs.caches().iter().any(KmemCache::is_dying)
}

/// Runs `f` while another CPU is in a section: no grace period ends, and no CPU is met outside of sections.
fn while_reading(world: &World, f: impl FnOnce()) {
    let flags = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
    let [begun, end] = &*flags;
    let reader = {
        let flags = Arc::clone(&flags);
        world
            .machine
            .spawn_on(CpuId::from_index(1).unwrap(), move || {
                let [begun, end] = &*flags;
                let guard = rcu::hosted::read();
                begun.store(true, Ordering::Release);
                while !end.load(Ordering::Acquire) {
                    // Where interrupts come.
                    Hosted::relax();
                }
                drop(guard);
            })
    };
    while !begun.load(Ordering::Acquire) {
        Hosted::yield_now();
    }
    f();
    end.store(true, Ordering::Release);
    reader.join();
}

/// The old ones have objects in flight all the time.
#[test]
fn a_name_is_free_while_old_caches_linger() {
    let world = world(4);
    world.run_with_rcu(|slabs, _| {
        let rounds = rounds(5000, 1500);
        let (mut first, mut both) = (0, 0);
        for round in 0..rounds {
            let cache = create(slabs, Flags::empty());
            if round == 0 {
                first = cache.id();
            }
            assert_eq!(cache.stage(), Stage::Live);
            free_rcu(slabs, cache, round as usize % 40);
            {
                let caches = slabs.caches();
                let now = caches.find("same").expect("it is there");
                assert_eq!(
                    (now.id(), now.title().to_string()),
                    (cache.id(), "same".into())
                );
                for old in caches.iter().filter(|cache| cache.is_dying()) {
                    let title = format!("same~{}", old.id());
                    assert_eq!(old.title().to_string(), title);
                    assert!(core::ptr::eq(caches.find(&title).unwrap(), old));
                    both += 1;
                }
            }
            // SAFETY: the test's, and not used any more.
            unsafe { slabs.destroy_lingering(cache) };
        }
        slabs.sync_lingering();
        assert!(!any_is_dying(slabs));
        assert!(both > rounds / 10, "hardly ever two at a time: {both}");
        let times = slabs.destroy_times();
        assert_eq!((times.lingering.count, times.direct.count), (rounds, 0));
        assert_eq!(arrow(slabs, "linger.gone"), rounds);
        let last = slabs.last_destroy().unwrap();
        assert!(last.lingering && last.took_ns >= last.call_ns && last.id >= first + rounds - 1);
    });
}

#[test]
fn who_asks_waits_for_nothing_and_all_share_a_grace_period() {
    const CACHES: u64 = 28;
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let mut ids = Vec::new();
        while_reading(&world, || {
            for number in 0..CACHES {
                let typesafe = number % 4 == 3;
                let cache = create(
                    slabs,
                    if typesafe {
                        Flags::TYPESAFE_BY_RCU
                    } else {
                        Flags::empty()
                    },
                );
                free_rcu(slabs, cache, 50);
                let periods = engine.stats().grace_periods + engine.stats().expedited;
                // SAFETY: the test's, and not used any more. (It ends, or this would wait for the reader.)
                unsafe { slabs.destroy_lingering(cache) };
                assert_eq!(
                    engine.stats().grace_periods + engine.stats().expedited,
                    periods
                );
                ids.push(cache.id());
            }
            let caches = slabs.caches();
            for id in &ids {
                let found = caches.find(&format!("same~{id}")).expect("it lingers");
                assert_eq!(found.stage(), Stage::Lingering);
                assert!(found.has_in_flight());
            }
            assert!(slabs.last_destroy().is_none());
        });
        slabs.sync_lingering();
        assert!(!any_is_dying(slabs));
        assert!(CACHES <= RECORDS as u64);
        let mut records: Vec<_> = (0..)
            .map_while(|before| slabs.destroy_record(before))
            .collect();
        records.reverse();
        assert!(
            records.iter().map(|record| record.id).eq(ids),
            "in their order"
        );
        assert!(
            records
                .iter()
                .all(|record| record.did.calls == 0 && record.leaked == 0)
        );
        // Those that came while the first ones waited are the second batch.
        let asked = records
            .iter()
            .map(|record| u64::from(record.did.requested))
            .sum::<u64>();
        assert!((1..=4).contains(&asked), "{records:?}");
        assert_eq!(
            arrow(slabs, "linger.synchronize") + arrow(slabs, "linger.synchronize_slabs"),
            asked
        );
        assert!(arrow(slabs, "linger.synchronize_slabs") > 0);
        assert!(records.iter().all(|record| record.call_ns < record.took_ns));
    });
}

#[test]
fn what_is_left_is_reported_and_stays_until_it_is_freed() {
    let world = world(2);
    world.run_with_rcu(|slabs, _| {
        let cache = create(slabs, Flags::empty());
        let title = format!("same~{}", cache.id());
        let mut left = take(cache, 5);
        free_rcu(slabs, cache, 20);
        // SAFETY: the test's; five objects are freed later.
        unsafe { slabs.destroy_lingering(cache) };
        slabs.sync_lingering();
        assert_eq!(slabs.last_destroy().unwrap().leaked, 5);
        assert_eq!(arrow(slabs, "linger.zombie"), 1);
        while let Some(object) = left.pop() {
            assert_eq!(slabs.caches().find(&title).unwrap().stage(), Stage::Zombie);
            // The last one by another road.
            // SAFETY: the test's, which are still there.
            unsafe {
                if left.is_empty() {
                    slabs.kfree_rcu(object, object.cast::<Head>());
                    slabs.kvfree_rcu_barrier();
                } else {
                    slabs.kfree(object);
                }
            }
        }
        assert!(slabs.caches().find(&title).is_none());
    });
    assert_eq!(world.take_reports(Kind::SlabLeak), 5);
}

/// Objects are freed while the background ends their cache.
#[test]
fn late_frees_may_race_the_background() {
    let world = world(2);
    world.run_with_rcu(|slabs, _| {
        for round in 0..rounds(2000, 100) {
            let flags = if round % 3 == 0 {
                Flags::TYPESAFE_BY_RCU
            } else {
                Flags::empty()
            };
            let cache = create(slabs, flags);
            let left = take(cache, 60);
            free_rcu(slabs, cache, 20);
            // SAFETY: the test's; objects are freed later.
            unsafe { slabs.destroy_lingering(cache) };
            for (number, object) in left.into_iter().enumerate() {
                // SAFETY: the test's, after it was destroyed.
                unsafe {
                    if number % 2 == 0 {
                        slabs.kfree(object);
                    } else {
                        slabs.kfree_rcu(object, object.cast::<Head>());
                    }
                }
                if number % 16 == 0 {
                    Hosted::yield_now();
                }
            }
            slabs.sync_lingering();
            slabs.kvfree_rcu_barrier();
            // A slab of theirs may wait by itself.
            while any_is_dying(slabs) {
                assert_eq!(round % 3, 0, "only slabs wait");
                Hosted::yield_now();
            }
            Reports::here().take();
        }
    });
}

#[test]
fn without_a_thread_it_is_done_in_place() {
    let world = world(2);
    world.run(|slabs| {
        let cache = create(slabs, Flags::empty());
        // SAFETY: the test's, and not used any more.
        unsafe { slabs.destroy_lingering_named(cache, "same") };
        assert!(!any_is_dying(slabs));
        assert!(!slabs.last_destroy().unwrap().lingering);
        assert_eq!(
            (
                arrow(slabs, "linger.in_place"),
                arrow(slabs, "linger.queue")
            ),
            (1, 0)
        );
        slabs.sync_lingering();
    });
}

/// What lingers when the machine ends does so first.
#[test]
fn the_thread_ends_all_before_it_ends() {
    let world = world(2);
    let used = || world.mm().counts().used[Use::Slab as usize];
    world.run_with_rcu(|slabs, _| {
        for _ in 0..50 {
            let cache = create(slabs, Flags::empty());
            free_rcu(slabs, cache, 30);
            // SAFETY: the test's, and not used any more.
            unsafe { slabs.destroy_lingering(cache) };
        }
    });
    world.run(|slabs| {
        assert!(!any_is_dying(slabs));
        assert_eq!(slabs.destroy_times().lingering.count, 50);
        assert!(used() > 0, "the allocator's own");
    });
}

/// A cache of a type that is dropped lingers; all boxes that were dropped before, and are dropped meanwhile, go well. (The
/// other CPU is in a section, so nobody has called it, nor waited for a grace period, when the drop returns.)
#[test]
fn a_typed_cache_that_is_dropped_lingers() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let new = || Cache::<[u64; 9], _>::new(slabs, "typed", Flags::NO_MERGE).unwrap();
        while_reading(&world, || {
            for _ in 0..10 {
                let cache = new();
                let boxes: Vec<_> = (0..50)
                    .map(|_| cache.try_new([1; 9], Gfp::KERNEL))
                    .collect();
                let before = engine.stats();
                drop(cache);
                drop(boxes);
                assert_eq!(engine.stats().expedited, before.expedited);
                assert_eq!(engine.stats().grace_periods, before.grace_periods);
            }
            // The thread has begun with some, which call the reader's CPU.
            assert!(slabs.last_destroy().is_none());
        });
        slabs.sync_lingering();
        let records: Vec<_> = (0..)
            .map_while(|before| slabs.destroy_record(before))
            .collect();
        assert_eq!(records.len(), 10);
        let called = records.iter().filter(|record| record.did.calls > 0).count() as u64;
        assert_eq!(called, arrow(slabs, "linger.call"));
        assert!(
            (1..=2).contains(&called),
            "once for all of a batch: {records:?}"
        );
        assert!(!any_is_dying(slabs));
    });
}

/// Boxes are dropped on all CPUs, in interrupts too, while their cache goes in the background.
#[test]
fn drops_may_race_the_background() {
    type Boxes = Vec<SlabBox<[u64; 9], Hosted>>;
    let world = world(3);
    let _slow = world.machine.on_interrupt(8, || {
        std::thread::sleep(std::time::Duration::from_micros(20));
    });
    world.run_with_rcu(|slabs, _| {
        let mut leaks = 0;
        for round in 0..rounds(2000, 60) {
            let cache = Cache::<[u64; 9], _>::new(slabs, "raced", Flags::NO_MERGE).unwrap();
            let new = |_| cache.try_new([round; 9], Gfp::KERNEL).unwrap();
            let boxes: Vec<Mutex<Boxes>> = (0..3)
                .map(|_| (0..60).map(new).collect())
                .map(Mutex::new)
                .collect();
            let boxes = Arc::new(boxes);
            let droppers: Vec<_> = (1..3)
                .map(|number| {
                    let boxes = Arc::clone(&boxes);
                    let cpu = CpuId::from_index(number).unwrap();
                    world.machine.spawn_on(cpu, move || {
                        let mine = core::mem::take(&mut *boxes[number].lock().unwrap());
                        for boxed in mine {
                            assert!(boxed.iter().all(|word| *word == round));
                        }
                    })
                })
                .collect();
            drop(cache);
            drop(core::mem::take(&mut *boxes[0].lock().unwrap()));
            droppers.into_iter().for_each(|dropper| dropper.join());
            slabs.sync_lingering();
            assert!(!any_is_dying(slabs));
            leaks += Reports::here().take().len();
        }
        println!("{leaks} boxes outlived their cache");
    });
}
