//! The shapes of machine on which the in-kernel suites run.

use super::tier::Tier;
use crate::cli::{AccelChoice, MachineArgs};
use crate::machine::{DEFAULT_CPUS, Machine, Size};

/// CPUs, nodes, and how time goes when none are asked for.
const USUAL: [(u32, u32, Pace); 7] = [
    (1, 1, Pace::Free),
    (4, 2, Pace::Free),
    (8, 4, Pace::Free),
    (1, 1, Pace::Exact),
    (4, 2, Pace::Exact),
    (4, 2, Pace::Stepped),
    (4, 2, Pace::Seeded),
];

/// How the guest's instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// As the options say.
    Free,
    /// Counted: interrupts come at exact instructions, and runs repeat.
    Exact,
    /// Counted, and with a schedule from a seed.
    Seeded,
    /// One at a time: interrupts may come between any two.
    Stepped,
}

/// CPUs and nodes of a machine, and how time goes on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    cpus: u32,
    nodes: u32,
    pace: Pace,
}

impl Shape {
    /// The usual shapes, or the one that is asked for.
    pub fn chosen(args: &MachineArgs) -> Vec<Self> {
        if args.cpus.is_none() && args.nodes.is_none() {
            let free = args.icount || args.singlestep || args.accel == AccelChoice::Kvm;
            return USUAL
                .into_iter()
                // An option that says how time goes says it for all shapes.
                .filter(|&(_, _, pace)| !free || pace == Pace::Free)
                .map(|(cpus, nodes, pace)| Self { cpus, nodes, pace })
                .collect();
        }
        let cpus = args.cpus.unwrap_or(DEFAULT_CPUS);
        // As `run` does: two nodes where there are CPUs for two.
        vec![Self {
            cpus,
            nodes: args.nodes.unwrap_or(cpus.min(2)),
            pace: Pace::Free,
        }]
    }

    /// The name in the names of cases: `4cpu-2node`, `4cpu-2node-icount`.
    pub fn name(self) -> String {
        let pace = match self.pace {
            Pace::Free => "",
            Pace::Exact => "-icount",
            Pace::Seeded => "-seeded",
            Pace::Stepped => "-singlestep",
        };
        match self {
            Self { cpus, nodes: 1, .. } => format!("{cpus}cpu{pace}"),
            Self { cpus, nodes, .. } => format!("{cpus}cpu-{nodes}node{pace}"),
        }
    }

    /// Whether the guest is one thread of the host, and its time does not depend on it.
    pub fn is_one_thread(self) -> bool {
        matches!(self.pace, Pace::Exact | Pace::Seeded)
    }

    /// How much of their stated duration long cases run, in percent; `None`: what is quick.
    /// Where instructions are counted or executed one at a time all takes many times as long,
    /// so there they do half of it under CI.
    pub fn percent(self, tier: Tier) -> Option<u32> {
        let percent = tier.percent()?;
        Some(match (tier, self.pace) {
            (Tier::Ci, Pace::Exact | Pace::Stepped | Pace::Seeded) => (percent / 2).max(1),
            _ => percent,
        })
    }

    /// What the kernel is told of the pace. `seed` is that of a schedule.
    pub fn cmdline(self, seed: u64) -> String {
        match self.pace {
            Pace::Seeded => format!("schedule={seed}"),
            _ => String::new(),
        }
    }

    /// Its memory, if none is asked for. Behind each suite every page frame is looked at, and some
    /// cases use all memory up: both take a hundred times as long where instructions are counted
    /// or executed one at a time.
    fn mem(self) -> Option<Size> {
        match self.pace {
            Pace::Free => None,
            Pace::Exact | Pace::Seeded | Pace::Stepped => Some(Size::mib(128)),
        }
    }

    /// A machine of this shape, otherwise as asked for.
    pub fn machine(self, args: &MachineArgs) -> anyhow::Result<Machine> {
        let args = MachineArgs {
            cpus: Some(self.cpus),
            nodes: Some(self.nodes),
            mem: args.mem.or(self.mem()),
            icount: args.icount || matches!(self.pace, Pace::Exact | Pace::Seeded),
            singlestep: args.singlestep || self.pace == Pace::Stepped,
            ..args.clone()
        };
        Machine::from_args(&args, self.cpus)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::machine::Nodes;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        machine: MachineArgs,
    }

    fn parse(line: &[&str]) -> MachineArgs {
        Line::parse_from([&["x"], line].concat()).machine
    }

    #[test]
    fn usual_shapes_or_the_one_asked_for() {
        let names = |line: &[&str]| {
            Shape::chosen(&parse(line))
                .into_iter()
                .map(Shape::name)
                .collect::<Vec<_>>()
        };
        let free = ["1cpu", "4cpu-2node", "8cpu-4node"];
        assert_eq!(names(&[])[..3], free);
        assert_eq!(
            names(&[])[3..],
            [
                "1cpu-icount",
                "4cpu-2node-icount",
                "4cpu-2node-singlestep",
                "4cpu-2node-seeded"
            ]
        );
        assert_eq!(names(&["--icount"]), free);
        assert_eq!(names(&["--singlestep"]), free);
        assert_eq!(names(&["--cpus", "1"]), ["1cpu"]);
        assert_eq!(names(&["--cpus", "16"]), ["16cpu-2node"]);
        assert_eq!(names(&["--nodes", "1"]), ["4cpu"]);
        assert_eq!(names(&["--cpus", "3", "--nodes", "3"]), ["3cpu-3node"]);
    }

    #[test]
    fn other_options_hold_for_every_shape() {
        let args = parse(&["--mem", "1G"]);
        for shape in Shape::chosen(&args) {
            let machine = shape.machine(&args).expect("such machines exist");
            assert_eq!(machine.mem, Size::mib(1024));
            assert_eq!(
                (machine.cpus, machine.nodes),
                (shape.cpus, Nodes::Even(shape.nodes))
            );
        }
    }
}
