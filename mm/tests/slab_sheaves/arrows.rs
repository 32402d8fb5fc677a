//! That every arrow is taken (T5): the scenarios of the other files once more, with their
//! counts added up.

use std::collections::BTreeMap;

use crate::{hotplug, interrupts, nodes, oom, paths, prefill, shrink, world::World};

/// Prefixes of the arrows of sheaves and barns.
const OWN: [&str; 9] = [
    "alloc.",
    "supply.",
    "free.",
    "barn.",
    "prefill.",
    "return.",
    "nolock.",
    "deferred.",
    "cpu.",
];

/// How often each arrow was taken in a world.
pub type Taken = BTreeMap<&'static str, u64>;

/// Of all caches of a world.
pub fn taken(world: &World) -> Taken {
    let all = world.slabs().arrows();
    all.filter(|(name, _)| OWN.iter().any(|own| name.starts_with(own)))
        .collect()
}

/// An arrow was taken that often in a world so far.
#[track_caller]
pub fn count(world: &World, arrow: &str) -> u64 {
    let found = world.slabs().arrows().find(|(name, _)| *name == arrow);
    found.expect("an arrow's name").1
}

#[test]
fn every_arrow_is_taken() {
    let mut sum = Taken::new();
    let scenarios: [fn() -> Taken; 14] = [
        paths::sheaves_change_places,
        paths::barns_exchange,
        paths::barns_have_room_for_ten,
        nodes::objects_go_home,
        nodes::other_nodes_help,
        nodes::partial_slabs_of_others_first,
        oom::sheaves_without_memory,
        interrupts::locks_are_met_taken,
        interrupts::frees_are_deferred,
        prefill::from_everywhere,
        hotplug::a_cpu_goes,
        shrink::everything_goes,
        shrink::a_cpu_is_asked_again,
        shrink::a_cache_that_goes,
    ];
    for scenario in scenarios {
        for (arrow, times) in scenario() {
            *sum.entry(arrow).or_default() += times;
        }
    }
    let never: Vec<_> = sum.iter().filter(|(_, times)| **times == 0).collect();
    assert!(never.is_empty(), "never taken: {never:?}");
    assert!(sum.len() > 40, "there are more arrows than {}", sum.len());
}
