//! Sleeping and its locks, on threads of the host.
#![cfg(feature = "hosted")]

use platform::{
    conformance::{Case, Size, wait},
    hosted::{Hosted, Machine},
};

const SIZE: Size = Size {
    threads: 4,
    rounds: 1_000,
};

fn check((name, test): Case) {
    for (cpus, threads, seed) in [(4, 4, 1), (2, 5, 2), (1, 3, 3), (8, 8, 4)] {
        let machine = Machine::builder().cpus(cpus).seed(seed).build();
        let size = Size { threads, ..SIZE };
        if let Err(failure) = machine.run(|| test(size)) {
            panic!("{name} on {cpus} CPUs, seed {}: {failure}", machine.seed());
        }
    }
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                check((stringify!($name), wait::$name::<Hosted>));
            }
        )*

        /// None is forgotten here.
        #[test]
        fn all_cases_are_here() {
            let names = [$(stringify!($name)),*];
            assert_eq!(wait::cases::<Hosted>().map(|(name, _)| name), names);
        }
    };
}

cases! {
    lost_wakeups,
    wake_ups_are_not_swallowed,
    completion,
    completion_counts,
    mutex_excludes,
    mutex_fairness,
    semaphore,
    rwsem,
    rwsem_fairness,
    time_outs,
}

/// With interrupts that come in between and use nothing of the test's.
#[test]
fn all_cases_under_interrupts() {
    for (seed, (name, test)) in (10..).zip(wait::cases::<Hosted>()) {
        let machine = Machine::builder().cpus(4).seed(seed).build();
        let noise = machine.on_interrupt(7, || ());
        let outcome = machine.run(|| test(SIZE));
        drop(noise);
        assert_eq!(outcome, Ok(()), "{name} with seed {}", machine.seed());
    }
}
