//! Deferred work on real threads: each is a CPU with a list and an interrupt that it takes
//! between its other steps.

use core::ptr::NonNull;
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use platform::deferred::{self, Function, List, Work};

const CPUS: usize = 4;
const ROUNDS: usize = 20_000;

#[derive(Default)]
struct Cpu {
    list: List,
    raised: AtomicBool,
}

impl Cpu {
    /// # Safety
    ///
    /// As for `deferred::queue`.
    unsafe fn queue(&self, work: NonNull<Work>) -> bool {
        // SAFETY: as the caller promises.
        unsafe { deferred::queue_on(&self.list, work, || self.raise()) }
    }

    fn raise(&self) {
        self.raised.store(true, Ordering::Release);
    }

    /// Takes the interrupt if it was raised; never looks at the list without.
    fn take_interrupt(&self) {
        if self.raised.swap(false, Ordering::Acquire) {
            self.list.run_with(|| self.raise());
        }
    }
}

/// An item with its work in the middle.
struct Item {
    told: [AtomicUsize; CPUS],
    work: Work,
    running: AtomicBool,
    runs: AtomicUsize,
}

impl Item {
    fn new(function: Function) -> Self {
        Self {
            told: Default::default(),
            work: Work::new(function),
            running: AtomicBool::new(false),
            runs: AtomicUsize::new(0),
        }
    }

    /// The item that a work belongs to.
    fn of(work: NonNull<Work>) -> NonNull<Self> {
        // SAFETY: all works of this file lie in items, and pointers are made from these.
        unsafe { work.byte_sub(offset_of!(Self, work)) }.cast()
    }

    fn work(this: NonNull<Self>) -> NonNull<Work> {
        // SAFETY: the opposite of `of`.
        unsafe { this.byte_add(offset_of!(Self, work)) }.cast()
    }
}

unsafe fn run(work: NonNull<Work>) {
    // SAFETY: the item lives while it runs.
    let item = unsafe { Item::of(work).as_ref() };
    assert!(!item.running.swap(true, Ordering::Relaxed), "two runs");
    item.runs.fetch_add(1, Ordering::Relaxed);
    item.running.store(false, Ordering::Relaxed);
}

const PLAIN: Function = Function { run, release: None };

#[test]
fn everyone_queues_one_item() {
    let item = Item::new(PLAIN);
    struct Shared(NonNull<Item>);
    // SAFETY: an item may be queued from any CPU.
    unsafe impl Sync for Shared {}
    let shared = Shared(NonNull::from(&item));
    let (queued, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..CPUS {
            scope.spawn(|| {
                let shared = &shared;
                let cpu = Cpu::default();
                for round in 0..ROUNDS {
                    // SAFETY: the item outlives the scope, which waits until it is idle.
                    if unsafe { cpu.queue(Item::work(shared.0)) } {
                        queued.fetch_add(1, Ordering::Relaxed);
                    }
                    if round % 3 != 0 {
                        cpu.take_interrupt();
                    }
                }
                finished.fetch_add(1, Ordering::Release);
                while finished.load(Ordering::Acquire) < CPUS || !item.work.is_idle() {
                    cpu.take_interrupt();
                    thread::yield_now();
                }
                assert!(cpu.list.is_empty());
            });
        }
    });
    assert_eq!(item.runs.into_inner(), queued.into_inner());
}

/// The owner queues, waits, and frees at once, again and again; another thread is the CPU.
#[test]
fn owner_frees_after_sync() {
    let cpu = Arc::new(Cpu::default());
    let stop = Arc::new(AtomicBool::new(false));
    let there = thread::spawn({
        let (cpu, stop) = (Arc::clone(&cpu), Arc::clone(&stop));
        move || {
            while !stop.load(Ordering::Relaxed) {
                cpu.take_interrupt();
                thread::yield_now();
            }
        }
    });
    for _ in 0..ROUNDS {
        let item = NonNull::from(Box::leak(Box::new(Item::new(PLAIN))));
        // SAFETY: freed when it is idle.
        assert!(unsafe { cpu.queue(Item::work(item)) });
        // SAFETY: freed below.
        let view = unsafe { item.as_ref() };
        while !view.work.is_idle() {
            thread::yield_now();
        }
        // SAFETY: idle, so this is the last use.
        let item = unsafe { Box::from_raw(item.as_ptr()) };
        assert_eq!(item.runs.into_inner(), 1);
    }
    stop.store(true, Ordering::Relaxed);
    there.join().unwrap();
}

/// References as owners: every `queue` that was taken gives one, every run gives it back.
#[test]
fn references_are_given_back() {
    static DROPPED: AtomicUsize = AtomicUsize::new(0);

    unsafe fn release(work: NonNull<Work>) {
        // SAFETY: the reference that `queue` was given.
        let item = unsafe { Arc::from_raw(Item::of(work).as_ptr()) };
        if Arc::into_inner(item).is_some() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn queue(cpu: &Cpu, item: &Arc<Item>) {
        let reference = Arc::into_raw(Arc::clone(item)).cast_mut();
        let work = Item::work(NonNull::new(reference).unwrap());
        // SAFETY: the reference keeps it alive; `release` gives it back.
        if !unsafe { cpu.queue(work) } {
            // SAFETY: not taken, so still ours.
            drop(unsafe { Arc::from_raw(reference) });
        }
    }

    let cpu = Cpu::default();
    for _ in 0..100 {
        let item = Arc::new(Item::new(Function {
            run,
            release: Some(release),
        }));
        queue(&cpu, &item);
        queue(&cpu, &item);
        assert_eq!(Arc::strong_count(&item), 2);
        drop(item);
        cpu.take_interrupt();
    }
    assert_eq!(DROPPED.load(Ordering::Relaxed), 100);
}

#[test]
fn items_run_oldest_first_and_again_from_inside() {
    static CPU: Cpu = Cpu {
        list: List::new(),
        raised: AtomicBool::new(false),
    };
    static NEXT: AtomicUsize = AtomicUsize::new(0);

    unsafe fn note(work: NonNull<Work>) {
        // SAFETY: as in `run`.
        let item = unsafe { Item::of(work).as_ref() };
        let place = NEXT.fetch_add(1, Ordering::Relaxed);
        item.told[item.runs.fetch_add(1, Ordering::Relaxed)].store(place, Ordering::Relaxed);
        if place == 0 {
            // SAFETY: the items live to the end of the test.
            unsafe {
                assert!(CPU.queue(work));
                assert!(!CPU.queue(work), "pending already");
            }
        }
    }

    let items: [_; 3] = core::array::from_fn(|_| {
        Item::new(Function {
            run: note,
            release: None,
        })
    });
    for item in &items {
        // SAFETY: as above.
        assert!(unsafe { CPU.queue(Item::work(NonNull::from(item))) });
    }
    CPU.take_interrupt();
    // The second run of the first is another interrupt's.
    assert_eq!(NEXT.load(Ordering::Relaxed), 3);
    assert!(!items[0].work.is_idle() && items[1].work.is_idle());
    CPU.take_interrupt();
    assert!(items.iter().all(|item| item.work.is_idle()));
    let places = items.map(|item| item.told.map(AtomicUsize::into_inner));
    assert_eq!(places[0][..2], [0, 3]);
    assert_eq!((places[1][0], places[2][0]), (1, 2));
}
