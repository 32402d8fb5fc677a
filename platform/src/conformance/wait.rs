//! Wait queues, completions and the sleeping locks.

use core::ptr;

use super::{Case, Outcome, Size, ensure, equal, threads::run};
use crate::{
    CpuMask, Platform, Preempt, lock_class,
    sync::{AtomicPtr, AtomicUsize, Ordering},
    wait::{Completion, Mutex, RwSemaphore, Semaphore, WaitQueue, WriteGuard},
};

lock_class! {
    struct MutexTest = ("conformance mutex", 20);
    struct FairTest = ("conformance fair mutex", 21);
    struct RwTest = ("conformance rw semaphore", 22);
    struct PhaseTest = ("conformance rw phases", 23);
    struct TimeTest = ("conformance mutex time-out", 24);
    struct RwTimeTest = ("conformance rw time-out", 25);
}

/// All tests of this module.
pub const fn cases<P: Platform>() -> [Case; 10] {
    [
        ("lost_wakeups", lost_wakeups::<P>),
        (
            "wake_ups_are_not_swallowed",
            wake_ups_are_not_swallowed::<P>,
        ),
        ("completion", completion::<P>),
        ("completion_counts", completion_counts::<P>),
        ("mutex_excludes", mutex_excludes::<P>),
        ("mutex_fairness", mutex_fairness::<P>),
        ("semaphore", semaphore::<P>),
        ("rwsem", rwsem::<P>),
        ("rwsem_fairness", rwsem_fairness::<P>),
        ("time_outs", time_outs::<P>),
    ]
}

/// More threads than any test has.
const MAX_THREADS: usize = 32;

/// Threads in a circle, each of which wakes the next one, `rounds` times around. A wake-up
/// that is lost stops all.
pub fn lost_wakeups<P: Platform>(size: Size) -> Outcome {
    struct Ring<P: Platform> {
        queues: [WaitQueue<P>; MAX_THREADS],
        /// Whose turn it is, counted on.
        turn: AtomicUsize,
        size: Size,
    }
    let ring = Ring::<P> {
        queues: core::array::from_fn(|_| WaitQueue::new()),
        turn: AtomicUsize::new(0),
        size,
    };
    run::<P, _>(size, &ring, |ring, index| {
        let threads = ring.size.threads;
        for round in 0..ring.size.rounds {
            let own = round * threads + index;
            // Relaxed: the queue's lock orders it.
            ring.queues[index].wait_until(|| ring.turn.load(Ordering::Relaxed) == own);
            ring.turn.store(own + 1, Ordering::Relaxed);
            ring.queues[(index + 1) % threads].wake_one();
        }
        Ok(())
    })?;
    let turns = ring.turn.load(Ordering::Relaxed) as u64;
    equal("turns", turns, (size.threads * size.rounds) as u64)
}

/// One thread puts things down and wakes one waiter for each; the others take them, some with
/// deadlines that come at any moment. If one swallows a wake-up, a thing is left and
/// somebody waits for ever.
pub fn wake_ups_are_not_swallowed<P: Platform>(size: Size) -> Outcome {
    struct Table<P: Platform> {
        queue: WaitQueue<P>,
        things: AtomicUsize,
        size: Size,
    }
    let table = Table::<P> {
        queue: WaitQueue::new(),
        things: AtomicUsize::new(0),
        size,
    };
    run::<P, _>(size, &table, |table, index| {
        let things = &table.things;
        if index == 0 {
            for _ in 0..table.size.rounds * (table.size.threads - 1) {
                // Relaxed: the queue's lock orders it.
                things.fetch_add(1, Ordering::Relaxed);
                table.queue.wake_one();
            }
            return Ok(());
        }
        let take = || {
            let less = |things: usize| things.checked_sub(1);
            // Relaxed: as above.
            let taken = things.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            taken.is_ok()
        };
        for round in 0..table.size.rounds {
            if index % 2 == 0 {
                table.queue.wait_until(take);
                continue;
            }
            // Time-outs from none to some microseconds.
            let mut patience = round as u64 % 32 * 250;
            while !table.queue.wait_until_timeout(take, P::now_ns() + patience) {
                patience += 1_000;
                P::relax();
            }
        }
        Ok(())
    })?;
    equal(
        "things left",
        table.things.load(Ordering::Relaxed) as u64,
        0,
    )
}

