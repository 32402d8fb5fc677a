//! Destruction: what goes back, what stays, and who is last.

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use mm::{
    Use,
    hosted::{Memory, Reports},
    report::Kind,
    slab::{CacheLock, Flags, KmemCache, Slabs, Spec},
};
use platform::{
    CpuId, IrqsOff, Platform,
    hosted::{Hosted, Machine},
};

use crate::world::{MIB, World, free, take};

/// What can be sent: an object of the test.
#[derive(Clone, Copy)]
struct Object(NonNull<u8>);
// SAFETY: memory that one thread after the other uses.
unsafe impl Send for Object {}
// SAFETY: the same.
unsafe impl Sync for Object {}

fn create(slabs: &'static Slabs<Hosted>, flags: Flags) -> &'static KmemCache<Hosted> {
    let spec = Spec::new("short", 200).flags(flags | Flags::NO_MERGE);
    slabs.create(&spec).unwrap()
}

/// All that was in sheaves of all CPUs, in barns and in slabs goes back.
#[test]
fn what_is_in_a_cache_goes_back_to_the_page_allocator() {
    let memory = Memory::builder().node(16 * MIB).node(16 * MIB);
    let world = World::new(Machine::builder().cpus(4).nodes(2), memory);
    world.shrink();
    let before = world.frames();
    for _ in 0..3 {
        let cache = world.run(|slabs| create(slabs, Flags::empty()));
        world.machine.run_on_all(|_| {
            let objects = take(cache, 500);
            free(cache, objects);
        });
        // SAFETY: the test's, and not used any more.
        world.run(|slabs| unsafe { slabs.destroy(cache) }).unwrap();
        world.run(|slabs| assert!(slabs.caches().find("short").is_none()));
    }
    world.shrink();
    // The descriptors' own slabs are kept for the next ones.
    assert!(world.frames() <= before + 4, "{} {before}", world.frames());
}

/// The objects that are in use are reported, each once, and freed later; with the last one the
/// cache goes.
#[test]
fn a_cache_with_objects_in_use_stays_until_the_last_one_is_freed() {
    let world = World::small();
    let (cache, objects) = world.run(|slabs| {
        let cache = create(slabs, Flags::empty());
        // Full slabs, partial ones, and free objects in sheaves.
        let mut objects = take(cache, 100);
        let freed = objects.split_off(70);
        free(cache, freed);
        (cache, objects)
    });
    let (name, id) = (cache.name().to_string(), cache.id());
    // SAFETY: the test's; objects are freed later.
    let leaked = world
        .run(|slabs| unsafe { slabs.destroy(cache) })
        .unwrap_err();
    assert_eq!((leaked.id, leaked.objects), (id, 70));
    assert!(leaked.to_string().contains("70 objects"), "{leaked}");
    let said = Reports::of(&world.machine).take();
    assert_eq!(said.len(), 70);
    for object in &objects {
        let text = format!("{object:?}");
        let of = |said: &&mm::hosted::Said| said.to_string().contains(&text);
        assert_eq!(said.iter().filter(of).count(), 1, "{text}");
    }
    assert!(said.iter().all(|said| said.kind == Kind::SlabLeak));
    world.run(|slabs| {
        let zombie = format!("{name}~{id}");
        {
            let caches = slabs.caches();
            assert!(caches.find(&name).is_none());
            let found = caches.find(&zombie).expect("it is listed");
            assert_eq!(found.title().to_string(), zombie);
            assert!(found.is_dying() && found.references() == 0);
        }
        for (number, object) in objects.into_iter().enumerate() {
            assert!(slabs.caches().find(&zombie).is_some(), "after {number}");
            // SAFETY: the test's, which are still there.
            unsafe { slabs.kfree(object) };
        }
        assert!(slabs.caches().find(&zombie).is_none(), "it has gone");
    });
}

/// The same from the other CPUs, from interrupts and without waiting.
#[test]
fn late_frees_may_come_from_anywhere() {
    let memory = Memory::builder().node(16 * MIB).node(16 * MIB);
    let world = World::new(Machine::builder().cpus(4).nodes(2), memory);
    for round in 0..20 {
        let objects: Vec<Object> = world.run(|slabs| {
            let cache = create(slabs, Flags::empty());
            let objects = take(cache, 60);
            // SAFETY: the test's; objects are freed later.
            unsafe { slabs.destroy(cache) }.unwrap_err();
            objects.into_iter().map(Object).collect()
        });
        assert_eq!(world.take_reports(Kind::SlabLeak), 60);
        let next = AtomicU32::new(0);
        world.machine.run_on_all(|_| {
            while let Some(object) = objects.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                // SAFETY: the test's; each is freed once.
                unsafe {
                    if round % 2 == 0 {
                        world.slabs().kfree(object.0);
                    } else {
                        world.slabs().kfree_nolock(object.0);
                    }
                }
            }
        });
        world.run(|slabs| {
            // What was deferred is made in an interrupt of its CPU.
            while slabs.caches().iter().any(KmemCache::is_dying) {
                Hosted::yield_now();
            }
        });
    }
}

