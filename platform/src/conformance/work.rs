//! Work queues. These allocate.

use alloc::{sync::Arc, vec::Vec};

use super::{Case, Failure, Outcome, Size, ensure, equal, threads::run};
use crate::{
    Context, CpuId, Platform, Priority,
    sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    wait::Completion,
    work::{Queue, Work},
};

/// All tests of this module.
pub const fn cases<P: Platform>() -> [Case; 9] {
    [
        ("work_runs_on_its_cpu", work_runs_on_its_cpu::<P>),
        ("work_flush_races", work_flush_races::<P>),
        ("work_cancel_races", work_cancel_races::<P>),
        ("requeue_from_inside", requeue_from_inside::<P>),
        ("cancel_from_inside", cancel_from_inside::<P>),
        ("flush_while_queueing", flush_while_queueing::<P>),
        ("delayed_never_early", delayed_never_early::<P>),
        ("queue_in_interrupts", queue_in_interrupts::<P>),
        ("queue_ends", queue_ends::<P>),
    ]
}

/// What an item leaves behind.
struct Log {
    runs: AtomicUsize,
    /// A run goes on.
    inside: AtomicBool,
    /// Things that must not be.
    faults: AtomicUsize,
}

impl Log {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            runs: AtomicUsize::new(0),
            inside: AtomicBool::new(false),
            faults: AtomicUsize::new(0),
        })
    }

    /// A run, which does `f`. Two at a time are a fault. How many there were with it.
    ///
    /// Relaxed, all of it: the work queue orders the runs, and `run`, flushes and cancels
    /// those who look; that they do is what is tested.
    fn run(&self, f: impl FnOnce(usize)) {
        self.fault(self.inside.swap(true, Ordering::Relaxed));
        let runs = self.runs.load(Ordering::Relaxed) + 1;
        self.runs.store(runs, Ordering::Relaxed);
        f(runs);
        self.fault(!self.inside.swap(false, Ordering::Relaxed));
    }

    fn fault(&self, is_one: bool) {
        self.faults
            .fetch_add(usize::from(is_one), Ordering::Relaxed);
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::Relaxed)
    }

    fn check(&self) -> Outcome {
        equal("faults", self.faults.load(Ordering::Relaxed) as u64, 0)
    }
}

fn queue<P: Platform>() -> Result<Queue<P>, Failure> {
    Queue::new("conformance", Priority::Normal).map_err(|_| Failure {
        what: "workers started",
        found: 0,
        wanted: 1,
    })
}

/// That everything accepted has run or was cancelled.
fn settled<P: Platform>(queue: &Queue<P>) -> Outcome {
    let stats = queue.stats();
    equal(
        "runs and cancels",
        stats.run + stats.cancelled,
        stats.queued,
    )
}

fn nth_cpu<P: Platform>(n: usize) -> CpuId {
    let online = P::online_cpus();
    online.iter().nth(n % online.count()).unwrap_or(CpuId::BOOT)
}

/// An item runs where it was queued, in a thread that may sleep; items of a CPU run in the
/// order in which they were queued.
pub fn work_runs_on_its_cpu<P: Platform>(size: Size) -> Outcome {
    let queue = queue::<P>()?;
    for cpu in P::online_cpus().iter() {
        let log = Log::new();
        let items: Vec<_> = (0..size.rounds.min(100))
            .map(|index| {
                let log = Arc::clone(&log);
                Work::new(&queue, move |_: &Arc<Work<P>>| {
                    log.run(|runs| {
                        log.fault(runs != index + 1);
                        log.fault(P::current_cpu() != cpu);
                        log.fault(P::context() != Context::Task || !P::may_sleep());
                    });
                })
            })
            .collect();
        for item in &items {
            ensure("accepted", item.queue_on(cpu))?;
        }
        queue.flush();
        log.check()?;
        equal("runs", log.runs() as u64, items.len() as u64)?;
    }
    settled(&queue)
}

