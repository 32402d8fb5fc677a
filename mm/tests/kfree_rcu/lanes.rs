//! Lanes go on by themselves, whatever came in between: nobody waits for a barrier here.

use std::sync::atomic::Ordering::Release;

use mm::kvfree_rcu::OPEN_NS;
use platform::{Platform, hosted::Hosted};

use crate::common::{
    OF_SHEAF, Section, Shared, count, cpu, create, destroy, fail_pages, free_rcu, free_rcu_at_once,
    linger, on, spec, take, wait_until, walk, world,
};

/// The end of a cache takes an open sheaf away from under a drainer that dozes until it is old. What is queued
/// afterwards on that lane still finds somebody who comes.
#[test]
pub fn a_lane_goes_on_after_the_end_of_a_cache() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let other = create(slabs, "other");
        for round in 0..5 {
            let cache = create(slabs, "test");
            let dozed = count(slabs, "lane.doze");
            free_rcu_at_once(slabs, take(cache, 1, shared));
            // Or the drainer was late, and found it old.
            wait_until(|| count(slabs, "lane.doze") > dozed || !cache.has_in_flight());
            destroy(slabs, cache);
            free_rcu_at_once(slabs, take(other, OF_SHEAF + 1, shared));
            wait_until(|| shared.ended() == (round + 1) * (OF_SHEAF + 2));
        }
        assert!(count(slabs, "rcu.close_destroy") > 0);
        walk(slabs, engine);
        destroy(slabs, other);
    });
}

/// A sheaf that only its cache's destroyer may close gets old while he waits: its drainer sleeps, so that he can go on.
#[test]
fn a_drainer_does_not_spin_for_a_sheaf_that_a_destroyer_will_close() {
    let world = world(3);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let cache = create(slabs, "test");
        let dozed = count(slabs, "lane.doze");
        shared.hold.store(true, Release);
        on(&world, cpu(1), move || {
            free_rcu_at_once(slabs, take(cache, 3, shared));
        });
        shared.wait_held();
        free_rcu_at_once(slabs, take(cache, 1, shared));
        wait_until(|| count(slabs, "lane.doze") > dozed + 1 || shared.ended() > 0);
        let helper = world.machine.spawn_on(cpu(2), move || {
            wait_until(|| count(slabs, "hands.wait") > 0);
            // The open sheaf gets old.
            let until = Hosted::now_ns() + 3 * OPEN_NS;
            wait_until(|| Hosted::now_ns() > until);
            shared.hold.store(false, Release);
        });
        // On the CPU whose sheaf is open, with a lower priority than its drainer's.
        destroy(slabs, cache);
        helper.join();
        assert_eq!(shared.ended(), 4);
        assert!(
            count(slabs, "lane.doze") < dozed + 50,
            "looks again and again"
        );
        walk(slabs, engine);
    });
}

/// Heads that are linked while earlier ones still wait for their grace period are closed when those are gone, at the latest.
#[test]
fn a_chain_that_is_old_while_another_waits_is_closed_later() {
    let world = world(3);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let (cache, none) = (
            create(slabs, "test"),
            slabs.create(&spec("none").sheaf_capacity(0)).unwrap(),
        );
        let [first, second] = [take(none, 1, shared), take(none, 1, shared)];
        let sheaf = take(cache, OF_SHEAF + 1, shared);
        // Its sheaf is made with memory.
        free_rcu(slabs, take(cache, 1, shared)[0]);
        slabs.kvfree_rcu_barrier();
        let pass = || {
            let until = Hosted::now_ns() + 2 * OPEN_NS;
            wait_until(|| Hosted::now_ns() > until);
        };
        // A reader in whose grace period a sheaf is closed at once, and a chain by its age.
        let reader = Section::begin(&world, cpu(1));
        fail_pages(&world, Some(0));
        let (dozed, chained) = (count(slabs, "lane.doze"), count(slabs, "rcu.close_loose"));
        free_rcu_at_once(slabs, first);
        wait_until(|| {
            count(slabs, "lane.doze") > dozed || count(slabs, "rcu.close_loose") > chained
        });
        free_rcu_at_once(slabs, sheaf);
        assert_eq!(count(slabs, "rcu.chain"), 1);
        pass();
        assert_eq!(count(slabs, "rcu.close_loose"), chained + 1);
        // Another reader, for whom the chain waits, and the next chain, which gets old.
        let later = Section::begin(&world, cpu(2));
        free_rcu_at_once(slabs, second);
        fail_pages(&world, None);
        pass();
        assert_eq!(shared.ended(), 1);
        reader.end();
        wait_until(|| shared.ended() > OF_SHEAF);
        linger();
        let dozed = count(slabs, "lane.doze");
        later.end();
        wait_until(|| shared.ended() == 4 + OF_SHEAF);
        assert!(
            count(slabs, "lane.doze") < dozed + 50,
            "looks again and again"
        );
        walk(slabs, engine);
        destroy(slabs, cache);
        destroy(slabs, none);
    });
}
