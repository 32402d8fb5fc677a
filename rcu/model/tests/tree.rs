//! Reports of quiescent states, up a tree of two levels, against the beginning of a grace
//! period, its look at idle CPUs, and its end.

mod world;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use platform::model::{self, Setup};
use world::World;

/// Two CPUs on different leaves; who unpublishes makes the grace period. It ends, and not
/// before both CPUs have passed a quiescent state.
#[test]
fn a_grace_period_waits_for_the_cpus_of_two_leaves() {
    let counts: &'static [AtomicUsize; 2] = Box::leak(Box::default());
    let setup = Setup::new(3).preemptions(3).blocking_locks();
    setup.check(move || {
        let world = World::new(false);
        let others = [1, 2].map(|number| {
            let there = Arc::clone(&world);
            model::cpu(number, move || there.read_and_switch())
        });
        world.unpublish();
        let cookie = world.rcu.start_poll();
        world.rcu.make_by_hand();
        world.rcu.make_by_hand();
        let ripe = world.free_if_ripe(cookie);
        counts[usize::from(ripe)].fetch_add(1, SeqCst);
        others.into_iter().for_each(model::Cpu::join);
        world.must_ripen(cookie);
    });
    let counts = counts.each_ref().map(|count| count.load(SeqCst));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
