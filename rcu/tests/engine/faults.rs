//! Faults that are switched on are found: the tests of the tests.
#![cfg(debug_assertions)]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use rcu::{Config, Faults};

use crate::{readers::Torture, world::Shape};

const SHAPE: Shape = Shape {
    cpus: 4,
    fanout: 2,
    preemptible: false,
};

/// A hang is one way in which a fault shows.
const LIMIT: Duration = Duration::from_secs(30);

/// After how long a grace period that is made to hang is reported.
const STALL_NS: u64 = 300_000_000;

/// What the torture fails with, with that fault.
fn fails(fault: Faults) -> String {
    // Of a fault that makes grace periods hang not longer than needed; else the host may
    // keep a reader for a while.
    let stall_ns = if fault == Faults::LOSE_QS {
        STALL_NS
    } else {
        10_000_000_000
    };
    for seed in 1..10 {
        let torture = Torture {
            shape: SHAPE,
            seed,
            updates: 2_000,
            config: Config {
                stall_ns,
                ..SHAPE.config()
            },
            faults: fault,
            limit: LIMIT,
        };
        let run = || drop(torture.run());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            return *panic.downcast().expect("the machine says why");
        }
    }
    panic!("nothing was noticed of {fault:?}");
}

#[test]
fn a_cpu_that_is_not_waited_for_is_noticed() {
    let why = fails(Faults::SKIP_CPU);
    assert!(why.contains("while it is read"), "{why}");
}

#[test]
fn a_segment_that_is_run_early_is_noticed() {
    let why = fails(Faults::EARLY_SEGMENT);
    assert!(why.contains("while it is read"), "{why}");
}

#[test]
fn a_cpu_that_counts_as_still_idle_is_noticed() {
    let why = fails(Faults::STILL_IDLE);
    assert!(why.contains("while it is read"), "{why}");
}

#[test]
fn a_quiescent_state_that_is_lost_is_noticed() {
    let why = fails(Faults::LOSE_QS);
    let (_, after) = why.split_once("has not ended for ").expect(&why);
    let ms: u64 = after.split(' ').next().unwrap().parse().expect(&why);
    assert!(ms >= STALL_NS / 1_000_000, "{why}");
}

#[test]
fn a_callback_that_is_dropped_with_its_cpu_is_noticed() {
    let why = fails(Faults::DROP_ON_HOTPLUG);
    // An object's, or a barrier's own.
    assert!(why.contains("got lost") || why.contains("hangs"), "{why}");
}
