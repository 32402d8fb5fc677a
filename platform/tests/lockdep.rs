//! The order checker: every planted fault is found, once, with both chains in the text; and
//! what looks like a fault but is none is not reported.

mod lockdep_machine;

use lockdep_machine::{How, LOCAL, SLEEP, SPIN, TRY, Thread, address};
use platform::{
    Context, CpuId, LockKind,
    lock::{Class, LockClass},
    lock_class,
    lockdep::{Checker, Kind, MAX_HELD},
};

lock_class! {
    struct A = ("alpha", 10, nests);
    struct B = ("beta", 10, nests);
    struct C = ("gamma", 10, nests);
    struct Low = ("low", 20);
    struct High = ("high", 30);
    struct Level = ("of high's level", 30);
    struct Mutex = ("mutex", 5);
    struct Other = ("other mutex", 6);
    struct Locals = ("local", 40);
}

fn a() -> &'static LockClass {
    A::class()
}

fn b() -> &'static LockClass {
    B::class()
}

fn c() -> &'static LockClass {
    C::class()
}

fn checker() -> Box<Checker> {
    Box::new(Checker::new())
}

#[test]
fn ab_ba() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    for _ in 0..3 {
        let first = thread.take(a());
        let second = thread.take(b());
        thread.give(b());
        thread.give(a());
        thread.is_clean();

        let mut other = Thread::new(&checker);
        other.now.cpu = CpuId::new(1).unwrap();
        // Twice: found once.
        for turn in 0..2 {
            let held = other.take(b());
            let wanted = other.take(a());
            other.give(a());
            other.give(b());
            if turn == 0 {
                let text = other.found_one(
                    Kind::AbBa,
                    &[&first, &second, &held, &wanted, &"cpu1", &"AB-BA"],
                );
                let (now, earlier) = text.split_once("but earlier").unwrap();
                assert!(now.contains(&wanted.to_string()) && now.contains(&held.to_string()));
                assert!(earlier.contains(&format!("\"alpha\" taken at {first}")));
                assert!(earlier.contains(&format!("\"beta\" at {second}")));
            }
        }
        other.is_clean();
        // The right order is no fault after that, nor are others around it.
        thread.take(a());
        thread.take(b());
        thread.take(c());
        thread.give(a());
        thread.give(c());
        thread.give(b());
        thread.is_clean();

        // And the test can be repeated.
        for class in [a(), b(), c()] {
            checker.forget(class);
        }
        assert_eq!(checker.statistics().edges, 0);
    }
    assert_eq!(checker.statistics().reported, 3);
}

#[test]
fn three_locks() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    let mut pair = |first: &'static LockClass, second: &'static LockClass| {
        let places = (thread.take(first), thread.take(second));
        thread.give(first);
        thread.give(second);
        thread.is_clean();
        places
    };
    let (a_at, b_at) = pair(a(), b());
    let (b_held, c_at) = pair(b(), c());
    let mut other = Thread::new(&checker);
    let held = other.take(c());
    let wanted = other.take(a());
    other.found_one(
        Kind::Cycle,
        &[
            &a_at,
            &b_at,
            &b_held,
            &c_at,
            &held,
            &wanted,
            &"\"alpha\" -> \"beta\" -> \"gamma\" -> \"alpha\"",
        ],
    );
}

#[test]
fn irq_unsafe_taken_in_irq() {
    for (context, named) in [(Context::HardIrq, "hardirq"), (Context::SoftIrq, "softirq")] {
        let checker = checker();
        let mut thread = Thread::new(&checker);
        let outside = thread.take(a());
        thread.give(a());
        let inside = thread.interrupt(context, |irq| {
            let place = irq.take(a());
            irq.give(a());
            irq.take(a());
            irq.give(a());
            place
        });
        thread.found_one(Kind::IrqUsage, &[&outside, &inside, &named, &"alpha"]);
    }
    // The other way round.
    let checker = checker();
    let mut thread = Thread::new(&checker);
    let inside = thread.interrupt(Context::HardIrq, |irq| {
        let place = irq.take(a());
        irq.give(a());
        place
    });
    thread.irqs_off(|thread| {
        thread.take(a());
        thread.give(a());
    });
    thread.is_clean();
    let outside = thread.take(a());
    thread.found_one(Kind::IrqUsage, &[&outside, &inside]);
}

