//! Values of a type that readers find under RCU.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use mm::{
    Gfp,
    hosted::{Memory, Reports},
    report::Kind,
    slab::{
        Cache, Flags, KmemCache, Slabs,
        typed::{Rcu, RcuBox, RcuCache, kfree_rcu},
    },
};
use platform::{
    CpuId, Platform,
    hosted::{Hosted, Machine},
};

use crate::world::{MIB, World, rounds};

fn world(cpus: usize) -> World {
    let memory = Memory::builder().node(32 * MIB);
    World::new(Machine::builder().cpus(cpus), memory)
}

/// Counts its drops, and is found damaged after one.
#[derive(Debug)]
struct Value {
    number: u64,
    canary: AtomicU64,
    dropped: Arc<AtomicU32>,
    /// That it was dropped where it may sleep.
    slept: Arc<AtomicU32>,
}

const CANARY: u64 = 0x5eed_cafe;

impl Value {
    fn check(&self) -> u64 {
        assert_eq!(self.canary.load(Ordering::Relaxed), CANARY);
        self.number
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        let was = self.canary.swap(0, Ordering::Relaxed);
        assert_eq!(was, CANARY, "dropped twice");
        self.dropped.fetch_add(1, Ordering::Relaxed);
        let slept = u32::from(Hosted::may_sleep());
        self.slept.fetch_add(slept, Ordering::Relaxed);
    }
}

/// What makes values, and knows how many were dropped.
#[derive(Default)]
struct Maker {
    dropped: Arc<AtomicU32>,
    slept: Arc<AtomicU32>,
}

impl Maker {
    fn value(&self, number: u64) -> Value {
        Value {
            number,
            canary: AtomicU64::new(CANARY),
            dropped: Arc::clone(&self.dropped),
            slept: Arc::clone(&self.slept),
        }
    }

    fn boxed(&self, cache: &RcuCache<Value, Hosted>, number: u64) -> RcuBox<Value, Hosted> {
        let boxed = cache.try_new(self.value(number), Gfp::KERNEL);
        boxed.unwrap_or_else(|_| panic!("no memory"))
    }

    fn dropped(&self) -> u32 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn new(slabs: &'static Slabs<Hosted>) -> RcuCache<Value, Hosted> {
    RcuCache::new(slabs, "values", Flags::empty()).unwrap()
}

fn arrow(slabs: &Slabs<Hosted>, name: &str) -> u64 {
    let found = slabs.arrows().find(|(arrow, _)| *arrow == name);
    found.expect("an arrow's name").1
}

fn wait_for(flag: &AtomicBool) {
    while !flag.load(Ordering::Acquire) {
        // Where interrupts come.
        Hosted::relax();
    }
}

/// A reader on another CPU has the value; the updater has let go of it.
#[test]
fn a_value_is_dropped_once_after_its_readers() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let (cache, maker) = (new(slabs), Maker::default());
        let place = Arc::new(Rcu::new(maker.boxed(&cache, 1)));
        let (found, end) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let reader = {
            let (place, found, end) = (Arc::clone(&place), Arc::clone(&found), Arc::clone(&end));
            world
                .machine
                .spawn_on(CpuId::from_index(1).unwrap(), move || {
                    let guard = rcu::hosted::read();
                    let value = place.read(&guard).expect("it is there");
                    found.store(true, Ordering::Release);
                    wait_for(&end);
                    assert_eq!(value.check(), 1);
                    drop(guard);
                    let guard = rcu::hosted::read();
                    assert_eq!(place.read(&guard).expect("the other one").check(), 2);
                })
        };
        while !found.load(Ordering::Acquire) {
            Hosted::yield_now();
        }
        let retired = place.replace(Some(maker.boxed(&cache, 2))).unwrap();
        assert_eq!(retired.check(), 1);
        // All that could free it too early.
        drop(retired);
        engine.hurry();
        for _ in 0..50 {
            Hosted::park_until(Hosted::now_ns() + 100_000);
            assert_eq!(maker.dropped(), 0, "a reader has it");
        }
        end.store(true, Ordering::Release);
        reader.join();
        slabs.kvfree_rcu_barrier_on_cache(cache.raw());
        assert_eq!(maker.dropped(), 1);
        drop(place);
        assert_eq!(maker.dropped(), 1, "retired, not dropped");
        cache.destroy().unwrap();
        assert_eq!(maker.dropped(), 2);
        assert_eq!(maker.slept.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_retired_value_comes_back_after_its_readers() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let (cache, maker) = (new(slabs), Maker::default());
        let mut place = Rcu::new(maker.boxed(&cache, 1));
        place.get_mut().unwrap().number = 3;
        let guard = rcu::hosted::read();
        let value = place.read(&guard).unwrap();
        let retired = place.replace(None).unwrap();
        let retired = retired.try_take().expect_err("there is a reader");
        assert_eq!((value.check(), retired.check()), (3, 3));
        assert!(place.read(&guard).is_none());
        drop(guard);
        let mut boxed = retired.synchronize();
        boxed.number = 4;
        place = Rcu::from(Some(boxed));
        let retired = place.replace(Some(maker.boxed(&cache, 5))).unwrap();
        engine.synchronize();
        assert_eq!(retired.try_take().expect("a grace period").check(), 4);
        assert_eq!(maker.dropped(), 1);
        assert_eq!(RcuBox::into_inner(place.into_inner().unwrap()).check(), 5);
        assert_eq!(maker.dropped(), 2);
        // Forgotten: they leak, and nothing worse.
        core::mem::forget(Rcu::new(maker.boxed(&cache, 6)));
        let place = Rcu::new(maker.boxed(&cache, 7));
        core::mem::forget(place.replace(None));
        assert_eq!(cache.destroy().unwrap_err().objects, 2);
        assert_eq!(maker.dropped(), 2);
    });
    assert_eq!(world.take_reports(Kind::SlabLeak), 2);
    world.leaked.set(1);
}

