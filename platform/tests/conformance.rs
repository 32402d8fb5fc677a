//! The tests that every machine must pass, on threads of the host.
#![cfg(feature = "hosted")]

use platform::{
    conformance::{self, Case, Outcome, Size},
    hosted::{Hosted, Machine},
};

/// What a case of the host does, on each of a few machines.
const SIZE: Size = Size {
    threads: 4,
    rounds: 2_000,
};

fn check((name, test): Case) {
    for (cpus, nodes, seed) in [(4, 2, 1), (4, 1, 2), (2, 1, 3), (1, 1, 4)] {
        let machine = Machine::builder()
            .cpus(cpus)
            .nodes(nodes)
            .seed(seed)
            .build();
        if let Err(failure) = machine.run(|| test(SIZE)) {
            panic!("{name} on {cpus} CPUs, seed {}: {failure}", machine.seed());
        }
    }
}

/// The case of that name.
fn case(name: &str) -> Case {
    let cases = conformance::cases::<Hosted>();
    let found = cases.into_iter().find(|case| case.0 == name);
    found.expect("no such case")
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                check(case(stringify!($name)));
            }
        )*

        /// None is forgotten here.
        #[test]
        fn all_cases_are_here() {
            let names = [$(stringify!($name)),*];
            assert_eq!(conformance::cases::<Hosted>().map(|(name, _)| name), names);
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

/// With interrupts and NMIs that come in between and use nothing of the test's.
#[test]
fn all_cases_under_interrupts() {
    for (seed, case) in (10..).zip(conformance::cases::<Hosted>()) {
        let machine = Machine::builder().cpus(4).seed(seed).build();
        let noise = (machine.on_interrupt(7, || ()), machine.on_nmi(11, || ()));
        let outcome: Outcome = machine.run(|| (case.1)(SIZE));
        drop(noise);
        assert_eq!(outcome, Ok(()), "{} with seed {}", case.0, machine.seed());
    }
}
