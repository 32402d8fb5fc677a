//! The switches and the word that the allocator tests.

use mm::{Gfp, debug::Debug, owner::Entry};
use platform::{
    CpuId,
    hosted::{Hosted, Machine},
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
        assert!(debug.any() && !debug.poison(), "marks must be kept right");

        let debug = Debug::<Hosted>::off();
        let entries = || &*Vec::leak(vec![Entry::default()]);
        assert!(debug.start_owners(entries()));
        assert!(debug.any() && debug.owners().is_on());
        assert!(!debug.start_owners(entries()));
    });
}

#[test]
fn the_word_follows_whoever_changes_the_knobs_last() {
    let machine = Machine::builder().cpus(2).build();
    let debug = Debug::<Hosted>::off();
    let barrier = std::sync::Barrier::new(2);
    machine.run_on_all(|cpu| {
        for _ in 0..5_000 {
            let value = if cpu == CpuId::BOOT { "50" } else { "0" };
            barrier.wait();
            debug
                .faults(|faults| faults.set("probability", value))
                .unwrap();
            barrier.wait();
            let armed = debug.fault_knobs().probability != 0;
            assert_eq!(debug.any(), armed);
        }
    });
}
