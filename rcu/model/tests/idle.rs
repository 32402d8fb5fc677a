//! Idle words against the looks of a grace period.

mod world;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use platform::{
    Platform,
    model::{self, Model, Setup},
};
use rcu::model::{begin_cpu, end_cpu};
use world::World;

/// A CPU that never reports: it has sections between idle times. The first look may find it
/// idle, the second that it has been; a section that begins after either finds nothing.
#[test]
fn a_cpu_that_was_idle_has_no_old_reader() {
    /// Ripe after the first look, after the second, or not at all.
    const ENDS: usize = 3;
    let ends: &'static [AtomicUsize; ENDS] = Box::leak(Box::default());
    let setup = Setup::new(2).blocking_locks();
    setup.check(move || {
        let world = World::new(false);
        let reads = Arc::clone(&world);
        let reader = model::cpu(1, move || {
            for _ in 0..2 {
                begin_cpu();
                reads.read();
                end_cpu();
            }
        });
        world.unpublish();
        let cookie = world.rcu.start_poll();
        world.rcu.make_by_hand();
        let end = if world.free_if_ripe(cookie) {
            0
        } else {
            Model::park_until(Model::now_ns() + 5_000_000);
            world.rcu.make_by_hand();
            if world.free_if_ripe(cookie) { 1 } else { 2 }
        };
        ends[end].fetch_add(1, SeqCst);
        reader.join();
        world.must_ripen(cookie);
    });
    let ends = ends.each_ref().map(|end| end.load(SeqCst));
    assert!(ends.iter().all(|count| *count > 0), "{ends:?}");
}
