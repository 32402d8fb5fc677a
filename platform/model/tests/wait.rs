//! Wait queues under the model checker.

use std::sync::Arc;

use platform::{
    conformance::{Size, wait},
    model::{self, Model, Setup},
    sync::{AtomicU32, Ordering},
    wait::WaitQueue,
};

/// Orders with few preemptions; most bugs need two or three.
fn setup(cpus: usize) -> Setup {
    let bound = if cpus > 2 { 2 } else { 3 };
    Setup::new(cpus).blocking_locks().preemptions(bound)
}

struct Shared {
    queue: WaitQueue<Model>,
    word: AtomicU32,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: WaitQueue::new(),
            word: AtomicU32::new(0),
        })
    }

    /// Adds something to take, and says so.
    fn put(&self) {
        // Relaxed: the queue's lock orders it.
        self.word.fetch_add(1, Ordering::Relaxed);
        self.queue.wake_one();
    }

    /// Takes something, if there is something.
    fn try_get(&self) -> bool {
        self.word
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                word.checked_sub(1)
            })
            .is_ok()
    }
}

#[test]
fn no_wake_up_is_lost() {
    // Sleeping for ever is a deadlock, which the checker reports.
    setup(2).check(|| {
        let shared = Shared::new();
        let other = Arc::clone(&shared);
        let waiter = model::cpu(1, move || other.queue.wait_until(|| other.try_get()));
        shared.put();
        waiter.join();
        assert_eq!(shared.word.load(Ordering::Relaxed), 0);
        assert!(shared.queue.is_idle());
    });
}

#[test]
fn each_of_two_wake_ups_reaches_a_waiter() {
    // The first may be taken by who had not linked itself yet, the second then hit the same
    // thread: it has to go on to the other.
    setup(3).check(|| {
        let shared = Shared::new();
        let waiters = [1, 2].map(|number| {
            let other = Arc::clone(&shared);
            model::cpu(number, move || other.queue.wait_until(|| other.try_get()))
        });
        shared.put();
        shared.put();
        waiters.into_iter().for_each(model::Cpu::join);
        assert!(shared.queue.is_idle());
    });
}

#[test]
fn wake_all_reaches_all() {
    setup(3).check(|| {
        let shared = Shared::new();
        let waiters = [1, 2].map(|number| {
            let other = Arc::clone(&shared);
            model::cpu(number, move || {
                other
                    .queue
                    .wait_until(|| other.word.load(Ordering::Relaxed) != 0);
            })
        });
        shared.word.store(1, Ordering::Relaxed);
        shared.queue.wake_all();
        waiters.into_iter().for_each(model::Cpu::join);
    });
}

#[test]
fn a_deadline_and_a_wake_up_may_come_together() {
    setup(2).check(|| {
        let shared = Shared::new();
        let other = Arc::clone(&shared);
        let waiter = model::cpu(1, move || {
            let got = other.queue.wait_until_timeout(|| other.try_get(), 10);
            // What was put either was taken, or is there for the next.
            if !got {
                other.queue.wait_until(|| other.try_get());
            }
        });
        shared.put();
        waiter.join();
        assert_eq!(shared.word.load(Ordering::Relaxed), 0);
        assert!(shared.queue.is_idle());
    });
}

#[test]
fn who_gives_up_swallows_no_wake_up() {
    setup(3).check(|| {
        let shared = Shared::new();
        let first = Arc::clone(&shared);
        let hasty = model::cpu(1, move || {
            if first.queue.wait_until_timeout(|| first.try_get(), 10) {
                first.put();
            }
        });
        let second = Arc::clone(&shared);
        let patient = model::cpu(2, move || second.queue.wait_until(|| second.try_get()));
        shared.put();
        hasty.join();
        patient.join();
    });
}

/// The tests that every machine must pass.
fn conforms(name: &str) {
    let cases = wait::cases::<Model>();
    let case = cases.into_iter().find(|case| case.0 == name).unwrap();
    setup(2)
        .preemptions(2)
        .check(move || assert_eq!(case.1(Size::SMALLEST), Ok(())));
}

#[test]
fn conforms_lost_wakeups() {
    conforms("lost_wakeups");
}

#[test]
fn conforms_completion() {
    conforms("completion");
}

#[test]
fn conforms_completion_counts() {
    conforms("completion_counts");
}

#[test]
fn conforms_mutex_excludes() {
    conforms("mutex_excludes");
}

#[test]
fn conforms_rwsem() {
    conforms("rwsem");
}

#[test]
fn conforms_time_outs() {
    conforms("time_outs");
}
