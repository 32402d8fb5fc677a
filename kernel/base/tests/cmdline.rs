//! The command line: every key, every kind of problem, and noise.

use kernel_base::cmdline::{
    CommandLine, DEFAULT_CASE_TIMEOUT_MS, DEFAULT_ROUNDS, Faults, KEYS, MAX_PROBLEMS, OnPanic,
    ProblemKind, Rcu, Shuffle, Slab, Tokens, ValueType,
};
use log::LevelFilter;
use proptest::prelude::*;

fn problems(line: &str) -> Vec<String> {
    CommandLine::parse(line)
        .problems()
        .iter()
        .map(|p| p.to_string())
        .collect()
}

#[test]
fn empty_line_has_defaults() {
    for line in ["", "   \t\n", "\0"] {
        let line = CommandLine::parse(line);
        assert!(line.problems().is_empty());
        assert_eq!((line.run, line.kunit, line.kunit_list), (None, None, false));
        assert_eq!((line.bench, line.bench_list), (None, false));
        assert_eq!((line.page_poison, line.page_owner), (false, false));
        assert_eq!(line.fail_page_alloc, None);
        assert_eq!(line.slab, Slab::default());
        assert_eq!(line.bench_rounds, DEFAULT_ROUNDS);
        assert_eq!((line.kunit_shuffle, line.kunit_repeat), (None, 1));
        assert_eq!(line.kunit_timeout_ms, DEFAULT_CASE_TIMEOUT_MS);
        assert_eq!(
            (line.loglevel, line.on_panic()),
            (LevelFilter::Info, OnPanic::Halt)
        );
        assert_eq!(
            (line.tsc_khz, line.debug_exit, line.maxcpus),
            (None, None, None)
        );
    }
}

