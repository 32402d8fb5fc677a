//! The options of `test`.

use std::path::PathBuf;

use clap::Args;

use super::{MachineArgs, TortureArgs};
use crate::test::{Kind, Sanitizer};

/// Options of `test`.
#[derive(Clone, Debug, Args)]
pub struct TestArgs {
    /// The machine; without --cpus and --nodes the in-kernel tests run on three shapes.
    #[command(flatten)]
    pub machine: MachineArgs,

    /// Run only what matches one of these globs, over full names (host/xtask/*,
    /// kernel/1cpu/*, boot/panic-*) or over suite.case of the tests inside the kernel
    #[arg(value_name = "GLOB")]
    pub filters: Vec<String>,

    /// Run everything, for its stated duration
    #[arg(long)]
    pub long: bool,

    /// Run only tests of this kind
    #[arg(long, value_enum, value_name = "KIND")]
    pub only: Option<Kind>,

    /// Run the host tests of platform, rcu and mm under a sanitizer, built by a nightly compiler; nothing else
    #[arg(long, value_enum, value_name = "SANITIZER", conflicts_with_all = ["only", "shuffle", "torture"])]
    pub sanitize: Option<Sanitizer>,

    /// List the tests instead of running them
    #[arg(long)]
    pub list: bool,

    /// Run the in-kernel tests so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,

    /// Run the in-kernel tests in random order, drawn from a seed that is printed;
    /// --shuffle=SEED gives the same order again
    #[arg(long, value_name = "SEED", num_args = 0..=1, require_equals = true)]
    pub shuffle: Option<Option<u64>>,

    /// Where to write the JUnit report [default: target/junit.xml]
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,

    /// Torture.
    #[command(flatten)]
    pub torture: TortureArgs,
}
