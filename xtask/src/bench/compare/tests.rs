use super::*;
use crate::bench::report::Decimal;
use crate::bench::{Key, Skipped};

fn row(name: &str, tenths: u64) -> Row {
    ranged(name, tenths, tenths, tenths)
}

fn ranged(name: &str, tenths: u64, min: u64, max: u64) -> Row {
    let decimal = |tenths| Decimal(Tenths::new(tenths));
    Row {
        name: name.into(),
        cpus: 1,
        ops: 100,
        ns_per_op: decimal(tenths),
        min: Some(decimal(min)),
        max: Some(decimal(max)),
        idle_ns: Some(0),
        keys: Default::default(),
    }
}

fn complete(rows: Vec<Row>) -> Ran {
    Ran {
        rows,
        complete: true,
        ..Ran::default()
    }
}

fn baseline(rows: Vec<Row>) -> Report {
    let key = Key {
        machine: "icount".into(),
        rustc: "r".into(),
        qemu: "q".into(),
        profile: "release".into(),
    };
    Report::new(key, None, 5, complete(rows))
}

fn findings(base: Vec<Row>, now: &Ran, filter: &str, rule: Rule) -> Vec<String> {
    let filter = Filter::new(&[filter.into()]).unwrap();
    let findings = compare(&baseline(base), now, &filter, rule);
    findings.iter().map(ToString::to_string).collect()
}

/// How one row compares: -1 better, 0 same, 1 worse.
fn order(base: Row, now: Row, rule: Rule) -> i32 {
    match row_verdict(&base, &now, rule) {
        Verdict::Worse { .. } => 1,
        Verdict::Better { .. } => -1,
        Verdict::Same { .. } => 0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn counted_instructions_need_two_and_one_percent() {
    for (base, now, expected) in [
        (1000, 1000, 0),
        // Exactly 2 instructions are not more than 2.
        (1000, 1020, 0),
        (1000, 1021, 1),
        (1021, 1000, -1),
        // Exactly 1 % is not more than 1 %.
        (10_000, 10_100, 0),
        (10_000, 10_101, 1),
        // 2.1 instructions, but less than 1 %.
        (10_000, 10_021, 0),
        // More than 1 %, but less than 2 instructions.
        (20, 39, 0),
        (0, 21, 1),
        (0, 20, 0),
        (21, 0, -1),
        (u64::MAX - 30, u64::MAX, 0),
    ] {
        let found = order(row("a", base), row("a", now), Rule::Exact);
        assert_eq!(found, expected, "{base} -> {now}");
    }
}

#[test]
fn wall_time_needs_much_more() {
    for (base, now, expected) in [
        ((1000, 900, 1100), (1500, 1400, 1600), 0),
        ((1000, 900, 1100), (1501, 1400, 1600), 1),
        // A round was as good as the worst of the baseline.
        ((1000, 900, 1100), (3000, 1100, 9000), 0),
        ((1000, 900, 1100), (3000, 1101, 9000), 1),
        // Less than 20 ns.
        ((10, 10, 10), (210, 210, 210), 0),
        ((10, 10, 10), (211, 211, 211), 1),
        ((1501, 1400, 1600), (1000, 900, 1100), -1),
    ] {
        let make = |(ns, min, max)| ranged("a", ns, min, max);
        let found = order(make(base), make(now), Rule::Wall);
        assert_eq!(found, expected, "{base:?} -> {now:?}");
    }
}

#[test]
fn the_rule_follows_from_the_machine() {
    assert_eq!(Rule::of(BenchMachine::Icount), Rule::Exact);
    assert_eq!(Rule::of(BenchMachine::Icount4), Rule::Exact);
    assert_eq!(Rule::of(BenchMachine::Mttcg), Rule::Wall);
    assert_eq!(Rule::of(BenchMachine::Kvm), Rule::Wall);
}

#[test]
fn every_row_is_spoken_of() {
    let now = complete(vec![
        row("same", 1000),
        row("worse", 1300),
        row("better", 700),
        row("new", 5),
    ]);
    let base = vec![
        row("gone", 7),
        row("better", 1000),
        row("worse", 1000),
        row("same", 1000),
    ];
    assert_eq!(
        findings(base, &now, "*", Rule::Exact),
        [
            "same: same, 100.0 -> 100.0 ns per op",
            "worse: WORSE, 100.0 -> 130.0 ns per op (+30.0, +30.0 %)",
            "better: better, 100.0 -> 70.0 ns per op (-30.0, -30.0 %)",
            "new: new, the baseline lacks it",
            "gone: only in the baseline, this kernel has no such one",
        ]
    );
}

#[test]
fn what_the_filter_leaves_out_is_not_missed() {
    let base = vec![row("a/one", 10), row("b/one", 10)];
    let now = complete(vec![row("a/one", 10)]);
    assert_eq!(findings(base, &now, "a", Rule::Exact).len(), 1);
}

#[test]
fn what_ran_once_must_run_again() {
    let skipped = Skipped {
        name: "a".into(),
        reason: "needs 2 CPUs".into(),
    };
    let now = Ran {
        skipped: vec![skipped],
        ..complete(vec![])
    };
    let found = compare(
        &baseline(vec![row("a", 10)]),
        &now,
        &Filter::new(&["*".into()]).unwrap(),
        Rule::Exact,
    );
    assert!(found[0].is_failure(), "{found:?}");
    assert!(found[0].to_string().ends_with("needs 2 CPUs"));
    // A skip that was one before is nothing new.
    assert!(findings(vec![], &now, "*", Rule::Exact).is_empty());
}

#[test]
fn nothing_is_missed_in_a_run_that_went_wrong() {
    let failed = Ran {
        failed: vec![Skipped {
            name: "a".into(),
            reason: "no memory".into(),
        }],
        ..complete(vec![])
    };
    assert!(findings(vec![row("a", 1)], &failed, "*", Rule::Exact).is_empty());
    let cut = Ran {
        complete: false,
        ..Ran::default()
    };
    assert!(findings(vec![row("a", 1)], &cut, "*", Rule::Exact).is_empty());
}

#[test]
fn another_workload_of_the_same_name_is_not_compared() {
    let changed = Row {
        ops: 200,
        ..row("a", 9999)
    };
    assert_eq!(
        findings(
            vec![row("a", 10)],
            &complete(vec![changed]),
            "*",
            Rule::Exact
        ),
        ["a: not compared, the workload has changed: 100 operations on 1 CPUs then, 200 on 1 now"]
    );
}

#[test]
fn only_worse_and_impossible_fail() {
    let (base, now) = (Tenths::new(1), Tenths::new(2));
    for (verdict, fails) in [
        (Verdict::Same { base, now }, false),
        (Verdict::Better { base, now }, false),
        (Verdict::Worse { base, now }, true),
        (Verdict::NoLongerRuns(String::new()), true),
        (Verdict::Changed(String::new()), false),
        (Verdict::OnlyThere, false),
        (Verdict::OnlyHere, false),
    ] {
        let finding = Finding {
            name: "a".into(),
            verdict,
        };
        assert_eq!(finding.is_failure(), fails, "{finding}");
    }
}
