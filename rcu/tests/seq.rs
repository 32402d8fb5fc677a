//! Sequence numbers against grace periods that are simulated one by one, at
//! the wrap and elsewhere.

use proptest::prelude::*;
use rcu::seq::{Cookie, Seq};

/// One step of a grace period, with up to `phases` phases.
fn step(seq: Seq, phases: u8) -> Seq {
    match seq.phase() {
        0 => seq.start(),
        phase if phase < phases => seq.next_phase(),
        _ => seq.end(),
    }
}

/// Starting points around the places where something wraps.
fn starts() -> impl Strategy<Value = Seq> {
    prop_oneof![
        any::<u64>(),
        (0u64..64).prop_map(|n| n.wrapping_sub(32)),
        (0u64..64).prop_map(|n| (1u64 << 63).wrapping_add(n).wrapping_sub(32)),
    ]
    .prop_map(Seq::from_bits)
}

#[test]
fn states_of_the_table() {
    let seq = Seq::from_bits(0);
    assert_eq!(
        (seq.phase(), seq.completed(), seq.is_running()),
        (0, 0, false)
    );
    let running = seq.start();
    assert_eq!(
        (running.phase(), running.completed(), running.is_running()),
        (1, 0, true)
    );
    for last in [
        running,
        running.next_phase(),
        running.next_phase().next_phase(),
    ] {
        assert_eq!(last.end(), Seq::from_bits(4));
        // Whatever the phase, a cookie waits for the grace period after this one.
        assert_eq!(last.snap(), Cookie::from_bits(8));
    }
    assert_eq!(seq.snap(), Cookie::from_bits(4));
    assert_eq!(
        format!("{} {} {:?}", running, seq.snap(), running),
        "0.1 1 Seq(0.1)"
    );
}

#[test]
fn debug_builds_wrap_soon() {
    let mut seq = Seq::INITIAL;
    let cookie = seq.snap();
    for _ in 0..400 {
        seq = seq.start().end();
    }
    assert!(cookie.is_done(seq));
    assert_eq!(seq.completed_since(Seq::INITIAL), 400);
    if cfg!(debug_assertions) {
        assert!(
            seq.to_bits() < Seq::INITIAL.to_bits(),
            "the count has wrapped"
        );
    }
}

#[test]
fn completed_is_done_at_any_time() {
    for bits in [0, 1, 5, u64::MAX, 1 << 63, (1 << 63) + 2] {
        let now = Seq::from_bits(bits);
        assert!(Cookie::COMPLETED.is_done(now) && Cookie::COMPLETED.has_started(now));
        assert_eq!(Cookie::COMPLETED.later(now.snap()), now.snap());
        assert_eq!(now.snap().later(Cookie::COMPLETED), now.snap());
    }
    assert_eq!(Cookie::from_bits(3), Cookie::COMPLETED);
    assert_eq!(Cookie::COMPLETED.to_string(), "completed");
}

#[test]
#[cfg(debug_assertions)]
fn wrong_steps_are_caught() {
    let wrong = |step: fn()| std::panic::catch_unwind(step).is_err();
    assert!(wrong(|| {
        let _ = Seq::from_bits(1).start();
    }));
    assert!(wrong(|| {
        let _ = Seq::from_bits(0).end();
    }));
    assert!(wrong(|| {
        let _ = Seq::from_bits(0).next_phase();
    }));
    assert!(wrong(|| {
        let _ = Seq::from_bits(3).next_phase();
    }));
}

proptest! {
    #[test]
    fn a_cookie_waits_for_one_whole_grace_period(start in starts(), phases in 1u8..4, steps in 1usize..40) {
        let cookie = start.snap();
        prop_assert!(!cookie.is_done(start) && !cookie.has_started(start));
        prop_assert_eq!(Cookie::from_bits(cookie.to_bits()), cookie);
        let mut now = start;
        // Whether a grace period has begun since, and whether one that did has ended.
        let (mut began, mut ended) = (false, false);
        for _ in 0..steps {
            let next = step(now, phases);
            prop_assert!(now.is_before(next) && !next.is_before(now));
            ended |= began && !next.is_running();
            began |= !now.is_running();
            now = next;
            prop_assert_eq!(cookie.has_started(now), began, "{:?} at {:?}", cookie, now);
            prop_assert_eq!(cookie.is_done(now), ended, "{:?} at {:?}", cookie, now);
        }
    }

    #[test]
    fn a_stale_number_never_says_done(start in starts(), steps in 0usize..40, stale in 1u64..1000) {
        let mut now = start;
        for _ in 0..steps {
            now = step(now, 1);
        }
        let old = Seq::from_bits(now.to_bits().wrapping_sub(stale));
        prop_assert!(!now.snap().is_done(old));
        prop_assert!(!now.snap().has_started(old));
    }

    #[test]
    fn the_later_cookie_is_done_last(start in starts(), first in 0usize..20, second in 0usize..20) {
        let at = |steps| (0..steps).fold(start, |seq, _| step(seq, 2));
        let (a, b) = (at(first).snap(), at(second).snap());
        let later = a.later(b);
        prop_assert_eq!(later, b.later(a));
        let mut now = start;
        for _ in 0..60 {
            prop_assert_eq!(later.is_done(now), a.is_done(now) && b.is_done(now));
            now = step(now, 2);
        }
        prop_assert!(later.is_done(now));
    }

    #[test]
    fn counting_goes_over_the_wrap(start in starts(), count in 0u64..50) {
        let mut now = start;
        for _ in 0..count {
            if now.is_running() {
                now = now.end();
            }
            now = now.start();
        }
        let running = u64::from(start.is_running() || count == 0);
        prop_assert_eq!(now.completed_since(start), (count + running).saturating_sub(1));
    }
}
