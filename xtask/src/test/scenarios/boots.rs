//! The boot matrix: the kernel reports what QEMU was given.

use super::{Check, GOOD_END, boot, has, quick};
use crate::test::machine::SUCCESS;
use crate::test::scenario::{Action, Boot, Layout, Scenario};

/// What every boot of the matrix runs.
const COMMANDS: &str = r#"run="cpus; mem""#;

/// Options, CPUs and nodes of the plain part of the matrix.
const MATRIX: &[(&str, &str, usize, usize)] = &[
    ("cpus-64", "--cpus 64", 64, 2),
    ("cpus-16", "--cpus 16", 16, 2),
    ("cpus-8", "--cpus 8", 8, 2),
    ("cpus-4", "--cpus 4", 4, 2),
    ("cpus-2", "--cpus 2", 2, 2),
    ("cpus-1", "--cpus 1", 1, 1),
    ("nodes-8", "--cpus 8 --nodes 8", 8, 8),
    ("nodes-4", "--cpus 8 --nodes 4", 8, 4),
    ("nodes-2", "--cpus 8 --nodes 2", 8, 2),
    ("nodes-1", "--cpus 8 --nodes 1", 8, 1),
    ("mem-64m", "--cpus 4 --mem 64M", 4, 2),
    ("mem-8g", "--cpus 4 --mem 8G", 4, 2),
    ("machine-pc", "--cpus 4 --machine pc", 4, 2),
    ("machine-q35", "--cpus 4 --machine q35", 4, 2),
    ("cpu-qemu64", "--cpus 4 --cpu qemu64", 4, 2),
    (
        "cpu-qemu64-without-cx16",
        "--cpus 4 --cpu qemu64,-cx16",
        4,
        2,
    ),
    ("cpu-max", "--cpus 4 --cpu max", 4, 2),
    ("firmware-pvh", "--cpus 4 --firmware pvh", 4, 2),
    ("firmware-uefi", "--cpus 4 --firmware uefi", 4, 2),
];

/// Machines whose nodes are not dealt out evenly.
const UNEVEN: &[(&str, Layout, usize, usize)] = &[
    ("node-without-memory", Layout::NodeWithoutMemory, 4, 2),
    ("node-without-cpus", Layout::NodeWithoutCpus, 4, 2),
    ("no-srat", Layout::NoSrat, 4, 1),
];

/// The scenarios.
pub fn table() -> Vec<Scenario> {
    let even = MATRIX.iter().map(|&(name, options, cpus, nodes)| {
        quick(
            name,
            Action::Boot(boot(options, COMMANDS, expected(cpus, nodes))),
        )
    });
    let uneven = UNEVEN.iter().map(|&(name, layout, cpus, nodes)| {
        let mut boot = boot("--cpus 4", COMMANDS, expected(cpus, nodes));
        boot.shape.layout = layout;
        quick(name, Action::Boot(boot))
    });
    even.chain(uneven)
        .chain([exact_time(), wall_time()])
        .collect()
}

/// The kernel found so many CPUs and nodes, and nothing went wrong.
fn expected(cpus: usize, nodes: usize) -> Vec<Check> {
    let plural = if nodes == 1 { "nodes?" } else { "nodes" };
    vec![
        GOOD_END,
        has(format!(r"smp: {cpus} of {cpus} CPUs online")),
        has(format!(r"numa: {nodes} {plural}\b")),
        has(r"boot: ready in [0-9.]+ ms guest time"),
        // The last CPU's line in the list of `cpus`.
        has(format!(r"^ *{} +\d+ +online", cpus - 1)),
        Check::HasNot("=== KERNEL PANIC".into()),
        Check::HasNot(r"cpu\d+ error:".into()),
    ]
}

/// With counted instructions guest time is exact, so it may be judged.
fn exact_time() -> Scenario {
    let checks = vec![Check::Status(SUCCESS), Check::ReadyWithinMs(100.0)];
    quick(
        "icount-ready-in-100-ms",
        Action::Boot(boot("--cpus 1 --nodes 1 --icount", "run=true", checks)),
    )
}

/// Shows how long a boot takes in wall time.
fn wall_time() -> Scenario {
    let boot = Boot {
        show_time: true,
        ..boot("--cpus 4", "run=true", vec![GOOD_END])
    };
    quick("wall-time", Action::Boot(boot))
}