#[test]
fn interrupts_that_come_on_while_a_lock_is_held() {
    // Seen at the release, and at the next acquisition.
    for next in [false, true] {
        let checker = checker();
        let mut thread = Thread::new(&checker);
        thread.interrupt(Context::HardIrq, |irq| {
            irq.take(a());
            irq.give(a());
        });
        let place = thread.irqs_off(|thread| {
            // The order is known, so the second look is not for the order's sake.
            thread.take(a());
            thread.take(b());
            thread.give(b());
            thread.give(a());
            thread.take(a())
        });
        thread.is_clean();
        if next {
            thread.take(b());
        } else {
            thread.give(a());
        }
        thread.found_one(Kind::IrqUsage, &[&place, &"alpha"]);
    }
}

#[test]
fn irq_safe_before_irq_unsafe() {
    // The order last, the use inside last, the use outside last.
    for last in 0..3 {
        let checker = checker();
        let mut thread = Thread::new(&checker);
        let mut places = Vec::new();
        for step in (0..3).map(|step| (step + last + 1) % 3) {
            match step {
                0 => thread.irqs_off(|thread| {
                    places.push(thread.take(a()));
                    places.push(thread.take(b()));
                    thread.give(a());
                    thread.take(c());
                    thread.give(b());
                    thread.give(c());
                }),
                1 => thread.interrupt(Context::HardIrq, |irq| {
                    places.push(irq.take(a()));
                    irq.give(a());
                }),
                _ => {
                    places.push(thread.take(c()));
                    thread.give(c());
                }
            }
            if step != last {
                thread.is_clean();
            }
        }
        let named: Vec<&dyn std::fmt::Display> = places
            .iter()
            .map(|place| place as &dyn std::fmt::Display)
            .collect();
        let text = thread.found_one(Kind::IrqDependency, &named);
        assert!(text.contains("\"alpha\" -> \"beta\"") && text.contains("\"beta\" -> \"gamma\""));
    }
}

#[test]
fn irq_safe_far_before_irq_unsafe() {
    // The new edge lies in front of the others, or behind, or between.
    let edges = [(a(), b()), (b(), c()), (c(), Low::class())];
    for last in 0..edges.len() {
        let checker = checker();
        let mut thread = Thread::new(&checker);
        let inside = thread.interrupt(Context::HardIrq, |irq| {
            let place = irq.take(a());
            irq.give(a());
            place
        });
        let outside = thread.take(Low::class());
        thread.give(Low::class());
        for (step, (first, second)) in (0..edges.len()).map(|step| {
            let step = (step + last + 1) % edges.len();
            (step, edges[step])
        }) {
            thread.is_clean();
            thread.irqs_off(|thread| {
                thread.take(first);
                thread.take(second);
                thread.give(second);
                thread.give(first);
            });
            assert_eq!(thread.found.is_empty(), step != last);
        }
        let text = thread.found_one(Kind::IrqDependency, &[&inside, &outside]);
        for (first, second) in edges {
            assert!(text.contains(&format!("\"{}\" -> \"{}\"", first.name, second.name)));
        }
        // Another way from the one to the other is the same fault.
        thread.irqs_off(|thread| {
            thread.take(a());
            thread.take(c());
        });
        thread.is_clean();
    }
}

