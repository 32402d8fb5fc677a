//! CPUs that go while something waits there.

use mm::slab::Flags;
use platform::hosted::Hosted;

use crate::common::{
    OF_SHEAF, Section, Shared, count, cpu, create, destroy, free_rcu_at_once, linger, on, spec,
    take, walk, world,
};

/// Sheaves that are open are closed when their CPU has gone, and what waits there is freed by who wants it, with the CPU
/// still away.
#[test]
pub fn what_waits_on_a_cpu_that_goes_is_freed() {
    let world = world(3);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let (cache, debug) = (
            create(slabs, "test"),
            slabs.create(&spec("debug").flags(Flags::POISON)).unwrap(),
        );
        let mut all = 0;
        for round in 0..6 {
            let (dead, old) = (
                count(slabs, "rcu.close_dead"),
                count(slabs, "rcu.close_old"),
            );
            let section = Section::begin(&world, cpu(2));
            on(&world, cpu(1), move || {
                free_rcu_at_once(slabs, take(cache, 3 * OF_SHEAF + 2, shared));
                free_rcu_at_once(slabs, take(debug, 5, shared));
            });
            all += 3 * OF_SHEAF + 7;
            rcu::hosted::offline(engine, cpu(1));
            // SAFETY: it does not run until it is brought back below.
            unsafe { slabs.flush_offline(cpu(1)) };
            // By its age, if the machine is slow.
            let closed = count(slabs, "rcu.close_dead") + count(slabs, "rcu.close_old");
            assert!(closed > dead + old, "there was one");
            assert_eq!(shared.ended(), all - 3 * OF_SHEAF - 7, "a reader is there");
            section.end();
            match round % 3 {
                0 => slabs.kvfree_rcu_barrier(),
                1 => {
                    slabs.kvfree_rcu_barrier_on_cache(cache);
                    assert_eq!(shared.ended(), all - 5);
                    slabs.kvfree_rcu_barrier_on_cache(debug);
                }
                _ => {
                    slabs.flush_kvfree_rcu();
                    crate::common::wait_until(|| shared.ended() == all);
                }
            }
            assert_eq!(shared.ended(), all);
            rcu::hosted::online(engine, cpu(1));
        }
        assert!(count(slabs, "rcu.close_dead") > 0);
        walk(slabs, engine);
        destroy(slabs, cache);
        destroy(slabs, debug);
    });
}

/// A cache may end while a CPU is away on which it has objects that wait, flushed or not yet.
#[test]
fn a_cache_ends_with_objects_of_a_cpu_that_has_gone() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        for round in 0..6 {
            let cache = create(slabs, "test");
            on(&world, cpu(1), move || {
                free_rcu_at_once(slabs, take(cache, OF_SHEAF + 2, shared));
            });
            Hosted::offline(cpu(1), || engine.cpu_dying(cpu(1)));
            engine.cpu_dead(cpu(1));
            if round % 2 == 0 {
                // SAFETY: it does not run until it is brought back below.
                unsafe { slabs.flush_offline(cpu(1)) };
            }
            destroy(slabs, cache);
            assert_eq!(shared.ended(), (round + 1) * (OF_SHEAF + 2));
            // SAFETY: the same.
            unsafe { slabs.flush_offline(cpu(1)) };
            rcu::hosted::online(engine, cpu(1));
        }
        walk(slabs, engine);
    });
}

/// A barrier that comes between the end of a CPU and the taking of its sheaves waits for the latter.
#[test]
fn a_barrier_waits_for_the_sheaves_of_a_cpu_that_goes() {
    let world = world(3);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let cache = create(slabs, "test");
        for round in 0..6 {
            let all = (round + 1) * (OF_SHEAF + 2);
            on(&world, cpu(1), move || {
                free_rcu_at_once(slabs, take(cache, OF_SHEAF + 2, shared));
            });
            rcu::hosted::offline(engine, cpu(1));
            let barrier = world.machine.spawn_on(cpu(2), move || {
                if round % 2 == 0 {
                    slabs.kvfree_rcu_barrier();
                } else {
                    slabs.kvfree_rcu_barrier_on_cache(cache);
                }
                assert_eq!(shared.ended(), all);
            });
            linger();
            // A shrinker does not wait.
            slabs.flush_kvfree_rcu();
            // SAFETY: it does not run until it is brought back below.
            unsafe { slabs.flush_offline(cpu(1)) };
            barrier.join();
            rcu::hosted::online(engine, cpu(1));
        }
        walk(slabs, engine);
        destroy(slabs, cache);
    });
}
