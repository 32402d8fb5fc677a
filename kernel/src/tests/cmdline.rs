//! The kernel command line: the one of this boot, and lines that nobody should
//! write. (The parser has its own tests on the host; these show that it does the
//! same in the kernel, without a standard library and with overflow checks.)

use alloc::format;
use alloc::string::String;

use kernel_base::cmdline::{CommandLine, KEYS, MAX_PROBLEMS, ProblemKind, Shuffle};

use crate::boot;
use crate::kunit::{Ctx, Outcome, kassert, kassert_eq, kunit_suite};

kunit_suite! {
    name: "cmdline",
    cases: [
        own_line_is_clean,
        values,
        nasty => { over: NASTY },
        last_value_holds,
        problems_are_bounded,
        random_bytes,
    ],
}

/// The line xtask gave has only keys that exist: a typing error in xtask would
/// otherwise show up as nothing but a warning.
fn own_line_is_clean(_: &mut Ctx) -> Outcome {
    let line = boot::command_line();
    for problem in line.problems() {
        kassert!(false, "{problem}");
    }
    kassert_eq!(line.problems_dropped(), 0);
    kassert!(line.kunit_repeat >= 1);
    kassert!(line.kunit_timeout_ms >= 1);
    Ok(())
}

fn values(_: &mut Ctx) -> Outcome {
    let line = CommandLine::parse(
        r#" run="echo \"a b\"; mem" kunit=ipi.*,percpu kunit.shuffle=0x10 maxcpus=3	kunit.list "#,
    );
    kassert_eq!(line.problems().len(), 0);
    kassert!(
        line.run.is_some_and(|run| run == r#"echo "a b"; mem"#),
        "{:?}",
        line.run
    );
    kassert!(
        line.kunit.is_some_and(|globs| globs == "ipi.*,percpu"),
        "{:?}",
        line.kunit
    );
    kassert_eq!(line.kunit_shuffle, Some(Shuffle::Seed(16)));
    kassert_eq!(line.maxcpus, Some(3));
    kassert!(line.kunit_list);
    Ok(())
}

/// What is wrong with a line, as the kind of its first problem.
type Wrong = fn(&ProblemKind<'_>) -> bool;

const NASTY: &[(&str, (&[u8], Wrong))] = &[
    (
        "unknown-key",
        (b"colour=red", |kind| {
            matches!(kind, ProblemKind::UnknownKey { key: "colour" })
        }),
    ),
    (
        "no-key",
        (b"=5", |kind| {
            matches!(kind, ProblemKind::UnknownKey { key: "" })
        }),
    ),
    (
        "no-value",
        (b"maxcpus", |kind| {
            matches!(kind, ProblemKind::MissingValue { .. })
        }),
    ),
    (
        "empty-value",
        (b"maxcpus=", |kind| {
            matches!(kind, ProblemKind::BadValue { .. })
        }),
    ),
    (
        "zero",
        (b"maxcpus=0", |kind| {
            matches!(kind, ProblemKind::BadValue { .. })
        }),
    ),
    (
        "negative",
        (b"maxcpus=-1", |kind| {
            matches!(kind, ProblemKind::BadValue { .. })
        }),
    ),
    (
        "too-great",
        (b"tsc_khz=99999999999999999999", |kind| {
            matches!(kind, ProblemKind::BadValue { .. })
        }),
    ),
    (
        "port-too-great",
        (b"debug_exit=0x10000", |kind| {
            matches!(kind, ProblemKind::BadValue { .. })
        }),
    ),
    (
        "flag-with-value",
        (b"kunit.list=yes", |kind| {
            matches!(kind, ProblemKind::UnexpectedValue { .. })
        }),
    ),
    (
        "no-case",
        (b"kunit.after=suite", |kind| {
            matches!(kind, ProblemKind::BadValue { .. })
        }),
    ),
    (
        "open-quote",
        (b"run=\"mem", |kind| {
            matches!(kind, ProblemKind::UnterminatedQuote { .. })
        }),
    ),
    (
        "open-escape",
        (b"run=\"mem\\", |kind| {
            matches!(kind, ProblemKind::UnterminatedQuote { .. })
        }),
    ),
    (
        "behind-quote",
        (b"run=\"mem\"x", |kind| {
            matches!(kind, ProblemKind::TextAfterQuote { .. })
        }),
    ),
    (
        "twice",
        (b"maxcpus=1 maxcpus=2", |kind| {
            matches!(kind, ProblemKind::Duplicate { .. })
        }),
    ),
    (
        "not-utf8",
        (b"maxcpus=1 \xff\xfe", |kind| {
            matches!(kind, ProblemKind::NotUtf8)
        }),
    ),
    (
        "cut-utf8",
        (b"run=\xe2\x82", |kind| matches!(kind, ProblemKind::NotUtf8)),
    ),
];

fn nasty(_: &mut Ctx, (line, wrong): (&[u8], Wrong)) -> Outcome {
    let line = CommandLine::parse_bytes(line);
    kassert!(
        line.problems().iter().any(|problem| wrong(&problem.kind)),
        "found: {:?}",
        line.problems()
    );
    // Printing it is what boot does with it.
    for problem in line.problems() {
        kassert!(!format!("{problem}").is_empty());
    }
    Ok(())
}

fn last_value_holds(_: &mut Ctx) -> Outcome {
    let line = CommandLine::parse("maxcpus=1 maxcpus=2 maxcpus=none");
    kassert_eq!(
        line.maxcpus,
        Some(2),
        "the malformed third value has no effect"
    );
    kassert_eq!(line.problems().len(), 3);
    Ok(())
}

fn problems_are_bounded(_: &mut Ctx) -> Outcome {
    let text = "x ".repeat(MAX_PROBLEMS + 5);
    let line = CommandLine::parse(&text);
    kassert_eq!(line.problems().len(), MAX_PROBLEMS);
    kassert_eq!(line.problems_dropped(), 5);
    Ok(())
}

/// No line whatever panics. Random pieces of real ones get further than noise.
fn random_bytes(ctx: &mut Ctx) -> Outcome {
    const PIECES: &[&str] = &[
        "=", "\"", "\\", " ", "0x", "-", "9999", "\u{20ac}", "\0", "\t", ",",
    ];
    for _ in 0..500 {
        let mut text = String::new();
        for _ in 0..ctx.rng().below(12) {
            let choice = ctx.rng().below(PIECES.len() as u64 + KEYS.len() as u64) as usize;
            match PIECES.get(choice) {
                Some(piece) => text.push_str(piece),
                None => text.push_str(KEYS[choice - PIECES.len()].name),
            }
        }
        let line = CommandLine::parse(&text);
        kassert!(
            line.problems()
                .iter()
                .all(|problem| problem.position <= text.len()),
            "{text:?}"
        );
        kassert!(line.kunit_repeat >= 1, "{text:?}");
    }
    Ok(())
}
