//! The tests that every machine must pass, on the model checker's.

use platform::{
    conformance::{self, Outcome, Size},
    model::{Model, Setup},
};

/// Runs one of them in every order with at most two preemptions.
fn check(test: fn(Size) -> Outcome) {
    let setup = Setup::new(Size::SMALLEST.threads).preemptions(2).calls();
    setup.check(move || {
        if let Err(failure) = test(Size::SMALLEST) {
            panic!("{failure}");
        }
    });
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                check(conformance::$name::<Model>);
            }
        )*

        /// None is forgotten here.
        #[test]
        fn all_cases_are_here() {
            let names = [$(stringify!($name)),*];
            assert_eq!(conformance::cases::<Model>().map(|(name, _)| name), names);
        }
    };
}

cases! {
    spin_excludes,
    irq_spin_excludes,
    nested_locks_exclude,
    spin_try_and_holder,
    guards_turn_off_and_on,
    sequence_reads_are_whole,
    every_cpu_has_its_own,
    values_are_dropped,
    counters_add_up,
    local_lock_excludes,
    local_lock_in_interrupts,
    local_lock_is_stolen_last,
}