/// Without memory for sheaves and pages the head is used, in a section, too.
#[test]
fn giving_up_needs_no_memory_and_waits_for_nothing() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let maker = Maker::default();
        // Of a debug cache nothing goes into sheaves.
        let cache = RcuCache::new(slabs, "values", Flags::CONSISTENCY_CHECKS).unwrap();
        let boxes: Vec<_> = (0..300).map(|number| maker.boxed(&cache, number)).collect();
        let chained = arrow(slabs, "rcu.chain");
        world.mm().debug().faults(|page| {
            page.fail_nth(0);
            page.attr.configure(&mm::fault::Knobs {
                probability: 100,
                times: -1,
                verbose: 0,
                ..mm::fault::Knobs::OFF
            });
        });
        let guard = rcu::hosted::read();
        let before = engine.stats();
        boxes.into_iter().for_each(kfree_rcu);
        assert_eq!(engine.stats().expedited, before.expedited);
        drop(guard);
        world
            .mm()
            .debug()
            .faults(|page| page.attr.configure(&mm::fault::Knobs::OFF));
        assert!(arrow(slabs, "rcu.chain") > chained, "by their heads");
        cache.destroy().unwrap();
        assert_eq!(maker.dropped(), 300);
    });
}

#[test]
fn boxes_of_plain_caches_may_have_to_wait() {
    let world = world(2);
    world.run_with_rcu(|slabs, _| {
        let maker = Maker::default();
        let cache = Cache::new(slabs, "plain", Flags::CONSISTENCY_CHECKS).unwrap();
        let boxed = |number| {
            let boxed = cache.try_new(maker.value(number), Gfp::KERNEL);
            boxed.unwrap_or_else(|_| panic!("no memory"))
        };
        boxed(1).free_rcu_mightsleep();
        assert_eq!(maker.dropped(), 0);
        slabs.kvfree_rcu_barrier_on_cache(cache.raw());
        assert_eq!(maker.dropped(), 1);
        let more: Vec<_> = (0..6000).map(boxed).collect();
        world.mm().debug().faults(|page| {
            page.fail_nth(0);
            page.attr.configure(&mm::fault::Knobs {
                probability: 100,
                times: -1,
                verbose: 0,
                ..mm::fault::Knobs::OFF
            });
        });
        let mut more = more.into_iter();
        // More than a page of pointers has room for; again, should the drainer have been quicker.
        while arrow(slabs, "rcu.synchronize") == 0 && more.len() > 0 {
            let some = more.by_ref().take(600);
            some.for_each(|boxed| boxed.free_rcu_mightsleep());
        }
        drop(more);
        world
            .mm()
            .debug()
            .faults(|page| page.attr.configure(&mm::fault::Knobs::OFF));
        assert!(arrow(slabs, "rcu.synchronize") > 0);
        cache.destroy().unwrap();
        assert_eq!(maker.dropped(), 6001);
    });
}

