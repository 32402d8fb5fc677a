//! Does `xtask test` notice? In-kernel runs with a planted fault, judged by the
//! same code that judges every run.

use super::{quick, small};
use crate::machine::Machine;
use crate::test::scenario::{Action, Planted, ResultExpected, Scenario};

/// The case before the fault.
const FIRST: ResultExpected = expect("planted.first", "ok", "");
/// The case behind it, which must be run whatever the fault did.
const LAST: ResultExpected = expect("planted.last", "ok", "");

const fn expect(name: &'static str, word: &'static str, says: &'static str) -> ResultExpected {
    ResultExpected { name, word, says }
}

/// The scenarios.
pub fn table() -> Vec<Scenario> {
    let one_cpu = || Machine { cpus: 1, ..small() };
    vec![
        // With one CPU nobody in the guest can help: an NMI from outside does.
        planted(
            "hang-1-cpu",
            one_cpu(),
            "hang",
            &[
                FIRST,
                expect("planted.hang", "TIMED OUT", "planted::hang+0x"),
                LAST,
            ],
        ),
        planted(
            "hang",
            small(),
            "hang",
            &[
                FIRST,
                expect("planted.hang", "TIMED OUT", "planted::hang+0x"),
                LAST,
            ],
        ),
        planted(
            "hang-with-interrupts",
            small(),
            "hang_irqs_on",
            &[
                FIRST,
                expect("planted.hang_irqs_on", "FAILED", "planted::hang_irqs_on+0x"),
                LAST,
            ],
        ),
        // Asleep for ever: the guest goes on with the next case.
        planted(
            "hang-asleep",
            one_cpu(),
            "hang_asleep",
            &[
                FIRST,
                expect("planted.hang_asleep", "FAILED", "planted::hang_asleep+0x"),
                LAST,
            ],
        ),
        // Asleep for ever with a lock, which others may want: the guest ends.
        planted(
            "hang-asleep-with-a-lock",
            one_cpu(),
            "hang_holding",
            &[
                FIRST,
                expect(
                    "planted.hang_holding",
                    "TIMED OUT",
                    "took too long, and holds locks",
                ),
                LAST,
            ],
        ),
        planted(
            "hang-with-the-console-locked",
            small(),
            "hang_locked",
            &[
                FIRST,
                expect("planted.hang_locked", "TIMED OUT", "planted::hang_locked"),
                LAST,
            ],
        ),
        // The suite fails, by the walk behind its last case.
        planted(
            "heap",
            small(),
            "heap",
            &[
                FIRST,
                expect("planted.heap", "ok", ""),
                expect(
                    "planted.last",
                    "FAILED",
                    "heap after planted: cache planted: slab ",
                ),
            ],
        ),
        planted(
            "panic",
            small(),
            "panic",
            &[
                FIRST,
                expect("planted.panic", "CRASHED", "planted panic"),
                LAST,
            ],
        ),
        planted(
            "fail",
            small(),
            "fail",
            &[
                FIRST,
                expect("planted.fail", "FAILED", "planted failure"),
                LAST,
            ],
        ),
        planted(
            "truncated-plan",
            small(),
            "truncate",
            &[FIRST, LAST, expect("(plan)", "FAILED", "truncated: 2 of 3")],
        ),
        planted(
            "no-case",
            small(),
            "noplan",
            &[expect("(plan)", "FAILED", "no case")],
        ),
        planted(
            "never-prints",
            small(),
            "silent",
            &[expect(
                "(plan)",
                "FAILED",
                "the kernel never printed anything",
            )],
        ),
    ]
}

fn planted(
    name: &str,
    machine: Machine,
    fault: &'static str,
    results: &[ResultExpected],
) -> Scenario {
    let planted = Planted {
        machine,
        fault,
        results: results.to_vec(),
    };
    quick(format!("harness-{name}"), Action::Planted(planted))
}
