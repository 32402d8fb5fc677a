//! That every arrow of `kfree_rcu` is taken (T5): scenarios of the other files once more, with their counts added up.

use std::{cell::RefCell, collections::BTreeMap};

use crate::{common::Allocator, hotplug, interrupts, lanes, limits, oom, roads, seeds};

/// Prefixes of the arrows of `kfree_rcu`.
const OWN: [&str; 3] = ["rcu.", "lane.", "hands."];

std::thread_local! {
    /// What was taken in the worlds of this thread.
    static TAKEN: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Adds what was taken in a world, at its end. By the thread of the test.
pub fn note(slabs: &Allocator) {
    let own = |name: &str| OWN.iter().any(|own| name.starts_with(own));
    TAKEN.with_borrow_mut(|taken| {
        for (arrow, times) in slabs.arrows().filter(|(arrow, _)| own(arrow)) {
            *taken.entry(arrow).or_default() += times;
        }
    });
}

#[test]
fn every_arrow_is_taken() {
    let scenarios: [fn(); 15] = [
        roads::sheaves_gather_and_go_to_the_barn,
        roads::sheaves_that_find_no_room_in_the_barn_are_flushed,
        roads::objects_of_another_node_never_get_into_a_sheaf,
        roads::pages_take_what_has_no_sheaf,
        roads::objects_without_heads_wait_in_the_caller_if_nothing_else_helps,
        roads::objects_that_are_left_after_destroy_are_freed_all_the_same,
        limits::what_is_open_for_long_is_closed,
        limits::over_the_soft_limit_the_drainer_hurries,
        limits::over_the_hard_limit_who_queues_waits_a_while,
        hotplug::what_waits_on_a_cpu_that_goes_is_freed,
        lanes::a_lane_goes_on_after_the_end_of_a_cache,
        interrupts::interrupts_meet_the_local_lock,
        interrupts::without_a_lock_objects_are_queued_later,
        oom::chains_of_many_caches_are_taken_apart,
        seeds::destroy_waits_for_what_others_free,
    ];
    for scenario in scenarios {
        scenario();
    }
    let taken = TAKEN.take();
    let never: Vec<_> = taken.iter().filter(|(_, times)| **times == 0).collect();
    assert!(never.is_empty(), "never taken: {never:?}");
    assert!(
        taken.len() > 30,
        "there are more arrows than {}",
        taken.len()
    );
}