/// A barrier waits for what others took while it waited for the grace period.
#[test]
fn barriers_wait_for_drops_that_are_under_way() {
    struct Slow(Arc<AtomicU32>);
    impl Drop for Slow {
        fn drop(&mut self) {
            std::thread::sleep(std::time::Duration::from_micros(200));
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let world = world(3);
    world.run_with_rcu(|slabs, _| {
        let end = Arc::new(AtomicBool::new(false));
        // Somebody who takes what he comes upon, at any time.
        let other = {
            let end = Arc::clone(&end);
            world
                .machine
                .spawn_on(CpuId::from_index(1).unwrap(), move || {
                    while !end.load(Ordering::Acquire) {
                        slabs.flush_kvfree_rcu();
                        Hosted::yield_now();
                    }
                })
        };
        let cache = RcuCache::new(slabs, "slow", Flags::empty()).unwrap();
        let dropped = Arc::new(AtomicU32::new(0));
        for round in 1..=rounds(2000, 150) as u32 {
            let Ok(boxed) = cache.try_new(Slow(Arc::clone(&dropped)), Gfp::KERNEL) else {
                panic!("no memory");
            };
            boxed.free_rcu();
            if round % 2 == 0 {
                slabs.kvfree_rcu_barrier();
            } else {
                slabs.kvfree_rcu_barrier_on_cache(cache.raw());
            }
            assert_eq!(dropped.load(Ordering::Relaxed), round);
        }
        end.store(true, Ordering::Release);
        other.join();
        cache.destroy().unwrap();
    });
}

/// All CPUs give boxes up, and read others, while the cache is destroyed, or lingers. Each value is dropped once.
#[test]
fn boxes_may_be_given_up_while_their_cache_goes() {
    let world = world(3);
    // Interrupts that take as long as the end of a cache.
    let _slow = world.machine.on_interrupt(64, || {
        std::thread::sleep(std::time::Duration::from_millis(2));
    });
    world.run_with_rcu(|slabs, _| {
        const EACH: u64 = 20;
        let mut leaks = 0;
        for round in 0..rounds(2000, 80) {
            let (cache, maker) = (new(slabs), Maker::default());
            let places: Arc<Vec<_>> = Arc::new(
                (0..3)
                    .map(|number| Rcu::new(maker.boxed(&cache, number)))
                    .collect(),
            );
            let threads: Vec<_> = (1..3)
                .map(|number| {
                    let boxes: Vec<_> = (0..EACH).map(|n| maker.boxed(&cache, 10 + n)).collect();
                    let places = Arc::clone(&places);
                    let cpu = CpuId::from_index(number).unwrap();
                    world.machine.spawn_on(cpu, move || {
                        for (at, boxed) in boxes.into_iter().enumerate() {
                            let guard = rcu::hosted::read();
                            let found = places[at % 3].read(&guard).expect("one is there");
                            found.check();
                            // In a section, and outside of it.
                            let mut boxed = Some(boxed);
                            match at % 4 {
                                0 => drop(places[at % 3].replace(boxed.take())),
                                1 => boxed.take().unwrap().free_rcu(),
                                _ => {}
                            }
                            found.check();
                            drop(guard);
                            match at % 4 {
                                2 => drop(boxed),
                                _ => boxed.into_iter().for_each(kfree_rcu),
                            }
                        }
                    })
                })
                .collect();
            if round % 2 == 0 {
                drop(cache);
            } else {
                // Some may be in use.
                let _ = cache.destroy();
            }
            threads.into_iter().for_each(|thread| thread.join());
            drop(places);
            slabs.sync_lingering();
            slabs.kvfree_rcu_barrier();
            assert_eq!(maker.dropped(), 3 + 2 * EACH as u32);
            assert!(!slabs.caches().iter().any(KmemCache::is_dying));
            leaks += Reports::here().take().len();
        }
        assert!(leaks > 0, "never destroyed with boxes in use");
    });
}

/// A value may have the last hold on its own cache, and on other ones.
#[test]
fn a_value_may_drop_caches() {
    struct Owner {
        _cache: RcuCache<u64, Hosted>,
        boxed: Option<RcuBox<u64, Hosted>>,
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            self.boxed.take().unwrap().free_rcu();
        }
    }
    let world = world(2);
    world.run_with_rcu(|slabs, _| {
        let owners = RcuCache::new(slabs, "owners", Flags::empty()).unwrap();
        for _ in 0..50 {
            let cache = RcuCache::new(slabs, "numbers", Flags::NO_MERGE).unwrap();
            let boxed = cache.try_new(5, Gfp::KERNEL).ok();
            let owner = Owner {
                _cache: cache,
                boxed,
            };
            let Ok(owner) = owners.try_new(owner, Gfp::KERNEL) else {
                panic!("no memory");
            };
            owner.free_rcu();
            // The name is free when the owner has gone.
            slabs.kvfree_rcu_barrier_on_cache(owners.raw());
        }
        owners.destroy().unwrap();
        slabs.sync_lingering();
        assert!(!slabs.caches().iter().any(KmemCache::is_dying));
        assert_eq!(slabs.destroy_times().lingering.count, 50);
    });
}
