use super::fake::{Fake, Prepared, scratch_log};
use super::*;

fn listen_to(mut fake: Fake) -> (End, Vec<String>) {
    let mut lines = Vec::new();
    let start = Prepared::default();
    let mut log = scratch_log();
    let end = listen(&mut fake, &start, Duration::ZERO, &mut log, |line, _| {
        lines.push(line.to_owned())
    });
    (end, lines)
}

#[test]
fn the_status_is_the_end() {
    let (end, lines) = listen_to(Fake::new("a\nb\n", Heard::Ended(Some(33))));
    assert_eq!(end, End::Exited(SUCCESS));
    assert_eq!(lines, ["a", "b"]);
    assert_eq!(
        listen_to(Fake::new("", Heard::Ended(None))).0,
        End::Signalled
    );
}

#[test]
fn a_silent_guest_is_sent_an_nmi_and_its_report_is_kept() {
    let fake = Fake::new("booting", Heard::Silence)
        .on_nmi("=== KERNEL PANIC on cpu0: x", Heard::Ended(Some(PANIC)));
    let done = fake.done.clone();
    let (end, lines) = listen_to(fake);
    assert_eq!(end, End::Silent { printed: true });
    assert_eq!(lines, ["booting", "=== KERNEL PANIC on cpu0: x"]);
    assert_eq!(done.borrow().nmis, 1);
    assert!(!done.borrow().killed);
}

#[test]
fn what_does_not_answer_is_killed() {
    let fake = Fake::new("booting", Heard::Deadline);
    let done = fake.done.clone();
    let (end, _) = listen_to(fake);
    assert_eq!(end, End::OutOfTime);
    assert!(done.borrow().killed);
}

#[test]
fn a_guest_that_never_printed_is_just_killed() {
    let fake = Fake::new("\n", Heard::Silence);
    let done = fake.done.clone();
    let (end, _) = listen_to(fake);
    assert_eq!(end, End::Silent { printed: false });
    assert_eq!(done.borrow().nmis, 0);
    assert!(done.borrow().killed);
}

#[test]
fn lines_are_symbolised_before_anybody_sees_them() {
    let (_, lines) = listen_to(Fake::new("  #0 0x1 kernel_main+0x0", Heard::Ended(Some(0))));
    assert_eq!(lines, ["  #0 0x1 kernel_main+0x0 at main.rs:1"]);
}

#[test]
fn statuses_are_those_of_the_guest() {
    assert_eq!((SUCCESS, FAILURE, PANIC), (33, 35, 37));
    for (status, meaning) in [
        (SUCCESS, Status::Success),
        (FAILURE, Status::Failure),
        (PANIC, Status::Panic),
        (RESET, Status::Reset),
        (run_status(1), Status::Commands(1)),
        (run_status(31), Status::Commands(31)),
    ] {
        assert_eq!(Status::from_code(status), meaning);
        assert_eq!(End::Exited(status).to_string(), meaning.to_string());
    }
}
