//! Tests that every machine must pass, the same for each: the kernel's suites call them on
//! bare metal, host tests on `hosted`, and model tests under the model
//! checker, there with the smallest [`Size`].
//!
//! They are generic over the [`Platform`] and use nothing else: no random numbers, and, but
//! for those of work queues, no allocation. They are called in task context, may sleep, and
//! end.

use core::fmt;

use crate::Platform;

mod locks;
mod percpu;
mod threads;
pub mod wait;
pub mod work;

pub use locks::{
    guards_turn_off_and_on, irq_spin_excludes, nested_locks_exclude, sequence_reads_are_whole,
    spin_excludes, spin_try_and_holder,
};
pub use percpu::{
    counters_add_up, every_cpu_has_its_own, local_lock_excludes, local_lock_in_interrupts,
    local_lock_is_stolen_last, values_are_dropped,
};

/// How much a test does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// How many threads at a time, the caller's included: as many CPUs at least, if a
    /// thread of the machine has a CPU for itself. At least 2.
    pub threads: usize,
    /// How often each does its part. At least 1.
    pub rounds: usize,
}

impl Size {
    /// For the model checker.
    pub const SMALLEST: Self = Self {
        threads: 2,
        rounds: 1,
    };
}

/// What a test found wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What should have held.
    pub what: &'static str,
    /// What was found.
    pub found: u64,
    /// What should have been found.
    pub wanted: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            found,
            wanted,
        } = self;
        write!(f, "{what}: found {found}, wanted {wanted}")
    }
}

impl core::error::Error for Failure {}

/// How a test ends.
pub type Outcome = Result<(), Failure>;

/// Ends a test unless `found` is what was `wanted`.
fn equal(what: &'static str, found: u64, wanted: u64) -> Outcome {
    if found == wanted {
        Ok(())
    } else {
        Err(Failure {
            what,
            found,
            wanted,
        })
    }
}

/// Ends a test unless `holds`.
fn ensure(what: &'static str, holds: bool) -> Outcome {
    equal(what, u64::from(holds), 1)
}

/// A test with its name.
pub type Case = (&'static str, fn(Size) -> Outcome);

/// All tests of locks and per-CPU data.
pub const fn cases<P: Platform>() -> [Case; 12] {
    [
        ("spin_excludes", spin_excludes::<P>),
        ("irq_spin_excludes", irq_spin_excludes::<P>),
        ("nested_locks_exclude", nested_locks_exclude::<P>),
        ("spin_try_and_holder", spin_try_and_holder::<P>),
        ("guards_turn_off_and_on", guards_turn_off_and_on::<P>),
        ("sequence_reads_are_whole", sequence_reads_are_whole::<P>),
        ("every_cpu_has_its_own", every_cpu_has_its_own::<P>),
        ("values_are_dropped", values_are_dropped::<P>),
        ("counters_add_up", counters_add_up::<P>),
        ("local_lock_excludes", local_lock_excludes::<P>),
        ("local_lock_in_interrupts", local_lock_in_interrupts::<P>),
        ("local_lock_is_stolen_last", local_lock_is_stolen_last::<P>),
    ]
}