/// Completions on the stack of who waits, gone as soon as the wait returns, while the
/// completer may still be in `complete`.
pub fn completion<P: Platform>(size: Size) -> Outcome {
    struct Desk<P: Platform> {
        asked: [AtomicPtr<Completion<P>>; MAX_THREADS],
        queues: [WaitQueue<P>; MAX_THREADS],
        size: Size,
    }
    let desk = Desk::<P> {
        asked: core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        queues: core::array::from_fn(|_| WaitQueue::new()),
        size,
    };
    // Pairs: the even one asks, the odd one answers.
    run::<P, _>(size, &desk, |desk, index| {
        if index % 2 == 0 && index + 1 == desk.size.threads {
            return Ok(());
        }
        let (asked, queue) = (&desk.asked[index / 2], &desk.queues[index / 2]);
        for round in 0..desk.size.rounds {
            if index % 2 == 0 {
                let done = Completion::<P>::new();
                // Release: the other sees it made. A swap for the model checker's sake, which
                // may let the other's swap overlook a store that it does not depend on.
                asked.swap(ptr::from_ref(&done).cast_mut(), Ordering::Release);
                queue.wake_one();
                if round % 2 == 0 || !done.wait_timeout(P::now_ns() + round as u64 % 64 * 100) {
                    done.wait();
                }
                continue;
            }
            let mut found = ptr::null_mut();
            queue.wait_until(|| {
                // Acquire: pairs with the Release above.
                found = asked.swap(ptr::null_mut(), Ordering::Acquire);
                !found.is_null()
            });
            // SAFETY: who asked keeps it until it was completed.
            unsafe { &*found }.complete();
        }
        Ok(())
    })
}

