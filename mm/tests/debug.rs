//! The switches and the word that the allocator tests.

use mm::{Gfp, debug::Debug, owner::Entry};
use platform::hosted::{Hosted, Machine};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

#[test]
fn the_word_says_whether_anything_is_on() {
    Machine::builder().build().run(|| {
        let debug = Debug::<Hosted>::off();
        assert!(!debug.any());
        assert!(!debug.before_alloc(Gfp::ATOMIC, 3));
        debug
            .faults(|faults| faults.attr.parse("1,100,0,-1"))
            .unwrap();
        assert!(debug.any() && debug.before_alloc(Gfp::ATOMIC, 3));
        debug
            .faults(|faults| faults.set("probability", "0"))
            .unwrap();
        assert!(!debug.any() && !debug.before_alloc(Gfp::ATOMIC, 3));
        debug.faults(|faults| faults.fail_nth(1));
        assert!(debug.any() && debug.before_alloc(Gfp::KERNEL, 0));
        debug.faults(|_| ());
        assert!(!debug.any(), "the point has been");

        debug.set_poison(true);
        assert!(debug.any() && debug.poison());
        debug.set_poison(false);
        assert!(!debug.any() && !debug.poison());

        let debug = Debug::<Hosted>::off();
        let entries = || &*Vec::leak(vec![Entry::default()]);
        assert!(debug.start_owners(entries()));
        assert!(debug.any() && debug.owners().is_on());
        assert!(!debug.start_owners(entries()));
    });
}

#[test]
fn the_word_follows_whoever_changes_the_knobs_last() {
    let machine = Machine::builder().seed(9).build();
    let debug = Arc::new(Debug::<Hosted>::off());
    let set = |debug: &Debug<Hosted>, value| {
        let result = debug.faults(|faults| faults.set("probability", value));
        result.unwrap();
    };
    // One that comes between another's knobs and its bit.
    let (there, next) = (Arc::clone(&debug), Arc::new(AtomicUsize::new(0)));
    let changes = Arc::clone(&next);
    let _nmi = machine.on_nmi(2, move || {
        let value = ["50", "0"][next.fetch_add(1, Relaxed) % 2];
        set(&there, value);
    });
    machine.run(|| {
        for round in 0..500 {
            set(&debug, ["0", "50"][round / 2 % 2]);
            assert_eq!(debug.any(), debug.fault_knobs().probability != 0);
        }
        assert!(changes.load(Relaxed) > 100);
    });
}
