//! `xtask` as a user meets it: its messages, its statuses, GDB.

use super::{Check, has, quick};
use crate::test::scenario::{Action, Program, Scenario};

/// Arguments, status (none for any failure) and a line that comes out.
const CASES: &[(&str, &[&str], Option<i32>, &str)] = &[
    (
        "xtask-wrong-option",
        &["run", "--no-such-option"],
        Some(2),
        "--no-such-option",
    ),
    (
        "xtask-wrong-value",
        &["run", "--cpus", "many"],
        Some(2),
        "many",
    ),
    (
        "xtask-wrong-machine",
        &["run", "--machine", "no-such-machine"],
        Some(2),
        "no-such-machine",
    ),
    (
        "xtask-dry-run",
        &["run", "--dry-run"],
        Some(0),
        "qemu-system-x86_64.* -smp ",
    ),
    (
        "xtask-run-true",
        &["run", "--cpus", "1", "--", "true"],
        Some(0),
        "boot: ready in",
    ),
    (
        "xtask-run-false",
        &["run", "--cpus", "1", "--", "false"],
        Some(1),
        "boot: ready in",
    ),
    (
        "xtask-run-panic",
        &["run", "--cpus", "1", "--", "panic"],
        Some(1),
        r"panic_tests::.* at \S+\.rs:\d+",
    ),
    // QEMU itself refuses; what it says reaches the user.
    (
        "xtask-qemu-fails",
        &["run", "--cpu", "no-such-cpu", "--", "true"],
        None,
        "unable to find CPU model 'no-such-cpu'",
    ),
    (
        "xtask-silent-guest",
        &[
            "run",
            "--cpus",
            "1",
            "--cmdline",
            "kunit.planted=silent",
            "--timeout",
            "20",
        ],
        Some(1),
        "printed nothing|no output|never printed",
    ),
    (
        "xtask-test-fails",
        &[
            "test",
            "--only",
            "kernel",
            "--cpus",
            "1",
            "--cmdline",
            "kunit.planted=fail",
            "planted.*",
        ],
        Some(1),
        "^2 passed, 1 failed, 0 skipped$",
    ),
    (
        "xtask-test-without-match",
        &["test", "--only", "kernel", "--cpus", "1", "no_such_suite.*"],
        Some(1),
        "^0 passed, [01] failed, 0 skipped$",
    ),
];

/// The scenarios.
pub fn table() -> Vec<Scenario> {
    let cases = CASES.iter().map(|&(name, args, status, line)| {
        let end = status.map_or(Check::Fails, Check::Status);
        program(name, args, vec![end, has(line)])
    });
    cases
        .chain([
            missing_tool(),
            gdb(),
            gdb_heap(),
            quick("xtask-killed", Action::Orphan),
        ])
        .collect()
}

