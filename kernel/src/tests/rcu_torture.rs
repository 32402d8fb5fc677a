//! RCU under everything at once, for a short time. The long runs are `cargo xtask test
//! --torture`; that it finds what it is there for is tested by scenarios with faults
//! (`boot/rcutorture-*`), each in a guest of its own.

use crate::kunit::{self, Ctx, Outcome, kassert, kunit_suite};
use crate::rcu::torture;
use crate::time;

kunit_suite! {
    name: "rcu_torture",
    cases: [
        all_at_once,
        cpus_stay,
    ],
}

/// Milliseconds of a run: in full, and in daily work.
const FULL_MS: u64 = 100_000;
const QUICK_MS: u64 = 1_500;

/// How long a run is, in milliseconds. Where instructions are counted, each of the guest's
/// seconds takes many of ours.
fn duration_ms(full: u64, quick: u64) -> u64 {
    let duration = kunit::rounds(full, quick);
    if time::is_exact() {
        duration / 4
    } else {
        duration
    }
}

/// The torture reports what it finds in its own words; they are in the log above.
fn all_at_once(ctx: &mut Ctx) -> Outcome {
    let duration = duration_ms(FULL_MS, QUICK_MS);
    let mut options = torture::options(ctx.rng().next_u64() % 1_000_000, duration);
    options.report_ns = 0;
    kassert!(torture::run(options), "the torture failed");
    Ok(())
}

/// Without CPUs that go, all of them are busy all the time.
fn cpus_stay(ctx: &mut Ctx) -> Outcome {
    let duration = duration_ms(FULL_MS / 4, QUICK_MS / 2);
    let mut options = torture::options(ctx.rng().next_u64() % 1_000_000, duration);
    options.report_ns = 0;
    options.hotplug = false;
    kassert!(torture::run(options), "the torture failed");
    Ok(())
}
