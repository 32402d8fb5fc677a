//! Work queues under the model checker: one worker or two, and CPU 0 that queues, cancels and
//! flushes.

use std::sync::Arc;

use platform::{
    CpuId, CpuMask, Platform, Priority,
    model::{Model, Setup},
    sync::{AtomicUsize, Cell, Ordering},
    wait::Completion,
    work::{Queue, Work},
};

type Item = Work<Model>;

/// Orders with few preemptions: the starting and ending of workers is in each.
fn setup(cpus: usize) -> Setup {
    let bound = if cpus > 2 { 1 } else { 2 };
    Setup::new(cpus).blocking_locks().preemptions(bound)
}

fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

/// A queue with workers on CPU 1 and following.
fn queue(workers: u32) -> Queue<Model> {
    let cpus = (1..=workers).fold(CpuMask::EMPTY, |mask, number| mask.with(cpu(number)));
    Queue::on("model", Priority::Normal, cpus).unwrap()
}

/// How often something ran. Not a word of a protocol: two runs that overlap, or a look at it
/// while one goes on, are reported.
struct Runs(Cell<usize>);

// SAFETY: the checker watches the cell; that it is used rightly is what is tested.
unsafe impl Sync for Runs {}
// SAFETY: as above.
unsafe impl Send for Runs {}

impl Runs {
    fn new() -> Arc<Self> {
        Arc::new(Self(Cell::new(0)))
    }

    fn add(&self) -> usize {
        let access = self.0.exclusive();
        // SAFETY: checked by the model.
        let runs = unsafe { access.get_mut() };
        *runs += 1;
        *runs
    }

    fn get(&self) -> usize {
        let access = self.0.shared();
        // SAFETY: checked by the model.
        unsafe { *access.get() }
    }
}

fn counting(queue: &Queue<Model>) -> (Arc<Item>, Arc<Runs>) {
    let runs = Runs::new();
    let counted = Arc::clone(&runs);
    let item = Work::new(queue, move |_: &Arc<Item>| {
        counted.add();
    });
    (item, runs)
}

#[test]
fn what_is_queued_runs_and_is_flushed() {
    setup(2).check(|| {
        let queue = queue(1);
        let (item, runs) = counting(&queue);
        assert!(item.queue());
        item.flush();
        assert_eq!(runs.get(), 1);
        assert!(!item.flush());
    });
}

#[test]
fn the_queue_runs_what_is_pending_when_it_is_dropped() {
    setup(2).check(|| {
        let queue = queue(1);
        let (item, runs) = counting(&queue);
        assert!(item.queue());
        drop(queue);
        assert_eq!(runs.get(), 1);
        assert!(!item.queue());
    });
}

#[test]
fn cancel_or_run_but_one() {
    setup(2).check(|| {
        let queue = queue(1);
        let (item, runs) = counting(&queue);
        assert!(item.queue());
        let cancelled = item.cancel_sync();
        assert_eq!(runs.get(), usize::from(!cancelled));
        let stats = queue.stats();
        assert_eq!((stats.queued, stats.run + stats.cancelled), (1, 1));
    });
}

#[test]
fn cancel_sync_ends_an_item_that_queues_itself() {
    // Into the run, out of it before it queues, and again before the next one.
    setup(2).preemptions(3).check(|| {
        let queue = queue(1);
        let runs = Runs::new();
        let counted = Arc::clone(&runs);
        let item = Work::new(&queue, move |item: &Arc<Item>| {
            // Bounded for the checker's sake.
            if counted.add() < 2 {
                item.queue();
            }
        });
        assert!(item.queue());
        item.cancel_sync();
        assert!(!item.is_pending() && !item.is_running());
        assert!(runs.get() <= 2);
    });
}

#[test]
fn an_item_may_cancel_itself() {
    setup(2).check(|| {
        let queue = queue(1);
        let runs = Runs::new();
        let counted = Arc::clone(&runs);
        let item = Work::new(&queue, move |item: &Arc<Item>| {
            counted.add();
            // Neither waits for this run.
            let again = item.queue();
            assert!(item.cancel_sync() || !again);
            item.flush();
        });
        assert!(item.queue());
        queue.flush();
        assert_eq!(runs.get(), 1);
        drop(queue);
        assert_eq!(runs.get(), 1);
    });
}

