//! Getting memory back when there is none: shrinkers, and the step of an allocation that
//! calls them.
//!
//! Whoever keeps memory that it could do without registers a [`Shrink`]. An allocation that
//! found no memory and may sleep gives back what lies in CPUs' page lists, calls the
//! shrinkers, and tries again; as long as they free something, and at most [`ROUNDS`] times.
//! So it ends: with memory, or with a report.
//!
//! One thread reclaims at a time; others wait for it to end, a bounded time, and try again.
//! A shrinker that allocates does not reclaim. Shrinkers run with whatever locks the
//! allocating thread holds: those that sleep they may only *try*.

use arrayvec::ArrayVec;
use platform::{
    lock_class,
    sync::{AtomicU32, AtomicU64, Ordering},
    wait::Mutex,
};

use crate::{alloc::Request, frame::Pfn, gfp::Gfp, machine::Machine, mm::Mm};

lock_class! {
    /// The list of shrinkers; held while they run.
    pub struct ShrinkersLock = ("shrinkers", 3);
}

/// Most shrinkers.
pub const SHRINKERS: usize = 32;
/// Most times that one allocation reclaims, as Linux's `MAX_RECLAIM_RETRIES`.
const ROUNDS: usize = 16;
/// How long an allocation waits for another thread's reclaim at a time, and how often.
const WAIT_NS: u64 = 1_000_000;
const WAITS: usize = 1000;
/// What a round asks of the shrinkers, in frames, beside what the allocation needs.
const BATCH: u64 = 128;

/// What is asked of a shrinker.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Frames that would help.
    pub frames: u64,
    /// What the allocation may do.
    pub gfp: Gfp,
}

/// One who keeps memory that it could do without.
pub trait Shrink: Sync {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Frames that it could free, about.
    fn count(&self) -> u64;

    /// Frees some, at most what is wanted, or somewhat more where it frees in batches. How
    /// many frames. Runs in a thread that may sleep and that may hold any sleeping lock.
    fn scan(&self, wanted: Wanted) -> u64;
}

/// No room for another shrinker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyShrinkers;

/// The shrinkers.
pub(crate) struct Shrinkers<M: Machine> {
    list: Mutex<ArrayVec<&'static dyn Shrink, SHRINKERS>, M, ShrinkersLock>,
    /// The thread that reclaims, plus 1; 0: none. Written by the holder of `list`.
    running: AtomicU32,
    rounds: AtomicU64,
    freed: AtomicU64,
}

impl<M: Machine> Shrinkers<M> {
    pub(crate) fn new() -> Self {
        Self {
            list: Mutex::new(ArrayVec::new_const()),
            running: AtomicU32::new(0),
            rounds: AtomicU64::new(0),
            freed: AtomicU64::new(0),
        }
    }
}

impl<M: Machine> Mm<M> {
    /// Has `shrinker` called when memory is short. May sleep.
    ///
    /// # Errors
    ///
    /// [`TooManyShrinkers`].
    pub fn register_shrinker(&self, shrinker: &'static dyn Shrink) -> Result<(), TooManyShrinkers> {
        let mut list = self.shrinkers.list.lock();
        list.try_push(shrinker).map_err(|_| TooManyShrinkers)
    }

    /// Ends that; when this returns the shrinker does not run. May sleep. Whether it was
    /// there.
    pub fn unregister_shrinker(&self, shrinker: &'static dyn Shrink) -> bool {
        let mut list = self.shrinkers.list.lock();
        let place = list
            .iter()
            .position(|known| core::ptr::addr_eq(*known, shrinker));
        place.map(|place| list.remove(place)).is_some()
    }

    /// Rounds of reclaim that were made, and frames that shrinkers said they freed.
    pub fn reclaimed(&self) -> (u64, u64) {
        // Relaxed: statistics.
        let rounds = self.shrinkers.rounds.load(Ordering::Relaxed);
        (rounds, self.shrinkers.freed.load(Ordering::Relaxed))
    }

    /// Reclaims and tries again, until `again` finds something or it is of no use.
    pub(crate) fn reclaim_for(
        &self,
        request: &Request,
        mut again: impl FnMut() -> Option<Pfn>,
    ) -> Option<Pfn> {
        let wanted = Wanted {
            frames: (1 << request.order) + BATCH,
            gfp: request.gfp,
        };
        for _ in 0..ROUNDS {
            let freed = self.reclaim(wanted)?;
            if let Some(pfn) = again() {
                return Some(pfn);
            }
            if freed == 0 {
                return None;
            }
        }
        None
    }

    /// One round: gives back what lies in CPUs' lists and calls the shrinkers. Frames that
    /// were freed (when another thread reclaimed meanwhile: 1); `None`: this is a shrinker's
    /// own allocation, or the other thread does not end. May sleep.
    pub fn reclaim(&self, wanted: Wanted) -> Option<u64> {
        let me = M::thread_number().wrapping_add(1);
        for _ in 0..WAITS {
            if let Some(list) = self.shrinkers.list.try_lock() {
                // Relaxed: only this thread concludes something from its own number.
                self.shrinkers.running.store(me, Ordering::Relaxed);
                let before = self.free_glance();
                self.drain_all();
                let mut freed = self.free_glance().saturating_sub(before);
                for shrinker in list.iter() {
                    if freed >= wanted.frames {
                        break;
                    }
                    freed += shrinker.scan(wanted);
                }
                self.shrinkers.running.store(0, Ordering::Relaxed);
                self.shrinkers.rounds.fetch_add(1, Ordering::Relaxed);
                self.shrinkers.freed.fetch_add(freed, Ordering::Relaxed);
                return Some(freed);
            }
            let running = self.shrinkers.running.load(Ordering::Relaxed);
            if running == me {
                return None;
            }
            M::park_until(M::now_ns() + WAIT_NS);
            if self.shrinkers.running.load(Ordering::Relaxed) != running {
                return Some(1);
            }
        }
        None
    }

    /// Frames in free blocks; a glance.
    fn free_glance(&self) -> u64 {
        self.zones().map(|zone| zone.free()).sum()
    }
}