#[test]
fn sleeping_in_atomic() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    thread.sleep();
    thread.is_clean();
    let atomic = |thread: &mut Thread<'_>, why: &str| {
        // Twice the same place: found once.
        let mut at = None;
        for _ in 0..2 {
            at = Some(thread.sleep());
        }
        thread.found_one(Kind::SleepInAtomic, &[&at.unwrap(), &why]);
        checker.forget(a());
    };
    thread.irqs_off(|thread| atomic(thread, "interrupts are off"));
    thread.interrupt(Context::HardIrq, |irq| atomic(irq, "hardirq"));
    thread.interrupt(Context::SoftIrq, |irq| atomic(irq, "softirq"));
    thread.now.may_sleep = false;
    atomic(&mut thread, "preemption is off");
}

#[test]
fn waiting_under_a_lock() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    let held = thread.take(a());
    let at = thread.sleep();
    thread.found_one(Kind::SleepUnderLock, &[&held, &at, &"alpha"]);
    let wanted = thread.take_as(Mutex::class(), 1, SLEEP);
    thread.found_one(Kind::SleepUnderLock, &[&held, &wanted, &"mutex", &"alpha"]);
    thread.give_lock(Mutex::class(), 1);
    thread.give(a());
    let held = thread.take_as(Locals::class(), 2, LOCAL);
    let at = thread.sleep();
    thread.found_one(Kind::SleepUnderLock, &[&held, &at]);
    thread.give_lock(Locals::class(), 2);

    // Under a sleeping lock it is allowed, and a try does not sleep.
    thread.take_as(Mutex::class(), 1, SLEEP);
    thread.sleep();
    thread.take_as(Other::class(), 3, SLEEP);
    thread.give_lock(Other::class(), 3);
    thread.give_lock(Mutex::class(), 1);
    thread.take(a());
    thread.take_as(
        Mutex::class(),
        1,
        How {
            is_try: true,
            ..SLEEP
        },
    );
    thread.is_clean();
}

#[test]
fn sleeping_lock_in_an_interrupt() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    let held = thread.take(b());
    thread.interrupt(Context::HardIrq, |irq| {
        let at = irq.take_as(Mutex::class(), 1, SLEEP);
        irq.give_lock(Mutex::class(), 1);
        irq.found_one(Kind::SleepingLockInInterrupt, &[&at, &held, &"hardirq"]);
    });
}

#[test]
fn released_by_another_cpu() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    let mut places = Vec::new();
    for _ in 0..2 {
        places.push(thread.take(a()));
        thread.now.cpu = CpuId::new(3).unwrap();
        thread.give(a());
        thread.now.cpu = CpuId::BOOT;
    }
    thread.found_one(
        Kind::ReleasedElsewhere,
        &[&places[0], &"cpu0", &"cpu3", &"alpha"],
    );
    assert_eq!(thread.held.depth(), 0);

    // A sleeping lock may be given back wherever its thread runs.
    thread.take_as(Mutex::class(), 1, SLEEP);
    thread.now.cpu = CpuId::new(3).unwrap();
    thread.give_lock(Mutex::class(), 1);
    thread.is_clean();

    // In an interrupt what the thread took.
    let at = thread.take(b());
    thread.interrupt(Context::HardIrq, |irq| irq.give(b()));
    thread.found_one(Kind::ReleasedElsewhere, &[&at, &"hardirq", &"beta"]);
}

#[test]
fn released_by_another_thread() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    let first = thread.take(a());
    let mut other = Thread::new(&checker);
    let held = other.take(b());
    other.give(a());
    other.give(a());
    other.found_one(Kind::NotHeld, &[&first, &held, &"alpha"]);
}

#[test]
fn recursion() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    let held = thread.take(a());
    let wanted = thread.take_as(a(), address(a()), How { nesting: 1, ..SPIN });
    thread.found_one(Kind::Recursion, &[&held, &wanted, &"alpha"]);
    thread.give(a());
    // The younger one went.
    let entry = thread.held.locks().next().unwrap();
    assert_eq!(entry.at, held);
    thread.give(a());

    // An interrupt that waits for what its CPU holds.
    let held = thread.irqs_off(|thread| thread.take(b()));
    let wanted = thread.interrupt(Context::HardIrq, |irq| irq.take(b()));
    thread.found_one(Kind::Recursion, &[&held, &wanted]);
}

