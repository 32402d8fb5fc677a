//! The shapes of machine on which the in-kernel suites run.

use crate::cli::MachineArgs;
use crate::machine::{DEFAULT_CPUS, Machine};

/// CPUs and nodes when none are asked for.
const USUAL: [(u32, u32); 3] = [(1, 1), (4, 2), (8, 4)];

/// CPUs and nodes of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    cpus: u32,
    nodes: u32,
}

impl Shape {
    /// The usual shapes, or the one that is asked for.
    pub fn chosen(args: &MachineArgs) -> Vec<Self> {
        if args.cpus.is_none() && args.nodes.is_none() {
            return USUAL.map(|(cpus, nodes)| Self { cpus, nodes }).into();
        }
        let cpus = args.cpus.unwrap_or(DEFAULT_CPUS);
        // As `run` does: two nodes where there are CPUs for two.
        vec![Self {
            cpus,
            nodes: args.nodes.unwrap_or(cpus.min(2)),
        }]
    }

    /// The name in the names of cases: `4cpu-2node`.
    pub fn name(self) -> String {
        match self {
            Self { cpus, nodes: 1 } => format!("{cpus}cpu"),
            Self { cpus, nodes } => format!("{cpus}cpu-{nodes}node"),
        }
    }

    /// A machine of this shape, otherwise as asked for.
    pub fn machine(self, args: &MachineArgs) -> anyhow::Result<Machine> {
        let args = MachineArgs {
            cpus: Some(self.cpus),
            nodes: Some(self.nodes),
            ..args.clone()
        };
        Machine::from_args(&args, self.cpus)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::machine::{Nodes, Size};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        machine: MachineArgs,
    }

    fn parse(line: &[&str]) -> MachineArgs {
        Line::parse_from([&["x"], line].concat()).machine
    }

    #[test]
    fn three_shapes_or_the_one_asked_for() {
        let names = |line: &[&str]| {
            Shape::chosen(&parse(line))
                .into_iter()
                .map(Shape::name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["1cpu", "4cpu-2node", "8cpu-4node"]);
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
