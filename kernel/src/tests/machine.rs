//! The kernel as a machine for the portable crates: the tests that every machine must pass.

use platform::conformance::{self, Case, Size};

use crate::kunit::{self, Ctx, Outcome, kfail, kunit_suite};
use crate::machine::Kernel;
use crate::smp;

kunit_suite! {
    name: "machine",
    cases: [locks_and_percpu => { over: LOCKS }],
}

const LOCKS: &[(&str, Case)] = &named(conformance::cases::<Kernel>());

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
    let size = Size {
        threads: smp::online().count().max(2),
        rounds: kunit::rounds(100_000, 1_000) as usize,
    };
    match case(size) {
        Ok(()) => Ok(()),
        Err(failure) => kfail!("{failure}"),
    }
}
