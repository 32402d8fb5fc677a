//! The machines on which figures are made.

use anyhow::bail;
use clap::ValueEnum;

use crate::machine::{Accel, Facts, Machine, Nodes, Size};

/// A machine of the benchmarks. A figure means something only together with its machine, so
/// they have no options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchMachine {
    /// 1 CPU; an instruction is a nanosecond, and figures repeat to the last digit.
    Icount,
    /// 4 CPUs on 2 nodes that take turns; figures repeat to the last digit.
    Icount4,
    /// 4 CPUs on 2 nodes, a host thread for each; wall time.
    Mttcg,
    /// 2 CPUs, a host thread for each; wall time.
    Mttcg2,
    /// 4 CPUs of the host, by hardware virtualisation.
    Kvm,
    /// No guest: the portable crates on threads of this host.
    Host,
}

impl BenchMachine {
    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Icount => "icount",
            Self::Icount4 => "icount4",
            Self::Mttcg => "mttcg",
            Self::Mttcg2 => "mttcg2",
            Self::Kvm => "kvm",
            Self::Host => "host",
        }
    }

    /// Whether it counts instructions, so that the same kernel gives the same figures.
    pub fn is_exact(self) -> bool {
        matches!(self, Self::Icount | Self::Icount4)
    }

    /// The guest.
    ///
    /// # Errors
    ///
    /// Why there is none on a host with these `facts`.
    pub fn guest(self, facts: &Facts) -> anyhow::Result<Machine> {
        let (cpus, nodes, accel) = match self {
            Self::Icount => (1, Nodes::Untold, Accel::Icount),
            Self::Icount4 => (4, Nodes::Even(2), Accel::Icount),
            Self::Mttcg => (4, Nodes::Even(2), Accel::Tcg),
            Self::Mttcg2 => (2, Nodes::Untold, Accel::Tcg),
            Self::Kvm => match (facts.virtualises, facts.device) {
                (true, true) => (4, Nodes::Untold, Accel::Kvm),
                (false, _) => bail!(
                    "there is no KVM here: this processor has no hardware virtualisation \
                     (neither vmx nor svm in /proc/cpuinfo); the other machines do without"
                ),
                (true, false) => bail!(
                    "there is no KVM here: /dev/kvm does not open for reading and writing; \
                     the other machines do without"
                ),
            },
            Self::Host => bail!("the host is no guest"),
        };
        Ok(Machine {
            cpus,
            mem: Size::mib(1024),
            nodes,
            accel,
            cpu: if self == Self::Kvm { "host" } else { "max" }.into(),
            ..Machine::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Images;
    use crate::qemu::{Console, arguments};

    const ALL: Facts = Facts {
        virtualises: true,
        device: true,
    };

    fn line(machine: BenchMachine) -> String {
        let images = Images {
            boot: "/t/boot".into(),
            kernel: "/t/granary".into(),
            stripped: "/t/kernel".into(),
            ramdisk: "/t/ramdisk".into(),
            disk: None,
        };
        let guest = machine.guest(&ALL).unwrap();
        arguments(&guest, &images, "", &Console::ByHand, None)
            .unwrap()
            .join(" ")
    }

    #[test]
    fn their_options_are_the_agreed_ones() {
        const EXACT: &str = "-accel tcg,thread=single -icount shift=0,sleep=off -seed 1 \
                             -rtc base=2026-01-01,clock=vm";
        const NODES: &str = "-object memory-backend-ram,id=mem0,size=512M \
                             -numa node,nodeid=0,cpus=0-1,memdev=mem0 \
                             -object memory-backend-ram,id=mem1,size=512M \
                             -numa node,nodeid=1,cpus=2-3,memdev=mem1";
        for (machine, cpu, smp, accel, nodes) in [
            (BenchMachine::Icount, "max", 1, EXACT, false),
            (BenchMachine::Icount4, "max", 4, EXACT, true),
            (
                BenchMachine::Mttcg,
                "max",
                4,
                "-accel tcg,thread=multi",
                true,
            ),
            (
                BenchMachine::Mttcg2,
                "max",
                2,
                "-accel tcg,thread=multi",
                false,
            ),
            (BenchMachine::Kvm, "host", 4, "-accel kvm", false),
        ] {
            let line = line(machine);
            assert!(line.contains("-display none -no-reboot "), "{line}");
            let wanted = format!(" -cpu {cpu} -smp {smp} -m 1G {accel} ");
            assert!(line.contains(&wanted), "{line}");
            assert_eq!(line.contains(NODES), nodes, "{line}");
            assert_eq!(line.contains("-numa"), nodes, "{line}");
            assert_eq!(
                line.contains("tsc_khz=1000000"),
                machine.is_exact(),
                "{line}"
            );
        }
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for machine in BenchMachine::value_variants() {
            let value = machine.to_possible_value().unwrap();
            assert_eq!(value.get_name(), machine.name());
        }
    }

    #[test]
    fn what_is_impossible_says_so() {
        let without = |virtualises, device| {
            let facts = Facts {
                virtualises,
                device,
            };
            BenchMachine::Kvm.guest(&facts).unwrap_err().to_string()
        };
        assert!(without(false, true).contains("vmx"));
        assert!(without(true, false).contains("/dev/kvm"));
    }
}
