//! Torture of RCU: that it repeats, and that it finds the faults that are there for it.

use super::{Check, GOOD_END, boot, has, with_cpus};
use crate::machine::{Accel, Machine, Nodes};
use crate::test::scenario::{Action, Scenario};
use crate::test::subject::FAILURE;
use crate::test::tier::Tier;

/// Faults, for how many seconds they are looked for, and what finds them.
const FAULTS: &[(&str, u32, &str)] = &[
    (
        "skip_cpu",
        30,
        "readers saw|sections saw|cookies were ripe too early",
    ),
    (
        "early_segment",
        30,
        "readers saw|sections saw|barriers returned too early",
    ),
    ("lose_qs", 30, "grace periods stalled"),
    (
        "still_idle",
        30,
        "readers saw|sections saw|cookies were ripe too early",
    ),
    (
        "drop_on_hotplug",
        10,
        "callbacks queued and run differ|waits for callbacks had no end|no progress",
    ),
];

/// The scenarios.
pub fn table() -> Vec<Scenario> {
    let faults = FAULTS.iter().map(|&(fault, seconds, finding)| {
        let cmdline = format!(
            "rcutorture={seconds} rcutorture.fault={fault} rcu.fanout=2 rcu.fanout_leaf=2 \
             rcu.stall_timeout_ms=10000"
        );
        let checks = vec![
            Check::Status(FAILURE),
            has(format!(r"^rcu-torture: Start of test: .* fault={fault}$")),
            has(format!(
                r"^rcu-torture: End of test: FAILURE: .*({finding})"
            )),
        ];
        long(
            format!("rcutorture-{}", fault.replace('_', "-")),
            Action::Boot(boot(with_cpus(8), &cmdline, checks)),
        )
    });
    faults.chain([repeats(), overlong()]).collect()
}

fn long(name: impl Into<String>, action: Action) -> Scenario {
    Scenario {
        name: name.into(),
        least: Tier::Long,
        action,
    }
}

/// Where instructions are counted, all of it comes from the seed.
fn repeats() -> Scenario {
    let machine = Machine {
        accel: Accel::Icount,
        nodes: Nodes::Even(2),
        ..with_cpus(4)
    };
    let checks = vec![
        GOOD_END,
        has(r"^rcu-torture: Start of test: .* seed=7 "),
        has(r"^rcu-torture: End of test: SUCCESS$"),
    ];
    let cmdline = "rcutorture=1 rcutorture.seed=7 rcu.fanout=2 rcu.fanout_leaf=2";
    long(
        "rcutorture-repeats",
        Action::Twice(boot(machine, cmdline, checks)),
    )
}

/// A section that is held for too long is reported, and all goes on.
fn overlong() -> Scenario {
    let checks = vec![
        GOOD_END,
        has(r"overlong=1"),
        has(r"^rcu-torture: End of test: SUCCESS$"),
    ];
    let cmdline = "rcutorture=4 rcutorture.overlong rcu.fanout=2 rcu.fanout_leaf=2 \
                   rcu.stall_timeout_ms=2000";
    long(
        "rcutorture-overlong",
        Action::Boot(boot(with_cpus(4), cmdline, checks)),
    )
}