/// Frees that were deferred are waited for.
#[test]
fn destruction_waits_for_deferred_frees() {
    let memory = Memory::builder().node(16 * MIB);
    let world = World::new(Machine::builder().cpus(2), memory);
    let deferred = AtomicU32::new(0);
    for _ in 0..50 {
        let cache = world.run(|slabs| create(slabs, Flags::empty()));
        world.run(|_| {
            let objects: Vec<Object> = take(cache, 40).into_iter().map(Object).collect();
            // In the middle of what takes locks: an NMI that frees.
            let left = std::sync::Mutex::new(objects);
            let nmi = world.machine.on_nmi(8, {
                let (cache, left) = (Shared(cache), &left);
                // SAFETY: the injection ends below, before what is borrowed goes.
                let left: &'static std::sync::Mutex<Vec<Object>> =
                    unsafe { &*core::ptr::from_ref(left) };
                move || {
                    let cache = &cache;
                    if let Ok(mut left) = left.try_lock()
                        && let Some(object) = left.pop()
                    {
                        // SAFETY: the test's.
                        unsafe { cache.0.free_nolock(object.0) };
                    }
                }
            });
            for _ in 0..10 {
                let objects = take(cache, 40);
                free(cache, objects);
            }
            drop(nmi);
            for object in left.lock().unwrap().drain(..) {
                deferred.fetch_add(1, Ordering::Relaxed);
                // SAFETY: the test's.
                unsafe { cache.free(object.0) };
            }
        });
        // SAFETY: the test's, and not used any more.
        world.run(|slabs| unsafe { slabs.destroy(cache) }).unwrap();
    }
}

/// One that is deferred on a CPU that keeps its interrupts off until the destruction is under way.
#[test]
fn destruction_waits_for_a_deferred_free_of_another_cpu() {
    let memory = Memory::builder().node(16 * MIB);
    let world = World::new(Machine::builder().cpus(2), memory);
    for _ in 0..10 {
        let cache = world.run(|slabs| {
            // Without sheaves, so that the free needs the list.
            let spec = Spec::new("deferred", 200).sheaf_capacity(0);
            slabs.create(&spec).unwrap()
        });
        let go = AtomicU32::new(0);
        world.machine.run_on_all(|cpu| {
            if cpu == CpuId::BOOT {
                while go.load(Ordering::Acquire) == 0 {
                    Hosted::yield_now();
                }
                // SAFETY: the free came before, and nothing is used any more.
                unsafe { world.slabs().destroy(cache) }.unwrap();
                return;
            }
            let object = take(cache, 1)[0];
            let irqs_off = IrqsOff::<Hosted>::disable();
            cache.while_locked(CacheLock::Lists, || {
                // SAFETY: the test's.
                unsafe { cache.free_nolock(object) };
            });
            go.store(1, Ordering::Release);
            std::thread::sleep(std::time::Duration::from_millis(5));
            drop(irqs_off);
        });
    }
}

