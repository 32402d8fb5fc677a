//! Deferred work under the model checker: queuing from several CPUs, running, queuing again
//! from inside, waiting, and freeing.

use core::ptr::NonNull;

use loom::model::Builder;
use loom::sync::{Arc, Notify};
use loom::thread;
use platform::deferred::{self, Function, List, Work};
use platform::sync::{AtomicUsize, Cell, Ordering};

/// A CPU: its list, and an interrupt, which stays pending until it is taken.
struct Cpu {
    list: List,
    interrupt: Notify,
}

impl Cpu {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            list: List::new(),
            interrupt: Notify::new(),
        })
    }

    /// # Safety
    ///
    /// As for `deferred::queue`.
    unsafe fn queue(&self, work: NonNull<Work>) -> bool {
        // SAFETY: as the caller promises.
        unsafe { deferred::queue_on(&self.list, work, || self.interrupt.notify()) }
    }

    /// Takes interrupts until the item is idle; runs the list only when interrupted, so that
    /// a lost interrupt is a deadlock, which the checker reports.
    fn serve_until_idle(&self, work: &Work) {
        while !work.is_idle() {
            self.interrupt.wait();
            self.list.run_with(|| self.interrupt.notify());
        }
    }
}

/// An item and what only its protocol guards.
#[repr(C)]
struct Item {
    work: Work,
    /// How often it ran: written without atomics, so two runs that overlap, or one that
    /// overlaps the end of the item, are reported.
    runs: Cell<usize>,
    /// What those who queue wrote before.
    told: [AtomicUsize; 2],
    /// What the last run saw of it.
    seen: Cell<usize>,
    /// Queues itself again on its first run.
    again: Option<Arc<Cpu>>,
}

/// A pointer that threads share.
#[derive(Clone, Copy)]
struct Shared(NonNull<Item>);
// SAFETY: that accesses are ordered is what the tests prove.
unsafe impl Send for Shared {}

impl Shared {
    fn new(again: Option<Arc<Cpu>>) -> Self {
        let function = Function { run, release: None };
        Self(NonNull::from(Box::leak(Box::new(Item {
            work: Work::new(function),
            runs: Cell::new(0),
            told: [AtomicUsize::new(0), AtomicUsize::new(0)],
            seen: Cell::new(0),
            again,
        }))))
    }

    fn work(&self) -> NonNull<Work> {
        self.0.cast()
    }

    fn item(&self) -> &Item {
        // SAFETY: tests free it last.
        unsafe { self.0.as_ref() }
    }

    /// Frees it and says how often it ran and what the last run saw. The item must be idle.
    fn free(self) -> (usize, usize) {
        // SAFETY: made by `Box::leak`; that nobody else uses it is what the test proves.
        let item = unsafe { Box::from_raw(self.0.as_ptr()) };
        // SAFETY: as above; the model checks it.
        unsafe { (*item.runs.exclusive().get(), *item.seen.exclusive().get()) }
    }
}

unsafe fn run(work: NonNull<Work>) {
    // SAFETY: the item's first field is its work.
    let item = unsafe { work.cast::<Item>().as_ref() };
    let runs = {
        let runs = item.runs.exclusive();
        // SAFETY: runs do not overlap; the model checks it.
        unsafe {
            *runs.get_mut() += 1;
            *runs.get()
        }
    };
    let seen = item
        .told
        .iter()
        .map(|told| told.load(Ordering::Relaxed))
        .sum();
    // SAFETY: as above.
    unsafe { *item.seen.exclusive().get_mut() = seen };
    if let Some(cpu) = &item.again
        && runs == 1
    {
        // SAFETY: the item is freed when it is idle.
        assert!(unsafe { cpu.queue(work) }, "a running item is not pending");
    }
}

#[test]
fn owner_frees_after_sync() {
    loom::model(|| {
        let cpu = Cpu::new();
        let shared = Shared::new(None);
        // SAFETY: freed when idle.
        assert!(unsafe { cpu.queue(shared.work()) });
        let there = thread::spawn(move || {
            cpu.interrupt.wait();
            cpu.list.run_with(|| cpu.interrupt.notify());
        });
        // What `deferred::sync` does.
        while !shared.item().work.is_idle() {
            thread::yield_now();
        }
        assert_eq!(shared.free(), (1, 0));
        there.join().unwrap();
    });
}

#[test]
fn queued_again_from_inside() {
    let mut model = Builder::new();
    // Of one that spins beside two runs there are endlessly many orders of no interest.
    model.preemption_bound = Some(3);
    model.check(|| {
        let cpu = Cpu::new();
        let shared = Shared::new(Some(Arc::clone(&cpu)));
        // SAFETY: freed when idle.
        assert!(unsafe { cpu.queue(shared.work()) });
        let there = thread::spawn(move || {
            for _ in 0..2 {
                cpu.interrupt.wait();
                cpu.list.run_with(|| cpu.interrupt.notify());
            }
        });
        while !shared.item().work.is_idle() {
            thread::yield_now();
        }
        assert_eq!(shared.free().0, 2);
        there.join().unwrap();
    });
}

/// Two CPUs queue the same item, each on its own list, and run what they have. Runs never
/// overlap, and every `queue` is followed by a run that sees what came before it.
#[test]
fn two_cpus_queue_one_item() {
    let mut model = Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = Shared::new(None);
        let threads: Vec<_> = (0..2)
            .map(|number| {
                thread::spawn(move || {
                    let cpu = Cpu::new();
                    shared.item().told[number].store(1, Ordering::Relaxed);
                    // SAFETY: freed when idle, and after both threads.
                    let queued = unsafe { cpu.queue(shared.work()) };
                    // An item that was left to the other CPU's run is not on this list.
                    cpu.list.run_with(|| cpu.interrupt.notify());
                    cpu.list.run_with(|| cpu.interrupt.notify());
                    assert!(cpu.list.is_empty());
                    usize::from(queued)
                })
            })
            .collect();
        let queued: usize = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        assert!(shared.item().work.is_idle());
        let (runs, seen) = shared.free();
        assert_eq!(runs, queued, "one run for each time it was queued");
        assert_eq!(seen, 2, "the last run sees what came before either");
    });
}

/// An item queued from elsewhere while its CPU runs it: the interrupt of the second run is
/// not lost.
#[test]
fn queued_while_it_runs() {
    let mut model = Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let cpu = Cpu::new();
        let shared = Shared::new(None);
        shared.item().told[0].store(1, Ordering::Relaxed);
        // SAFETY: freed when idle, and after the other thread.
        assert!(unsafe { cpu.queue(shared.work()) });
        let there = Arc::clone(&cpu);
        let other = thread::spawn(move || {
            shared.item().told[1].store(1, Ordering::Relaxed);
            // SAFETY: as above.
            usize::from(unsafe { there.queue(shared.work()) })
        });
        cpu.serve_until_idle(&shared.item().work);
        let queued = 1 + other.join().unwrap();
        cpu.serve_until_idle(&shared.item().work);
        assert_eq!(shared.free(), (queued, 2));
    });
}