/// How many waits a completion lets pass.
pub fn completion_counts<P: Platform>(size: Size) -> Outcome {
    let completion = Completion::<P>::new();
    ensure("passes before completion", !completion.try_wait())?;
    completion.complete();
    completion.complete();
    completion.wait();
    ensure("passes no second time", completion.try_wait())?;
    ensure("passes a third time", !completion.try_wait())?;
    ensure(
        "passes at the deadline",
        !completion.wait_timeout(P::now_ns()),
    )?;
    struct Shared<P: Platform> {
        go: Completion<P>,
        passed: AtomicUsize,
        size: Size,
    }
    let shared = Shared::<P> {
        go: Completion::new(),
        passed: AtomicUsize::new(0),
        size,
    };
    run::<P, _>(size, &shared, |shared, index| {
        if index == 0 {
            shared.go.complete_all();
        } else {
            for _ in 0..shared.size.rounds {
                shared.go.wait();
            }
            // Relaxed: `run` orders it.
            shared.passed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })?;
    let passed = shared.passed.load(Ordering::Relaxed) as u64;
    equal("threads that passed", passed, size.threads as u64 - 1)?;
    shared.go.reinit();
    ensure("passes after reinit", !shared.go.try_wait())
}

/// A mutex lets one thread in at a time, which may sleep there, and which sees what the last
/// one did.
pub fn mutex_excludes<P: Platform>(size: Size) -> Outcome {
    struct Shared<P: Platform> {
        lock: Mutex<[u64; 2], P, MutexTest>,
        rounds: usize,
    }
    let shared = Shared::<P> {
        lock: Mutex::new([0, 0]),
        rounds: size.rounds,
    };
    run::<P, _>(size, &shared, |shared, index| {
        for round in 0..shared.rounds {
            let mut counts = if round % 3 == 1 {
                loop {
                    if let Some(guard) = shared.lock.lock_timeout(P::now_ns() + 1_000) {
                        break guard;
                    }
                    // A deadline that has passed is a loop that spins.
                    P::relax();
                }
            } else {
                shared.lock.lock()
            };
            let [first, second] = *counts;
            equal("counts differ inside the mutex", second, first)?;
            counts[0] += 1;
            if (round + index) % 16 == 0 {
                P::yield_now();
            }
            counts[1] += 1;
        }
        Ok(())
    })?;
    ensure("somebody still waits", !shared.lock.is_contended())?;
    let counts = shared.lock.into_inner();
    equal("additions", counts[1], (size.threads * size.rounds) as u64)
}

/// The bound of overtaking: one thread takes the mutex again and again while all others
/// queue up; the one that found k others there is overtaken at most k + 1 times, and they get
/// it in the order in which they came.
pub fn mutex_fairness<P: Platform>(size: Size) -> Outcome {
    struct Counts {
        overtakings: u64,
        served: u64,
    }
    struct Shared<P: Platform> {
        lock: Mutex<Counts, P, FairTest>,
        /// How many of the others may queue up, counted on over the rounds.
        go: AtomicUsize,
        queue: WaitQueue<P>,
        size: Size,
    }
    let shared = Shared::<P> {
        lock: Mutex::new(Counts {
            overtakings: 0,
            served: 0,
        }),
        go: AtomicUsize::new(0),
        queue: WaitQueue::new(),
        size,
    };
    run::<P, _>(size, &shared, |shared, index| {
        let others = shared.size.threads - 1;
        let mut outcome = Ok(());
        for round in 0..shared.size.rounds {
            if index > 0 {
                let own = round * others + index;
                let may = || shared.go.load(Ordering::Relaxed) >= own;
                shared.queue.wait_until(may);
                let mut counts = shared.lock.lock();
                if outcome.is_ok() {
                    outcome = equal("order of service", counts.served, index as u64 - 1).and(
                        ensure("overtaken too often", counts.overtakings <= index as u64),
                    );
                }
                counts.served += 1;
                continue;
            }
            let mut counts = shared.lock.lock();
            *counts = Counts {
                overtakings: 0,
                served: 0,
            };
            for other in 1..=others {
                shared.go.fetch_add(1, Ordering::Relaxed);
                shared.queue.wake_all();
                while shared.lock.waiting() < other {
                    P::yield_now();
                }
            }
            while counts.served < others as u64 {
                drop(counts);
                counts = shared.lock.lock();
                counts.overtakings += 1;
            }
        }
        outcome
    })
}

/// A semaphore lets so many threads in at a time; and what interrupts put back is taken.
pub fn semaphore<P: Platform>(size: Size) -> Outcome {
    struct Shared<P: Platform> {
        places: Semaphore<P>,
        inside: AtomicUsize,
        gifts: Semaphore<P>,
        size: Size,
    }
    const PLACES: usize = 2;
    let shared = Shared::<P> {
        places: Semaphore::new(PLACES),
        inside: AtomicUsize::new(0),
        gifts: Semaphore::new(0),
        size,
    };
    run::<P, _>(size, &shared, |shared, index| {
        for round in 0..shared.size.rounds {
            if round % 3 == 1 {
                while !shared.places.down_timeout(P::now_ns() + 1_000) {
                    P::relax();
                }
            } else {
                shared.places.down();
            }
            // Relaxed: a count by itself.
            let inside = shared.inside.fetch_add(1, Ordering::Relaxed) + 1;
            if round % 16 == 0 {
                P::yield_now();
            }
            shared.inside.fetch_sub(1, Ordering::Relaxed);
            shared.places.up();
            ensure("too many inside", inside <= PLACES)?;
        }
        if index > 0 {
            shared.gifts.down();
        } else {
            for _ in 1..shared.size.threads {
                let here = Preempt::<P>::disable().cpu();
                P::call(CpuMask::EMPTY.with(here), &|| shared.gifts.up());
            }
        }
        Ok(())
    })?;
    equal(
        "places at the end",
        shared.places.available() as u64,
        PLACES as u64,
    )?;
    equal("gifts left", shared.gifts.available() as u64, 0)
}

/// A read-write semaphore lets one writer in or readers, also where a writer goes on reading.
pub fn rwsem<P: Platform>(size: Size) -> Outcome {
    struct Shared<P: Platform> {
        lock: RwSemaphore<[u64; 2], P, RwTest>,
        rounds: usize,
    }
    let shared = Shared::<P> {
        lock: RwSemaphore::new([0, 0]),
        rounds: size.rounds,
    };
    fn same(counts: &[u64; 2]) -> Outcome {
        equal("counts differ", counts[1], counts[0])
    }
    run::<P, _>(size, &shared, |shared, index| {
        for round in 0..shared.rounds {
            let turn = round + index;
            match turn % 4 {
                0 => {
                    let mut counts = shared.lock.write();
                    same(&counts)?;
                    counts[0] += 1;
                    if turn % 16 == 0 {
                        P::yield_now();
                    }
                    counts[1] += 1;
                    let wrote = counts[0];
                    let counts = WriteGuard::downgrade(counts);
                    equal("a writer came in between", counts[0], wrote)?;
                }
                1 => {
                    let deadline = P::now_ns() + 1_000;
                    if let Some(mut counts) = shared.lock.write_timeout(deadline) {
                        counts[0] += 1;
                        counts[1] += 1;
                    }
                }
                2 => {
                    if let Some(counts) = shared.lock.read_timeout(P::now_ns() + 1_000) {
                        same(&counts)?;
                    }
                }
                _ => {
                    let counts = shared.lock.read();
                    if turn % 16 == 3 {
                        P::yield_now();
                    }
                    same(&counts)?;
                }
            }
        }
        Ok(())
    })?;
    equal("somebody still waits", shared.lock.waiting().0 as u64, 0)?;
    ensure("still held", shared.lock.try_write().is_some())?;
    same(&shared.lock.into_inner())
}

/// Readers that come while a writer waits do not go before it; readers that wait when a
/// writer is done, or goes on reading, go before the next one.
pub fn rwsem_fairness<P: Platform>(size: Size) -> Outcome {
    rwsem_phases::<P>(size, false)?;
    rwsem_phases::<P>(size, true)
}

fn rwsem_phases<P: Platform>(size: Size, downgrades: bool) -> Outcome {
    struct Shared<P: Platform> {
        lock: RwSemaphore<(), P, PhaseTest>,
        go: Completion<P>,
        reads: AtomicUsize,
        downgrades: bool,
        size: Size,
    }
    let shared = Shared::<P> {
        lock: RwSemaphore::new(()),
        go: Completion::new(),
        reads: AtomicUsize::new(0),
        downgrades,
        size,
    };
    run::<P, _>(size, &shared, |shared, index| {
        let readers = shared.size.threads.saturating_sub(2);
        match index {
            0 => {
                let writing = shared.lock.write();
                shared.go.complete_all();
                while shared.lock.waiting() != (1, readers) {
                    P::yield_now();
                }
                if !shared.downgrades {
                    drop(writing);
                    return Ok(());
                }
                let reading = WriteGuard::downgrade(writing);
                // All who waited to read are in; nobody else gets in before the writer.
                let barged = shared.lock.try_read().is_some();
                drop(reading);
                ensure("a reader overtakes a writer", !barged)
            }
            1 => {
                shared.go.wait();
                let writing = shared.lock.write();
                let reads = shared.reads.load(Ordering::Relaxed);
                drop(writing);
                equal(
                    "reads before the second writer",
                    reads as u64,
                    readers as u64,
                )
            }
            _ => {
                shared.go.wait();
                let reading = shared.lock.read();
                shared.reads.fetch_add(1, Ordering::Relaxed);
                drop(reading);
                Ok(())
            }
        }
    })
}

/// Whatever waits with a deadline waits till then, and is as if it had not waited.
pub fn time_outs<P: Platform>(size: Size) -> Outcome {
    let mutex = Mutex::<_, P, TimeTest>::new(());
    let semaphore = Semaphore::<P>::new(0);
    let rw = RwSemaphore::<_, P, RwTimeTest>::new(());
    let queue = WaitQueue::<P>::new();
    let completion = Completion::<P>::new();
    struct Shared<'a, P: Platform> {
        mutex: &'a Mutex<(), P, TimeTest>,
        semaphore: &'a Semaphore<P>,
        rw: &'a RwSemaphore<(), P, RwTimeTest>,
        queue: &'a WaitQueue<P>,
        completion: &'a Completion<P>,
        size: Size,
    }
    let shared = Shared {
        mutex: &mutex,
        semaphore: &semaphore,
        rw: &rw,
        queue: &queue,
        completion: &completion,
        size,
    };
    let held = (mutex.lock(), rw.write());
    let two = Size { threads: 2, ..size };
    let outcome = run::<P, _>(two, &shared, |shared, index| {
        if index == 0 {
            return Ok(());
        }
        // Every wait is a whole one: few rounds.
        for round in 0..shared.size.rounds.min(8) as u64 {
            let deadline = P::now_ns() + round * 50_000;
            // A wake-up for nothing, which ends no wait.
            P::unpark(&P::current_thread());
            let got = match round % 6 {
                0 => shared.mutex.lock_timeout(deadline).is_some(),
                1 => shared.semaphore.down_timeout(deadline),
                2 => shared.rw.read_timeout(deadline).is_some(),
                3 => shared.rw.write_timeout(deadline).is_some(),
                4 => shared.queue.wait_until_timeout(|| false, deadline),
                _ => shared.completion.wait_timeout(deadline),
            };
            ensure("got what was not to be had", !got)?;
            ensure("gave up early", P::now_ns() >= deadline)?;
        }
        Ok(())
    });
    drop(held);
    outcome?;
    semaphore.up();
    equal("semaphore", semaphore.available() as u64, 1)?;
    completion.complete();
    ensure("completion", completion.try_wait())?;
    ensure("mutex", mutex.try_lock().is_some() && !mutex.is_contended())?;
    ensure("rw semaphore", rw.try_write().is_some())?;
    ensure("wait queue", queue.is_idle())
}
