use super::*;
use crate::test::outcome::full_name;
use crate::test::subject::Heard;
use crate::test::subject::fake::{Fake, Prepared, scratch_log};

const OK: Heard = Heard::Ended(Some(33));
const FAILED: Heard = Heard::Ended(Some(35));
const PANICKED: Heard = Heard::Ended(Some(37));

fn job() -> Job {
    Job {
        group: "kernel/1cpu".into(),
        globs: vec!["*".into()],
        shuffle: None,
        repeat: 1,
        case_timeout: None,
        cmdline: String::new(),
        nmi_grace: Duration::ZERO,
    }
}

/// KTAP of suites `(name, lines of cases)`; each suite's plan is its number of
/// `# run:` lines.
fn plan(suites: &[(&str, &str)]) -> String {
    let mut text = format!("KTAP version 1\n1..{}\n", suites.len());
    let (mut passed, mut failed) = (0, 0);
    for (at, (name, cases)) in suites.iter().enumerate() {
        let count = cases.matches("# run:").count();
        text += &format!("    KTAP version 1\n    # Subtest: {name}\n    1..{count}\n{cases}");
        let bad = cases.matches("not ok").count();
        failed += bad;
        passed += cases.matches("    ok").count();
        let word = if bad > 0 { "not ok" } else { "ok" };
        text += &format!("{word} {} {name}\n", at + 1);
    }
    text + &format!("# kunit: {passed} passed, {failed} failed, 0 skipped\n")
}

const A: &str = "    # run: s.a\n    ok 1 a\n";
const AB: &str = "    # run: s.a\n    ok 1 a\n    # run: s.b\n    ok 2 b\n";

/// Runs the job with the given machines; returns names with outcomes, and the
/// command lines.
fn run_with(job: &Job, machines: Vec<Fake>) -> (Vec<(String, Outcome)>, Vec<String>) {
    let start = Prepared::new(machines);
    let reporter = Reporter::silent();
    run(job, &start, &mut scratch_log(), &reporter);
    let results = reporter.finish();
    let named = results
        .into_iter()
        .map(|result| (full_name(&result.group, &result.name), result.outcome));
    (named.collect(), start.cmdlines.take())
}

#[track_caller]
fn assert_one_problem(results: &[(String, Outcome)], text: &str) {
    let problems: Vec<_> = results
        .iter()
        .filter(|(name, _)| name == "kernel/1cpu/(plan)")
        .collect();
    assert_eq!(problems.len(), 1, "{results:#?}");
    assert!(
        problems[0]
            .1
            .details()
            .iter()
            .any(|line| line.contains(text)),
        "{problems:#?}"
    );
}

#[test]
fn all_pass() {
    let text = plan(&[("s", AB), ("t", "    # run: t.c\n    ok 1 c\n")]);
    let (results, cmdlines) = run_with(&job(), vec![Fake::new(&text, OK)]);
    assert_eq!(cmdlines, ["kunit=*"]);
    let names: Vec<_> = results.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["kernel/1cpu/s.a", "kernel/1cpu/s.b", "kernel/1cpu/t.c"]
    );
    assert!(
        results
            .iter()
            .all(|(_, outcome)| *outcome == Outcome::Passed)
    );
}

#[test]
fn the_command_line_has_what_was_asked_for() {
    let job = Job {
        globs: vec!["ipi.*".into(), "a.b".into()],
        shuffle: Some(7),
        repeat: 3,
        case_timeout: Some(Duration::from_secs(2)),
        cmdline: "loglevel=debug".into(),
        ..job()
    };
    let (_, cmdlines) = run_with(&job, vec![]);
    let expected =
        "kunit=ipi.*,a.b kunit.shuffle=7 kunit.repeat=3 kunit.timeout_ms=2000 loglevel=debug";
    assert_eq!(cmdlines, [expected]);
}

#[test]
fn a_guest_that_does_not_start_is_a_failure() {
    let (results, _) = run_with(&job(), vec![]);
    assert_eq!(results[0].0, "kernel/1cpu/(start)");
    assert_eq!(results[0].1.reason(), "no machine was prepared");
}

