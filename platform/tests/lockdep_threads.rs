//! The order checker used by several threads at once.

mod lockdep_machine;

use std::{sync::Barrier, thread};

use lockdep_machine::{SPIN, Thread};
use platform::{
    CpuId,
    lock::{Class, LockClass},
    lock_class,
    lockdep::{Checker, Kind, MAX_CLASSES},
};

lock_class! {
    struct A = ("alpha", 1, nests);
    struct B = ("beta", 1, nests);
    struct C = ("gamma", 1, nests);
    struct D = ("delta", 1, nests);
    struct E = ("epsilon", 1, nests);
    struct F = ("zeta", 1, nests);
}

fn classes() -> [&'static LockClass; 6] {
    [
        A::class(),
        B::class(),
        C::class(),
        D::class(),
        E::class(),
        F::class(),
    ]
}

/// Threads that each take one class and then the next, all at once: together a cycle.
fn together(threads: usize, rounds: usize) {
    let checkers: Vec<_> = (0..rounds).map(|_| Box::new(Checker::new())).collect();
    let barrier = Barrier::new(threads);
    let found: Vec<Vec<Vec<Kind>>> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|index| {
                let (checkers, barrier) = (&checkers, &barrier);
                scope.spawn(move || {
                    checkers
                        .iter()
                        .map(|checker| {
                            let mut thread = Thread::new(checker);
                            thread.now.cpu = CpuId::from_index(index).unwrap();
                            barrier.wait();
                            thread.take(classes()[index]);
                            thread.take(classes()[(index + 1) % threads]);
                            thread.found.into_iter().map(|(kind, _)| kind).collect()
                        })
                        .collect()
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for round in 0..rounds {
        let kinds: Vec<_> = found.iter().flat_map(|thread| &thread[round]).collect();
        let kind = if threads == 2 {
            Kind::AbBa
        } else {
            Kind::Cycle
        };
        assert!(!kinds.is_empty(), "round {round}: no thread saw the cycle");
        assert!(kinds.iter().all(|found| **found == kind), "{kinds:?}");
        if threads == 2 {
            assert_eq!(kinds.len(), 1, "one pair is one finding");
        }
    }
}

#[test]
fn two_orders_at_once() {
    together(2, 2000);
}

#[test]
fn three_orders_at_once() {
    together(3, 1000);
}

/// Many threads in one order: nothing is found, every edge is, and every lock is counted.
#[test]
fn one_order() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 20_000;
    let checker = Box::new(Checker::new());
    thread::scope(|scope| {
        for index in 0..THREADS {
            let checker = &checker;
            scope.spawn(move || {
                let mut thread = Thread::new(checker);
                thread.now.cpu = CpuId::from_index(index).unwrap();
                // A step that meets all classes in some order of rounds.
                let mut seed = index + 1;
                for _ in 0..ROUNDS {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let wanted = seed >> 33;
                    let taken: Vec<_> = (0..6).filter(|bit| wanted & (1 << bit) != 0).collect();
                    for &class in &taken {
                        thread.take_as(classes()[class], class + 1, SPIN);
                    }
                    for &class in &taken {
                        thread.give_lock(classes()[class], class + 1);
                    }
                }
                thread.end(platform::Context::Task);
                thread.is_clean();
            });
        }
    });
    let statistics = checker.statistics();
    assert_eq!(statistics.edges, 15);
    assert_eq!(statistics.deepest, 6);
    assert!(statistics.acquisitions > (THREADS * ROUNDS) as u64);
    assert!(statistics.classes <= MAX_CLASSES);
}

/// Two machines see the same classes, by the same numbers, and nothing of one another.
#[test]
fn two_checkers() {
    let (one, other) = (Box::new(Checker::new()), Box::new(Checker::new()));
    let mut thread = Thread::new(&one);
    thread.take(A::class());
    thread.take(B::class());
    let mut thread = Thread::new(&other);
    thread.take(B::class());
    thread.take(A::class());
    thread.is_clean();
}
