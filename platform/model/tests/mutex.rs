//! The mutex and the read-write semaphore under the model checker.

use std::sync::Arc;

use platform::{
    model::{self, Model, Setup},
    wait::{Mutex, RwSemaphore, WriteGuard},
};

/// Orders with few preemptions; most bugs need two or three.
fn setup(cpus: usize) -> Setup {
    let bound = if cpus > 2 { 2 } else { 3 };
    Setup::new(cpus).blocking_locks().preemptions(bound)
}

platform::lock_class! {
    struct Class = ("model", 10);
}

type Lock = Mutex<u32, Model, Class>;

/// The value is in a cell of the checker's: two holders at a time are reported.
fn add_one(lock: &Lock) {
    *lock.lock() += 1;
}

#[test]
fn two_threads_exclude_each_other() {
    setup(2).check(|| {
        let lock = Arc::new(Lock::new(0));
        let other = Arc::clone(&lock);
        let cpu = model::cpu(1, move || add_one(&other));
        add_one(&lock);
        cpu.join();
        assert_eq!(*lock.lock(), 2);
        assert!(!lock.is_contended());
    });
}

#[test]
fn a_barger_is_followed_by_a_hand_over() {
    // Twice in a row: the second time may overtake the woken waiter, and hands over.
    setup(2).check(|| {
        let lock = Arc::new(Lock::new(0));
        let other = Arc::clone(&lock);
        let cpu = model::cpu(1, move || add_one(&other));
        add_one(&lock);
        add_one(&lock);
        cpu.join();
        assert_eq!(*lock.lock(), 3);
        assert!(!lock.is_contended());
    });
}

#[test]
fn three_threads_exclude_each_other() {
    setup(3).check(|| {
        let lock = Arc::new(Lock::new(0));
        let cpus = [1, 2].map(|number| {
            let other = Arc::clone(&lock);
            model::cpu(number, move || add_one(&other))
        });
        add_one(&lock);
        cpus.into_iter().for_each(model::Cpu::join);
        assert_eq!(*lock.lock(), 3);
        assert!(!lock.is_contended());
    });
}

#[test]
fn a_woken_waiter_is_overtaken_once() {
    setup(2).check(|| {
        let lock = Arc::new(Lock::new(0));
        let other = Arc::clone(&lock);
        let guard = lock.lock();
        let cpu = model::cpu(1, move || *other.lock() = 1);
        let queued = lock.is_contended();
        drop(guard);
        // May overtake it.
        drop(lock.lock());
        let had_it = *lock.lock();
        if queued {
            assert_eq!(had_it, 1, "overtaken twice");
        }
        cpu.join();
    });
}

#[test]
fn who_gives_up_loses_no_wake_up() {
    setup(3).check(|| {
        let lock = Arc::new(Lock::new(0));
        let hasty = Arc::clone(&lock);
        let hasty = model::cpu(1, move || {
            if let Some(mut value) = hasty.lock_timeout(10) {
                *value += 1;
            }
        });
        let patient = Arc::clone(&lock);
        let patient = model::cpu(2, move || add_one(&patient));
        add_one(&lock);
        hasty.join();
        patient.join();
        assert!((2..=3).contains(&*lock.lock()));
        assert!(!lock.is_contended());
    });
}

type Shared = RwSemaphore<u32, Model, Class>;

#[test]
fn readers_and_a_writer_exclude_each_other() {
    setup(3).check(|| {
        let lock = Arc::new(Shared::new(0));
        let readers = [1, 2].map(|number| {
            let other = Arc::clone(&lock);
            model::cpu(number, move || assert!(*other.read() <= 1))
        });
        *lock.write() += 1;
        readers.into_iter().for_each(model::Cpu::join);
        assert_eq!(*lock.read(), 1);
    });
}

#[test]
fn a_downgrade_lets_no_writer_in_between() {
    setup(3).check(|| {
        let lock = Arc::new(Shared::new(0));
        let writer = Arc::clone(&lock);
        let writer = model::cpu(1, move || *writer.write() = 7);
        let reader = Arc::clone(&lock);
        let reader = model::cpu(2, move || drop(reader.read()));
        let mut guard = lock.write();
        *guard = 1;
        let guard = WriteGuard::downgrade(guard);
        assert_eq!(*guard, 1);
        drop(guard);
        writer.join();
        reader.join();
    });
}

#[test]
fn a_writer_that_gives_up_lets_readers_in() {
    setup(3).check(|| {
        let lock = Arc::new(Shared::new(0));
        let first = lock.read();
        let writer = Arc::clone(&lock);
        let writer = model::cpu(1, move || drop(writer.write_timeout(10)));
        let reader = Arc::clone(&lock);
        let reader = model::cpu(2, move || drop(reader.read()));
        // Without the writer's care the reader would wait for the first one's end, which
        // comes after its own.
        writer.join();
        reader.join();
        drop(first);
    });
}
