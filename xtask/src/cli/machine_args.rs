//! The options that describe a machine, the same for `run`, `test` and `gdb`.

use clap::{Args, ValueEnum};

use crate::build::Build;
use crate::machine::{Firmware, Model, Size};

/// The machine to boot, and how.
#[derive(Clone, Debug, Args)]
pub struct MachineArgs {
    /// Number of CPUs [default of run: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub cpus: Option<u32>,

    /// Number of NUMA nodes; CPUs and memory are dealt out evenly [default of run: 2, with 1 CPU: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub nodes: Option<u32>,

    /// Memory: a number with K, M, G or T; in MiB without [default of run: 512M]
    #[arg(long, value_name = "SIZE")]
    pub mem: Option<Size>,

    /// What executes the guest; auto takes KVM where the CPU has it, else TCG
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = AccelChoice::Auto)]
    pub accel: AccelChoice,

    /// Count instructions: each takes 1 ns of guest time, and a run repeats exactly
    #[arg(long)]
    pub icount: bool,

    /// Let interrupts in at every instruction (each is a block of its own for the translator)
    #[arg(long, conflicts_with = "icount")]
    pub singlestep: bool,

    /// Kernel command line
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub cmdline: String,

    /// Give up after so long
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub timeout: Option<u64>,

    /// Build without overflow checks and debug assertions
    #[arg(long)]
    pub release: bool,

    /// Build with read-side sections of RCU that may be preempted
    #[arg(long)]
    pub preemptible: bool,

    /// QEMU's machine
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Model::Q35)]
    pub machine: Model,

    /// QEMU's CPU model, with features to add or remove
    #[arg(long, value_name = "MODEL", default_value = "max")]
    pub cpu: String,

    /// How the kernel is started: QEMU's -kernel, or a disk image and OVMF
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Firmware::Pvh)]
    pub firmware: Firmware,

    /// Build, then print the QEMU command line instead of starting it
    #[arg(long)]
    pub dry_run: bool,
}

impl MachineArgs {
    /// Which kernel to boot.
    pub fn build(&self) -> Build {
        Build {
            release: self.release,
            preemptible: self.preemptible,
        }
    }
}

/// What `--accel` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccelChoice {
    /// KVM if the CPU virtualises and /dev/kvm opens, else TCG.
    Auto,
    /// The host's CPU, by hardware virtualisation.
    Kvm,
    /// QEMU's translator, a host thread for each CPU.
    Tcg,
}