fn program(name: &str, args: &[&'static str], checks: Vec<Check>) -> Scenario {
    quick(
        name,
        Action::Program(Program {
            args: args.to_vec(),
            without: &[],
            checks,
        }),
    )
}

/// Without QEMU, and without apt to get it, its name is in the message.
fn missing_tool() -> Scenario {
    let program = Program {
        args: vec!["run", "--", "true"],
        without: &["qemu", "apt", "dpkg", "sudo"],
        checks: vec![
            Check::Fails,
            has("qemu-system-x86_64"),
            Check::HasNot("boot: ready in".into()),
        ],
    };
    quick("xtask-missing-tool", Action::Program(program))
}

/// Stops at the kernel's main, shows Rust names and lines, and goes on to a later
/// function.
fn gdb() -> Scenario {
    let args = [
        "gdb",
        "--cpus",
        "2",
        "--batch",
        "-ex",
        "bt",
        "-ex",
        "tbreak granary::shell::main",
        "-ex",
        "continue",
        "-ex",
        "bt",
    ];
    let stops = [
        r"kernel_main.* at \S*main\.rs:\d+",
        r"shell::main.* at \S*shell\.rs:\d+",
        r"kernel_main",
    ];
    program(
        "gdb-batch",
        &args,
        vec![
            Check::Status(0),
            Check::InOrder(stops.map(String::from).to_vec()),
        ],
    )
}

/// What GDB says of the heap is what the kernel says of it, in the same moment.
fn gdb_heap() -> Scenario {
    const COMMANDS: &str = concat!(
        r#"run="kmem walk; slabinfo kmalloc-64; slabinfo kmem_cache; "#,
        "kmem 0xffff888000100010; kmem 0xffff888001000000; ",
        "kmem here; kmem here+0x8; kmem here+0x10; kmem here+0x83; ",
        "echo 1 > /sys/kernel/slab/kmalloc-64/shrink; ",
        "slabinfo kmalloc-64; kmem walk; kmem 0x10; ",
        // In a cache that keeps who allocated what; the word is as long as that takes.
        "kmem here+0x000000000000000000; slabinfo kmalloc-32; ",
        // At last what waits for grace periods: in chains, as there is no page; in sheaves; in pages, as kmalloc-32 has no
        // sheaves; large ones; and calls that are still to be made.
        "fault page min-order 0; fault page times -1; fault page probability 100; ",
        "kfree_rcu 8 32; fault page probability 0; batches; ",
        r#"kfree_rcu 300; kfree_rcu 1100 32; kfree_rcu 2 20000; kfree_rcu -d 4 32" "#,
        "slub_debug=U,kmalloc-32 slab_quarantine=64K",
    );
    let args = [
        "gdb",
        "--cpus",
        "4",
        "--nodes",
        "2",
        "--mem",
        "128M",
        "--cmdline",
        COMMANDS,
        "--batch",
        "-ex",
        "granary same 39",
        "-ex",
        "granary caches",
        "-ex",
        "granary cache no-such-cache",
        "-ex",
        "granary whatis no_such_symbol",
        "-ex",
        "granary same all",
    ];
    let lines = [
        r"^same: \d+ objects in \d+ slabs of \d+ caches: .* [1-9]\d* quarantined$",
        "^same: cache kmalloc-64: ",
        "^same: cache kmem_cache: ",
        r"^same: 0xffff888000100010: ",
        r"^same: 0xffff888001000000: ",
        r"^same: 0x[0-9a-f]+: byte 0 of object \d+ \(0x[0-9a-f]+, 8 bytes\) of cache kmalloc-8$",
        "^same: 0x[0-9a-f]+: byte 0 of object ",
        "^same: 0x[0-9a-f]+: byte 0 of object ",
        "^same: 0x[0-9a-f]+: byte 3 of object ",
        "^same: cache kmalloc-64: ",
        r"^same: \d+ objects in ",
        r"^same: 0x10: no memory of the direct map",
        r"^same: 0x[0-9a-f]+: byte 0 of object \d+ \(0x[0-9a-f]+, 32 bytes\) of cache kmalloc-32$",
        r"^  allocated at \S+:\d+:\d+ by thread \d+ on cpu\d at \d+ ns: 0x[0-9a-f]{16} 0x",
        "^same: cache kmalloc-32: ",
        r"^same: \d+ objects in .* [1-9]\d* waiting, 0 deferred, \d+ quarantined$",
        r"^same: grace periods that are over: normal \d+, expedited \d+$",
        r"^cpu\d: (awake|called|dozing), [1-9]\d* bytes wait, \d objects taken$",
        r"^  chain: \d heads \((open|normal .*over)\)$",
        r"^free: waiting for a grace period on cpu\d \((open|normal .*over)\)$",
        r"^same: cache kmalloc-32: ",
        r"^same: grace periods that are over: normal \d+, expedited \d+$",
        r"^same: \d+ objects in .* [1-9]\d* waiting, 0 deferred, \d+ quarantined$",
        r"^  kmalloc-64: \d+ objects in \d sheaf",
        "^same: cache kmalloc-64: ",
        r"^  page: \d+ pointers to kmalloc \(normal \d+, expedited \d+; (not )?over\)$",
        "^free: waiting for a grace period on cpu. .normal .*over.$",
        "^same: cache kmalloc-32: ",
        r"^same: 0x[0-9a-f]+: page 0x[0-9a-f]+ of a block of order 3 .*: large kmalloc$",
        r"^same: \d+ objects in .* waiting, [1-4] deferred, \d+ quarantined$",
        "^free: deferred on cpu.$",
        "^0 texts differ$",
        "^slabinfo - version: 2.1$",
        r"^kmalloc-64 +\d+ +\d+ +64 +64 +1 : tunables ",
        "^no cache is called 'no-such-cache'",
        "^granary whatis: 'no_such_symbol' is no address: ",
        "^granary same needs the number of texts",
    ];
    program(
        "gdb-heap",
        &args,
        vec![
            Check::InOrder(lines.map(String::from).to_vec()),
            Check::HasNot("^the kernel says:".into()),
        ],
    )
}
