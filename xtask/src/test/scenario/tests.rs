use super::*;
use crate::test::subject::fake::{Fake, Prepared};
use crate::test::subject::{End, Heard, SUCCESS};

/// A world whose guests print what their machine's CPU is called. `%` becomes the number of
/// the start, from 1 on.
struct Told {
    logs: tempfile::TempDir,
    starts: std::sync::atomic::AtomicU32,
}

impl Told {
    fn new() -> Self {
        Self {
            logs: tempfile::tempdir().expect("a temporary folder"),
            starts: Default::default(),
        }
    }
}

impl World for Told {
    fn starter(&self, machine: &Machine, _: Limits) -> Result<Box<dyn Start + '_>, Absent> {
        match machine.cpu.as_str() {
            "skip" => Err(Absent::Skip("no such firmware".into())),
            "fail" => Err(Absent::Fail("the image\ncannot be built".into())),
            text => {
                let start = 1 + self
                    .starts
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let text = text.replace('%', &start.to_string());
                let fake = Fake::new(&text, Heard::Ended(Some(SUCCESS)));
                Ok(Box::new(Prepared::new([fake])))
            }
        }
    }

    fn xtask(&self) -> PathBuf {
        "false".into()
    }

    fn logs(&self) -> &Path {
        self.logs.path()
    }
}

fn boot(name: &str, text: &str, checks: Vec<Check>) -> Scenario {
    let machine = Machine {
        cpu: text.into(),
        ..Machine::default()
    };
    let boot = Boot {
        machine,
        cmdline: "run=true".into(),
        input: String::new(),
        checks,
        show_time: false,
    };
    Scenario {
        name: name.into(),
        least: Tier::Quick,
        action: Action::Boot(boot),
    }
}

#[test]
fn all_scenarios_of_the_queue_are_run() {
    let world = Told::new();
    let reporter = Reporter::silent();
    let scenarios = (0..9)
        .map(|n| boot(&n.to_string(), "hello", vec![Check::Has("hello".into())]))
        .collect();
    run(scenarios, &world, &reporter);
    let mut results = reporter.finish();
    results.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(results.len(), 9);
    assert!(
        results
            .iter()
            .all(|result| result.outcome == Outcome::Passed)
    );
    assert_eq!(results[3].full_name(), "boot/3");
    let log =
        std::fs::read_to_string(results[3].log.as_ref().expect("a log")).expect("it was written");
    assert!(
        log.contains("command line: run=true") && log.contains("\nhello\n"),
        "{log}"
    );
}

#[test]
fn failed_checks_are_all_named() {
    let world = Told::new();
    let checks = vec![
        Check::Has("a".into()),
        Check::Has("hello".into()),
        Check::Status(37),
    ];
    let result = one(&boot("x", "hello", checks), &world, &Reporter::silent());
    let Outcome::Failed(lines) = &result.outcome else {
        panic!("{result:?}")
    };
    assert_eq!(lines[0], "no line matches /a/");
    assert!(
        lines[1].starts_with("expected that the kernel panicked"),
        "{lines:?}"
    );
    let ended = "its end: the guest ended with success";
    assert_eq!(lines[2..], [ended, "the end of the output:", "hello"]);
}

#[test]
fn guests_that_cannot_be_had() {
    let world = Told::new();
    let skipped = one(&boot("x", "skip", vec![]), &world, &Reporter::silent());
    assert_eq!(skipped.outcome, Outcome::Skipped("no such firmware".into()));
    let failed = one(&boot("x", "fail", vec![]), &world, &Reporter::silent());
    assert_eq!(
        failed.outcome,
        Outcome::Failed(vec!["the image".into(), "cannot be built".into()])
    );
}

#[test]
fn a_hang_is_no_mere_failure() {
    let transcript = Transcript {
        lines: vec!["a".into()],
        end: End::OutOfTime,
    };
    let ended = vec!["a limit struck".into()];
    let outcome = conclude(&[Check::Status(33)], transcript, Vec::new(), ended);
    assert!(
        matches!(&outcome, Outcome::TimedOut(lines) if lines[1] == "a limit struck"),
        "{outcome:?}"
    );
}

#[test]
fn planted_results_are_compared_exactly() {
    let expected = [
        ResultExpected {
            name: "planted.first",
            word: "ok",
            says: "",
        },
        ResultExpected {
            name: "planted.hang",
            word: "TIMED OUT",
            says: "watchdog",
        },
    ];
    let first = CaseResult::new("kernel/planted/planted", "first", Outcome::Passed);
    let hang = |outcome| CaseResult::new("kernel/planted/planted", "hang", outcome);
    let timed_out = hang(Outcome::TimedOut(vec!["the watchdog barked".into()]));
    assert_eq!(
        compare(&expected, &[first.clone(), timed_out.clone()]),
        Outcome::Passed
    );
    for wrong in [
        vec![first.clone()],
        vec![timed_out.clone(), first.clone()],
        vec![
            first.clone(),
            hang(Outcome::Crashed(vec!["the watchdog barked".into()])),
        ],
        vec![
            first.clone(),
            hang(Outcome::TimedOut(vec!["something else".into()])),
        ],
        vec![first.clone(), timed_out.clone(), timed_out],
    ] {
        assert!(compare(&expected, &wrong).is_failure(), "{wrong:?}");
    }
}

#[test]
fn programs_are_run_and_looked_at() {
    let world = Told::new();
    let program = |checks| Scenario {
        name: "p".into(),
        least: Tier::Quick,
        action: Action::Program(Program {
            args: vec![],
            without: &[],
            checks,
        }),
    };
    let reporter = Reporter::silent();
    assert_eq!(
        one(
            &program(vec![Check::Fails, Check::Status(1)]),
            &world,
            &reporter
        )
        .outcome,
        Outcome::Passed
    );
    assert!(
        one(&program(vec![Check::Status(0)]), &world, &reporter)
            .outcome
            .is_failure()
    );
}

#[test]
fn what_is_run_twice_must_be_the_same_twice() {
    let reporter = Reporter::silent();
    let twice = |text: &str| {
        let world = Told::new();
        let checks = vec![Check::Has("b".into())];
        let mut scenario = boot("twice", text, checks);
        let Action::Boot(boot) = scenario.action else {
            panic!("not a boot")
        };
        scenario.action = Action::Twice(boot);
        one(&scenario, &world, &reporter).outcome
    };
    assert_eq!(twice("a\nb"), Outcome::Passed);
    assert_eq!(twice("skip"), Outcome::Skipped("no such firmware".into()));
    let Outcome::Failed(lines) = twice("a\nb %") else {
        panic!("the lines differ")
    };
    assert_eq!(lines[0], "the two differ: `b 1`, then `b 2`");
    // The checks are made as well.
    assert!(matches!(twice("a"), Outcome::Failed(_)));
}
