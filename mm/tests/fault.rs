//! Fault injection: each knob, alone and with others, on one CPU and on several.

use mm::{
    Gfp,
    fault::{FaultAttr, KnobError, Knobs, MARKS, Marks, PageFaults},
    hosted::{Reports, called_from},
    report::Kind,
};
use platform::{
    CpuId, Mark, Platform,
    hosted::{Hosted, Machine},
};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

type Attr = FaultAttr<Hosted>;

/// Points to ask at on each CPU.
fn rounds(quick: u32) -> u32 {
    std::env::var("GRANARY_ROUNDS").map_or(quick, |text| text.parse().unwrap())
}

fn on_one_cpu(f: impl FnOnce()) {
    Machine::builder().build().run(f);
}

/// Runs `f` on four CPUs, which begin at the same time.
fn on_cpus<R: Send>(f: impl Fn(CpuId) -> R + Sync) -> Vec<R> {
    let start = std::sync::Barrier::new(4);
    let machine = Machine::builder().cpus(4).build();
    machine.run_on_all(|cpu| {
        start.wait();
        f(cpu)
    })
}

fn attr(knobs: Knobs) -> Attr {
    let attr = Attr::new("test");
    attr.configure(&knobs);
    attr
}

const ALWAYS: Knobs = Knobs {
    probability: 100,
    times: -1,
    ..Knobs::OFF
};

/// Which of `n` points of size 1 fail.
fn failing(attr: &Attr, n: usize) -> Vec<usize> {
    (1..=n).filter(|_| attr.should_fail(1)).collect()
}

#[test]
fn nothing_fails_unless_armed() {
    on_one_cpu(|| {
        let attr = Attr::new("test");
        assert!(!attr.is_armed());
        assert_eq!(failing(&attr, 1000), []);
        attr.configure(&Knobs {
            probability: 0,
            ..ALWAYS
        });
        assert!(!attr.is_armed());
        assert_eq!(failing(&attr, 1000), []);
        assert_eq!(attr.failures(), 0);
        attr.configure(&ALWAYS);
        assert!(attr.is_armed());
        assert_eq!(failing(&attr, 5), [1, 2, 3, 4, 5]);
        assert_eq!(attr.failures(), 5);
    });
}

#[test]
fn times_is_exact() {
    on_one_cpu(|| {
        let attr = attr(Knobs { times: 3, ..ALWAYS });
        assert_eq!(failing(&attr, 10), [1, 2, 3]);
        assert_eq!(attr.knobs().times, 0);
        attr.set("times", "1").unwrap();
        assert_eq!(failing(&attr, 10), [1]);
    });
    const TIMES: i32 = 200_000;
    let attr = attr(Knobs {
        times: TIMES,
        ..ALWAYS
    });
    let failed = on_cpus(|_| (0..100_000).filter(|_| attr.should_fail(1)).count());
    assert_eq!(failed.iter().sum::<usize>(), TIMES as usize);
    assert_eq!(attr.failures(), TIMES as u64);
    // An interrupt takes the last one while the point that it came over is on its way there.
    let machine = Machine::builder().seed(4).build();
    let attr = Arc::new(attr);
    let (there, taken) = (Arc::clone(&attr), Arc::new(AtomicUsize::new(0)));
    let in_nmi = Arc::clone(&taken);
    let _nmi = machine.on_nmi(3, move || {
        in_nmi.fetch_add(there.should_fail(1).into(), Relaxed);
    });
    machine.run(|| {
        const TURNS: usize = 300;
        let mut mine = 0;
        for _ in 0..TURNS {
            attr.configure(&Knobs { times: 1, ..ALWAYS });
            mine += usize::from(attr.should_fail(1));
        }
        let taken = taken.load(Relaxed);
        assert_eq!(mine + taken, TURNS);
        assert!(taken > 10);
    });
}

#[test]
fn interval_lets_each_nth_go_on() {
    on_one_cpu(|| {
        let attr = attr(Knobs {
            interval: 3,
            ..ALWAYS
        });
        assert_eq!(failing(&attr, 10), [3, 6, 9]);
        // One that is 0 or 1 does nothing.
        for interval in ["0", "1"] {
            attr.set("interval", interval).unwrap();
            assert_eq!(failing(&attr, 3), [1, 2, 3]);
        }
    });
    let attr = attr(Knobs {
        interval: 5,
        ..ALWAYS
    });
    let each = rounds(100_000);
    on_cpus(|_| (0..each).filter(|_| attr.should_fail(1)).count());
    assert_eq!(attr.failures(), u64::from(each) * 4 / 5);
}

