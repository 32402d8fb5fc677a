//! Spinning locks and the sequence lock under the model checker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Plain, Ordering::SeqCst};

use platform::{
    CpuId, Mark, Platform,
    lock::{IrqSpinLock, SeqLock, SpinLock},
    lock_class,
    model::{self, Model, Setup},
    sync::{AtomicU32, Ordering},
};

lock_class! {
    struct Outer = ("outer", 10);
    struct Inner = ("inner", 20);
}

/// Two CPUs in the section at a time, or one that does not see what the last one did, is an
/// access to the value that collides. (Two lock, so that one waits at a time, and one tries.)
#[test]
fn one_cpu_at_a_time() {
    static TOOK: [Plain; 2] = [const { Plain::new(0) }; 2];
    Setup::new(3).preemptions(2).check(|| {
        let lock = Arc::new(SpinLock::<_, Model, Outer>::new(0));
        let (locks, tries) = (Arc::clone(&lock), Arc::clone(&lock));
        let locks = model::cpu(1, move || *locks.lock() += 1);
        let tries = model::cpu(2, move || {
            if let Some(mut value) = tries.try_lock() {
                *value += 10;
            }
        });
        *lock.lock() += 1;
        locks.join();
        tries.join();
        assert_eq!(lock.holder(), None);
        let value = *lock.lock();
        assert!(value == 2 || value == 12);
        TOOK[value / 10].fetch_add(1, SeqCst);
    });
    assert!(TOOK.iter().all(|took| took.load(SeqCst) > 0));
}

#[test]
fn a_try_is_a_lock_or_nothing() {
    static TOOK: [Plain; 3] = [const { Plain::new(0) }; 3];
    Setup::new(2).check(|| {
        let lock = Arc::new(SpinLock::<_, Model, Outer>::new(0));
        let there = Arc::clone(&lock);
        let other = model::cpu(1, move || {
            if let Some(mut value) = there.try_lock() {
                *value += 1;
                assert_eq!(there.holder(), CpuId::new(1));
            }
        });
        let own = lock.try_lock().map(|mut value| *value += 1).is_some();
        other.join();
        let took = *lock.lock();
        assert!(took >= 1 && took >= usize::from(own));
        TOOK[took].fetch_add(1, SeqCst);
    });
    // Both, and one that found it taken.
    assert!(TOOK[1].load(SeqCst) > 0 && TOOK[2].load(SeqCst) > 0);
}

/// Locks that are taken one inside the other.
#[test]
fn nested_sections_publish() {
    Setup::new(2).preemptions(3).check(|| {
        let outer = Arc::new(SpinLock::<_, Model, Outer>::new(0));
        let inner = Arc::new(IrqSpinLock::<_, Model, Inner>::new(0));
        let (outer1, inner1) = (Arc::clone(&outer), Arc::clone(&inner));
        let add = |outer: &SpinLock<u32, Model, Outer>, inner: &IrqSpinLock<u32, Model, Inner>| {
            let mut first = outer.lock();
            let mut second = inner.lock_under(&first);
            *first += 1;
            *second += *first;
        };
        let other = model::cpu(1, move || add(&outer1, &inner1));
        add(&outer, &inner);
        other.join();
        assert_eq!((*outer.lock(), *inner.lock()), (2, 3));
    });
}

/// An interrupt whose handler takes the lock comes wherever it can on a CPU that takes the
/// lock itself. If it came inside the section the CPU would wait for itself, which panics.
#[test]
fn interrupts_stay_outside() {
    static BEFORE: Plain = Plain::new(0);
    static AFTER: Plain = Plain::new(0);
    Setup::new(2).check(|| {
        let lock = Arc::new(IrqSpinLock::<_, Model, Inner>::new(0));
        let handled = Arc::clone(&lock);
        model::on_interrupt(move || *handled.lock() += 10);
        let other = model::cpu(1, || model::interrupt(CpuId::BOOT));
        {
            let mut value = lock.lock();
            match *value {
                0 => &AFTER,
                _ => &BEFORE,
            }
            .fetch_add(1, SeqCst);
            Model::mark(Mark::Step);
            *value += 1;
        }
        other.join();
        // Now it has come at the latest.
        Model::mark(Mark::Step);
        assert_eq!(*lock.lock(), 11);
    });
    assert!(BEFORE.load(SeqCst) > 0 && AFTER.load(SeqCst) > 0);
}

