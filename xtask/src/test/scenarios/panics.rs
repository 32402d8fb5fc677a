//! Every way to crash: the report comes out whole and QEMU ends with a failure.

use super::{Check, boot, quick, small};
use crate::test::scenario::{Action, PanicExpected, Scenario};
use crate::test::subject::PANIC;

/// What is given to the shell's `panic`, what the message says, and a function in
/// the backtrace.
const CASES: &[(&str, &str, &str)] = &[
    ("plain", r"asked for", "panic_tests::"),
    ("irq", r"in an interrupt handler", "panic_tests::"),
    ("console-lock", r"holds the console's lock", "panic_tests::"),
    (
        "recursive-lock",
        r#"waits for lock "taken twice", which it holds"#,
        "panic_tests::",
    ),
    ("stack-overflow", r"(?i)stack overflow", "panic_tests::"),
    (
        "thread-overflow",
        r"stack overflow: stack of thread \d+ 'digger'",
        "panic_tests::",
    ),
    ("de", r"(?i)divide", "panic_tests::"),
    ("db", r"(?i)debug", "panic_tests::"),
    ("bp", r"(?i)breakpoint", "panic_tests::"),
    ("of", r"(?i)overflow", "panic_tests::"),
    ("br", r"(?i)bound", "panic_tests::"),
    ("ud", r"(?i)invalid opcode|undefined", "panic_tests::"),
    ("object", r"(?i)invalid opcode", "panic_tests::"),
    ("nm", r"(?i)device not available", "panic_tests::"),
    ("df", r"(?i)double fault", "panic_tests::"),
    ("ts", r"(?i)invalid TSS", "panic_tests::"),
    ("np", r"(?i)segment not present", "panic_tests::"),
    ("ss", r"(?i)stack.segment", "panic_tests::"),
    ("gp", r"(?i)general protection", "panic_tests::"),
    ("pf", r"(?i)page fault", "panic_tests::"),
    ("mf", r"(?i)x87|floating.point", "panic_tests::"),
    ("ac", r"(?i)alignment", "panic_tests::"),
    ("mc", r"(?i)machine check", "panic_tests::"),
    ("xm", r"(?i)SIMD", "panic_tests::"),
    ("nmi", r"(?i)NMI", "panic_tests::"),
    ("write-text", r"(?i)page fault.*writ", "panic_tests::"),
    (
        "exec-data",
        r"(?i)page fault.*(fetch|exec)",
        "backtrace|panic_tests::|shell::",
    ),
    ("null", r"(?i)page fault|null", "panic_tests::"),
];

/// Those that are panics in the code, not exceptions.
const IN_CODE: &[&str] = &["plain", "irq", "console-lock", "recursive-lock"];

/// The scenarios.
pub fn table() -> Vec<Scenario> {
    let cases = CASES.iter().map(|&(how, message, function)| {
        let expected = PanicExpected {
            message: message.into(),
            exception: !IN_CODE.contains(&how),
            cpus: 2,
            function: function.into(),
        };
        let mut checks = vec![Check::Status(PANIC), Check::Panic(expected)];
        if how == "recursive-lock" {
            let found = r#"=== REPORT Lock\(Recursion\) on cpu[0-9]+: recursion: "taken twice""#;
            checks.push(Check::Has(found.into()));
        }
        if how == "object" {
            checks.push(Check::InOrder(vec![
                r"rdi = 0x[0-9a-f]+: byte 5 of object \d+ \(0x[0-9a-f]+, 64 bytes\) of cache kmalloc-64"
                    .into(),
                r"slab 0x[0-9a-f]+ of order 0 on node 0: \d+ of \d+ in use".into(),
                "^allocated$".into(),
            ]));
        }
        panic(how, checks)
    });
    let nested = panic("nested", vec![Check::Status(PANIC), Check::NestedPanic]);
    cases.chain([nested, with_one_offline()]).collect()
}

/// A CPU that is offline is not waited for.
fn with_one_offline() -> Scenario {
    let expected = PanicExpected {
        message: r"asked for".into(),
        exception: false,
        cpus: 1,
        function: "panic_tests::".into(),
    };
    let checks = vec![
        Check::Status(PANIC),
        Check::Panic(expected),
        Check::HasNot("did not stop".into()),
    ];
    let cmdline = r#"run="cpu off 1; panic plain""#;
    quick(
        "panic-one-offline",
        Action::Boot(boot(small(), cmdline, checks)),
    )
}

fn panic(how: &str, checks: Vec<Check>) -> Scenario {
    let cmdline = format!(r#"run="panic {how}""#);
    quick(
        format!("panic-{how}"),
        Action::Boot(boot(small(), &cmdline, checks)),
    )
}