#[test]
fn a_panic_is_the_case_s_and_the_rest_runs_in_a_new_guest() {
    let first = "KTAP version 1\n1..2\n    KTAP version 1\n    # Subtest: s\n    1..3\n    # run: s.a\n    ok 1 a\n    # run: s.b\n=== KERNEL PANIC on cpu0: oh\n=== END OF PANIC\n";
    let second = plan(&[
        ("s", "    # run: s.c\n    ok 1 c\n"),
        ("t", "    # run: t.d\n    ok 1 d\n"),
    ]);
    let (results, cmdlines) = run_with(
        &job(),
        vec![Fake::new(first, PANICKED), Fake::new(&second, OK)],
    );
    assert_eq!(cmdlines, ["kunit=*", "kunit=* kunit.after=s.b"]);
    let names: Vec<_> = results.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "kernel/1cpu/s.a",
            "kernel/1cpu/s.b",
            "kernel/1cpu/s.c",
            "kernel/1cpu/t.d"
        ]
    );
    let Outcome::Crashed(lines) = &results[1].1 else {
        panic!("{results:#?}")
    };
    assert_eq!(lines[0], "KERNEL PANIC on cpu0: oh");
    assert_eq!(lines.last().map(String::as_str), Some("=== END OF PANIC"));
}

#[test]
fn a_crash_in_the_last_case_needs_no_new_guest() {
    let first = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..1\n    # run: s.a\n=== KERNEL PANIC on cpu0: oh\n";
    let (results, cmdlines) = run_with(&job(), vec![Fake::new(first, PANICKED)]);
    assert_eq!(cmdlines.len(), 1);
    assert_eq!(results.len(), 1);
}

#[test]
fn a_hang_is_ended_from_outside() {
    let first =
        "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..2\n    # run: s.a\n";
    let hung = Fake::new(first, Heard::Silence).on_nmi(
        "=== KERNEL PANIC on cpu0: unexpected NMI\n  #0 0x1 spin+0x2\n",
        PANICKED,
    );
    let second = plan(&[("s", "    # run: s.b\n    ok 1 b\n")]);
    let (results, cmdlines) = run_with(&job(), vec![hung, Fake::new(&second, OK)]);
    assert_eq!(cmdlines[1], "kunit=* kunit.after=s.a");
    let Outcome::TimedOut(lines) = &results[0].1 else {
        panic!("{results:#?}")
    };
    assert_eq!(lines[0], "the guest hangs: it stopped printing");
    assert!(lines.iter().any(|line| line.contains("spin+0x2")));
    assert_eq!(results[1].1, Outcome::Passed);
}

#[test]
fn the_watchdog_s_panic_is_a_timeout_of_its_case_only() {
    let text = |name: &str| {
        format!(
            "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..1\n    # run: s.a\n\
             === KERNEL PANIC on cpu1: watchdog: {name} took too long\n"
        )
    };
    for (name, timed_out) in [
        ("s.a", true),
        ("s.a/value", true),
        ("s.ab", false),
        ("t.a", false),
    ] {
        let (results, _) = run_with(&job(), vec![Fake::new(&text(name), PANICKED)]);
        assert_eq!(
            matches!(results[0].1, Outcome::TimedOut(_)),
            timed_out,
            "{name}: {results:#?}"
        );
    }
}

#[test]
fn a_reset_is_a_crash() {
    let first =
        "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..1\n    # run: s.a\n";
    let (results, _) = run_with(&job(), vec![Fake::new(first, Heard::Ended(Some(0)))]);
    assert!(
        matches!(&results[0].1, Outcome::Crashed(lines) if lines[0].contains("reset")),
        "{results:#?}"
    );
}

#[test]
fn a_timeout_in_the_guest_goes_on_in_a_new_one() {
    // The watchdog prints the result, then panics.
    let first = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..2\n    # run: s.a\n    not ok 1 a # TIMEOUT\n=== KERNEL PANIC on cpu0: watchdog\n";
    let second = plan(&[("s", "    # run: s.b\n    ok 1 b\n")]);
    let (results, cmdlines) = run_with(
        &job(),
        vec![Fake::new(first, PANICKED), Fake::new(&second, OK)],
    );
    assert_eq!(cmdlines[1], "kunit=* kunit.after=s.a");
    assert!(matches!(results[0].1, Outcome::TimedOut(_)));
    assert_eq!(results.len(), 2, "{results:#?}");
}

#[test]
fn crashes_outside_cases_do_not_repeat_forever() {
    let text = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..2\n    # run: s.a\n    ok 1 a\n=== KERNEL PANIC on cpu0: teardown\n";
    let again = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..1\n=== KERNEL PANIC on cpu0: teardown\n";
    let machines = vec![
        Fake::new(text, PANICKED),
        Fake::new(again, PANICKED),
        Fake::new(again, PANICKED),
    ];
    let (results, cmdlines) = run_with(&job(), machines);
    assert_eq!(cmdlines.len(), 2);
    let last = results.last().expect("results");
    assert_eq!(last.0, "kernel/1cpu/(rest)");
    assert!(matches!(last.1, Outcome::Missing(_)));
}

