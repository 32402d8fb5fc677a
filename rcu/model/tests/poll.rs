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
use rcu::model::{begin_early, switch};
use world::World;

/// The cookie is taken before, in or after a grace period that somebody else wants. The reader
/// has been asked by an earlier look, so it may report as soon as its leaf has begun; its
/// section comes after that, and finds nothing if the cookie is ripe, or is over and seen to
/// be.
#[test]
fn a_ripe_cookie_has_no_old_reader() {
    let counts: &'static [AtomicUsize; 2] = Box::leak(Box::default());
    let setup = Setup::new(3).preemptions(3).blocking_locks();
    setup.check(move || {
        let world = World::new(false);
        let cpu = CpuId::new(1).unwrap();
        begin_early(cpu);
        world.rcu.ask_by_hand(cpu);
        world.rcu.start_poll();
        let (reads, updates) = (Arc::clone(&world), Arc::clone(&world));
        let reader = model::cpu(1, move || {
            switch(&reads.rcu);
            reads.read();
        });
        let updater = model::cpu(2, move || {
            updates.unpublish();
            let cookie = updates.rcu.snap();
            let ripe = updates.free_if_ripe(cookie);
            counts[usize::from(ripe)].fetch_add(1, SeqCst);
        });
        world.rcu.make_by_hand();
        reader.join();
        updater.join();
    });
    let counts = counts.each_ref().map(|count| count.load(SeqCst));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
