//! Ways to wait for a grace period, each against a section that must hold it up.

use alloc::{boxed::Box, sync::Arc};
use core::{
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use platform::CpuId;
use rcu::Head;

use crate::{
    kunit::{self, Outcome, kassert, kassert_ok, kskip},
    rcu::{rcu, read},
    sched::{self, Builder},
    smp, time,
};

/// A way to wait.
type Way = fn();

/// All ways, by name. Each comes back after a grace period that began after the call.
const WAYS: [(&str, Way); 8] = [
    ("synchronize", || rcu().synchronize()),
    ("expedited", || rcu().synchronize_expedited()),
    ("call", call),
    ("barrier", barrier),
    ("poll", poll),
    ("poll expedited", poll_expedited),
    ("poll full", poll_full),
    ("cond", cond),
];

/// A callback that notes that it ran.
#[repr(C)]
struct Noting {
    // First: the callback finds the rest by it.
    head: Head,
    ran: AtomicU64,
}

unsafe fn note(head: NonNull<Head>) {
    // SAFETY: only heads of a `Noting` are queued with this, and they are first in it.
    let this = unsafe { head.cast::<Noting>().as_ref() };
    // Release pairs with the Acquire in `finish`.
    this.ran.fetch_add(1, Ordering::Release);
}

/// Queues a callback, waits by `wait`, and then until it has run, before its memory goes.
fn queue(wait: impl FnOnce(&AtomicU64)) {
    let noting = Box::leak(Box::new(Noting {
        head: Head::new(),
        ran: AtomicU64::new(0),
    }));
    let noting = NonNull::from(noting);
    // SAFETY: freed below, after the callback has run.
    unsafe { rcu().call(noting.cast(), note) };
    // SAFETY: the callback only reads it, but for the atomic.
    let ran = unsafe { &(*noting.as_ptr()).ran };
    wait(ran);
    while ran.load(Ordering::Acquire) == 0 {
        sched::sleep_ns(100_000);
    }
    // SAFETY: leaked above; the callback is over.
    drop(unsafe { Box::from_raw(noting.as_ptr()) });
}

fn call() {
    queue(|_| {});
}

fn barrier() {
    queue(|ran| {
        rcu().barrier();
        assert_eq!(ran.load(Ordering::Acquire), 1, "a barrier came back early");
    });
}

fn poll() {
    let cookie = rcu().start_poll();
    while !rcu().poll(cookie) {
        sched::sleep_ns(100_000);
    }
}

fn poll_expedited() {
    let cookie = rcu().start_poll_expedited();
    while !rcu().poll_expedited(cookie) {
        sched::sleep_ns(100_000);
    }
}

fn poll_full() {
    let cookie = rcu().start_poll_full();
    while !rcu().poll_full(cookie) {
        sched::sleep_ns(100_000);
    }
}

fn cond() {
    let cookie = rcu().snap();
    rcu().cond_synchronize(cookie);
}

/// What a section and who waits for it tell each other.
#[derive(Default)]
pub struct Watch {
    inside: AtomicBool,
    asked: AtomicBool,
    returned: AtomicBool,
    early: AtomicBool,
}

impl Watch {
    /// Runs in a section of any kind: waits for the waiter to begin, gives it time to be
    /// wrong, and looks whether it was.
    pub fn stay(&self) {
        // Where CPUs are never stopped by their host, much less will do.
        let ns = if time::is_exact() {
            1_500_000
        } else {
            5_000_000
        };
        // SeqCst in all: the test orders nothing by itself that RCU should.
        self.inside.store(true, Ordering::SeqCst);
        while !self.asked.load(Ordering::SeqCst) {
            core::hint::spin_loop();
        }
        let end = time::now_ns() + ns;
        while time::now_ns() < end {
            core::hint::spin_loop();
        }
        if self.returned.load(Ordering::SeqCst) {
            self.early.store(true, Ordering::SeqCst);
        }
    }

    /// [`stay`](Self::stay) in a read-side section.
    pub fn read(&self) {
        let _guard = read();
        self.stay();
    }
}

/// A place in which a section can be: calls [`Watch::read`] or [`Watch::stay`] there, once.
pub type Hold = fn(&Watch);

/// Each way to wait is held up by the section that `hold` makes in a thread on `cpu`, and
/// comes back after it.
pub fn held_up(cpu: CpuId, hold: Hold) -> Outcome {
    let Some(elsewhere) = smp::online().without(cpu).first() else {
        kskip!("nobody is there to wait meanwhile");
    };
    // Briefly: one half of the ways with CPUs of even numbers, the other with the others.
    let all = WAYS.len() as u64;
    let is_long = kunit::rounds(all, 0) == all;
    for (number, (name, way)) in WAYS.into_iter().enumerate() {
        if is_long || number % 2 == cpu.index() % 2 {
            one(name, way, elsewhere, cpu, hold)?;
        }
    }
    Ok(())
}

fn one(name: &str, way: Way, from: CpuId, cpu: CpuId, hold: Hold) -> Outcome {
    let watch = Arc::new(Watch::default());
    // First: the section may keep this thread from running.
    let waiter = {
        let watch = Arc::clone(&watch);
        Builder::new()
            .on(from)
            .spawn(format_args!("waiter"), move || {
                while !watch.inside.load(Ordering::SeqCst) {
                    sched::yield_now();
                }
                watch.asked.store(true, Ordering::SeqCst);
                way();
                watch.returned.store(true, Ordering::SeqCst);
            })
    };
    let waiter = kassert_ok!(waiter);
    let reader = {
        let watch = Arc::clone(&watch);
        Builder::new()
            .on(cpu)
            .spawn(format_args!("reader"), move || hold(&watch))
    };
    let reader = kassert_ok!(reader);
    reader.join();
    waiter.join();
    let early = watch.early.load(Ordering::SeqCst);
    kassert!(!early, "{name} came back before the section ended");
    Ok(())
}
