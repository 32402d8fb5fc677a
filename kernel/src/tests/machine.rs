//! The kernel as a machine for the portable crates: the tests that every machine must pass.

use platform::conformance::{self, Case, Size};

use crate::kunit::{self, Ctx, Outcome, kfail, knote, kunit_suite};
use crate::machine::Kernel;
use crate::{smp, time};

kunit_suite! {
    name: "machine",
    cases: [
        locks_and_percpu => { over: LOCKS },
        waiting => { over: WAITING },
        work_queues => { over: WORK },
    ],
}

const LOCKS: &[(&str, Case)] = &named(conformance::cases::<Kernel>());
const WAITING: &[(&str, Case)] = &named(conformance::wait::cases::<Kernel>());
const WORK: &[(&str, Case)] = &named(conformance::work::cases::<Kernel>());

const fn named<const N: usize>(cases: [Case; N]) -> [(&'static str, Case); N] {
    let mut all = [cases[0]; N];
    let mut named = [("", cases[0]); N];
    let mut i = 0;
    while i < N {
        all[i] = cases[i];
        named[i] = (cases[i].0, cases[i]);
        i += 1;
    }
    named
}

fn locks_and_percpu(_: &mut Ctx, (_, case): Case) -> Outcome {
    check(case, kunit::rounds(100_000, 1_000))
}

fn waiting(_: &mut Ctx, (_, case): Case) -> Outcome {
    check(case, kunit::rounds(2_000, 100))
}

fn work_queues(_: &mut Ctx, (_, case): Case) -> Outcome {
    check(case, kunit::rounds(200, 8))
}

fn check(case: fn(Size) -> conformance::Outcome, rounds: u64) -> Outcome {
    let size = Size {
        threads: smp::online().count().max(2),
        rounds: rounds as usize,
    };
    let start = time::now_ns();
    let outcome = case(size);
    knote!(
        "{rounds} rounds took {} ms",
        (time::now_ns() - start) / 1_000_000
    );
    match outcome {
        Ok(()) => Ok(()),
        Err(failure) => kfail!("{failure}"),
    }
}
