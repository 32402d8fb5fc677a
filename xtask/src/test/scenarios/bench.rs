//! Benchmarks: on the kernel's command line, in its shell, and by `xtask bench`.

use super::{Check, GOOD_END, boot, has, quick, small, with_cpus};
use crate::machine::{Accel, Machine, Nodes};
use crate::test::scenario::{Action, Program, Scenario};
use crate::test::subject::{FAILURE, SUCCESS, run_status};

/// Kernel command lines, the number of CPUs, the status, and lines in their order.
const BOOTS: &[(&str, &str, u32, i32, &[&str])] = &[
    (
        "bench-some",
        "bench=sched/e*,sched/irqs_off_on bench.rounds=2",
        2,
        SUCCESS,
        &[
            // What is tested is no release build, and says so.
            r"^# bench: CHECKED BUILD .*; rounds=2 cpus=2$",
            r"^# run: sched/empty_loop$",
            r"^BENCH sched/empty_loop cpus=1 ops=1000000 ns_per_op=\d+\.\d min=\d+\.\d max=\d+\.\d idle_ns=\d+$",
            r"^BENCH sched/irqs_off_on cpus=1 ",
            r"^# bench: 2 measured, 0 skipped, 0 failed$",
        ],
    ),
    (
        "bench-skips",
        "bench=sched bench.rounds=1",
        1,
        SUCCESS,
        &[
            r"^BENCH sched/empty_loop ",
            r"^# SKIP sched/ipi_round_trip: needs 2 CPUs, 1 is online$",
            r"^BENCH sched/timer_programming ",
            r"^# bench: [1-9]\d* measured, [1-9]\d* skipped, 0 failed$",
        ],
    ),
    (
        "bench-skips-all",
        "bench=sched/ipi_round_trip",
        1,
        FAILURE,
        &[
            r"^# SKIP sched/ipi_round_trip",
            r"^# bench: 0 measured, 1 skipped, 0 failed$",
        ],
    ),
    (
        "bench-unknown-glob",
        "bench=nonsense,sched/e* bench.rounds=1",
        1,
        FAILURE,
        &[
            r"^# bench: no workload matches nonsense$",
            r"^BENCH sched/empty_loop ",
            r"^# bench: 1 measured, 0 skipped, 1 failed$",
        ],
    ),
    (
        "bench-list",
        "bench.list bench=sched/e*",
        1,
        SUCCESS,
        &[r"boot: ready", r"^sched/empty_loop$"],
    ),
    (
        "bench-bad-rounds",
        "bench=sched/empty_loop bench.rounds=none",
        1,
        SUCCESS,
        &[r"warn.*bench\.rounds", r"CHECKED BUILD .*; rounds=5 "],
    ),
    (
        "shell-bench",
        r#"run="bench sched/empty_loop""#,
        1,
        SUCCESS,
        &[r"^BENCH sched/empty_loop "],
    ),
    (
        "shell-bench-without-match",
        r#"run="bench nonsense""#,
        1,
        run_status(1),
        &[r"no workload matches nonsense"],
    ),
    (
        "shell-bench-wrong-option",
        r#"run="bench --fast""#,
        1,
        run_status(2),
        &[r"bench: '--fast' is not an option"],
    ),
];

/// Arguments of `xtask`, its status, and a line that comes out. Those before the ones for the
/// host fail before anything is built.
const PROGRAMS: &[(&str, &[&str], i32, &str)] = &[
    (
        "xtask-bench-unknown-machine",
        &["bench", "--machine", "fast"],
        2,
        "invalid value 'fast'",
    ),
    (
        "xtask-bench-bad-glob",
        &["bench", "--machine", "icount", "--filter", "sched/[a]"],
        2,
        r"`sched/\[a\]` is no pattern",
    ),
    (
        "xtask-bench-absent-baseline",
        &[
            "bench",
            "--machine",
            "icount",
            "--baseline",
            "/no/such.json",
        ],
        1,
        "cannot read the baseline /no/such.json",
    ),
    (
        "xtask-bench-damaged-baseline",
        &["bench", "--machine", "icount", "--baseline", "/dev/null"],
        1,
        "the baseline /dev/null is damaged",
    ),
    (
        "xtask-bench-unwritable-json",
        &[
            "bench",
            "--machine",
            "icount",
            "--json",
            "/no/such/folder.json",
        ],
        1,
        "cannot write /no/such/folder.json",
    ),
    (
        "xtask-bench-host",
        &[
            "bench",
            "--machine",
            "host",
            "--filter",
            "page/0",
            "--rounds",
            "1",
        ],
        0,
        "^BENCH page/0 cpus=1 ops=50000 ns_per_op=",
    ),
    (
        "xtask-bench-host-without-match",
        &["bench", "--machine", "host", "--filter", "nonsense"],
        1,
        "no workload matches nonsense",
    ),
    (
        "xtask-bench",
        &[
            "bench",
            "--machine",
            "icount",
            "--filter",
            "sched/e*",
            "--rounds",
            "2",
        ],
        0,
        r"^BENCH sched/empty_loop cpus=1 ops=1000000 ns_per_op=[1-9]\.0 min=[1-9]\.0 max=[1-9]\.0 idle_ns=0$",
    ),
];