#[test]
fn one_class_twice() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    // In the order of nesting numbers, which the class allows.
    thread.take_as(a(), 1, SPIN);
    thread.take_as(a(), 2, How { nesting: 1, ..SPIN });
    thread.is_clean();
    let wanted = thread.take_as(a(), 3, How { nesting: 1, ..SPIN });
    thread.found_one(Kind::SameClass, &[&wanted, &"alpha"]);
    for lock in [3, 2, 1] {
        thread.give_lock(a(), lock);
    }
    // The class does not allow it.
    let held = thread.take_as(Low::class(), 1, SPIN);
    let wanted = thread.take_as(Low::class(), 2, How { nesting: 1, ..SPIN });
    thread.found_one(Kind::SameClass, &[&held, &wanted, &"low"]);
}

#[test]
fn nmi() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    let held = thread.take(a());
    thread.interrupt(Context::Nmi, |nmi| {
        nmi.take_as(b(), 1, TRY);
        nmi.take_as(Locals::class(), 2, LOCAL);
        nmi.give_lock(Locals::class(), 2);
        nmi.give_lock(b(), 1);
        nmi.is_clean();
        let mut wanted = None;
        for _ in 0..2 {
            wanted = Some(nmi.take(b()));
            nmi.give(b());
        }
        nmi.found_one(Kind::WaitInNmi, &[&held, &wanted.unwrap(), &"beta"]);
    });
    // What NMIs do orders nothing.
    thread.take(b());
    thread.is_clean();
    assert_eq!(checker.statistics().edges, 1);
}

#[test]
fn levels() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    thread.take(Low::class());
    thread.take(High::class());
    thread.give(High::class());
    thread.give(Low::class());
    thread.is_clean();
    let checker = self::checker();
    let mut thread = Thread::new(&checker);
    let held = thread.take(High::class());
    let wanted = thread.take(Low::class());
    thread.found_one(Kind::Level, &[&held, &wanted, &"level 20", &"level 30"]);
    thread.give(Low::class());
    let wanted = thread.take(Level::class());
    thread.found_one(Kind::Level, &[&held, &wanted]);
    thread.give(Level::class());
    // A try waits for nobody.
    thread.take_as(Mutex::class(), 1, TRY);
    thread.is_clean();
}

#[test]
fn a_try_makes_no_order_but_is_held() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    thread.take(b());
    thread.take_as(a(), 1, TRY);
    thread.give_lock(a(), 1);
    thread.give(b());
    assert_eq!(checker.statistics().edges, 0);
    let held = thread.take_as(a(), 1, TRY);
    thread.take(b());
    thread.give(b());
    thread.give_lock(a(), 1);
    thread.is_clean();
    thread.take(b());
    thread.take(a());
    thread.found_one(Kind::AbBa, &[&held]);
}

#[test]
fn interrupts_are_not_ordered_after_what_they_interrupt() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    thread.irqs_off(|thread| {
        thread.take(a());
        thread.take(b());
        thread.give(b());
        thread.give(a());
    });
    // On top of a class with no other use, in the opposite order.
    thread.take(c());
    thread.interrupt(Context::HardIrq, |irq| {
        irq.take(b());
        irq.give(b());
        irq.take(a());
        irq.give(a());
    });
    thread.give(c());
    thread.is_clean();
    assert_eq!(checker.statistics().edges, 1);
    // Within the interrupt there is an order.
    thread.interrupt(Context::HardIrq, |irq| {
        irq.take(b());
        irq.take(a());
    });
    thread.found_one(Kind::AbBa, &[&"hardirq"]);
}