#[test]
fn space_is_used_up_before_anything_fails() {
    on_one_cpu(|| {
        let attr = attr(Knobs {
            space: 10,
            ..ALWAYS
        });
        let fails = [4, 6, 5, 1, 1].map(|size| attr.should_fail(size));
        // 10 - 4 = 6, which is not more than 6: fails and takes nothing, then 6 - 5 = 1.
        assert_eq!(fails, [false, true, false, true, true]);
        assert_eq!(attr.knobs().space, 1);
        attr.set("space", "4294967295").unwrap();
        assert!(attr.should_fail(usize::MAX));
        assert!(!attr.should_fail(0));
        assert_eq!(attr.knobs().space, u32::MAX);
    });
    // Taken once by whichever CPU.
    let attr = attr(Knobs {
        space: 400_001,
        ..ALWAYS
    });
    let passed = on_cpus(|_| (0..200_000).filter(|_| !attr.should_fail(2)).count());
    assert_eq!(passed.iter().sum::<usize>(), 200_000);
    assert_eq!(attr.knobs().space, 1);
}

#[test]
fn points_that_space_or_times_let_pass_do_not_count_for_the_interval() {
    on_one_cpu(|| {
        let attr = attr(Knobs {
            space: 4,
            interval: 2,
            times: 2,
            ..ALWAYS
        });
        // 3 pass for the space, then each second one, twice.
        assert_eq!(failing(&attr, 20), [5, 7]);
    });
}

#[test]
fn probability_is_repeatable_and_right() {
    on_one_cpu(|| {
        let run = |seed, probability| {
            let attr = attr(Knobs {
                seed,
                probability,
                ..ALWAYS
            });
            failing(&attr, 10_000)
        };
        assert_eq!(run(1, 10), run(1, 10));
        assert_ne!(run(1, 10), run(2, 10));
        for probability in [1, 10, 50, 90, 99] {
            // The draws are a function of the seed, so this holds always or never. Five
            // standard deviations of 10 000 throws are at most 250.
            let failed = run(7, probability).len();
            let expected = probability as usize * 100;
            assert!(
                failed.abs_diff(expected) < 250,
                "{failed} of 10000 failed with {probability} percent"
            );
        }
        // Setting the seed begins again.
        let attr = attr(Knobs {
            probability: 30,
            ..ALWAYS
        });
        let first = failing(&attr, 100);
        assert_ne!(failing(&attr, 100), first);
        attr.set("seed", "1").unwrap();
        assert_eq!(failing(&attr, 100), first);
    });
}

#[test]
fn the_nth_point_fails_and_no_other() {
    on_one_cpu(|| {
        // Whatever the other knobs say.
        let attr = attr(Knobs {
            times: 0,
            interval: 4,
            space: 100,
            nth: 5,
            ..Knobs::OFF
        });
        assert!(attr.is_armed());
        assert_eq!(failing(&attr, 20), [5]);
        assert_eq!(attr.knobs().nth, 0);
        assert_eq!(attr.knobs().space, 100);
        attr.fail_nth(1);
        assert_eq!(failing(&attr, 20), [1]);
        // Until then it replaces chance; afterwards chance is back.
        attr.configure(&Knobs { nth: 3, ..ALWAYS });
        assert_eq!(failing(&attr, 5), [3, 4, 5]);
    });
    const ALL: u32 = 400_000;
    for nth in [1, 2, ALL / 2, ALL - 1, ALL, ALL + 1] {
        let attr = attr(Knobs { nth, ..Knobs::OFF });
        let failed = on_cpus(|_| (0..ALL / 4).filter(|_| attr.should_fail(1)).count());
        assert_eq!(failed.iter().sum::<usize>(), usize::from(nth <= ALL));
        assert_eq!(attr.knobs().nth, u32::from(nth > ALL));
    }
}

#[test]
fn every_point_of_a_sequence_can_be_made_to_fail() {
    on_one_cpu(|| {
        let faults = PageFaults::<Hosted>::new();
        // Allocates three times, and goes back what it has done if one fails.
        let sequence = |held: &mut i32| {
            for order in 0..3 {
                if faults.should_fail(Gfp::KERNEL, order) {
                    *held = 0;
                    return false;
                }
                *held += 1;
            }
            true
        };
        let mut ends = Vec::new();
        for nth in 1.. {
            faults.fail_nth(nth);
            let mut held = 0;
            let done = sequence(&mut held);
            ends.push((done, held, faults.pending()));
            if faults.pending() {
                break;
            }
        }
        let failed = (false, 0, false);
        assert_eq!(ends, [failed, failed, failed, (true, 3, true)]);
        faults.fail_nth(0);
        assert!(!faults.pending() && !faults.attr.is_armed());
    });
}