/// Threads that queue the same item on all CPUs and flush it: what was asked before a flush
/// is done after it.
pub fn work_flush_races<P: Platform>(size: Size) -> Outcome {
    struct Shared<P: Platform> {
        queue: Queue<P>,
        item: Arc<Work<P>>,
        asked: Arc<AtomicUsize>,
        done: Arc<AtomicUsize>,
        rounds: usize,
    }
    let queue = queue::<P>()?;
    let (asked, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let log = Log::new();
    let item = {
        let (asked, done, log) = (Arc::clone(&asked), Arc::clone(&done), Arc::clone(&log));
        Work::new(&queue, move |_: &Arc<Work<P>>| {
            log.run(|_| done.store(asked.load(Ordering::Relaxed), Ordering::Relaxed));
        })
    };
    let shared = Shared {
        queue,
        item,
        asked,
        done,
        rounds: size.rounds,
    };
    run::<P, _>(size, &shared, |shared, index| {
        for round in 0..shared.rounds {
            // Relaxed: see `Log::run`.
            let own = shared.asked.fetch_add(1, Ordering::Relaxed) + 1;
            let cpu = nth_cpu::<P>(round + index);
            if round % 8 == 7 {
                shared.item.queue_delayed_on(cpu, 1_000_000_000);
            } else {
                shared.item.queue_on(cpu);
            }
            if round % 3 == 2 && round % 8 != 7 {
                shared.queue.flush();
            }
            shared.item.flush();
            let done = shared.done.load(Ordering::Relaxed);
            ensure("flushed before it ran", done >= own)?;
        }
        Ok(())
    })?;
    log.check()?;
    settled(&shared.queue)
}

/// Threads that do all there is to an item that they share; and each to one of its own, about
/// which it knows that it rests once it was cancelled.
pub fn work_cancel_races<P: Platform>(size: Size) -> Outcome {
    struct Shared<P: Platform> {
        queue: Queue<P>,
        item: Arc<Work<P>>,
        rounds: usize,
    }
    let queue = queue::<P>()?;
    let log = Log::new();
    let item = again(&queue, &log);
    let shared = Shared {
        queue,
        item,
        rounds: size.rounds,
    };
    run::<P, _>(size, &shared, |shared, index| {
        let log = Log::new();
        let own = again(&shared.queue, &log);
        for round in 0..shared.rounds {
            let cpu = nth_cpu::<P>(round / 2 + index);
            match (round + index) % 6 {
                0 | 3 => shared.item.queue_on(cpu),
                1 => shared.item.queue_delayed_on(cpu, round as u64 % 16 * 1_000),
                2 => shared.item.cancel(),
                4 => shared.item.modify_delayed(1_000),
                _ => shared.item.cancel_sync(),
            };
            match round % 3 {
                0 => own.queue_on(cpu),
                1 => own.queue_delayed_on(cpu, round as u64 % 8 * 1_000),
                _ => own.modify_delayed(500),
            };
            if round % 2 == 0 {
                P::yield_now();
            }
            own.cancel_sync();
            let runs = log.runs();
            ensure("not at rest", !own.is_pending() && !own.is_running())?;
            if round % 4 == 0 {
                P::yield_now();
            }
            equal(
                "runs after it was cancelled",
                log.runs() as u64,
                runs as u64,
            )?;
        }
        log.check()
    })?;
    shared.item.cancel_sync();
    log.check()?;
    settled(&shared.queue)
}

/// An item that queues itself again in all runs but every fourth.
fn again<P: Platform>(queue: &Queue<P>, log: &Arc<Log>) -> Arc<Work<P>> {
    let log = Arc::clone(log);
    Work::new(queue, move |item: &Arc<Work<P>>| {
        log.run(|runs| {
            if runs % 4 != 0 {
                item.queue_on(nth_cpu::<P>(runs));
            }
        });
    })
}

/// An item that queues itself, for other CPUs and with delays, so many times.
pub fn requeue_from_inside<P: Platform>(size: Size) -> Outcome {
    let queue = queue::<P>()?;
    let log = Log::new();
    let end = Arc::new(Completion::<P>::new());
    let item = {
        let (log, end) = (Arc::clone(&log), Arc::clone(&end));
        Work::new(&queue, move |item: &Arc<Work<P>>| {
            log.run(|runs| {
                if runs == size.rounds {
                    end.complete();
                } else if runs % 16 == 0 {
                    log.fault(!item.queue_delayed(1_000));
                } else {
                    log.fault(!item.queue_on(nth_cpu::<P>(runs)));
                    // It is pending now.
                    log.fault(item.queue());
                }
            });
        })
    };
    ensure("accepted", item.queue())?;
    end.wait();
    item.flush();
    log.check()?;
    equal("runs", log.runs() as u64, size.rounds as u64)?;
    settled(&queue)
}

/// An item that cancels what it has queued itself: nothing waits for its own end.
pub fn cancel_from_inside<P: Platform>(size: Size) -> Outcome {
    let queue = queue::<P>()?;
    let log = Log::new();
    let item = {
        let log = Arc::clone(&log);
        Work::new(&queue, move |item: &Arc<Work<P>>| {
            log.run(|runs| {
                log.fault(item.cancel());
                log.fault(!item.queue());
                log.fault(!if runs % 2 == 0 {
                    item.cancel()
                } else {
                    item.cancel_sync()
                });
                log.fault(item.cancel_sync());
                log.fault(item.flush());
            });
        })
    };
    for round in 0..size.rounds {
        ensure("accepted", item.queue_on(nth_cpu::<P>(round)))?;
        item.flush();
    }
    log.check()?;
    equal("runs", log.runs() as u64, size.rounds as u64)?;
    settled(&queue)
}

/// A flush ends though items on all CPUs queue themselves for ever, and other threads queue
/// more.
pub fn flush_while_queueing<P: Platform>(size: Size) -> Outcome {
    struct Shared<P: Platform> {
        queue: Queue<P>,
        log: Arc<Log>,
        stop: Arc<AtomicBool>,
        rounds: usize,
    }
    let stop = Arc::new(AtomicBool::new(false));
    let shared = Shared {
        queue: queue::<P>()?,
        log: Log::new(),
        stop: Arc::clone(&stop),
        rounds: size.rounds,
    };
    let endless: Vec<_> = P::online_cpus()
        .iter()
        .map(|cpu| {
            let stop = Arc::clone(&stop);
            let item = Work::new(&shared.queue, move |item: &Arc<Work<P>>| {
                // Relaxed: a sign by itself.
                if !stop.load(Ordering::Relaxed) {
                    item.queue();
                }
                P::yield_now();
            });
            item.queue_on(cpu);
            item
        })
        .collect();
    let outcome = run::<P, _>(size, &shared, |shared, index| {
        let mut outcome = Ok(());
        if index == 0 {
            let log = &shared.log;
            let counted = Arc::clone(log);
            let item = Work::new(&shared.queue, move |_: &Arc<Work<P>>| counted.run(|_| ()));
            for round in 0..shared.rounds.min(200) {
                let before = log.runs();
                item.queue_on(nth_cpu::<P>(round));
                shared.queue.flush();
                if outcome.is_ok() {
                    outcome = equal("runs", log.runs() as u64, before as u64 + 1);
                }
            }
            // Relaxed: as above.
            shared.stop.store(true, Ordering::Relaxed);
            return outcome;
        }
        let item = Work::new(&shared.queue, |_: &Arc<Work<P>>| ());
        while !shared.stop.load(Ordering::Relaxed) {
            item.queue();
            P::yield_now();
        }
        outcome
    });
    // The first waits for the runs that began before the sign to stop and may queue their item
    // once more; the second for those.
    shared.queue.flush();
    shared.queue.flush();
    for item in &endless {
        ensure("still pending", !item.is_pending())?;
    }
    outcome?;
    shared.log.check()?;
    settled(&shared.queue)
}

/// Delayed items run at their time or later, whatever the order in which they were queued
/// or changed.
pub fn delayed_never_early<P: Platform>(size: Size) -> Outcome {
    const STEP_NS: u64 = 20_000;
    const NEVER_NS: u64 = 1_000_000_000_000;
    let queue = queue::<P>()?;
    let log = Log::new();
    let count = size.rounds.min(100);
    let items: Vec<_> = (0..count)
        .map(|_| {
            // No run may be earlier.
            let due = Arc::new(AtomicU64::new(0));
            let (log, seen) = (Arc::clone(&log), Arc::clone(&due));
            let item = Work::new(&queue, move |_: &Arc<Work<P>>| {
                log.fault(P::now_ns() < seen.load(Ordering::Relaxed));
            });
            (item, due)
        })
        .collect();
    for (index, (item, due)) in items.iter().enumerate() {
        // In no order of time.
        let delay = (index * 7 % count + 2) as u64 * STEP_NS;
        let not_before = |delay| due.store(P::now_ns() + delay, Ordering::Relaxed);
        let cpu = nth_cpu::<P>(index / 2);
        match index % 3 {
            0 => {
                not_before(delay);
                ensure("accepted", item.queue_delayed_on(cpu, delay))?;
            }
            1 => {
                // To an earlier time: or it is still pending at the end.
                not_before(delay);
                ensure("accepted", item.queue_delayed_on(cpu, NEVER_NS))?;
                ensure("changed", item.modify_delayed(delay))?;
            }
            _ => {
                // To a later time, unless it has run; and then again.
                not_before(delay / 2);
                ensure("accepted", item.queue_delayed_on(cpu, delay / 2))?;
                ensure("changed", item.modify_delayed(NEVER_NS))?;
                ensure("cancelled", item.cancel())?;
                item.cancel_sync();
                not_before(delay);
                ensure("accepted again", item.queue_delayed_on(cpu, delay))?;
            }
        }
    }
    for (item, _) in &items {
        // Not by a flush, which would run it at once.
        while item.is_pending() {
            P::yield_now();
        }
        item.flush();
    }
    log.check()?;
    settled(&queue)
}

/// Interrupts queue, cancel and change.
pub fn queue_in_interrupts<P: Platform>(size: Size) -> Outcome {
    let queue = queue::<P>()?;
    let log = Log::new();
    let item = {
        let log = Arc::clone(&log);
        Work::new(&queue, move |_: &Arc<Work<P>>| log.run(|_| ()))
    };
    let accepted = AtomicUsize::new(0);
    for round in 0..size.rounds {
        P::call(P::online_cpus(), &|| {
            match round % 4 {
                0 | 1 => {
                    // Relaxed: the call orders it.
                    accepted.fetch_add(usize::from(item.queue()), Ordering::Relaxed);
                }
                2 => {
                    item.cancel();
                }
                _ => {
                    item.modify_delayed(1_000);
                }
            };
        });
    }
    item.flush();
    log.check()?;
    ensure("accepted", accepted.load(Ordering::Relaxed) > 0)?;
    ensure("pending", !item.is_pending())?;
    settled(&queue)
}

/// A queue that is dropped has run what was pending, runs nothing later, and its items
/// are refused.
pub fn queue_ends<P: Platform>(size: Size) -> Outcome {
    for _ in 0..size.rounds.min(20) {
        let queue = queue::<P>()?;
        let (soon, late) = (Log::new(), Log::new());
        let counting = |log: &Arc<Log>| {
            let log = Arc::clone(log);
            Work::new(&queue, move |item: &Arc<Work<P>>| {
                log.run(|_| {
                    item.queue_delayed(1_000_000_000_000);
                });
            })
        };
        let items: Vec<_> = P::online_cpus()
            .iter()
            .map(|cpu| (cpu, counting(&soon), counting(&late)))
            .collect();
        // One each: they share a log, so on one CPU.
        let cpu = nth_cpu::<P>(0);
        for (_, soon, late) in &items {
            ensure("accepted", soon.queue_on(cpu))?;
            ensure("accepted", late.queue_delayed_on(cpu, 1_000_000_000_000))?;
        }
        drop(queue);
        equal("runs", soon.runs() as u64, items.len() as u64)?;
        equal("runs of what was not due", late.runs() as u64, 0)?;
        for (cpu, soon, late) in &items {
            ensure("pending", !soon.is_pending() && !late.is_pending())?;
            ensure("refused", !soon.queue_on(*cpu) && !late.modify_delayed(0))?;
            ensure("nothing to do", !soon.cancel_sync() && !soon.flush())?;
        }
        soon.check()?;
    }
    Ok(())
}
