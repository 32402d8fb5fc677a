//! What has been queued on a CPU, before it comes to the CPU's list.
//!
//! Queueing takes no lock: the CPU pushes onto a stack by compare-and-exchange. Whoever has
//! the lock of the CPU's list takes the stack as a whole, turns it round, and puts it behind
//! the callbacks of the list. One word says where the stack stands, and whether anybody will
//! come for what is pushed next:
//!
//! | the word | means | `push` | [`take`](Arrivals::take) | [`rest`](Arrivals::rest) |
//! |---|---|---|---|---|
//! | *idle* | empty; nobody will come | to *arrived*: who pushed has to come | nothing | nothing |
//! | *watched* | empty; somebody will come | to *arrived* | nothing | to *idle* |
//! | *arrived*: the newest callback | | to *arrived* | to *watched* | stays |
//!
//! Taking and resting are for who has the lock. *Watched* promises that somebody comes by
//! with the lock: by the time that the lock is given back something on the list waits for a
//! grace period that was asked for, whose end wakes the CPU's thread, or whoever gives it
//! back comes again. The promise ends by one step, from *watched* and not from *arrived*: a
//! callback that came before it is taken by who tried it; one that comes after it finds
//! *idle*, and who pushed it takes the lock.
//!
//! All changes are read-modify-writes of the one word, so they have one order, in which each
//! sees the one before it: nothing here needs more than that, and that what is taken was
//! filled in. In particular it does not matter which word a CPU sees first, this one or what
//! the list waits for: the CPU does not look at the latter.
//!
//! A push may be interrupted by one of the same CPU, which makes its exchange fail. That the
//! newest callback is the one that was seen, though it has been taken, run and pushed again
//! in between, does no harm: it is the newest all the same.

use core::ptr::{NonNull, null_mut, without_provenance_mut};

use platform::{
    Mark, Platform,
    sync::{AtomicPtr, Ordering},
};

use super::queue::{Function, Head, Queue};

/// The callbacks that have arrived on a CPU. See the module.
pub(crate) struct Arrivals {
    word: AtomicPtr<Head>,
}

const IDLE: *mut Head = null_mut();
/// No head's address.
const WATCHED: *mut Head = without_provenance_mut(1);

/// What [`Arrivals::take`] took.
pub(crate) struct Taken {
    /// In the order in which they were pushed.
    pub queue: Queue,
    /// Whether the first of them found *idle*.
    pub was_idle: bool,
}

/// What came of [`Arrivals::rest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// *Watched* to *idle*.
    Now,
    /// *Idle* already.
    Already,
    /// Something has arrived.
    Arrived,
}

/// The newest callback that a word tells of.
fn newest(word: *mut Head) -> Option<NonNull<Head>> {
    NonNull::new(word).filter(|head| head.as_ptr() != WATCHED)
}

impl Arrivals {
    /// None; *idle*.
    pub fn new() -> Self {
        Self {
            word: AtomicPtr::new(IDLE),
        }
    }

    /// Adds a callback. `true`: nobody will come for it but the caller. On the own CPU, with
    /// preemption off; any context.
    ///
    /// # Safety
    ///
    /// The head is valid, not queued, and the engine's until `run` is called with it; `run`
    /// may be called by any thread.
    #[inline]
    #[must_use = "the list's lock is to be taken"]
    pub unsafe fn push<P: Platform>(&self, head: NonNull<Head>, run: Function) -> bool {
        // Relaxed: the exchange checks what was read.
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            // SAFETY: the head is the engine's from now on, and nobody finds it yet.
            unsafe { Head::fill(head, NonNull::new(word), run) };
            P::mark(Mark::Step);
            // Release pairs with the Acquire in `take`: what was filled in, and what the caller
            // did before, is seen by who takes it. By who takes it with newer ones, too: these
            // exchanges are one release sequence.
            let pushed = self.word.compare_exchange(
                word,
                head.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            );
            match pushed {
                Ok(_) => return word == IDLE,
                Err(now) => word = now,
            }
        }
    }

    /// Takes all of them, if there are any; then *watched*. Under the lock of the list.
    pub fn take(&self) -> Option<Taken> {
        // Relaxed: one that is not seen here has not gone by: see the module.
        newest(self.word.load(Ordering::Relaxed))?;
        // Acquire pairs with the Release in `push`.
        let mut word = self.word.swap(WATCHED, Ordering::Acquire);
        let mut queue = Queue::new();
        while let Some(head) = newest(word) {
            // SAFETY: pushed, so valid, and taken by this alone.
            let older = unsafe { queue.push_front(head) };
            word = older.map_or(IDLE, NonNull::as_ptr);
        }
        Some(Taken {
            queue,
            was_idle: word == IDLE,
        })
    }

    /// Nobody will come for what is pushed from here on: to *idle*, if nothing has arrived.
    /// Under the lock of the list.
    #[must_use = "what has arrived is to be taken"]
    pub fn rest(&self) -> Rest {
        // Release pairs with the Acquire in `is_idle`: what was said about those that were
        // taken before is seen by who sees that there are no others.
        let rested = self.word.compare_exchange(
            WATCHED,
            IDLE,
            Ordering::Release,
            // Relaxed: `take` acquires.
            Ordering::Relaxed,
        );
        match rested {
            Ok(_) => Rest::Now,
            Err(IDLE) => Rest::Already,
            Err(_) => Rest::Arrived,
        }
    }

    /// Whether the word is *idle*: then callbacks that the caller knows of have been taken, and
    /// what who took them said before it came to rest is seen. Any context.
    #[inline]
    pub fn is_idle(&self) -> bool {
        // Acquire pairs with the Release in `rest`.
        self.word.load(Ordering::Acquire) == IDLE
    }

    /// Whether there are any, a moment ago; for reports. Any context.
    pub fn any(&self) -> bool {
        // Relaxed: a look.
        newest(self.word.load(Ordering::Relaxed)).is_some()
    }
}