#[test]
fn a_flush_waits_for_the_run_that_is_pending() {
    setup(2).check(|| {
        let queue = queue(1);
        let (item, runs) = counting(&queue);
        assert!(item.queue());
        // While it runs, or before, or after.
        let again = item.queue();
        item.flush();
        assert_eq!(runs.get(), 1 + usize::from(again));
    });
}

#[test]
fn a_flush_does_not_wait_for_what_comes_later() {
    setup(2).check(|| {
        let queue = queue(1);
        let runs = Runs::new();
        let counted = Arc::clone(&runs);
        let stop = Arc::new(AtomicUsize::new(0));
        let stopped = Arc::clone(&stop);
        let item = Work::new(&queue, move |item: &Arc<Item>| {
            // Goes on until the flush has returned: a flush that waited for runs that were
            // queued after it began would not return. Bounded for the checker's sake.
            if counted.add() < 2 && stopped.load(Ordering::Relaxed) == 0 {
                item.queue();
            }
        });
        assert!(item.queue());
        queue.flush();
        stop.store(1, Ordering::Relaxed);
        item.cancel_sync();
        assert!(runs.get() >= 1);
    });
}

#[test]
fn one_item_never_runs_on_two_cpus() {
    setup(3).check(|| {
        let queue = queue(2);
        let runs = Runs::new();
        let done = Arc::new(Completion::<Model>::new());
        let (counted, end) = (Arc::clone(&runs), Arc::clone(&done));
        let item = Work::new(&queue, move |item: &Arc<Item>| {
            let run = counted.0.exclusive();
            // SAFETY: checked by the model, to the end of the run.
            let runs = unsafe { run.get_mut() };
            *runs += 1;
            if *runs == 1 {
                // Has to wait for this run, on this CPU.
                assert!(item.queue_on(cpu(2)));
            } else {
                end.complete();
            }
        });
        assert!(item.queue_on(cpu(1)));
        done.wait();
        drop(queue);
        assert_eq!(runs.get(), 2);
    });
}

/// One wants an item on a CPU, the other, which runs on CPU 2, on another; at first its home
/// is CPU 1.
fn two_movers(one: u32, other: u32) {
    setup(3).check(move || {
        let queue = queue(2);
        let (item, runs) = counting(&queue);
        let moved = Arc::clone(&item);
        let mover = Work::new(&queue, move |_: &Arc<Item>| {
            moved.queue_on(cpu(other));
            assert!(Model::may_sleep());
        });
        assert!(mover.queue_on(cpu(2)));
        item.queue_on(cpu(one));
        assert!(Model::may_sleep());
        mover.cancel_sync();
        item.cancel_sync();
        assert!(runs.get() <= 2);
    });
}

#[test]
fn an_item_is_moved_away_by_one_of_two() {
    two_movers(2, 1);
}

#[test]
fn an_item_is_moved_away_from_one_who_wants_it_there() {
    two_movers(1, 2);
}

#[test]
fn delayed_work_runs_at_its_time() {
    setup(2).check(|| {
        let queue = queue(1);
        let runs = Runs::new();
        let counted = Arc::clone(&runs);
        let item = Work::new(&queue, move |_: &Arc<Item>| {
            counted.add();
            assert!(Model::now_ns() >= 10, "early");
        });
        assert!(item.queue_delayed(10));
        // Moves it, or comes too late.
        assert!(item.modify_delayed(20));
        while item.is_pending() {
            Model::relax();
        }
        queue.flush();
        assert!((1..=2).contains(&runs.get()));
    });
}

#[test]
fn a_delayed_item_is_cancelled_or_runs() {
    setup(2).check(|| {
        let queue = queue(1);
        let (item, runs) = counting(&queue);
        assert!(item.queue_delayed(10));
        let cancelled = item.cancel_sync();
        assert_eq!(runs.get(), usize::from(!cancelled));
    });
}

#[test]
fn a_delayed_item_is_run_by_a_flush_or_dropped_with_the_queue() {
    setup(2).check(|| {
        let queue = queue(1);
        let (item, runs) = counting(&queue);
        assert!(item.queue_delayed(10));
        item.flush();
        assert_eq!(runs.get(), 1);
        let accepted = item.queue_delayed(10);
        assert!(accepted);
        drop(queue);
        assert!(!item.is_pending());
        assert!(runs.get() <= 2);
    });
}
