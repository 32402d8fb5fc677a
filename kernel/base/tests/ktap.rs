//! The shape of the results.

use std::fmt::{self, Write};

use kernel_base::ktap::{Ktap, Outcome, Totals};

#[test]
fn suites_cases_and_parameters() {
    let mut ktap = Ktap::new(String::new());
    let mut write = || -> fmt::Result {
        ktap.start(3)?;
        ktap.start_suite("mm", 3)?;
        ktap.start_case("mm", "alloc")?;
        ktap.diagnostic(format_args!("one\ntwo {}\r\n\nlast", 2))?;
        ktap.end_case("alloc", Outcome::Failed)?;
        ktap.start_case("mm", "sizes")?;
        ktap.start_params("sizes", 2)?;
        ktap.end_param("8", Outcome::Passed)?;
        ktap.diagnostic(format_args!("slow"))?;
        ktap.end_param("16", Outcome::TimedOut)?;
        let outcome = ktap.end_params();
        assert_eq!(outcome, Outcome::Failed);
        ktap.end_case("sizes", outcome)?;
        ktap.end_case("numa", Outcome::Skipped("one node\nonly"))?;
        ktap.end_suite("mm")?;
        ktap.start_suite("rcu", 1)?;
        ktap.end_case("sync", Outcome::Passed)?;
        ktap.end_suite("rcu")?;
        ktap.start_suite("x2apic", 1)?;
        ktap.end_case("send", Outcome::Skipped("not there"))?;
        ktap.end_suite("x2apic")?;
        ktap.finish()
    };
    write().unwrap();
    assert_eq!(
        ktap.totals(),
        Totals {
            passed: 1,
            failed: 2,
            skipped: 2
        }
    );
    let expected = "\
KTAP version 1
1..3
    KTAP version 1
    # Subtest: mm
    1..3
    # run: mm.alloc
    # one
    # two 2
    # 
    # last
    not ok 1 alloc
    # run: mm.sizes
        KTAP version 1
        # Subtest: sizes
        1..2
        ok 1 8
        # slow
        not ok 2 16 # TIMEOUT
    not ok 2 sizes
    ok 3 numa # SKIP one node
not ok 1 mm
    KTAP version 1
    # Subtest: rcu
    1..1
    ok 1 sync
ok 2 rcu
    KTAP version 1
    # Subtest: x2apic
    1..1
    ok 1 send # SKIP not there
ok 3 x2apic # SKIP every part was skipped
# kunit: 1 passed, 2 failed, 2 skipped
";
    assert_eq!(ktap.into_inner(), expected);
}

#[test]
fn an_empty_plan_and_remarks_before_it() {
    let mut ktap = Ktap::new(String::new());
    ktap.diagnostic(format_args!("kunit: shuffle seed {}", 7))
        .unwrap();
    ktap.diagnostic(format_args!("")).unwrap();
    ktap.start(0).unwrap();
    ktap.finish().unwrap();
    assert_eq!(ktap.totals(), Totals::default());
    let text = ktap.into_inner();
    assert!(text.starts_with("# kunit: shuffle seed 7\nKTAP version 1\n1..0\n# kunit: 0 passed"));
}

/// A writer that fails.
struct Broken;

impl Write for Broken {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        Err(fmt::Error)
    }
}

#[test]
fn errors_of_the_writer_come_back() {
    let mut ktap = Ktap::new(Broken);
    assert!(ktap.start(1).is_err());
    assert!(ktap.start_suite("a", 1).is_err());
    assert!(ktap.diagnostic(format_args!("x")).is_err());
    assert!(ktap.end_case("b", Outcome::Failed).is_err());
    assert!(ktap.end_suite("a").is_err());
    assert_eq!(ktap.totals().failed, 1);
}
