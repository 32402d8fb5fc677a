//! Benchmarks inside the running kernel, reported as the lines of
//! [`kernel_base::bench`]; `docs/benchmarks.md` says how to run them and read the figures.
//!
//! A *workload* is registered by [`bench!`] into a link section; nothing else has to know
//! of it. It is a function that prepares what it needs, has [`Run`] time the part that
//! counts, and puts everything back:
//!
//! ```ignore
//! bench! {
//!     name: "pair/256",
//!     ops: 200_000,
//!     run: pair_256,
//! }
//!
//! fn pair_256(run: &mut Run) -> Outcome {
//!     let cache = Cache::new(256).map_err(|_| Stop::Failed("no memory for a cache".into()))?;
//!     let ops = run.ops();
//!     run.time(|| (0..ops).for_each(|_| cache.free(cache.alloc())));
//!     Ok(())                              // dropping the cache is not timed
//! }
//! ```
//!
//! It is called once with a tenth of the operations, to warm up, and then once a round with
//! all of them. The round with the median figure is reported, with its idle time and its
//! further keys; `min` and `max` are the other ends.
//!
//! - *Only a part of each operation counts*: call [`Run::time`] for each, the times add up.
//!   One call costs some 20 instructions.
//! - *Several CPUs at once*: say so by [`Run::shared_by`], and time the wall time from the
//!   moment when all have started until the last is done. The figure is wall time x CPUs /
//!   all operations. A workload that needs more than one CPU says `cpus: N` when it is
//!   registered and is skipped where fewer are online.
//! - *Timing on another CPU or thread*: [`Start`] there, and hand what it measured to
//!   [`Run::add`].
//! - *Something else is measured too*: [`Run::key`].
//! - *It cannot run here*: [`Stop::Skipped`]. *It went wrong*: [`Stop::Failed`].
//!
//! Workloads run one after the other, in the thread that started the run, which is bound to
//! the boot CPU meanwhile, with interrupts and preemption on: a workload may sleep, and the
//! tick is part of the figures. They must leave nothing behind that disturbs the next: no armed timer, no
//! running thread. On a machine that counts instructions a run repeats to the last digit
//! as long as they keep to that and take no random numbers but from a fixed seed.

mod idle;
mod pages;
mod plan;
mod primitives;
mod rcu;
mod run;
mod runner;
mod sched;
mod slab;
mod threads;

use alloc::string::String;
use alloc::vec::Vec;

pub use idle::prepare as prepare_idle;
pub use plan::workloads;
pub use run::{Run, Start, Took};
pub use runner::{figures, list, run, run_from_command_line};

/// How a call of a workload ends.
pub type Outcome = Result<(), Stop>;

/// Why there is no figure. Each is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The workload cannot run on this machine.
    Skipped(String),
    /// Something went wrong.
    Failed(String),
}

/// A registered workload. Made by [`bench!`].
pub struct Workload {
    /// Its name in the tables of figures; unique.
    pub name: &'static str,
    /// Operations in a round; of each CPU, if several work at once.
    pub ops: u64,
    /// The CPUs that must be online.
    pub cpus: usize,
    /// Does and times [`Run::ops`] operations.
    pub run: fn(&mut Run) -> Outcome,
}

/// What to run and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Patterns as in [`kernel_base::bench::matches`]. Each must mean some workload.
    pub patterns: Vec<String>,
    /// Rounds of each workload, at least 1.
    pub rounds: u32,
}

/// Registers a workload: its name, the operations of a round, the CPUs that it needs (may
/// be left out: 1) and the function that does it.
///
/// ```ignore
/// bench! {
///     name: "remote_free/256",
///     ops: 200_000,
///     cpus: 2,
///     run: remote_free,
/// }
/// ```
macro_rules! bench {
    (
        name: $name:literal,
        ops: $ops:expr,
        $(cpus: $cpus:expr,)?
        run: $run:expr $(,)?
    ) => {
        const _: () = {
            assert!(kernel_base::bench::is_name($name) && $ops > 0);
            static WORKLOAD: $crate::bench::Workload = $crate::bench::Workload {
                name: $name,
                ops: $ops,
                cpus: $crate::bench::bench!(@cpus $($cpus)?),
                run: $run,
            };
            #[used]
            #[unsafe(link_section = ".benchmarks")]
            static ENTRY: &$crate::bench::Workload = &WORKLOAD;
        };
    };
    (@cpus) => { 1 };
    (@cpus $cpus:expr) => { $cpus };
}

pub(crate) use bench;