#[test]
fn only_marked_threads_fail() {
    on_one_cpu(|| {
        let me = Hosted::current_thread().number();
        let attr = attr(Knobs {
            task: Marks::one(me + 1),
            ..ALWAYS
        });
        assert_eq!(failing(&attr, 10), []);
        assert_eq!(attr.points(), 0);
        attr.set("task", &format!("+{me}")).unwrap();
        assert_eq!(failing(&attr, 2), [1, 2]);
        attr.set("task", &format!("-{me}")).unwrap();
        assert_eq!(failing(&attr, 10), []);
        attr.set("task", "off").unwrap();
        assert_eq!(failing(&attr, 2), [1, 2]);
    });
    // Of the threads of two CPUs the one that marks itself, and it counts nth alone.
    let attr = attr(ALWAYS);
    let machine = Machine::builder().cpus(2).build();
    let barrier = std::sync::Barrier::new(2);
    let failed = machine.run_on_all(|cpu| {
        if cpu == CpuId::BOOT {
            attr.configure(&Knobs {
                nth: 500,
                task: Marks::one(Hosted::current_thread().number()),
                ..Knobs::OFF
            });
        }
        barrier.wait();
        failing(&attr, 1_000)
    });
    assert_eq!(failed, [vec![500], vec![]]);
}

