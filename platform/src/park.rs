//! The word by which a thread sleeps and is woken. No wake-up is lost, none is done twice,
//! and a thread is put on a run queue only after its registers are saved.
//!
//! | state | the thread is | who leaves it |
//! |---|---|---|
//! | `Running` | running, or ready to | itself, to `Parking`; a waker, to `Notified` |
//! | `Notified` | the same; its next park returns at once | itself, to `Running` |
//! | `Parking` | still on its CPU, about to leave it | the CPU, to `Parked`; a waker, to `Woken` |
//! | `Woken` | the same, but to be made ready | the CPU, to `Running`, and makes it ready |
//! | `Parked` | off all CPUs and queues | the waker that makes it `Running`, and ready |
//!
//! So exactly one party makes a parked thread ready: the waker that saw `Parked`, or the
//! CPU that saw `Woken` once it had left the thread.
//!
//! Ordering: a wake-up is a release, and the return from a park an acquire, of this word;
//! what the waker wrote before is seen after the park. `Parking` to `Parked` releases the
//! saved registers to the waker's acquire.
//!
//! The states must have an order by themselves (one word, read-modify-write on both sides),
//! but the *condition* that a thread waits for lies elsewhere: the thread looks at it after
//! it said that it waits (a wait queue's lock, or `fence(SeqCst)` on both sides), and a
//! token (`Notified`) covers the time until it parks.

use crate::sync::{AtomicU32, Ordering, const_unless_model};

const RUNNING: u32 = 0;
const NOTIFIED: u32 = 1;
const PARKING: u32 = 2;
const WOKEN: u32 = 3;
const PARKED: u32 = 4;

/// The word. See the module.
#[derive(Debug)]
pub struct ParkWord(AtomicU32);

impl ParkWord {
    const_unless_model! {
        /// That of a running thread.
        pub fn new() -> Self {
            Self(AtomicU32::new(RUNNING))
        }
    }

    /// The thread, on its CPU with preemption off, wants to sleep. `false`: it was woken
    /// already and goes on. `true`: the CPU must switch away from it and then call
    /// [`left`](Self::left).
    #[inline]
    pub fn begin(&self) -> bool {
        // Acquire on failure: what the waker wrote is seen. Nothing to release: the
        // registers are not saved yet.
        match self
            .0
            .compare_exchange(RUNNING, PARKING, Ordering::Relaxed, Ordering::Acquire)
        {
            Ok(_) => true,
            Err(state) => {
                debug_assert_eq!(state, NOTIFIED, "only the thread itself leaves its CPU");
                // Nobody else leaves NOTIFIED, so a store will do; a wake-up that comes
                // before it finds NOTIFIED and its effects must be seen: hence a swap.
                self.0.swap(RUNNING, Ordering::Acquire);
                false
            }
        }
    }

    /// The CPU has switched away from the thread. `true`: it was woken meanwhile, and the
    /// caller must make it ready.
    #[inline]
    #[must_use = "a thread that was woken must be made ready"]
    pub fn left(&self) -> bool {
        // Release: whoever finds PARKED sees the saved registers.
        match self
            .0
            .compare_exchange(PARKING, PARKED, Ordering::Release, Ordering::Acquire)
        {
            Ok(_) => false,
            Err(state) => {
                debug_assert_eq!(state, WOKEN, "a thread that leaves its CPU is parking");
                // Acquire: as in `begin`; the run queue's lock hands it on to the thread.
                self.0.swap(RUNNING, Ordering::Acquire);
                true
            }
        }
    }

    /// Wakes the thread. `true`: it was parked, and the caller must make it ready.
    #[inline]
    #[must_use = "a thread that was parked must be made ready"]
    pub fn wake(&self) -> bool {
        // Relaxed: a guess, which the exchange corrects.
        let mut state = self.0.load(Ordering::Relaxed);
        loop {
            let next = match state {
                RUNNING | NOTIFIED => NOTIFIED,
                PARKING | WOKEN => WOKEN,
                _ => RUNNING,
            };
            // Release: the sleeper sees what came before. Acquire: the registers that
            // `left` saved. Also where nothing changes, for the release.
            match self
                .0
                .compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return state == PARKED,
                Err(now) => state = now,
            }
        }
    }

    /// Whether the thread is off all CPUs, waiting. For those who watch.
    pub fn is_parked(&self) -> bool {
        self.0.load(Ordering::Relaxed) == PARKED
    }
}

impl Default for ParkWord {
    fn default() -> Self {
        Self::new()
    }
}
