//! The shape of a guest machine.

mod accel;
mod nodes;
mod size;

use std::ops::Range;

use clap::ValueEnum;

use crate::cli::{MachineArgs, Usage};

pub use accel::{Accel, Facts};
pub use nodes::{Node, Nodes};
pub use size::Size;

/// CPUs of a machine when nothing is said.
pub const DEFAULT_CPUS: u32 = 4;
/// Memory where no other amount is asked for.
pub const DEFAULT_MEM: Size = Size::mib(512);

/// QEMU's machine types that Granary knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// PCI Express, the newer chipset.
    Q35,
    /// The older chipset (i440FX).
    Pc,
}

impl Model {
    /// QEMU's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q35 => "q35",
            Self::Pc => "pc",
        }
    }
}

/// How the kernel gets into the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Firmware {
    /// QEMU's `-kernel` starts the boot stub; no firmware, no disk.
    Pvh,
    /// OVMF starts a disk image.
    Uefi,
}

/// A machine to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in all nodes together.
    pub mem: Size,
    /// The NUMA nodes.
    pub nodes: Nodes,
    /// What executes it.
    pub accel: Accel,
    /// QEMU's machine type.
    pub model: Model,
    /// QEMU's CPU model, with features.
    pub cpu: String,
    /// How the kernel gets in.
    pub firmware: Firmware,
}

impl Default for Machine {
    /// That of `cargo xtask run`, but always on TCG.
    fn default() -> Self {
        Self {
            cpus: DEFAULT_CPUS,
            mem: DEFAULT_MEM,
            nodes: Nodes::Even(2),
            accel: Accel::Tcg,
            model: Model::Q35,
            cpu: "max".into(),
            firmware: Firmware::Pvh,
        }
    }
}

impl Machine {
    /// The machine that the options ask for, with `cpus` CPUs and one node for
    /// one CPU, two for more, where they say nothing.
    pub fn from_args(args: &MachineArgs, cpus: u32) -> anyhow::Result<Self> {
        let cpus = args.cpus.unwrap_or(cpus);
        let machine = Self {
            cpus,
            mem: args.mem.unwrap_or(DEFAULT_MEM),
            nodes: Nodes::Even(args.nodes.unwrap_or(if cpus >= 2 { 2 } else { 1 })),
            accel: Accel::choose(args.accel, args.icount, args.singlestep, &Facts::gather())?,
            model: args.machine,
            cpu: args.cpu.clone(),
            firmware: args.firmware,
        };
        machine.check()?;
        Ok(machine)
    }

    /// Whether QEMU could make this machine; what is wrong, if it could not.
    pub fn check(&self) -> Result<(), Usage> {
        let nodes = self.nodes.resolve(self.cpus, self.mem)?;
        let Some(nodes) = nodes else { return Ok(()) };
        let total: u64 = nodes.iter().map(|node| node.mem.bytes()).sum();
        if total != self.mem.bytes() {
            return Err(Usage(format!(
                "the nodes have {} of memory together, but the machine has {}",
                Size::from_bytes(total),
                self.mem
            )));
        }
        let mut owners = vec![0; self.cpus as usize];
        for cpu in nodes
            .iter()
            .flat_map(|node| node.cpus.iter().cloned().flat_map(Range::into_iter))
        {
            match owners.get_mut(cpu as usize) {
                Some(count) => *count += 1,
                None => {
                    return Err(Usage(format!(
                        "a node has CPU {cpu}, but there are only {}",
                        self.cpus
                    )));
                }
            }
        }
        match owners.iter().position(|&count| count != 1) {
            Some(cpu) => Err(Usage(format!("CPU {cpu} must be in exactly one node"))),
            None => Ok(()),
        }
    }
}
