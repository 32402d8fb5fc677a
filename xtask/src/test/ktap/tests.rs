use super::*;

/// Feeds `text` and returns the parser with all events.
fn feed(text: &str) -> (Parser, Vec<Event>) {
    let mut parser = Parser::new();
    let events = text.lines().flat_map(|line| parser.line(line)).collect();
    (parser, events)
}

fn problems(events: &[Event]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Problem(text) => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

fn ended(events: &[Event]) -> Vec<(String, &Outcome)> {
    let reports = events.iter().filter_map(|event| match event {
        Event::CaseEnded(report) => Some(report),
        _ => None,
    });
    reports
        .map(|report| (format!("{}.{}", report.suite, report.case), &report.outcome))
        .collect()
}

/// Asserts that exactly one problem is reported, which contains `text`.
#[track_caller]
fn assert_problem(input: &str, text: &str) {
    let (_, events) = feed(input);
    let problems = problems(&events);
    assert!(
        problems.len() == 1 && problems[0].contains(text),
        "{problems:#?}"
    );
}

/// A run of one suite with the given cases' lines.
fn suite(plan: usize, ok: bool, cases: &str, totals: &str) -> String {
    let not = if ok { "" } else { "not " };
    format!(
        "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..{plan}\n{cases}{not}ok 1 s\n# kunit: {totals}\n"
    )
}

const GOOD: &str = "\
[    0.012345] cpu0 info: smp: 1 of 1 CPUs online\r
KTAP version 1\r
1..2\r
    KTAP version 1\r
    # Subtest: ipi\r
    1..2\r
    # run: ipi.pairs\r
[    0.112345] cpu0 info: ok 7 nonsense\r
    ok 1 pairs\r
    # run: ipi.all\r
    ok 2 all # SKIP one CPU\r
ok 1 ipi\r
    KTAP version 1\r
    # Subtest: cmdline\r
    1..2\r
    # run: cmdline.keys\r
        KTAP version 1\r
        # Subtest: keys\r
        1..2\r
        ok 1 run\r
        ok 2 kunit\r
    ok 1 keys\r
    # run: cmdline.bad\r
    # cmdline.bad: EXPECTATION FAILED at kernel/src/tests/cmdline.rs:12\r
    #   left == 1\r
    not ok 2 bad\r
not ok 2 cmdline\r
# kunit: 2 passed, 1 failed, 1 skipped\r
";

#[test]
fn a_good_run() {
    let (parser, events) = feed(GOOD);
    assert_eq!(problems(&events), [""; 0]);
    assert_eq!(events[0], Event::Suites(2));
    assert_eq!(
        events[1],
        Event::SuiteStarted {
            suite: "ipi".into(),
            cases: 2
        }
    );
    assert_eq!(events[2], Event::CaseStarted("ipi.pairs".into()));
    let failed = Outcome::Failed(vec![
        "cmdline.bad: EXPECTATION FAILED at kernel/src/tests/cmdline.rs:12".into(),
        "  left == 1".into(),
    ]);
    assert_eq!(
        ended(&events),
        [
            ("ipi.pairs".into(), &Outcome::Passed),
            ("ipi.all".into(), &Outcome::Skipped("one CPU".into())),
            ("cmdline.keys".into(), &Outcome::Passed),
            ("cmdline.bad".into(), &failed),
        ]
    );
    let ending = parser.ending();
    assert_eq!(
        ending,
        Ending {
            nothing_left: true,
            ..Ending::default()
        }
    );
    assert_eq!(parser.cases(), 4);
}

#[test]
fn every_truncation_of_a_good_run_is_noticed() {
    let lines: Vec<&str> = GOOD.lines().collect();
    for end in 0..lines.len() {
        let (parser, events) = feed(&lines[..end].join("\n"));
        assert_eq!(problems(&events), [""; 0], "after {end} lines");
        let ending = parser.ending();
        assert!(ending.incomplete.is_some(), "after {end} lines");
        // Whoever was announced and has no result is named.
        assert_eq!(ending.interrupted.is_some(), parser.running().is_some());
    }
}

#[test]
fn a_line_cut_anywhere_is_no_pass() {
    // The last case of a run whose output ends within a line.
    let text = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..1\n    # run: s.case\n    not ok 1 case";
    for end in 0..text.len() {
        let (parser, events) = feed(&text[..end]);
        assert!(parser.ending().incomplete.is_some());
        assert!(
            ended(&events)
                .iter()
                .all(|(_, outcome)| outcome.is_failure()),
            "{end}"
        );
    }
}

#[test]
fn a_running_case_is_named_with_its_output() {
    let text = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..3\n    # run: s.a\n    ok 1 a\n    # run: s.b\n    # left == 1\n[    0.5] cpu0 info: hello\n";
    let (parser, _) = feed(text);
    let ending = parser.ending();
    let interrupted = ending.interrupted.expect("s.b is running");
    assert_eq!(interrupted.name, "s.b");
    assert_eq!(interrupted.diagnostics, ["left == 1"]);
    assert_eq!(
        interrupted.log,
        ["    # left == 1", "[    0.5] cpu0 info: hello"]
    );
    assert_eq!(ending.left_in_suite, 1);
    assert!(!ending.nothing_left);
}

#[test]
fn the_last_case_leaves_nothing() {
    let text = "KTAP version 1\n1..2\nok 1 r # SKIP\n    KTAP version 1\n    # Subtest: s\n    1..1\n    # run: s.a\n";
    let (parser, events) = feed(text);
    assert_eq!(problems(&events), [""; 0]);
    assert!(parser.ending().nothing_left);
    let text = text.replace("1..2", "1..3");
    assert!(!feed(&text).0.ending().nothing_left);
}

#[test]
fn a_panic_ends_the_plan_and_is_kept() {
    let text = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..2\n    # run: s.a\n    # half a li=== KERNEL PANIC on cpu2: oh dear\n    ok 1 a\nbacktrace of cpu0:\n=== END OF PANIC\n";
    let (parser, events) = feed(text);
    assert!(ended(&events).is_empty());
    let ending = parser.ending();
    assert_eq!(
        ending.panic.as_deref(),
        Some("KERNEL PANIC on cpu2: oh dear")
    );
    let interrupted = ending.interrupted.expect("s.a was running");
    assert_eq!(
        interrupted.log.last().map(String::as_str),
        Some("=== END OF PANIC")
    );
}

#[test]
fn a_timeout_in_the_guest() {
    let cases = "    # run: s.a\n    # cpu0: spins\n    not ok 1 a # TIMEOUT\n";
    let (parser, events) = feed(&suite(1, false, cases, "0 passed, 1 failed, 0 skipped"));
    assert_eq!(problems(&events), [""; 0]);
    let ended = ended(&events);
    assert!(matches!(ended[0].1, Outcome::TimedOut(lines) if lines[1] == "cpu0: spins"));
    assert_eq!(parser.ending().incomplete, None);
}

#[test]
fn several_rounds() {
    let round = suite(
        1,
        true,
        "    # run: s.a\n    ok 1 a\n",
        "1 passed, 0 failed, 0 skipped",
    );
    let (parser, events) = feed(&round.repeat(3));
    assert_eq!(problems(&events), [""; 0]);
    assert_eq!(ended(&events).len(), 3);
    assert_eq!(parser.ending().incomplete, None);
    let cut = round.lines().take(7).collect::<Vec<_>>().join("\n");
    assert_problem(
        &format!("{cut}\n{round}"),
        "a new plan begins before the last one has ended",
    );
}

#[test]
fn wrong_numbers() {
    let cases = "    # run: s.a\n    ok 2 a\n";
    assert_problem(
        &suite(1, true, cases, "1 passed, 0 failed, 0 skipped"),
        "number 2, expected 1",
    );
    let text = suite(
        1,
        true,
        "    # run: s.a\n    ok 1 a\n",
        "1 passed, 0 failed, 0 skipped",
    );
    assert_problem(
        &text.replace("\nok 1 s", "\nok 3 s"),
        "number 3, expected 1",
    );
}

#[test]
fn duplicate_results() {
    let cases = "    # run: s.a\n    ok 1 a\n    # run: s.a\n    ok 2 a\n";
    assert_problem(
        &suite(2, true, cases, "2 passed, 0 failed, 0 skipped"),
        "two results",
    );
}

#[test]
fn results_without_a_plan() {
    let text = suite(
        1,
        true,
        "    # run: s.a\n    ok 1 a\n",
        "1 passed, 0 failed, 0 skipped",
    );
    assert_problem(&text.replace("    1..1\n", ""), "result without a plan");
    assert_problem(&text.replacen("1..1\n", "", 1), "result without a plan");
    assert_problem(
        &text.replacen("KTAP version 1\n", "", 1),
        "without `KTAP version 1`",
    );
    assert_problem(
        &text.replace("    KTAP version 1\n", ""),
        "begins without `KTAP version 1`",
    );
}

#[test]
fn plans_that_do_not_fit() {
    let cases = "    # run: s.a\n    ok 1 a\n";
    let totals = "1 passed, 0 failed, 0 skipped";
    assert_problem(&suite(2, true, cases, totals), "truncated: 1 of 2");
    let two = "    # run: s.a\n    ok 1 a\n    # run: s.b\n    ok 2 b\n";
    assert_problem(
        &suite(1, true, two, "2 passed, 0 failed, 0 skipped"),
        "one more than the plan of 1",
    );
    let good = suite(1, true, cases, totals);
    assert_problem(
        &good.replace("    1..1\n", "    1..1\n    1..1\n"),
        "two plans",
    );
    assert_problem("KTAP version 1\n1..1\n    1..2\n", "belongs to nothing");
    let (parser, events) = feed(&good.replacen("1..1", "1..2", 1));
    assert_eq!(problems(&events), [""; 0]);
    assert!(
        parser
            .ending()
            .incomplete
            .is_some_and(|text| text.contains("1 of 2 suites"))
    );
    let (_, events) = feed(&good.replacen("1..1", "1..0", 1));
    assert!(problems(&events)[0].contains("has no case"));
}

#[test]
fn a_plan_with_no_case() {
    assert_problem(
        &suite(0, true, "", "0 passed, 0 failed, 0 skipped"),
        "has no case",
    );
    let (parser, events) = feed("KTAP version 1\n1..0\n# kunit: 0 passed, 0 failed, 0 skipped\n");
    assert_eq!(problems(&events), ["the plan of the run has no case"]);
    assert_eq!(
        parser.ending().incomplete.as_deref(),
        Some("the plan has no case")
    );
    let (parser, _) = feed("nothing\nat all\n");
    assert_eq!(
        parser.ending().incomplete.as_deref(),
        Some("no test plan was printed")
    );
}

#[test]
fn a_case_without_result_or_start() {
    let cases = "    # run: s.a\n    # run: s.b\n    ok 1 b\n";
    let (_, events) = feed(&suite(2, true, cases, "1 passed, 0 failed, 0 skipped"));
    assert!(problems(&events)[0].contains("begins while `s.a` has no result"));
    assert!(matches!(ended(&events)[0], (ref name, Outcome::Missing(_)) if name == "s.a"));
    assert_problem(
        &suite(1, true, "    ok 1 a\n", "1 passed, 0 failed, 0 skipped"),
        "never started",
    );
    let other = "    # run: s.b\n    ok 1 a\n";
    assert_problem(
        &suite(1, true, other, "1 passed, 0 failed, 0 skipped"),
        "while `s.b` is running",
    );
    let strange = "    # run: t.a\n    ok 1 a\n";
    assert_problem(
        &suite(1, true, strange, "1 passed, 0 failed, 0 skipped"),
        "suite `s` runs a case called `t.a`",
    );
}

#[test]
fn a_suite_whose_result_disagrees_with_its_cases() {
    let failed = "    # run: s.a\n    not ok 1 a\n";
    assert_problem(
        &suite(1, true, failed, "0 passed, 1 failed, 0 skipped"),
        "is `ok`, but 1",
    );
    let passed = "    # run: s.a\n    ok 1 a\n";
    assert_problem(
        &suite(1, false, passed, "1 passed, 0 failed, 0 skipped"),
        "none of its cases failed",
    );
    let good = suite(1, true, passed, "1 passed, 0 failed, 0 skipped");
    assert_problem(&good.replace("\nok 1 s", "\nok 1 t"), "ends as `t`");
    assert_problem(
        &good.replace("1 passed", "2 passed"),
        "the kernel counts 2 passed",
    );
}

#[test]
fn a_suite_that_stops_in_the_middle() {
    let text = "KTAP version 1\n1..2\n    KTAP version 1\n    # Subtest: s\n    1..1\n    # run: s.a\n    ok 1 a\n    KTAP version 1\n    # Subtest: t\n";
    assert_problem(text, "suite `s` has no result");
}

#[test]
fn parameters() {
    let case = |params: &str, not: &str| {
        let cases = format!(
            "    # run: s.a\n        KTAP version 1\n        # Subtest: a\n{params}    {not}ok 1 a\n"
        );
        let totals = if not.is_empty() {
            "1 passed, 0 failed, 0 skipped"
        } else {
            "0 passed, 1 failed, 0 skipped"
        };
        suite(1, not.is_empty(), &cases, totals)
    };
    let (_, events) = feed(&case(
        "        1..2\n        ok 1 x\n        ok 2 y z\n",
        "",
    ));
    assert_eq!(problems(&events), [""; 0]);
    let (_, events) = feed(&case(
        "        1..2\n        ok 1 x\n        # y == 1\n        not ok 2 y\n",
        "not ",
    ));
    assert_eq!(problems(&events), [""; 0]);
    let failed = Outcome::Failed(vec!["y == 1".into(), "parameter y failed".into()]);
    assert_eq!(ended(&events)[0].1, &failed);
    assert_problem(
        &case("        1..2\n        ok 1 x\n", ""),
        "1 results for 2 parameters",
    );
    assert_problem(&case("        ok 1 x\n", ""), "have no plan");
    assert_problem(
        &case("        1..1\n        not ok 1 x\n", ""),
        "is `ok`, but 1 of its parameters",
    );
    assert_problem(
        &case("        1..1\n        ok 5 x\n", ""),
        "number 5, expected 1",
    );
    assert_problem(&case("        1..0\n", ""), "has no case");
    // A case that fails may leave parameters out.
    let (_, events) = feed(&case("        1..2\n        not ok 1 x\n", "not "));
    assert_eq!(problems(&events), [""; 0]);
}

#[test]
fn malformed_lines_are_problems() {
    let good = suite(
        1,
        true,
        "    # run: s.a\n    ok 1 a\n",
        "1 passed, 0 failed, 0 skipped",
    );
    assert_problem(&format!("ok\n{good}"), "without a number");
    assert_problem(&format!("1..many\n{good}"), "plan without a number");
    assert_problem(
        &good.replace("KTAP version 1\n1..1\n", "KTAP version 2\n1..1\n"),
        "version 2",
    );
    assert_problem(&format!("{good}            ok 1 deep\n"), "wrong level");
}

#[test]
fn garbage_does_no_harm() {
    let good = suite(
        1,
        true,
        "    # run: s.a\n    ok 1 a\n",
        "1 passed, 0 failed, 0 skipped",
    );
    let noise =
        "\u{1b}[2J\n\n\u{fffd}\u{fffd}\nSeaBIOS\n       #\n[ 0.1] x\n0..7\n    hello\n# done\n";
    let mixed: String = good.lines().flat_map(|line| [line, "\n", noise]).collect();
    let (parser, events) = feed(&mixed);
    assert_eq!(problems(&events), [""; 0]);
    assert_eq!(parser.ending().incomplete, None);
}

#[test]
fn endless_output_takes_bounded_memory() {
    let mut parser = Parser::new();
    for line in [
        "KTAP version 1",
        "1..1",
        "    KTAP version 1",
        "    # Subtest: s",
        "    1..1",
        "    # run: s.a",
    ] {
        parser.line(line);
    }
    for _ in 0..10_000 {
        parser.line("    # noise");
    }
    let interrupted = parser.ending().interrupted.expect("s.a is running");
    assert_eq!(interrupted.log.len(), LOG_TAIL_LINES);
    assert!(interrupted.diagnostics.len() <= 500);
}

#[test]
fn what_the_kernel_writes_is_understood() {
    use kernel_base::ktap::{Ktap, Outcome as Written};
    let write = |ktap: &mut Ktap<String>| {
        ktap.start(3)?;
        ktap.start_suite("mm", 3)?;
        ktap.start_case("mm", "alloc")?;
        ktap.diagnostic(format_args!(
            "mm.alloc: EXPECTATION FAILED at a.rs:1\n  x == 1"
        ))?;
        ktap.end_case("alloc", Written::Failed)?;
        ktap.start_case("mm", "sizes")?;
        ktap.start_params("sizes", 2)?;
        ktap.end_param("8", Written::Passed)?;
        ktap.end_param("16", Written::Skipped("too large"))?;
        let outcome = ktap.end_params();
        ktap.end_case("sizes", outcome)?;
        ktap.start_case("mm", "slow")?;
        ktap.end_case("slow", Written::TimedOut)?;
        ktap.end_suite("mm")?;
        ktap.start_suite("numa", 1)?;
        ktap.start_case("numa", "far")?;
        ktap.end_case("far", Written::Skipped("one node\nonly"))?;
        ktap.end_suite("numa")?;
        ktap.start_suite("rcu", 1)?;
        ktap.start_case("rcu", "gp")?;
        ktap.end_case("gp", Written::Passed)?;
        ktap.end_suite("rcu")?;
        ktap.finish()
    };
    let mut ktap = Ktap::new(String::new());
    write(&mut ktap).expect("strings take everything");
    let (parser, events) = feed(&ktap.into_inner());
    assert_eq!(problems(&events), [""; 0]);
    assert_eq!(
        parser.ending(),
        Ending {
            nothing_left: true,
            ..Ending::default()
        }
    );
    let words: Vec<_> = ended(&events)
        .iter()
        .map(|(name, outcome)| format!("{name} {}", outcome.word()))
        .collect();
    assert_eq!(
        words,
        [
            "mm.alloc FAILED",
            "mm.sizes ok",
            "mm.slow TIMED OUT",
            "numa.far skipped",
            "rcu.gp ok"
        ]
    );
}