/// The scenarios.
pub fn table() -> Vec<Scenario> {
    let boots = BOOTS.iter().map(|&(name, cmdline, cpus, status, lines)| {
        let lines = lines.iter().map(|&line| line.to_owned()).collect();
        let checks = vec![Check::Status(status), Check::InOrder(lines)];
        let machine = Machine { cpus, ..small() };
        quick(name, Action::Boot(boot(machine, cmdline, checks)))
    });
    let programs = PROGRAMS.iter().map(|&(name, args, status, line)| {
        let program = Program {
            args: args.to_vec(),
            without: &[],
            checks: vec![Check::Status(status), has(line)],
        };
        quick(name, Action::Program(program))
    });
    // Those that build a release kernel take longest.
    programs
        .rev()
        .chain([primitives()])
        .chain([repeats(1), repeats(4), schedule_repeats()])
        .chain(boots)
        .collect()
}

/// The hot primitives, in instructions, the loop's two included: compiled to a few, without
/// a call.
fn primitives() -> Scenario {
    let rows = [
        // One load; the loop keeps the result by a store.
        ("current_cpu", "[34]"),
        // Increment, decrement, branch.
        ("preempt_guard", "5"),
        // One addition.
        ("percpu_counter", "3"),
        ("local_lock", "1[0-6]"),
        ("spin_lock", "1[0-4]"),
        ("irq_spin_lock", "(1[5-9]|2[0-2])"),
        ("mutex", "([6-9]|1[01])"),
    ];
    let checks = rows.map(|(name, count)| {
        has(format!(
            r"^BENCH primitive/{name} cpus=1 ops=200000 ns_per_op={count}\.0 "
        ))
    });
    let program = Program {
        args: [
            "bench",
            "--machine",
            "icount",
            "--filter",
            "primitive",
            "--rounds",
            "1",
        ]
        .to_vec(),
        without: &[],
        checks: [Check::Status(0)].into_iter().chain(checks).collect(),
    };
    quick("bench-primitives", Action::Program(program))
}

/// A seeded schedule repeats with its seed.
fn schedule_repeats() -> Scenario {
    let machine = Machine {
        accel: Accel::Icount,
        nodes: Nodes::Even(2),
        ..with_cpus(4)
    };
    let checks = vec![
        GOOD_END,
        has(r"schedule: seed 7; schedule=7 gives the same again"),
        has(r"^# kunit: [1-9]\d* passed, 0 failed, "),
    ];
    // Not the threads that spin for whole slices of time: all of it is done twice.
    let cmdline = "schedule=7 kunit=deferred.*,timers.*,threads.no_wake_up_is_lost,\
                   threads.woken_thread_preempts,threads.idle_cpus_take_work";
    quick(
        "schedule-repeats",
        Action::Twice(boot(machine, cmdline, checks)),
    )
}

/// Where instructions are counted, a run repeats to the last digit, on several CPUs too.
fn repeats(cpus: u32) -> Scenario {
    let machine = Machine {
        accel: Accel::Icount,
        nodes: Nodes::Even(cpus.min(2)),
        ..with_cpus(cpus)
    };
    let checks = vec![
        GOOD_END,
        has(r"^BENCH sched/empty_loop cpus=1 ops=1000000 ns_per_op=[1-9]\.0 "),
        has(r"^# bench: \d+ measured, \d+ skipped, 0 failed$"),
    ];
    quick(
        format!("bench-repeats-{cpus}cpu"),
        Action::Twice(boot(machine, "bench=sched bench.rounds=2", checks)),
    )
}
