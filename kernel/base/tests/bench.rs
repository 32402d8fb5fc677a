//! The lines of a benchmark run: written, read back, and refused when damaged.

use kernel_base::bench::{
    Figures, MAX_KEYS, Malformed, Said, Tenths, Value, is_name, matches, median,
};
use proptest::prelude::*;

const WHOLE: &str = "BENCH pair/64 cpus=1 ops=200000 ns_per_op=142.0 min=141.9 max=150.3 idle_ns=7 \
                     peak_kib=0 destroy_us=17831.9";

#[test]
fn a_whole_line_is_read_part_by_part() {
    let figures = Figures::parse(WHOLE).unwrap();
    assert_eq!(figures.name(), "pair/64");
    assert_eq!((figures.cpus(), figures.ops()), (1, 200_000));
    assert_eq!(figures.ns_per_op(), Tenths::new(1420));
    assert_eq!(
        figures.range(),
        Some((Tenths::new(1419), Tenths::new(1503)))
    );
    assert_eq!(figures.idle_ns(), Some(7));
    assert_eq!(
        figures.keys(),
        [
            ("peak_kib", Value::Whole(0)),
            ("destroy_us", Value::Tenths(Tenths::new(178_319)))
        ]
    );
    assert_eq!(figures.to_string(), WHOLE);
}

#[test]
fn the_optional_keys_come_in_any_order() {
    let figures =
        Figures::parse("BENCH a cpus=2 ops=1 ns_per_op=1.0 x=3 max=2.0 idle_ns=1 min=0.0").unwrap();
    assert_eq!(
        figures.to_string(),
        "BENCH a cpus=2 ops=1 ns_per_op=1.0 min=0.0 max=2.0 idle_ns=1 x=3"
    );
}

#[test]
fn damaged_lines_are_refused() {
    for (line, problem) in [
        ("BENCH", Malformed::Name),
        ("BENCH ", Malformed::Name),
        ("BENCH  a cpus=1 ops=1 ns_per_op=1.0", Malformed::Name),
        ("BENCH A cpus=1 ops=1 ns_per_op=1.0", Malformed::Name),
        ("BENCH a/ cpus=1 ops=1 ns_per_op=1.0", Malformed::Name),
        ("BENCH a", Malformed::Missing("cpus")),
        (
            "BENCH a ops=1 cpus=1 ns_per_op=1.0",
            Malformed::Missing("cpus"),
        ),
        (
            "BENCH a cpus=1  ops=1 ns_per_op=1.0",
            Malformed::Missing("ops"),
        ),
        ("BENCH a cpus=1 ops=1", Malformed::Missing("ns_per_op")),
        (
            "BENCH a cpus=0 ops=1 ns_per_op=1.0",
            Malformed::Number("cpus"),
        ),
        (
            "BENCH a cpus=4294967296 ops=1 ns_per_op=1.0",
            Malformed::Number("cpus"),
        ),
        (
            "BENCH a cpus=1 ops=0 ns_per_op=1.0",
            Malformed::Number("ops"),
        ),
        (
            "BENCH a cpus=1 ops=01 ns_per_op=1.0",
            Malformed::Number("ops"),
        ),
        (
            "BENCH a cpus=+1 ops=1 ns_per_op=1.0",
            Malformed::Number("cpus"),
        ),
        (
            "BENCH a cpus=1 ops=18446744073709551616 ns_per_op=1.0",
            Malformed::Number("ops"),
        ),
        (
            "BENCH a cpus=1 ops=1 ns_per_op=1",
            Malformed::Number("ns_per_op"),
        ),
        (
            "BENCH a cpus=1 ops=1 ns_per_op=1.",
            Malformed::Number("ns_per_op"),
        ),
        (
            "BENCH a cpus=1 ops=1 ns_per_op=.5",
            Malformed::Number("ns_per_op"),
        ),
        (
            "BENCH a cpus=1 ops=1 ns_per_op=1.05",
            Malformed::Number("ns_per_op"),
        ),
        ("BENCH a cpus=1 ops=1 ns_per_op=1.0 ", Malformed::Word),
        (
            "BENCH a cpus=1 ops=1 ns_per_op=1.0\r",
            Malformed::Number("ns_per_op"),
        ),
        ("BENCH a cpus=1 ops=1 ns_per_op=1.0 fast", Malformed::Word),
        ("BENCH a cpus=1 ops=1 ns_per_op=1.0 x=fast", Malformed::Word),
        ("BENCH a cpus=1 ops=1 ns_per_op=1.0 X=1", Malformed::Word),
        (
            "BENCH a cpus=1 ops=1 ns_per_op=1.0 x=1 x=1",
            Malformed::Twice,
        ),
        ("BENCH a cpus=1 ops=1 ns_per_op=1.0 ops=1", Malformed::Twice),
        (
            "BENCH a cpus=1 ops=1 ns_per_op=1.0 idle_ns=1 idle_ns=1",
            Malformed::Twice,
        ),
        (
            "BENCH a cpus=1 ops=1 ns_per_op=1.0 min=1.0 min=1.0 max=1.0",
            Malformed::Twice,
        ),
        (
            "BENCH a cpus=1 ops=1 ns_per_op=1.0 min=1.0",
            Malformed::Missing("max"),
        ),
        (
            "BENCH a cpus=1 ops=1 ns_per_op=1.0 max=1.0",
            Malformed::Missing("min"),
        ),
        (
            "BENCH a cpus=1 ops=1 ns_per_op=1.0 min=1.1 max=2.0",
            Malformed::Range,
        ),
        (
            "BENCH a cpus=1 ops=1 ns_per_op=1.0 min=0.1 max=0.9",
            Malformed::Range,
        ),
        (
            "BENCH a cpus=1 ops=1 ns_per_op=1.0 idle_ns=0.5",
            Malformed::Number("idle_ns"),
        ),
    ] {
        assert_eq!(Figures::parse(line), Err(problem), "{line}");
        assert_eq!(Said::parse(line), Err(problem), "{line}");
    }
    let many: String = (0..=MAX_KEYS).map(|key| format!(" k{key}=1")).collect();
    let line = format!("BENCH a cpus=1 ops=1 ns_per_op=1.0{many}");
    assert_eq!(Figures::parse(&line), Err(Malformed::TooMany));
}

