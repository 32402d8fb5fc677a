//! Caches that end while other CPUs make their objects leave.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use mm::{Gfp, hosted::Memory};
use platform::{
    CpuId, Platform,
    hosted::{Hosted, Machine},
};

use crate::{
    Cache, cache, count, end, other, pair, walk,
    world::{MIB, World, free, rounds, take},
};

/// A CPU frees all objects of a cache and goes on to free others, for which these leave; meanwhile another CPU
/// destroys the cache. No object is lost, and no cache is gone before its last one rests.
#[test]
fn caches_end_while_others_free_their_objects() {
    for seed in 0..rounds(40, 4) {
        let machine = Machine::builder().cpus(4).nodes(2).seed(seed);
        let memory = Memory::builder().node(24 * MIB).node(24 * MIB);
        let world = World::new(machine, memory);
        let slabs = world.slabs();
        world.run(|slabs| slabs.set_quarantine(3_000));
        let over = AtomicBool::new(false);
        let given: Mutex<Vec<&'static Cache>> = Mutex::default();
        let given = || given.lock().unwrap_or_else(PoisonError::into_inner);
        world.machine.run_on_all(|cpu| {
            if cpu == CpuId::BOOT {
                for round in 0..rounds(300, 60) {
                    if round % 16 == 7 {
                        let limit = if round % 32 < 16 { 0 } else { 1_000 };
                        slabs.set_quarantine(limit);
                        // It holds at once, whatever others are doing.
                        for cpu in Hosted::possible_cpus().iter() {
                            let inside = slabs.quarantined(cpu);
                            assert!(inside.bytes <= limit, "cpu{cpu}: {inside:?}");
                        }
                        slabs.set_quarantine(3_000);
                    }
                    let first = given().pop();
                    if let Some(cache) = first {
                        end(slabs, cache);
                    }
                    Hosted::yield_now();
                }
                over.store(true, Relaxed);
                return;
            }
            let mut round = 0_usize;
            // At least some each.
            while round < 3 || !over.load(Relaxed) {
                let name = format!("cpu{cpu}-{round}");
                let cache = cache(slabs, &name, 40 + 8 * (round % 20));
                free(cache, take(cache, 30));
                if round.is_multiple_of(3) || given().len() > 10 {
                    end(slabs, cache);
                } else {
                    given().push(cache);
                }
                for size in [100, 600, 100, 40] {
                    let small = slabs.kmalloc(size, Gfp::KERNEL).expect("memory");
                    // SAFETY: allocated above.
                    unsafe { slabs.kfree(small) };
                }
                round += 1;
            }
        });
        world.run(|slabs| {
            walk(slabs);
            given().drain(..).for_each(|cache| end(slabs, cache));
            slabs.set_quarantine(0);
            assert_eq!(walk(slabs), 0);
        });
    }
}

/// A CPU is held up by interrupts while it has an object in hand that has left its queue; whoever destroys the cache
/// waits for it, or finds it at rest.
#[test]
fn who_destroys_a_cache_waits_for_what_is_leaving() {
    let world = pair();
    let slow = std::sync::Arc::new(AtomicBool::new(false));
    let held_up = std::sync::Arc::new(AtomicU64::new(0));
    let interrupt = {
        let (slow, held_up) = (slow.clone(), held_up.clone());
        world.machine.on_interrupt(1, move || {
            if slow.load(Relaxed) && Hosted::current_cpu() == other() {
                held_up.fetch_add(1, Relaxed);
                std::thread::sleep(Duration::from_micros(300));
            }
        })
    };
    let slabs = world.slabs();
    let on_other = |f: fn(&'static Cache), cache| world.machine.spawn_on(other(), move || f(cache));
    for round in 0..rounds(200, 24) {
        world.run(|slabs| {
            slabs.set_quarantine(1 << 20);
            let few = round % 2 == 0;
            let cache = cache(slabs, "leaving", 64);
            let fill: fn(&'static Cache) = if few {
                |cache| free(cache, take(cache, 1))
            } else {
                |cache| free(cache, take(cache, 12))
            };
            on_other(fill, cache).join();
            slow.store(true, Relaxed);
            let drains = on_other(|cache| cache.slabs().set_quarantine(0), cache);
            if few {
                // Whoever sees that there is none left knows that it is free.
                while cache.quarantined() > 0 {
                    Hosted::relax();
                }
            } else {
                while cache.quarantined() == 12 {
                    Hosted::relax();
                }
                std::thread::sleep(Duration::from_micros(round * 17 % 400));
            }
            end(slabs, cache);
            slow.store(false, Relaxed);
            drains.join();
        });
    }
    drop(interrupt);
    assert!(held_up.load(Relaxed) > 0);
    world.run(|_| assert_eq!(walk(slabs), 0));
}

/// A CPU is held up by interrupts in the middle of a free; meanwhile the quarantine is switched off: the free does not put
/// anything into it afterwards.
#[test]
fn switched_off_it_stays_empty() {
    let world = pair();
    let busy = std::sync::Arc::new(AtomicBool::new(true));
    let interrupt = {
        let busy = busy.clone();
        world.machine.on_interrupt(1, move || {
            if busy.load(Relaxed) && Hosted::current_cpu() == other() {
                std::thread::sleep(Duration::from_micros(200));
            }
        })
    };
    world.run(|slabs| {
        let cache = cache(slabs, "switched", 64);
        let frees = {
            let busy = busy.clone();
            world.machine.spawn_on(other(), move || {
                while busy.load(Relaxed) {
                    free(cache, take(cache, 1));
                }
            })
        };
        for round in 0..rounds(400, 50) {
            slabs.set_quarantine(1 << 20);
            std::thread::sleep(Duration::from_micros(1_500 + 97 * (round % 32)));
            slabs.set_quarantine(0);
            for _ in 0..5 {
                assert_eq!(cache.quarantined(), 0, "round {round}");
                std::thread::sleep(Duration::from_micros(400));
            }
        }
        busy.store(false, Relaxed);
        frees.join();
        assert!(count(slabs, "quarantine.drain") > 0);
        end(slabs, cache);
    });
    drop(interrupt);
}
