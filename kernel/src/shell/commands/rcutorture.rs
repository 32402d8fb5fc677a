//! The command that tortures RCU.

use crate::rcu::torture;
use crate::shell::{Args, Status, bad_argument, shell_command};

shell_command! {
    name: "rcutorture",
    usage: "[SECONDS [SEED]]",
    summary: "torture RCU for some time (10 s without)",
    details: "Readers, updaters of all kinds, barriers, floods of callbacks and CPUs that go \
              and come back,\nall at once; a summary at the end. The same SEED makes the same \
              choices.\nThe status is 1 if something went wrong.",
    arguments: (0, 2),
    run: rcutorture,
}

fn rcutorture(arguments: Args<'_>) -> Status {
    let mut numbers = [10, 1];
    for (number, argument) in numbers.iter_mut().zip(arguments) {
        match argument.parse() {
            Ok(value) => *number = value,
            Err(_) => return bad_argument("rcutorture", argument, "a number"),
        }
    }
    let [seconds, seed] = numbers;
    Status::from_bool(torture::run(torture::options(
        seed,
        seconds.saturating_mul(1_000),
    )))
}