#[test]
fn damaged_remarks_are_refused() {
    for line in [
        "# bench: ",
        "# bench: debug build; rounds=5 cpus=1",
        "# bench: release build, no debug checks; rounds=5",
        "# bench: release build, no debug checks; rounds=x cpus=1",
        "# bench: 1 measured, 2 skipped",
        "# bench: 1 measured, 2 skipped, 3 failed, 4 lost",
        "# bench: -1 measured, 2 skipped, 3 failed",
        "# run: ",
        "# run: A b",
        "# SKIP pair/64",
        "# SKIP : why",
        "# FAIL Pair: why",
    ] {
        assert_eq!(Said::parse(line), Err(Malformed::Remark), "{line}");
    }
    for line in [
        "",
        "BENCHMARK",
        "# kunit: x",
        "[    0.1] cpu0 info: boot: ready",
        " # run: a",
    ] {
        assert_eq!(Said::parse(line), Ok(None), "{line}");
    }
}

#[test]
fn the_build_is_in_the_first_line() {
    let line = |checked| {
        Said::Begin {
            checked,
            rounds: 5,
            cpus: 4,
        }
        .to_string()
    };
    assert_eq!(
        line(false),
        "# bench: release build, no debug checks; rounds=5 cpus=4"
    );
    assert!(line(true).contains("CHECKED BUILD"));
}

#[test]
fn figures_are_rounded_to_the_nearest_tenth() {
    for (ns, cpus, ops, text) in [
        (0, 1, 1, "0.0"),
        (1, 1, 20, "0.1"),
        (1, 1, 21, "0.0"),
        (19, 1, 20, "1.0"),
        (100, 4, 8, "50.0"),
        (7, 1, 0, "7.0"),
        (u64::MAX, u32::MAX, 1, "1844674407370955161.5"),
    ] {
        assert_eq!(
            Tenths::per_op(ns, cpus, ops).to_string(),
            text,
            "{ns}/{ops}"
        );
    }
}

#[test]
fn names() {
    for good in ["a", "pair/64", "kfree_rcu/kmalloc-64", "smp_batch/256/256"] {
        assert!(is_name(good), "{good}");
    }
    for bad in [
        "", "/", "a/", "/a", "a//b", "1", "-a", "A", "a b", "a=b", "a.b", "é", "a*",
    ] {
        assert!(!is_name(bad), "{bad}");
    }
}

