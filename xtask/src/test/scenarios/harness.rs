//! Does `xtask test` notice? In-kernel runs with a planted fault, judged by the
//! same code that judges every run.

use super::{SMALL, quick, shape};
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
    let one_cpu = "--cpus 1 --nodes 1 --mem 128M";
    vec![
        // With one CPU nobody in the guest can help: an NMI from outside does.
        planted(
            "hang-1-cpu",
            one_cpu,
            "hang",
            &[
                FIRST,
                expect("planted.hang", "TIMED OUT", "planted::hang+0x"),
                LAST,
            ],
        ),
        planted(
            "hang",
            SMALL,
            "hang",
            &[
                FIRST,
                expect("planted.hang", "TIMED OUT", "planted::hang+0x"),
                LAST,
            ],
        ),
        planted(
            "hang-with-interrupts",
            SMALL,
            "hang_irqs_on",
            &[
                FIRST,
                expect(
                    "planted.hang_irqs_on",
                    "TIMED OUT",
                    "planted::hang_irqs_on+0x",
                ),
                LAST,
            ],
        ),
        planted(
            "panic",
            SMALL,
            "panic",
            &[
                FIRST,
                expect("planted.panic", "CRASHED", "planted panic"),
                LAST,
            ],
        ),
        planted(
            "fail",
            SMALL,
            "fail",
            &[
                FIRST,
                expect("planted.fail", "FAILED", "planted failure"),
                LAST,
            ],
        ),
        planted(
            "truncated-plan",
            SMALL,
            "truncate",
            &[FIRST, LAST, expect("(plan)", "FAILED", "truncated: 2 of 3")],
        ),
        planted(
            "no-case",
            SMALL,
            "noplan",
            &[expect("(plan)", "FAILED", "no case")],
        ),
        planted(
            "never-prints",
            SMALL,
            "silent",
            &[expect(
                "(plan)",
                "FAILED",
                "the kernel never printed anything",
            )],
        ),
    ]
}

fn planted(name: &str, options: &str, fault: &'static str, results: &[ResultExpected]) -> Scenario {
    let planted = Planted {
        shape: shape(options),
        fault,
        results: results.to_vec(),
    };
    quick(format!("harness-{name}"), Action::Planted(planted))
}
