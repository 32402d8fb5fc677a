//! The tables of scenarios.

mod bench;
mod boots;
mod harness;
mod lines;
mod panics;
mod tools;
mod torture;

use super::scenario::{Action, Boot, Check, Scenario};
use super::subject::SUCCESS;
use super::tier::Tier;
use crate::machine::{Machine, Nodes, Size};

/// All scenarios of `tier`, in the order in which they begin: long ones first, so
/// that none is left to run alone at the end.
pub fn all(tier: Tier) -> Vec<Scenario> {
    let tables = [
        torture::table(),
        boots::table(),
        bench::table(),
        harness::table(),
        tools::table(),
        panics::table(),
        lines::table(),
    ];
    tables
        .into_iter()
        .flatten()
        .filter(|scenario| tier.includes(scenario.least))
        .collect()
}

/// The machine of scenarios for which any will do.
fn small() -> Machine {
    Machine {
        cpus: 2,
        mem: Size::mib(128),
        nodes: Nodes::Even(1),
        ..Machine::default()
    }
}

/// A machine with so many CPUs on the usual number of nodes.
fn with_cpus(cpus: u32) -> Machine {
    Machine {
        cpus,
        nodes: Nodes::Even(cpus.min(2)),
        ..Machine::default()
    }
}

/// A boot.
fn boot(machine: Machine, cmdline: &str, checks: Vec<Check>) -> Boot {
    Boot {
        machine,
        cmdline: cmdline.into(),
        input: String::new(),
        checks,
        show_time: false,
    }
}

/// A scenario of the quick tier.
fn quick(name: impl Into<String>, action: Action) -> Scenario {
    Scenario {
        name: name.into(),
        least: Tier::Quick,
        action,
    }
}

/// Some line matches.
fn has(pattern: impl Into<String>) -> Check {
    Check::Has(pattern.into())
}

/// The guest ends as after success.
const GOOD_END: Check = Check::Status(SUCCESS);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_fit_for_files() {
        let mut seen = HashSet::new();
        for scenario in all(Tier::Long) {
            let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(scenario.name.chars().all(good), "{}", scenario.name);
            assert!(
                seen.insert(scenario.name.clone()),
                "{} comes twice",
                scenario.name
            );
        }
        assert!(seen.len() > 60);
    }

    #[test]
    fn patterns_are_regular_expressions() {
        let transcript = super::super::scenario::Transcript {
            lines: Vec::new(),
            end: super::super::subject::End::OutOfTime,
        };
        for scenario in all(Tier::Long) {
            let checks = match scenario.action {
                Action::Boot(boot) | Action::Twice(boot) => {
                    assert!(
                        boot.machine.check().is_ok(),
                        "{} is impossible",
                        scenario.name
                    );
                    boot.checks
                }
                Action::Program(program) => program.checks,
                Action::Planted(_) | Action::Orphan => continue,
            };
            assert!(!checks.is_empty(), "{} checks nothing", scenario.name);
            for check in checks {
                let result = check.apply(&transcript);
                assert!(
                    !result.is_err_and(|error| error.contains("no regular")),
                    "{}",
                    scenario.name
                );
            }
        }
    }
}
