//! Tests inside the running kernel, reported as KTAP on the console.
//!
//! A *suite* is a named list of *cases*, registered by [`kunit_suite!`] into a
//! link section; nothing else has to know of it. A case is a function that takes
//! a [`Ctx`] and returns an [`Outcome`]. The assertions ([`kassert!`],
//! [`kassert_eq!`], [`kassert_ne!`], [`kassert_ok!`], [`kfail!`]) print the values
//! and the place and *return* from the function that contains them, so they work
//! in helper functions too, called with `?`. [`kskip!`] ends the case as skipped.
//!
//! Nothing unwinds. Each case runs in a thread of its own. One that hangs and holds
//! nothing is taken out of the running, fails, and the run goes on. One that panics,
//! or hangs with preemption or interrupts off or with locks held, condemns the whole
//! guest: the panic or the watchdog's report is the last that is heard of it, and the
//! host goes on behind that case in a new guest (`kunit.after=`).
//!
//! A case may declare which kernel reports it provokes. It passes only if exactly
//! those come, in that order; a report in any other case fails that case.
//!
//! What runs, in which order and how often is given by an [`Options`], made from
//! the kernel command line or from the shell's `kunit` command.
//!
//! Behind its last case, and as a part of it, each suite has the whole heap walked
//! ([`crate::memory::heap_walk`]): a suite that leaves it damaged fails.
//!
//! Cases run one at a time, on the boot CPU. Assertions may only be made in the
//! case's thread, not in others or in functions run on other CPUs.

mod assert;
mod case_thread;
mod expect;
mod output;
mod plan;
mod planted;
mod runner;
mod values;

use alloc::string::String;
use alloc::vec::Vec;

use kernel_base::rng::Rng;

#[doc(hidden)]
pub(crate) use assert::{Good, differ, fail, note, same, skip};
pub(crate) use assert::{kassert, kassert_eq, kassert_ne, kassert_ok, kfail, knote, kskip};
pub use plan::suites;
pub use runner::{list, run, run_from_command_line};
#[doc(hidden)]
pub(crate) use values::Over;
pub use values::{CpuPairs, OnlineCpus, Params, Values};

use crate::report::Kind;

/// How many rounds a case shall make whose stated number is `full`, and which is content
/// with `quick` in daily work (`kunit.percent=`).
pub fn rounds(full: u64, quick: u64) -> u64 {
    match crate::boot::command_line().kunit_percent {
        None => quick,
        Some(percent) => (full.saturating_mul(percent) / 100).max(quick),
    }
}

/// How a case or a hook ends: `Ok(())` is a pass.
pub type Outcome = Result<(), Stop>;

/// Why a case ended early.
#[derive(Debug)]
pub enum Stop {
    /// An assertion failed. It has been printed already.
    Failed,
    /// The case cannot run here, for this reason.
    Skipped(String),
}

/// Set-up or teardown of a suite.
pub type Hook = fn(&mut Ctx) -> Outcome;

/// What a case is given.
pub struct Ctx {
    rng: Rng,
}

impl Ctx {
    /// Random numbers. They are the same in every run with the same seed (a fixed
    /// one without `kunit.shuffle`), whatever ran before the case.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }
}

/// A registered suite. Made by [`kunit_suite!`].
pub struct Suite {
    /// Name, unique among the suites, without dots and blanks.
    pub name: &'static str,
    /// Runs before the first case. If it fails, all cases fail; if it skips, all
    /// are skipped.
    pub setup: Option<Hook>,
    /// Runs after the last case, also if cases failed, unless the set-up did. If
    /// it fails, the last case fails.
    pub teardown: Option<Hook>,
    /// The cases in their usual order.
    pub cases: &'static [Case],
}

/// One case of a [`Suite`].
pub struct Case {
    /// Name, unique in the suite, without blanks.
    pub name: &'static str,
    /// What runs.
    pub body: Body,
    /// The kernel reports that have to come, in this order. For a case with
    /// parameters they have to come for each of them.
    pub expects: &'static [Kind],
}

/// What runs as a case.
pub enum Body {
    /// A function.
    Plain(Hook),
    /// A function run once for each of several values.
    Each(&'static dyn Params),
}

/// What to run and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Globs over `suite.case`; one without a dot names suites. Nothing runs that
    /// matches none of them.
    pub patterns: Vec<String>,
    /// Leave out everything up to and including this `suite.case`.
    pub after: Option<String>,
    /// Order suites and cases at random, from this seed.
    pub shuffle: Option<u64>,
    /// How often everything runs.
    pub repeat: u32,
    /// Longest guest time of one case (or one value of it), in nanoseconds.
    pub timeout_ns: u64,
}

/// Registers a suite.
///
/// ```ignore
/// kunit_suite! {
///     name: "example",
///     setup: prepare,          // both may be left out
///     teardown: clean_up,
///     cases: [
///         simple,
///         faulty => { expects: [Kind::Fault] },
///         table => { over: TABLE },
///     ],
/// }
///
/// const TABLE: &[(&str, u64)] = &[("zero", 0), ("one", 1)];
///
/// fn simple(_: &mut Ctx) -> Outcome { ... }
/// fn table(_: &mut Ctx, value: u64) -> Outcome { ... }
/// ```
///
/// A case's name is its function's. `over` takes whatever implements
/// [`values::Values`]: a table as above, [`OnlineCpus`] or [`CpuPairs`].
macro_rules! kunit_suite {
    (
        name: $name:literal,
        $(setup: $setup:path,)?
        $(teardown: $teardown:path,)?
        cases: [ $( $case:ident $( => { $($attributes:tt)* } )? ),* $(,)? ] $(,)?
    ) => {
        const _: () = {
            static SUITE: $crate::kunit::Suite = $crate::kunit::Suite {
                name: $name,
                setup: $crate::kunit::kunit_suite!(@hook $($setup)?),
                teardown: $crate::kunit::kunit_suite!(@hook $($teardown)?),
                cases: &[ $( $crate::kunit::kunit_suite!(@case $case $($($attributes)*)?) ),* ],
            };
            #[used]
            #[unsafe(link_section = ".kunit_suites")]
            static ENTRY: &$crate::kunit::Suite = &SUITE;
        };
    };
    (@hook) => { None };
    (@hook $hook:path) => { Some($hook) };
    (@case $case:ident) => {
        $crate::kunit::kunit_suite!(@case $case expects: [])
    };
    (@case $case:ident expects: [$($kind:expr),* $(,)?] $(,)?) => {
        $crate::kunit::Case {
            name: stringify!($case),
            body: $crate::kunit::Body::Plain($case),
            expects: &[$($kind),*],
        }
    };
    (@case $case:ident over: $values:expr $(,)?) => {
        $crate::kunit::kunit_suite!(@case $case over: $values, expects: [])
    };
    (@case $case:ident over: $values:expr, expects: [$($kind:expr),* $(,)?] $(,)?) => {
        $crate::kunit::Case {
            name: stringify!($case),
            body: $crate::kunit::Body::Each(&$crate::kunit::Over {
                values: $values,
                run: $case,
            }),
            expects: &[$($kind),*],
        }
    };
}

pub(crate) use kunit_suite;
