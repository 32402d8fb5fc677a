//! The options of `bench`.

use std::path::PathBuf;

use clap::Args;

use crate::bench::BenchMachine;

/// Options of `bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// The machine
    #[arg(long, value_enum, value_name = "NAME")]
    pub machine: BenchMachine,

    /// Run only what one of these means: a glob over whole names, or, without a slash, over
    /// what is before the first one (sched, pair/*, destroy/idle)
    #[arg(long, value_name = "GLOB", value_delimiter = ',', default_value = "*")]
    pub filter: Vec<String>,

    /// Rounds of each workload, of which the median is reported
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,

    /// Write the figures to this file, for a later --baseline; not if something went wrong
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Compare with the figures in this file, which --json made on the same machine with
    /// the same rustc, QEMU and profile
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,

    /// Compare even if the baseline was made with another rustc, QEMU or profile
    #[arg(long, requires = "baseline")]
    pub allow_other_tools: bool,

    /// Build with read-side sections of RCU that may be preempted
    #[arg(long)]
    pub preemptible: bool,

    /// Build, then print the QEMU command line instead of starting it
    #[arg(long)]
    pub dry_run: bool,
}
