//! A thread that is switched away in its (preemptible) section, and the end of the section,
//! against the beginning of a grace period and reports to it.

mod world;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use platform::model::{self, Setup};
use rcu::model::{begin_cpu, end_cpu, switch};
use world::World;

/// The CPU reports while the section goes on; the grace period waits for its end, whether it
/// began before the switch or after it.
#[test]
fn a_section_that_was_switched_away_is_waited_for() {
    let counts: &'static [AtomicUsize; 2] = Box::leak(Box::default());
    let setup = Setup::new(2).preemptions(4).blocking_locks();
    setup.check(move || {
        let world = World::new(true);
        let reads = Arc::clone(&world);
        let reader = model::cpu(1, move || {
            begin_cpu();
            let section = rcu::read::<model::Model>();
            let found = reads.find();
            switch(&reads.rcu);
            // Another thread, which is in no section.
            switch(&reads.rcu);
            reads.look(found);
            drop(section);
            reads.read();
            end_cpu();
        });
        world.unpublish();
        let cookie = world.rcu.start_poll();
        world.rcu.make_by_hand();
        world.rcu.make_by_hand();
        let ripe = world.free_if_ripe(cookie);
        counts[usize::from(ripe)].fetch_add(1, SeqCst);
        reader.join();
        world.must_ripen(cookie);
    });
    let counts = counts.each_ref().map(|count| count.load(SeqCst));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

/// The section's end races with the report of another CPU of the leaf: one of them is the
/// last, and passes it on.
#[test]
fn the_last_of_a_leaf_reports_for_it() {
    let counts: &'static [AtomicUsize; 2] = Box::leak(Box::default());
    // CPUs 2 and 3 share a leaf; CPU 1 stays idle.
    let setup = Setup::new(4).preemptions(2).blocking_locks();
    setup.check(move || {
        let world = World::new(true);
        let (away, busy) = (Arc::clone(&world), Arc::clone(&world));
        let reader = model::cpu(2, move || {
            begin_cpu();
            let section = rcu::read::<model::Model>();
            let found = away.find();
            switch(&away.rcu);
            away.look(found);
            drop(section);
            end_cpu();
        });
        let other = model::cpu(3, move || {
            begin_cpu();
            busy.read();
            switch(&busy.rcu);
            end_cpu();
        });
        world.unpublish();
        let cookie = world.rcu.start_poll();
        world.rcu.make_by_hand();
        world.rcu.make_by_hand();
        let ripe = world.free_if_ripe(cookie);
        counts[usize::from(ripe)].fetch_add(1, SeqCst);
        reader.join();
        other.join();
        world.must_ripen(cookie);
    });
    let counts = counts.each_ref().map(|count| count.load(SeqCst));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