/// A cache that handlers may name.
struct Shared(&'static KmemCache<Hosted>);

/// Slabs of a TYPESAFE_BY_RCU cache wait for their grace period, and destruction for them.
#[test]
fn destruction_waits_for_the_grace_period_of_typesafe_slabs() {
    let memory = Memory::builder().node(16 * MIB);
    let world = World::new(Machine::builder().cpus(2), memory);
    let used = || world.mm().counts().used[Use::Slab as usize];
    world.run_with_rcu(|slabs, _| {
        let before = used();
        for _ in 0..5 {
            let cache = create(slabs, Flags::TYPESAFE_BY_RCU);
            let objects = take(cache, 200);
            free(cache, objects);
            // SAFETY: the test's, and not used any more.
            unsafe { slabs.destroy(cache) }.unwrap();
            assert!(!slabs.caches().iter().any(KmemCache::is_dying));
        }
        // Slabs of descriptors are kept.
        assert!(used() <= before + 4);
    });
}

/// The same with an object in use: after it is freed the slab waits, and then the cache goes.
#[test]
fn a_typesafe_cache_goes_after_the_grace_period_of_its_last_slab() {
    let memory = Memory::builder().node(16 * MIB);
    let world = World::new(Machine::builder().cpus(2), memory);
    world.run_with_rcu(|slabs, engine| {
        let cache = create(slabs, Flags::TYPESAFE_BY_RCU);
        let object = take(cache, 1)[0];
        // SAFETY: the test's; freed later.
        unsafe {
            slabs.destroy(cache).unwrap_err();
            slabs.kfree(object);
        }
        engine.barrier();
        assert!(!slabs.caches().iter().any(KmemCache::is_dying));
    });
    assert_eq!(world.take_reports(Kind::SlabLeak), 1);
}

/// Before there is an engine its slabs wait for one; the cache, too.
#[test]
fn a_typesafe_cache_that_is_destroyed_before_there_is_rcu_waits_for_it() {
    let memory = Memory::builder().node(16 * MIB);
    let world = World::new(Machine::builder().cpus(2), memory);
    let dying = |slabs: &Slabs<Hosted>| {
        let caches = slabs.caches();
        caches.iter().filter(|cache| cache.is_dying()).count()
    };
    world.run(|slabs| {
        let cache = create(slabs, Flags::TYPESAFE_BY_RCU);
        let objects = take(cache, 50);
        free(cache, objects);
        // SAFETY: the test's, and not used any more.
        unsafe { slabs.destroy(cache) }.unwrap();
        assert_eq!(dying(slabs), 1);
    });
    world.run_with_rcu(|slabs, engine| {
        engine.barrier();
        assert_eq!(dying(slabs), 0);
    });
}

/// Sheaves of a CPU that has gone are given back; those of others stay.
#[test]
fn sheaves_of_a_cpu_that_goes_are_given_back() {
    let memory = Memory::builder().node(16 * MIB);
    let world = World::new(Machine::builder().cpus(2), memory);
    let cache = world.run(|slabs| create(slabs, Flags::empty()));
    world.machine.run_on_all(|_| {
        let objects = take(cache, 100);
        free(cache, objects);
    });
    let second = CpuId::from_index(1).unwrap();
    world.run(|slabs| {
        Hosted::offline(second, || ());
        // SAFETY: it does not run until it is brought back.
        unsafe { slabs.flush_offline(second) };
        // Those that are online are asked for theirs.
        cache.shrink();
        let nodes = world.mm().nodes();
        let counts = nodes.iter().filter_map(|node| cache.node_counts(node));
        assert_eq!(counts.map(|counts| counts.slabs).sum::<u64>(), 0);
        Hosted::online(second, || ());
    });
    world.machine.run_on_all(|_| {
        let objects = take(cache, 100);
        free(cache, objects);
    });
    // SAFETY: the test's, and not used any more.
    world.run(|slabs| unsafe { slabs.destroy(cache) }).unwrap();
}
