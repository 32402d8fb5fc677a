//! The state tables of `docs/rcu.md` and the counters of their arrows name the same.

use rcu::arrows::Arrow;

const DOCS: &str = include_str!("../../docs/rcu.md");

/// Words in backquotes that look like an arrow's name: `room.what`.
fn named(docs: &str) -> Vec<&str> {
    let rooms: Vec<_> = Arrow::ALL
        .iter()
        .filter_map(|arrow| arrow.name().split_once('.'))
        .map(|(room, _)| room)
        .collect();
    docs.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            word.split_once('.')
                .is_some_and(|(room, what)| rooms.contains(&room) && what != "rs")
        })
        .collect()
}

#[test]
fn every_arrow_has_a_counter_and_every_counter_an_arrow() {
    let named = named(DOCS);
    for arrow in Arrow::ALL {
        assert!(
            named.contains(&arrow.name()),
            "docs/rcu.md does not have {}",
            arrow.name()
        );
    }
    for name in named {
        assert!(
            Arrow::ALL.iter().any(|arrow| arrow.name() == name),
            "no counter for {name} of docs/rcu.md"
        );
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = Arrow::ALL.iter().map(|arrow| arrow.name()).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}
