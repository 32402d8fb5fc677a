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
fn doc_tests_belong_to_the_folder_of_their_crate() {
    assert_eq!(
        doc_group("kernel/base/src/glob.rs - glob::matches (line 3)"),
        "host/kernel/base/doc"
    );
    assert_eq!(
        doc_group("mm/src/lib.rs - (line 3) - compile fail"),
        "host/mm/doc"
    );
}
