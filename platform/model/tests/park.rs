//! The park word under the model checker, by a simulated CPU, and sleeping and waking in the
//! model, which is built on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Plain, Ordering::SeqCst};

use loom::{sync::Notify, thread};
use platform::{
    Platform,
    model::{self, Model, Setup},
    park::ParkWord,
    sync::{AtomicU32, Cell, Ordering, fence},
};

/// A thread, as its CPU and its wakers see it.
struct Sleeper {
    word: ParkWord,
    /// Written by the CPU before `left`, used by whoever makes the thread ready: an access
    /// that collides if `Parked` does not publish it, or if two make it ready.
    registers: Cell<u32>,
    /// How often it was made ready.
    made_ready: AtomicU32,
    /// Runs it again.
    resume: Notify,
    /// What wakers counted before they woke it; only the park word orders it.
    told: AtomicU32,
}

// SAFETY: that accesses are ordered is what the test proves.
unsafe impl Sync for Sleeper {}
// SAFETY: as above.
unsafe impl Send for Sleeper {}

impl Sleeper {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            word: ParkWord::new(),
            registers: Cell::new(0),
            made_ready: AtomicU32::new(0),
            resume: Notify::new(),
            told: AtomicU32::new(0),
        })
    }

    /// A run queue takes the thread, whose registers must be there.
    fn make_ready(&self) {
        // SAFETY: this is the one that makes it ready.
        unsafe { *self.registers.exclusive().get_mut() += 1 };
        // Release: a run queue hands on what its pusher saw.
        self.made_ready.fetch_add(1, Ordering::Release);
        self.resume.notify();
    }

    fn wake(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
        if self.word.wake() {
            self.make_ready();
        }
    }

    /// One park, with all that the CPU does around it. Whether it switched away.
    fn park(&self, round: u32) -> bool {
        if !self.word.begin() {
            return false;
        }
        // The switch: registers are saved, and the CPU goes on with something else.
        // SAFETY: nobody makes the thread ready before it has left.
        unsafe { *self.registers.exclusive().get_mut() = 10 * round };
        if self.word.left() {
            self.make_ready();
        }
        // It runs again once it was made ready.
        while self.made_ready.load(Ordering::Acquire) < round {
            self.resume.wait();
        }
        // SAFETY: it was made ready, so nobody else is at it.
        let registers = unsafe { *self.registers.shared().get() };
        assert_eq!(registers, 10 * round + 1, "made ready once");
        true
    }

    /// How many wakers the thread has heard of.
    fn told(&self) -> u32 {
        self.told.load(Ordering::Relaxed)
    }
}

/// Two wakers and a thread that parks until it has heard of both: every wake-up ends a park,
/// and what came before it is seen after that. A lost one is a deadlock.
#[test]
fn no_wake_up_is_lost_or_done_twice() {
    static SWITCHED: [Plain; 3] = [const { Plain::new(0) }; 3];
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let sleeper = Sleeper::new();
        let wakers: [_; 2] = core::array::from_fn(|_| {
            let sleeper = Arc::clone(&sleeper);
            thread::spawn(move || sleeper.wake())
        });
        let mut switched = 0;
        while sleeper.told() < 2 {
            if sleeper.park(switched + 1) {
                switched += 1;
            }
        }
        for waker in wakers {
            waker.join().unwrap();
        }
        assert!(!sleeper.word.is_parked());
        assert_eq!(sleeper.made_ready.load(Ordering::Relaxed), switched);
        SWITCHED[switched as usize].fetch_add(1, SeqCst);
    });
    assert!(SWITCHED.iter().all(|times| times.load(SeqCst) > 0));
}

/// What the waker wrote before is seen after the park, by the word's order alone.
#[test]
fn a_park_sees_what_came_before_its_wake_up() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(|| {
        let sleeper = Sleeper::new();
        let waker = Arc::clone(&sleeper);
        let waker = thread::spawn(move || waker.wake());
        sleeper.park(1);
        assert_eq!(sleeper.told(), 1);
        waker.join().unwrap();
    });
}

/// The same by the model's machine: a thread waits for a condition, as every sleeping
/// primitive does.
#[test]
fn the_model_parks_and_unparks() {
    Setup::new(2).check(|| {
        let flag = Arc::new(AtomicU32::new(0));
        let (thread, there) = (Model::current_thread(), Arc::clone(&flag));
        let waker = model::cpu(1, move || {
            there.store(1, Ordering::Relaxed);
            Model::unpark(&thread);
        });
        while flag.load(Ordering::Relaxed) == 0 {
            Model::park();
        }
        waker.join();
    });
}

/// A thread that does not say that it waits before it looks is not woken: the checker finds
/// the deadlock.
#[test]
#[should_panic(expected = "deadlock")]
fn a_lost_wake_up_is_noticed() {
    Setup::new(2).check(|| {
        let (flag, waiting) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (flag1, waiting1) = (Arc::clone(&flag), Arc::clone(&waiting));
        let thread = Model::current_thread();
        let waker = model::cpu(1, move || {
            flag1.store(1, Ordering::Relaxed);
            fence(SeqCst);
            if waiting1.load(Ordering::Relaxed) == 1 {
                Model::unpark(&thread);
            }
        });
        if flag.load(Ordering::Relaxed) == 0 {
            // Too late: it should have come before the look.
            waiting.store(1, Ordering::Relaxed);
            Model::park();
        }
        waker.join();
    });
}

/// Time-outs come before and after wake-ups, and a wake-up that came late is not lost: the
/// next park has it.
#[test]
fn time_outs_race_with_wake_ups() {
    static EARLY: Plain = Plain::new(0);
    static LATE: Plain = Plain::new(0);
    Setup::new(2).check(|| {
        let flag = Arc::new(AtomicU32::new(0));
        let (thread, there) = (Model::current_thread(), Arc::clone(&flag));
        let waker = model::cpu(1, move || {
            there.store(1, Ordering::Relaxed);
            Model::unpark(&thread);
        });
        Model::park_until(1000);
        if Model::now_ns() >= 1000 {
            LATE.fetch_add(1, SeqCst);
            Model::park();
        } else {
            EARLY.fetch_add(1, SeqCst);
        }
        assert_eq!(flag.load(Ordering::Relaxed), 1);
        waker.join();
    });
    assert!(EARLY.load(SeqCst) > 0 && LATE.load(SeqCst) > 0);
}
