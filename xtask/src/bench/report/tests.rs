use super::*;

fn key() -> Key {
    Key {
        machine: "icount".into(),
        rustc: "rustc 1.96.0".into(),
        qemu: "QEMU emulator version 7.2".into(),
        profile: "release".into(),
    }
}

fn report() -> Report {
    let line = "BENCH kfree_rcu/64 cpus=4 ops=400000 ns_per_op=1720.7 min=0.1 max=9999.9 idle_ns=7 \
                peak_kib=15960 tail_us=3.0";
    let plain = "BENCH rcu_read cpus=1 ops=1 ns_per_op=16.0";
    let rows = [line, plain].map(|line| Row::from(&Figures::parse(line).unwrap()));
    let ran = Ran {
        rows: rows.into(),
        skipped: vec![Skipped {
            name: "remote_free/256".into(),
            reason: "needs 2 CPUs".into(),
        }],
        ..Ran::default()
    };
    Report::new(key(), Some("d8f83eb+".into()), 5, ran)
}

fn text() -> String {
    serde_json::to_string_pretty(&report()).unwrap()
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.json");
    fs::write(&path, "something older").unwrap();
    JsonFile::prepare(&path).unwrap().write(&report()).unwrap();
    assert_eq!(Report::read(&path).unwrap(), report());
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o444, 0o444, "{mode:o}");
    // Nothing else is left there.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_is_not_written_in_the_end_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.json");
    fs::write(&path, "older").unwrap();
    drop(JsonFile::prepare(&path).unwrap());
    assert_eq!(fs::read_to_string(&path).unwrap(), "older");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_figures_are_plain_numbers() {
    let text = text();
    for part in [
        "\"ns_per_op\": 1720.7",
        "\"peak_kib\": 15960",
        "\"tail_us\": 3.0",
        "\"machine\": \"icount\"",
        "\"commit\": \"d8f83eb+\"",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn damage_is_told() {
    for (from, to, says) in [
        ("\"format\": 1", "\"format\": 2", "format 2"),
        ("\"format\": 1,", "", "missing field `format`"),
        ("1720.7", "1720.75", "one decimal"),
        ("1720.7", "-1.0", "one decimal"),
        ("1720.7", "\"fast\"", "expected f64"),
        ("1720.7", "1e300", "one decimal"),
        ("1720.7", "10000.0", "not between min and max"),
        ("\"cpus\": 4", "\"cpus\": 0", "`cpus`"),
        ("\"kfree_rcu/64\"", "\"Kfree\"", "the workload's name"),
        ("\"kfree_rcu/64\"", "\"rcu_read\"", "comes twice"),
        ("peak_kib", "max", "comes twice"),
        ("\"rounds\"", "\"turns\"", "unknown field `turns`"),
        ("\"idle_ns\": 7", "\"idle_ns\": -7", "invalid value"),
    ] {
        let damaged = text().replacen(from, to, 1);
        assert_ne!(damaged, text(), "{from}");
        let error = format!("{:#}", Report::parse(&damaged).expect_err(to));
        assert!(error.contains(says), "{from} -> {to}: {error}");
    }
    for text in ["", "{", "[]", "null", &text()[..200]] {
        assert!(Report::parse(text).is_err(), "{text}");
    }
}

#[test]
fn files_that_cannot_be_read_or_written_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent/base.json");
    let error = format!("{:#}", Report::read(&absent).unwrap_err());
    assert!(
        error.contains("cannot read the baseline") && error.contains("absent/base.json"),
        "{error}"
    );
    let damaged = folder.path().join("damaged.json");
    fs::write(&damaged, "{}").unwrap();
    let error = format!("{:#}", Report::read(&damaged).unwrap_err());
    assert!(
        error.contains("damaged.json is damaged") && error.contains("format"),
        "{error}"
    );
    fs::write(&damaged, [0xff, 0xfe]).unwrap();
    assert!(Report::read(&damaged).is_err());
    for path in [&absent, folder.path()] {
        let error = format!("{:#}", JsonFile::prepare(path).err().unwrap());
        assert!(error.contains("cannot write"), "{error}");
    }
}

#[test]
fn other_tools_are_refused_unless_allowed() {
    let report = report();
    report.check_key(&key(), false).unwrap();
    type Change = fn(&mut Key);
    let changes: [(&str, Change); 3] = [
        ("rustc", |key| key.rustc = "other".into()),
        ("QEMU", |key| key.qemu = "other".into()),
        ("profile", |key| key.profile = "checked".into()),
    ];
    for (what, change) in changes {
        let mut other = key();
        change(&mut other);
        let error = report.check_key(&other, false).unwrap_err().to_string();
        assert!(
            error.contains(what) && error.contains("--allow-other-tools"),
            "{error}"
        );
        report.check_key(&other, true).unwrap();
    }
}

#[test]
fn other_machines_are_always_refused() {
    let other = Key {
        machine: "mttcg".into(),
        ..key()
    };
    for allowed in [false, true] {
        let error = report().check_key(&other, allowed).unwrap_err().to_string();
        assert!(
            error.contains("`icount` there, `mttcg` here") && error.contains("never compare"),
            "{error}"
        );
    }
}