#[test]
fn held_at_the_end() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    let outer = thread.take(a());
    thread.interrupt(Context::HardIrq, |irq| {
        let at = irq.take(b());
        irq.end(Context::HardIrq);
        irq.found_one(Kind::StillHeld, &[&at, &"beta"]);
        irq.end(Context::HardIrq);
        irq.is_clean();
    });
    assert_eq!(thread.held.depth(), 1);
    thread.end(Context::Task);
    thread.found_one(Kind::StillHeld, &[&outer, &"alpha"]);
    assert_eq!(thread.held.depth(), 0);
    thread.end(Context::Task);
    thread.is_clean();
}

#[test]
fn more_locks_than_slots() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    let locks = MAX_HELD + 9;
    for lock in 0..locks {
        let nesting = lock as u8;
        thread.take_as(a(), lock, How { nesting, ..SPIN });
    }
    thread.found_one(Kind::TooManyHeld, &[&"and 1 more"]);
    assert_eq!(thread.held.depth(), locks);
    assert_eq!(checker.statistics().deepest as usize, MAX_HELD);
    for lock in 0..locks {
        thread.give_lock(a(), lock);
    }
    thread.is_clean();
    assert_eq!(thread.held.depth(), 0);
    thread.give_lock(a(), 0);
    thread.found_one(Kind::NotHeld, &[]);
}

#[test]
fn hand_over_hand_does_not_use_up_the_slots() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    for step in 0..200u8 {
        thread.take_as(
            a(),
            step.into(),
            How {
                nesting: step,
                ..SPIN
            },
        );
        if let Some(before) = step.checked_sub(1) {
            thread.give_lock(a(), before.into());
        }
    }
    thread.is_clean();
    let held: Vec<_> = thread.held.locks().map(|lock| lock.lock).collect();
    assert_eq!(held, [199]);
}

#[test]
fn held_locks_are_listed_in_their_order() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    thread.take(a());
    thread.take(b());
    thread.give(a());
    // Into the slot that was freed.
    thread.take_as(
        c(),
        7,
        How {
            kind: LockKind::IrqSpin,
            ..SPIN
        },
    );
    let names: Vec<_> = thread.held.locks().map(|lock| lock.class.name).collect();
    assert_eq!(names, ["beta", "gamma"]);
    assert!(thread.held.holds(c()) && !thread.held.holds(a()));
    let shown = thread.held.to_string();
    assert!(shown.contains("irq spin lock 0x7"), "{shown}");
}

/// What is taken to show a finding is not shown in it.
#[test]
fn locks_of_who_shows_are_left_out() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    thread.take(High::class());
    let mut text = String::new();
    let at = std::panic::Location::caller();
    checker.might_sleep(&thread.held, at, &thread.now, &mut |report| {
        checker.acquire(
            &thread.held,
            &platform::Acquisition {
                class: Locals::class(),
                lock: 1,
                kind: LockKind::Spin,
                is_try: false,
                nesting: 0,
                at,
            },
            &thread.now,
            &mut |_| panic!("nothing is wrong with that"),
        );
        text = report.to_string();
    });
    assert!(text.contains("\"high\""), "{text}");
    assert!(!text.contains("\"local\""), "{text}");
    assert_eq!(thread.held.depth(), 2);
}

#[test]
fn the_graph_can_be_shown() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    thread.take(a());
    let at = thread.take(b());
    let shown = checker.to_string();
    assert!(
        shown.contains("\"alpha\" level 10 nests: taken, held with hardirqs on"),
        "{shown}"
    );
    assert!(
        shown.contains(&format!("  -> \"beta\" at {at} after")),
        "{shown}"
    );
    assert!(!shown.contains("gamma"), "{shown}");
    let statistics = checker.statistics();
    assert_eq!(
        (
            statistics.edges,
            statistics.acquisitions,
            statistics.deepest
        ),
        (1, 2, 2)
    );
}

#[test]
fn stopped() {
    let checker = checker();
    let mut thread = Thread::new(&checker);
    checker.stop();
    thread.take(a());
    thread.take(a());
    thread.sleep();
    thread.give(b());
    thread.end(Context::Task);
    thread.is_clean();
}
