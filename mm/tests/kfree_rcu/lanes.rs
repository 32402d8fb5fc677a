//! Lanes go on by themselves, whatever came in between: nobody waits for a barrier here.

use mm::{Gfp, kvfree_rcu::OPEN_NS, slab::Flags};
use platform::{Platform, hosted::Hosted};

use crate::common::{
    OF_SHEAF, Section, Shared, count, cpu, create, destroy, fail_pages, free_rcu, free_rcu_at_once,
    linger, on, spec, take, wait_until, walk, world,
};

/// The end of a cache takes an open sheaf away from under a drainer that dozes until it is old. What is queued
/// afterwards on that lane still finds somebody who comes.
#[test]
fn a_lane_goes_on_after_the_end_of_a_cache() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let other = create(slabs, "other");
        for round in 0..5 {
            let cache = create(slabs, "test");
            let dozed = count(slabs, "lane.doze");
            free_rcu_at_once(slabs, take(cache, 1, shared));
            wait_until(|| count(slabs, "lane.doze") > dozed);
            destroy(slabs, cache);
            free_rcu_at_once(slabs, take(other, OF_SHEAF + 1, shared));
            wait_until(|| shared.ended() == (round + 1) * (OF_SHEAF + 2));
        }
        assert!(count(slabs, "rcu.close_destroy") > 0);
        walk(slabs, engine);
        destroy(slabs, other);
    });
}
