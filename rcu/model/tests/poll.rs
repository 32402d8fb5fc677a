//! Poll against completion: what a cookie that is ripe proves to somebody who neither makes
//! the grace period nor reads.

mod world;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use platform::{
    CpuId,
    model::{self, Setup},
};
use world::World;

/// The cookie is taken before, in or after a grace period that somebody else wants; the reader
/// reports to it between two sections. If the cookie is ripe, neither section can have found
/// what was unpublished before it was taken, or it is over and seen to be. The reader has
/// been asked by an earlier look, so it may report as soon as its leaf has begun.
#[test]
fn a_ripe_cookie_has_no_old_reader() {
    let counts: &'static [AtomicUsize; 2] = Box::leak(Box::default());
    let setup = Setup::new(3).preemptions(3).blocking_locks();
    setup.check(move || {
        let world = World::new(false);
        world.rcu.ask_by_hand(CpuId::new(1).unwrap());
        let (reads, updates) = (Arc::clone(&world), Arc::clone(&world));
        let reader = model::cpu(1, move || reads.read_and_switch());
        let updater = model::cpu(2, move || {
            updates.unpublish();
            let cookie = updates.rcu.snap();
            let ripe = updates.free_if_ripe(cookie);
            counts[usize::from(ripe)].fetch_add(1, SeqCst);
        });
        // This CPU reports as it makes the grace period, and reads then.
        world.rcu.start_poll();
        world.rcu.make_by_hand();
        world.read();
        world.rcu.make_by_hand();
        reader.join();
        updater.join();
    });
    let counts = counts.each_ref().map(|count| count.load(SeqCst));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