/// The opposite, so that the test above is known to find it: the lock that does not turn
/// interrupts off.
#[test]
#[should_panic(expected = "which it holds itself")]
fn interrupts_inside_are_noticed() {
    Setup::new(2).check(|| {
        let lock = Arc::new(SpinLock::<_, Model, Inner>::new(0));
        let handled = Arc::clone(&lock);
        model::on_interrupt(move || *handled.lock() += 10);
        let other = model::cpu(1, || model::interrupt(CpuId::BOOT));
        {
            let mut value = lock.lock();
            Model::mark(Mark::Step);
            *value += 1;
        }
        other.join();
    });
}

/// A reader gets the words of one write, never of two, and never older ones than it got
/// before.
#[test]
fn sequence_readers_see_whole_writes() {
    static SEEN: [Plain; 3] = [const { Plain::new(0) }; 3];
    static MISSED: Plain = Plain::new(0);
    Setup::new(2).preemptions(2).check(|| {
        let lock = Arc::new(SeqLock::<[u64; 2], Model, Outer, 2>::new([0, 100]));
        let there = Arc::clone(&lock);
        let reader = model::cpu(1, move || {
            let mut last = 0;
            for _ in 0..2 {
                let Some([first, second]) = there.try_read() else {
                    MISSED.fetch_add(1, SeqCst);
                    continue;
                };
                assert_eq!(second, first + 100, "words of two writes");
                assert!(first >= last, "went back");
                last = first;
                SEEN[first as usize].fetch_add(1, SeqCst);
            }
        });
        lock.write([1, 101]);
        lock.update(|[first, second]| [first + 1, second + 1]);
        reader.join();
        assert_eq!(lock.read(), [2, 102]);
    });
    assert!(MISSED.load(SeqCst) > 0);
    assert!(SEEN.iter().all(|seen| seen.load(SeqCst) > 0));
}

/// What a writer did before a write is seen by who reads that write.
#[test]
fn sequence_reads_publish() {
    static SEEN: [Plain; 2] = [const { Plain::new(0) }; 2];
    Setup::new(2).check(|| {
        let lock = SeqLock::<[u64; 1], Model, Outer, 1>::new([0]);
        let shared = Arc::new((lock, AtomicU32::new(0)));
        let there = Arc::clone(&shared);
        let reader = model::cpu(1, move || {
            if let Some([seen]) = there.0.try_read() {
                assert!(there.1.load(Ordering::Relaxed) >= seen as u32);
                SEEN[seen as usize].fetch_add(1, SeqCst);
            }
        });
        shared.1.store(1, Ordering::Relaxed);
        shared.0.write([1]);
        reader.join();
    });
    assert!(SEEN.iter().all(|seen| seen.load(SeqCst) > 0));
}

/// Writers do not lose each other's changes, and a reader that waits gets one.
#[test]
fn sequence_writers_take_turns() {
    Setup::new(2).preemptions(3).check(|| {
        let lock = Arc::new(SeqLock::<[u64; 1], Model, Outer, 1>::new([0]));
        let there = Arc::clone(&lock);
        let writer = model::cpu(1, move || {
            there.update(|[count]| [count + 1]);
        });
        lock.update(|[count]| [count + 1]);
        assert!((1..=2).contains(&lock.read()[0]));
        writer.join();
        assert_eq!(lock.read(), [2]);
    });
}
