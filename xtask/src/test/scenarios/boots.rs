//! The boot matrix: the kernel reports what QEMU was given.

use super::{Check, GOOD_END, boot, has, quick, with_cpus};
use crate::machine::{Accel, Firmware, Machine, Model, Node, Nodes, Size};
use crate::test::scenario::{Action, Boot, Scenario};

/// What every boot of the matrix runs.
const COMMANDS: &str = r#"run="cpus; mem""#;

/// The scenarios.
pub fn table() -> Vec<Scenario> {
    let mut table = vec![
        // The longest first.
        matrix(
            "firmware-uefi",
            2,
            Machine {
                firmware: Firmware::Uefi,
                ..with_cpus(4)
            },
        ),
        matrix(
            "firmware-pvh",
            2,
            Machine {
                firmware: Firmware::Pvh,
                ..with_cpus(4)
            },
        ),
    ];
    table.extend([64, 16, 8, 4, 2].map(|cpus| matrix(format!("cpus-{cpus}"), 2, with_cpus(cpus))));
    table.push(matrix("cpus-1", 1, with_cpus(1)));
    table.extend([8, 4, 2, 1].map(|nodes| {
        let machine = Machine {
            cpus: 8,
            nodes: Nodes::Even(nodes),
            ..Machine::default()
        };
        matrix(format!("nodes-{nodes}"), nodes, machine)
    }));
    table.extend([
        matrix(
            "node-without-memory",
            2,
            uneven(Some(0..2), 512, Some(2..4), 0),
        ),
        matrix("node-without-cpus", 2, uneven(Some(0..4), 256, None, 256)),
        // Without a table of nodes there is one.
        matrix(
            "no-srat",
            1,
            Machine {
                nodes: Nodes::Untold,
                ..with_cpus(4)
            },
        ),
        matrix(
            "mem-64m",
            2,
            Machine {
                mem: Size::mib(64),
                ..with_cpus(4)
            },
        ),
        matrix(
            "mem-8g",
            2,
            Machine {
                mem: Size::mib(8 << 10),
                ..with_cpus(4)
            },
        ),
        matrix(
            "machine-pc",
            2,
            Machine {
                model: Model::Pc,
                ..with_cpus(4)
            },
        ),
        matrix(
            "machine-q35",
            2,
            Machine {
                model: Model::Q35,
                ..with_cpus(4)
            },
        ),
        matrix(
            "cpu-qemu64",
            2,
            Machine {
                cpu: "qemu64".into(),
                ..with_cpus(4)
            },
        ),
        matrix(
            "cpu-qemu64-without-cx16",
            2,
            Machine {
                cpu: "qemu64,-cx16".into(),
                ..with_cpus(4)
            },
        ),
        matrix(
            "cpu-max",
            2,
            Machine {
                cpu: "max".into(),
                ..with_cpus(4)
            },
        ),
        exact_time(),
        wall_time(),
    ]);
    table
}

/// Two nodes with these CPUs and MiB.
fn uneven(
    cpus: Option<std::ops::Range<u32>>,
    mib: u64,
    other_cpus: Option<std::ops::Range<u32>>,
    other_mib: u64,
) -> Machine {
    let nodes = vec![
        Node {
            cpus,
            mem: Size::mib(mib),
        },
        Node {
            cpus: other_cpus,
            mem: Size::mib(other_mib),
        },
    ];
    Machine {
        nodes: Nodes::Explicit(nodes),
        ..with_cpus(4)
    }
}

/// A boot after which the kernel must know its CPUs and so many nodes.
fn matrix(name: impl Into<String>, nodes: u32, machine: Machine) -> Scenario {
    let cpus = machine.cpus;
    let checks = vec![
        GOOD_END,
        has(format!(r"smp: {cpus} of {cpus} CPUs online")),
        has(format!(r"numa: {nodes} nodes?\b")),
        has(r"boot: ready in [0-9.]+ ms guest time"),
        // The last CPU's line in the list of `cpus`.
        has(format!(r"^ *{} +\d+ +online", cpus - 1)),
        Check::HasNot("=== KERNEL PANIC".into()),
        Check::HasNot(r"cpu\d+ error:".into()),
    ];
    quick(name, Action::Boot(boot(machine, COMMANDS, checks)))
}

/// With counted instructions guest time is exact, so it may be judged.
fn exact_time() -> Scenario {
    let machine = Machine {
        accel: Accel::Icount,
        ..with_cpus(1)
    };
    let checks = vec![GOOD_END, Check::ReadyWithinMs(100.0)];
    quick(
        "icount-ready-in-100-ms",
        Action::Boot(boot(machine, "run=true", checks)),
    )
}

/// Shows how long a boot takes in wall time.
fn wall_time() -> Scenario {
    let boot = Boot {
        show_time: true,
        ..boot(with_cpus(4), "run=true", vec![GOOD_END])
    };
    quick("wall-time", Action::Boot(boot))
}