#[test]
fn interrupts_are_not_the_thread_they_come_over() {
    let machine = Machine::builder().seed(5).build();
    let attr = Arc::new(attr(ALWAYS));
    let (seen, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = || {
        let (attr, seen, failed) = (Arc::clone(&attr), Arc::clone(&seen), Arc::clone(&failed));
        move || {
            seen.fetch_add(1, Relaxed);
            failed.fetch_add(usize::from(attr.should_fail(1)), Relaxed);
        }
    };
    let _irq = machine.on_interrupt(2, handler());
    let _nmi = machine.on_nmi(2, handler());
    machine.run(|| {
        let points = || (0..200).for_each(|_| Hosted::mark(Mark::Step));
        points();
        let (before, unfiltered) = (seen.load(Relaxed), failed.load(Relaxed));
        assert!(
            before > 50 && unfiltered == before,
            "{unfiltered} of {before}"
        );
        let me = Hosted::current_thread().number();
        attr.set("task", &me.to_string()).unwrap();
        points();
        assert!(seen.load(Relaxed) > before + 50);
        assert_eq!(failed.load(Relaxed), unfiltered);
        assert!(attr.should_fail(1));
    });
}

#[test]
fn pages_are_filtered_by_flags_and_order() {
    on_one_cpu(|| {
        let faults = PageFaults::<Hosted>::new();
        faults.attr.configure(&ALWAYS);
        let fails = |gfp, order| faults.should_fail(gfp, order);
        // As Linux: neither single pages nor those who may sleep.
        assert!(!fails(Gfp::ATOMIC, 0) && fails(Gfp::ATOMIC, 1));
        assert!(!fails(Gfp::KERNEL, 1) && !fails(Gfp::KERNEL | Gfp::ZERO, 5));
        faults.set("min-order", "0").unwrap();
        assert!(fails(Gfp::ATOMIC, 0) && !fails(Gfp::KERNEL, 0));
        faults.set("ignore-gfp-wait", "off").unwrap();
        assert!(fails(Gfp::KERNEL, 0) && fails(Gfp::NOLOCK, 0));
        faults.set("min-order", "3").unwrap();
        assert!(!fails(Gfp::KERNEL, 2) && fails(Gfp::KERNEL, 3));
        // Space is in pages.
        faults.set("space", "20").unwrap();
        assert!(!fails(Gfp::KERNEL, 4) && fails(Gfp::KERNEL, 3));
        assert_eq!(faults.attr.knobs().space, 4);
        assert!(matches!(
            faults.set("ignore-gfp-wait", "maybe"),
            Err(KnobError::NotASwitch { .. })
        ));
        assert!(faults.set("min-order", "12").is_err());
    });
}

#[test]
fn failures_are_reported_as_loud_as_wished() {
    let machine = Machine::builder().build();
    machine.run(|| {
        let faults = PageFaults::<Hosted>::new();
        faults.attr.configure(&Knobs {
            probability: 100,
            times: 9,
            verbose: 1,
            ..Knobs::OFF
        });
        assert!(called_from(0x1234, || faults.should_fail(Gfp::ATOMIC, 2)));
        let said = Reports::here().expect(Kind::Injected);
        assert_eq!(
            said.text,
            format!(
                "an allocation is made to fail: fail_page_alloc, size 4, interval 1, \
                 probability 100, space 0, times 8, thread {}",
                Hosted::current_thread().number()
            )
        );
        faults.set("verbose", "2").unwrap();
        assert!(called_from(0x1234, || faults.should_fail(Gfp::ATOMIC, 2)));
        let said = Reports::here().expect(Kind::Injected);
        assert!(said.text.ends_with(", callers 0x1234"), "{said}");
        // Those who want no report get none.
        assert!(faults.should_fail(Gfp::NOWAIT, 2));
        assert!(faults.should_fail(Gfp::NOLOCK, 2));
        faults.set("verbose", "0").unwrap();
        assert!(faults.should_fail(Gfp::ATOMIC, 2));
        assert!(Reports::here().take().is_empty());
    });
}

#[test]
fn the_command_line_is_linux_own() {
    let knobs = Knobs::parse("10,50,4096,-1").unwrap();
    assert_eq!(
        knobs,
        Knobs {
            interval: 10,
            probability: 50,
            space: 4096,
            times: -1,
            ..Knobs::OFF
        }
    );
    for (text, problem) in [
        ("", "interval: `` is not a number"),
        (
            "1,2,3",
            "`1,2,3` is not <interval>,<probability>,<space>,<times>",
        ),
        (
            "1,2,3,4,5",
            "`1,2,3,4,5` is not <interval>,<probability>,<space>,<times>",
        ),
        ("1,101,0,1", "probability: 101 is not within 0 and 100"),
        ("1,ten,0,1", "probability: `ten` is not a number"),
        ("1,10,0,-2", "times: -2 is not within -1 and 2147483647"),
        ("-1,10,0,1", "interval: -1 is not within 0 and 4294967295"),
    ] {
        assert_eq!(Knobs::parse(text).unwrap_err().to_string(), problem);
    }
    on_one_cpu(|| {
        let attr = Attr::new("test");
        attr.parse("2,100,0,3").unwrap();
        assert_eq!(failing(&attr, 20), [2, 4, 6]);
        // What is wrong changes nothing.
        let before = attr.knobs();
        attr.parse("1,1,1").unwrap_err();
        attr.set("probability", "-1").unwrap_err();
        attr.set("interval", "99999999999").unwrap_err();
        assert_eq!(attr.knobs(), before);
    });
}

#[test]
fn knobs_are_set_and_shown_by_name() {
    on_one_cpu(|| {
        let attr = Attr::new("test");
        let values = [
            ("probability", "12"),
            ("interval", "3"),
            ("times", "-1"),
            ("space", "77"),
            ("verbose", "2"),
            ("nth", "9"),
            ("seed", "18446744073709551615"),
            ("task", "42"),
        ];
        for (name, value) in values {
            attr.set(name, value).unwrap();
        }
        let text = attr.to_string();
        for (name, value) in values {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            assert_eq!(line.split_whitespace().last(), Some(value), "{line}");
        }
        // What is shown can be set again.
        let copy = Attr::new("copy");
        for line in attr.knobs().to_string().lines() {
            let (name, value) = line.split_once(' ').unwrap();
            copy.set(name, value.trim()).unwrap();
        }
        assert_eq!(copy.knobs(), attr.knobs());
        assert_eq!(
            attr.set("probabilty", "1").unwrap_err().to_string(),
            "there is no knob `probabilty`"
        );
        assert_eq!(
            attr.set("verbose", "3").unwrap_err().to_string(),
            "verbose: 3 is not within 0 and 2"
        );
        for thread in 1..MARKS {
            attr.set("task", &format!("+{thread}")).unwrap();
        }
        assert_eq!(attr.set("task", "+42"), Ok(()));
        assert_eq!(attr.set("task", "+43"), Err(KnobError::TooManyThreads));
        assert_eq!(attr.set("task", "-43"), Err(KnobError::NotMarked("43")));
        assert_eq!(attr.knobs().task.to_string(), "42 1 2 3 4 5 6 7");
        attr.set("task", "5").unwrap();
        assert_eq!(attr.knobs().task, Marks::one(5));
    });
}
