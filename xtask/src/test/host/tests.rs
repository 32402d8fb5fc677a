use super::*;

fn verdict_of(ended: Ended, complete: bool, failed: bool) -> Option<Outcome> {
    verdict(&ended, complete, failed, &[], &["last words".into()])
}

#[test]
fn a_process_that_ends_as_it_should_adds_nothing() {
    assert_eq!(verdict_of(Ended::Status(Some(0)), true, false), None);
    assert_eq!(verdict_of(Ended::Status(Some(101)), true, true), None);
}

#[test]
fn a_process_that_dies_or_hangs_is_a_failure_of_its_own() {
    assert!(matches!(
        verdict_of(Ended::Status(None), false, false),
        Some(Outcome::Crashed(_))
    ));
    assert!(matches!(
        verdict_of(Ended::Status(Some(101)), false, true),
        Some(Outcome::Crashed(_))
    ));
    assert!(matches!(
        verdict_of(Ended::Status(Some(0)), false, false),
        Some(Outcome::Crashed(_))
    ));
    assert!(matches!(
        verdict_of(Ended::Status(Some(0)), true, true),
        Some(Outcome::Failed(_))
    ));
    assert!(matches!(
        verdict_of(Ended::Status(Some(101)), true, false),
        Some(Outcome::Failed(_))
    ));
    assert!(matches!(
        verdict_of(Ended::Silent, false, false),
        Some(Outcome::TimedOut(_))
    ));
    assert!(matches!(
        verdict_of(Ended::NotStarted("no".into()), false, false),
        Some(Outcome::Failed(_))
    ));
}

#[test]
fn the_tests_without_result_are_named() {
    let missing = ["a::b".to_owned(), "c".to_owned()];
    let outcome = verdict(
        &Ended::Status(None),
        false,
        false,
        &missing,
        &["abort".into()],
    );
    let Some(Outcome::Crashed(lines)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        lines,
        ["ended by a signal", "without result: a::b, c", "abort"]
    );
}

#[test]
fn doc_tests_belong_to_the_package_in_whose_folder_they_are() {
    let of = |folder: &str, package: &str| (folder.to_owned(), package.to_owned());
    let packages = Packages(vec![
        of("kernel", "kernel"),
        of("kernel/base", "kernel-base"),
        of("mm", "granary-mm"),
    ]);
    let named = |name| packages.doc_test(name);
    assert_eq!(
        named("kernel/base/src/glob.rs - glob::matches (line 3)"),
        (
            "host/kernel-base/doc".into(),
            "src/glob.rs - glob::matches (line 3)".into()
        )
    );
    assert_eq!(named("mm/src/lib.rs - (line 3)").0, "host/granary-mm/doc");
    assert_eq!(named("mmm/src/lib.rs - (line 3)").0, "host/doc");
}