#[test]
fn patterns_mean_names_or_groups() {
    for (pattern, name, expected) in [
        ("*", "pair/64", true),
        ("pair", "pair/64", true),
        ("pai?", "pair/64", true),
        ("pair", "smp_pair/64", false),
        ("pair/6", "pair/64", false),
        ("pair/6?", "pair/64", true),
        ("64", "pair/64", false),
        ("rcu_read", "rcu_read", true),
        ("batch/256", "batch/256/16", false),
        ("batch", "batch/256/16", true),
        ("", "pair/64", false),
    ] {
        assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
    }
}

#[test]
fn the_median_is_the_middle_round() {
    let of = |figures: &[u64]| {
        let mut rounds: Vec<Tenths> = figures.iter().copied().map(Tenths::new).collect();
        median(&mut rounds, |round| *round)
            .map(|(middle, min, max)| (middle.get(), min.get(), max.get()))
    };
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[7]), Some((7, 7, 7)));
    assert_eq!(of(&[9, 1]), Some((1, 1, 9)));
    assert_eq!(of(&[50, 10, 40, 20, 30]), Some((30, 10, 50)));
    assert_eq!(of(&[4, 1, 3, 2]), Some((2, 1, 4)));
}

fn tenths() -> impl Strategy<Value = Tenths> {
    prop_oneof![0..10_000u64, any::<u64>()].prop_map(Tenths::new)
}

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_-]{0,8}(/[a-z0-9_-]{1,6}){0,2}"
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::Whole),
        tenths().prop_map(Value::Tenths)
    ]
}

prop_compose! {
    /// Parts from which a line can be made.
    fn parts()(
        name in name(),
        cpus in 1..=u32::MAX,
        ops in 1..=u64::MAX,
        mut figures in [tenths(), tenths(), tenths()],
        ranged: bool,
        idle_ns: Option<u64>,
        keys in proptest::collection::btree_map("k[a-z0-9_]{0,6}", value(), 0..=MAX_KEYS),
    ) -> (String, u32, u64, [Tenths; 3], bool, Option<u64>, Vec<(String, Value)>) {
        figures.sort();
        (name, cpus, ops, figures, ranged, idle_ns, keys.into_iter().collect())
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(parts in parts()) {
        let (name, cpus, ops, [min, middle, max], ranged, idle_ns, keys) = &parts;
        let mut figures = Figures::new(name, *cpus, *ops, *middle).unwrap();
        if *ranged {
            figures = figures.with_range(*min, *max).unwrap();
        }
        if let Some(idle_ns) = idle_ns {
            figures = figures.with_idle_ns(*idle_ns);
        }
        for (key, value) in keys {
            figures = figures.with_key(key, *value).unwrap();
        }
        let line = figures.to_string();
        prop_assert_eq!(Figures::parse(&line), Ok(figures.clone()));
        prop_assert_eq!(Said::parse(&line), Ok(Some(Said::Figures(figures))));
    }

    #[test]
    fn remarks_are_read_back(
        name in name(),
        reason in "[^\r\n]{0,20}",
        numbers: [u32; 3],
        checked: bool,
    ) {
        let (name, reason) = (name.as_str(), reason.as_str());
        let [measured, skipped, failed] = numbers;
        for said in [
            Said::Begin { checked, rounds: measured, cpus: skipped },
            Said::Run(name),
            Said::Skip { name, reason },
            Said::Fail { name, reason },
            Said::NoMatch(reason),
            Said::End { measured, skipped, failed },
        ] {
            let line = said.to_string();
            prop_assert_eq!(Said::parse(&line), Ok(Some(said)));
        }
    }

    /// Whatever is read prints as it stood, up to the order of the optional keys.
    #[test]
    fn nothing_is_read_that_would_not_be_written(
        line in "BENCH [a-z/]{1,3} cpus=[0-9]{1,2} ops=[0-9]{1,2} ns_per_op=[0-9]{1,2}\\.[0-9]( (min|max|idle_ns|x)=[0-9]{1,2}(\\.[0-9])?){0,4}",
    ) {
        if let Ok(figures) = Figures::parse(&line) {
            let sorted = |line: &str| {
                let mut words: Vec<String> = line.split(' ').map(String::from).collect();
                words.sort();
                words
            };
            prop_assert_eq!(sorted(&figures.to_string()), sorted(&line));
        }
    }

    #[test]
    fn never_panics(line: String) {
        let _ = Said::parse(&line);
        let _ = Figures::parse(&format!("BENCH {line}"));
        let _ = Said::parse(&format!("# bench: {line}"));
    }
}