#[test]
fn every_key_is_read() {
    let text = "run=\"echo \\\"a\\\" \\\\ b; cpus\" kunit=mm.*,rcu.? kunit.list kunit.shuffle=7 \
        kunit.repeat=3 kunit.after=mm.alloc kunit.timeout_ms=500 kunit.percent=5 kunit.planted=hang \
        bench=pair,rcu_* bench.list bench.rounds=3 schedule=9 tsc_khz=1000000 loglevel=debug debug_exit=0xf4 maxcpus=0x2 panic=reboot \
        page_poison=on page_owner=1 fail_page_alloc=2,50,4096,-1 \
        slub_debug=FZ,kmalloc-*;P,a failslab=3,10,0,7 init_on_alloc=on init_on_free=1 \
        slab_freelist_hardened=on slab_freelist_random=on slab_quarantine=64KiB \
        rcu.blimit=1 rcu.fanout=2 rcu.fanout_leaf=3 rcu.jiffies_till_first_fqs=0 \
        rcu.jiffies_till_next_fqs=5 rcu.jiffies_till_sched_qs=6 rcu.min_interval_us=7 \
        rcu.qhimark=8 rcu.stall_timeout_ms=10 \
        rcutorture=600 rcutorture.seed=4 rcutorture.fault=lose_qs rcutorture.overlong\n";
    let line = CommandLine::parse(text);
    assert_eq!(line.problems(), []);
    assert_eq!(line.run.unwrap().to_string(), r#"echo "a" \ b; cpus"#);
    assert!(line.bench.unwrap() == "pair,rcu_*");
    assert_eq!((line.bench_list, line.bench_rounds), (true, 3));
    assert!(line.kunit.unwrap() == "mm.*,rcu.?");
    assert!(line.kunit_list);
    assert_eq!(
        (line.kunit_shuffle, line.kunit_repeat),
        (Some(Shuffle::Seed(7)), 3)
    );
    assert_eq!(line.kunit_after.unwrap().as_plain(), Some("mm.alloc"));
    assert_eq!((line.kunit_timeout_ms, line.kunit_percent), (500, Some(5)));
    assert!(line.kunit_planted.unwrap() == "hang");
    assert_eq!((line.schedule, line.tsc_khz), (Some(9), Some(1_000_000)));
    assert_eq!(
        (line.rcutorture, line.rcutorture_seed),
        (Some(600), Some(4))
    );
    assert!(line.rcutorture_overlong && line.rcutorture_fault.unwrap() == "lose_qs");
    assert_eq!(line.loglevel, LevelFilter::Debug);
    assert_eq!((line.debug_exit, line.maxcpus), (Some(0xf4), Some(2)));
    assert_eq!(line.on_panic(), OnPanic::Reboot);
    assert_eq!((line.page_poison, line.page_owner), (true, true));
    let faults = Faults {
        interval: 2,
        probability: 50,
        space: 4096,
        times: None,
    };
    assert_eq!(line.fail_page_alloc, Some(faults));
    let slab = Slab {
        debug: Some("FZ,kmalloc-*;P,a"),
        faults: Some(Faults {
            interval: 3,
            probability: 10,
            space: 0,
            times: Some(7),
        }),
        init_on_alloc: true,
        init_on_free: true,
        hardened: true,
        random: true,
        quarantine: 64 << 10,
    };
    assert_eq!(line.slab, slab);
    let rcu = Rcu {
        blimit: Some(1),
        fanout: Some(2),
        fanout_leaf: Some(3),
        jiffies_till_first_fqs: Some(0),
        jiffies_till_next_fqs: Some(5),
        jiffies_till_sched_qs: Some(6),
        min_interval_us: Some(7),
        qhimark: Some(8),
        stall_timeout_ms: Some(10),
    };
    assert_eq!(line.rcu, rcu);
    assert_eq!(line.rcu.given("rcu.fanout_leaf"), Some(3));
    assert_eq!(line.rcu.given("rcu"), None);
    assert_eq!(Tokens::new(text).count(), KEYS.len());
}

#[test]
fn bytes_may_have_a_unit() {
    for (value, bytes) in [
        ("0", 0),
        ("4096", 4096),
        ("3K", 3 << 10),
        ("3KiB", 3 << 10),
        ("2M", 2 << 20),
        ("2MiB", 2 << 20),
    ] {
        let line = format!("slab_quarantine={value}");
        let line = CommandLine::parse(&line);
        assert_eq!((line.slab.quarantine, line.problems().len()), (bytes, 0));
    }
}

#[test]
fn panic_defaults_to_exit_with_the_device() {
    assert_eq!(
        CommandLine::parse("debug_exit=0xf4").on_panic(),
        OnPanic::Exit
    );
    assert_eq!(
        CommandLine::parse("debug_exit=0xf4 panic=halt").on_panic(),
        OnPanic::Halt
    );
    assert_eq!(
        CommandLine::parse("kunit.shuffle=random").kunit_shuffle,
        Some(Shuffle::Random)
    );
}

#[test]
fn numbers_keep_within_their_bounds() {
    for key in KEYS {
        let ValueType::Range(least, most) = key.value else {
            continue;
        };
        let name = key.name;
        let taken = |value: u64| {
            CommandLine::parse(&format!("{name}={value}"))
                .rcu
                .given(name)
        };
        assert_eq!((taken(least), taken(most)), (Some(least), Some(most)));
        assert_eq!(taken(most + 1), None);
        assert!(least == 0 || taken(least - 1).is_none());
        let default = key.default.parse().unwrap();
        assert!((least..=most).contains(&default), "{name}");
    }
    assert_eq!(
        problems("rcu.fanout=65"),
        ["bad value `65` for `rcu.fanout`, expected 2 to 64 at byte 0"]
    );
    assert_eq!(CommandLine::parse("rcu.fanout=1").rcu, Rcu::default());
}

#[test]
fn problems_name_key_and_place() {
    assert_eq!(problems("  colour=red"), ["unknown key `colour` at byte 2"]);
    assert_eq!(problems("=x"), ["unknown key `` at byte 0"]);
    assert_eq!(
        problems("maxcpus"),
        ["`maxcpus` needs a value: a number above 0 at byte 0"]
    );
    assert_eq!(
        problems("kunit.list=1"),
        ["`kunit.list` takes no value at byte 0"]
    );
    assert_eq!(
        problems("loglevel=loud"),
        ["bad value `loud` for `loglevel`, expected error|warn|info|debug|trace at byte 0"]
    );
    assert_eq!(
        problems("maxcpus=1 maxcpus=2"),
        ["`maxcpus` given again, the last one holds at byte 10"]
    );
    assert_eq!(
        problems("run=\"cpus"),
        ["no closing quote in the value of `run` at byte 0"]
    );
    assert_eq!(
        problems("run=\"cpus\"x maxcpus=1"),
        ["dropped `x` behind the quoted value of `run` at byte 0"]
    );
    assert_eq!(CommandLine::parse("maxcpus=1 maxcpus=2").maxcpus, Some(2));
    assert!(CommandLine::parse("run=\"cpus").run.unwrap() == "cpus");
}

#[test]
fn malformed_values_change_nothing() {
    for line in [
        "maxcpus=0",
        "maxcpus=-1",
        "maxcpus=+1",
        "maxcpus=",
        "maxcpus=1x",
        "maxcpus=0x",
        "maxcpus=0x+1",
        "maxcpus=18446744073709551616",
        "debug_exit=0x10000",
        "tsc_khz=fast",
        "bench=",
        "bench.rounds=0",
        "kunit.repeat=0",
        "kunit.timeout_ms=0",
        "kunit.shuffle=maybe",
        "kunit.after=nodot",
        "kunit.after=.case",
        "kunit=",
        "kunit.planted=\"\"",
        "rcutorture=0",
        "rcutorture.seed=x",
        "rcutorture.fault=",
        "panic=later",
        "page_poison=maybe",
        "page_owner=",
        "fail_page_alloc=1,2,3",
        "failslab=1,2,3",
        "init_on_alloc=yes",
        "slab_freelist_random=2",
        "slab_quarantine=",
        "slab_quarantine=KiB",
        "slab_quarantine=1GiB",
        "slab_quarantine=-1",
        "slab_quarantine=18446744073709551615K",
        r#"slub_debug="P,a\"""#,
        "fail_page_alloc=1,2,3,4,5",
        "fail_page_alloc=1,101,0,1",
        "fail_page_alloc=1,+10,0,1",
        "fail_page_alloc=1,10,0,-2",
        "fail_page_alloc=1,10,0,2147483648",
        "fail_page_alloc=,,,",
        "loglevel=",
        "maxcpus=\"1\\\\\"",
    ] {
        let parsed = CommandLine::parse(line);
        assert!(
            matches!(parsed.problems()[0].kind, ProblemKind::BadValue { .. }),
            "{line}"
        );
        assert_eq!(parsed.problems().len(), 1, "{line}");
        assert_eq!(
            (parsed.maxcpus, parsed.debug_exit, parsed.tsc_khz),
            (None, None, None)
        );
        assert_eq!((parsed.bench, parsed.bench_rounds), (None, DEFAULT_ROUNDS));
        assert_eq!(
            (parsed.kunit_repeat, parsed.kunit_timeout_ms),
            (1, DEFAULT_CASE_TIMEOUT_MS)
        );
        assert_eq!(
            (parsed.kunit, parsed.kunit_after, parsed.kunit_planted),
            (None, None, None)
        );
    }
}

#[test]
fn quotes_and_escapes() {
    let value = |line| Tokens::new(line).next().unwrap().value.unwrap().to_string();
    assert_eq!(value(r#"run="a b""#), "a b");
    assert_eq!(value(r#"run="a\"b" c"#), "a\"b");
    assert_eq!(value(r#"run="a\\" c"#), "a\\");
    assert_eq!(value(r#"run="a\nb""#), "a\\nb");
    assert_eq!(value(r#"run=a"b\"#), "a\"b\\");
    assert_eq!(value(r#"run="""#), "");
    assert_eq!(value(r#"run="a\"#), "a\\");
    let text = Tokens::new(r#"run="a\"b""#).next().unwrap().value.unwrap();
    assert_eq!(text.copy_to(&mut [0; 3]), Some("a\"b"));
    assert_eq!(text.copy_to(&mut [0; 2]), None);
    assert_eq!(text.as_plain(), None);
}

#[test]
fn bytes_that_are_not_utf8_end_the_line() {
    let line = CommandLine::parse_bytes(b"maxcpus=2 run=\xff maxcpus=3");
    assert_eq!(line.maxcpus, Some(2));
    assert_eq!(
        line.problems().last().unwrap().to_string(),
        "not UTF-8, dropped the rest at byte 14"
    );
}

#[test]
fn problems_are_bounded() {
    let text = "x ".repeat(MAX_PROBLEMS + 5);
    let line = CommandLine::parse(&text);
    assert_eq!(
        (line.problems().len(), line.problems_dropped()),
        (MAX_PROBLEMS, 5)
    );
}

#[test]
fn the_table_of_keys_is_sorted_and_whole() {
    assert!(KEYS.is_sorted_by_key(|key| key.name));
    for key in KEYS {
        assert!(!key.help.is_empty() && !key.default.is_empty());
        // Every key of the table is known to the parser.
        let text = format!("{}=\u{1}", key.name);
        let line = CommandLine::parse(&text);
        let unknown = |p: &ProblemKind<'_>| matches!(p, ProblemKind::UnknownKey { .. });
        assert!(
            !line.problems().iter().any(|p| unknown(&p.kind)),
            "{}",
            key.name
        );
    }
}

proptest! {
    #[test]
    fn never_panics(line: String, bytes: Vec<u8>) {
        for problem in CommandLine::parse(&line).problems() {
            prop_assert!(problem.position <= line.len());
            let _ = problem.to_string();
        }
        let _ = format!("{:?}", CommandLine::parse_bytes(&bytes));
    }

    #[test]
    fn never_panics_on_nearly_right_lines(line in "((run|kunit|maxcpus|panic|x)(=|)(\"|)[a0\\\\\" ]{0,4}(\"|) ?){0,20}") {
        let parsed = CommandLine::parse(&line);
        let _ = format!("{parsed:?} {:?}", parsed.problems());
        // Tokens come in order and do not overlap.
        prop_assert!(Tokens::new(&line).map(|t| t.position).is_sorted());
    }

    #[test]
    fn quoting_round_trips(value in "\\PC*") {
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        let line = format!("run=\"{quoted}\" maxcpus=2");
        let parsed = CommandLine::parse(&line);
        prop_assert_eq!(parsed.run.unwrap().to_string(), value);
        prop_assert_eq!(parsed.maxcpus, Some(2));
        prop_assert!(parsed.problems().is_empty());
    }
}