#[test]
fn a_kernel_that_never_prints() {
    let (results, cmdlines) = run_with(&job(), vec![Fake::new("", Heard::Silence)]);
    assert_eq!(cmdlines.len(), 1);
    assert_eq!(results.len(), 1);
    assert_one_problem(&results, "the kernel never printed anything");
}

#[test]
fn a_truncated_plan() {
    let text = plan(&[("s", A)]).replace("    1..1", "    1..2");
    let (results, cmdlines) = run_with(&job(), vec![Fake::new(&text, OK)]);
    assert_eq!(cmdlines.len(), 1);
    assert_one_problem(&results, "truncated: 1 of 2");
    let text: String = plan(&[("s", A), ("t", "")])
        .lines()
        .take(7)
        .map(|line| format!("{line}\n"))
        .collect();
    let (results, _) = run_with(&job(), vec![Fake::new(&text, OK)]);
    assert_one_problem(&results, "the output ends in suite `s`");
}

#[test]
fn a_plan_without_a_case() {
    let text = "KTAP version 1\n1..0\n# kunit: 0 passed, 0 failed, 0 skipped\n";
    let (results, _) = run_with(&job(), vec![Fake::new(text, FAILED)]);
    assert_one_problem(&results, "no case");
    let (results, _) = run_with(&job(), vec![Fake::new("hello\n", OK)]);
    assert_one_problem(&results, "no test plan was printed");
}

#[test]
fn the_status_must_fit_the_results() {
    let good = plan(&[("s", A)]);
    assert_one_problem(
        &run_with(&job(), vec![Fake::new(&good, FAILED)]).0,
        "ended with failure",
    );
    let bad = plan(&[("s", "    # run: s.a\n    not ok 1 a\n")]);
    assert_one_problem(
        &run_with(&job(), vec![Fake::new(&bad, OK)]).0,
        "ended with success",
    );
    assert_one_problem(
        &run_with(&job(), vec![Fake::new(&good, Heard::Ended(Some(1)))]).0,
        "QEMU failed",
    );
    let (results, _) = run_with(&job(), vec![Fake::new(&bad, FAILED)]);
    assert_eq!(results.len(), 1);
}

#[test]
fn what_was_left_must_be_taken_up() {
    let first = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..4\n    # run: s.a\n=== KERNEL PANIC on cpu0: oh\n";
    let second = plan(&[("s", "    # run: s.b\n    ok 1 b\n")]);
    let (results, _) = run_with(
        &job(),
        vec![Fake::new(first, PANICKED), Fake::new(&second, OK)],
    );
    assert_one_problem(&results, "3 cases of suite `s` were left");
}

#[test]
fn rounds_go_on_after_a_crash() {
    let job = Job {
        repeat: 3,
        shuffle: Some(10),
        ..job()
    };
    let round = plan(&[("s", AB)]);
    let crash = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..2\n    # run: s.a\n=== KERNEL PANIC on cpu0: oh\n";
    let rest = plan(&[("s", "    # run: s.b\n    ok 1 b\n")]);
    let machines = vec![
        Fake::new(&format!("{round}{crash}"), PANICKED),
        Fake::new(&format!("{rest}{rest}"), OK),
    ];
    let (results, cmdlines) = run_with(&job, machines);
    assert_eq!(cmdlines[0], "kunit=* kunit.shuffle=10 kunit.repeat=3");
    // The second of three rounds is gone on with, in its own order.
    assert_eq!(
        cmdlines[1],
        "kunit=* kunit.shuffle=11 kunit.repeat=2 kunit.after=s.a"
    );
    assert_eq!(results.len(), 5, "{results:#?}");
}

#[test]
fn a_crash_at_the_end_of_a_round() {
    let job = Job { repeat: 2, ..job() };
    let crash = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..1\n    # run: s.a\n=== KERNEL PANIC on cpu0: oh\n";
    let (_, cmdlines) = run_with(
        &job,
        vec![
            Fake::new(crash, PANICKED),
            Fake::new(&plan(&[("s", A)]), OK),
        ],
    );
    assert_eq!(cmdlines, ["kunit=* kunit.repeat=2", "kunit=*"]);
}
