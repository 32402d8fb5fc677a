//! Callbacks by the many: barriers, which must not return before all have run, and floods,
//! which must not keep the engine from running them.

use alloc::vec::Vec;
use core::{
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering},
};

use platform::{CpuMask, MAX_CPUS};

use super::{Ground, Torture, callback::Callback, random::Random, tally::Wrong, threads::Seat};
use crate::{Head, Machine};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

/// Callbacks of a thread that makes barriers: one of each CPU, and one of its own.
const OF_A_BARRIER: usize = MAX_CPUS + 1;

/// A callback that says whether it has run.
#[derive(Debug)]
#[repr(C)]
struct Told {
    /// First, so that its address is the whole's.
    callback: Callback,
    /// Queued, and has not run.
    pending: AtomicBool,
}

/// All of them, for barriers and floods.
#[derive(Debug)]
pub struct Crowd {
    barriers: Vec<Told>,
    flood: Vec<Told>,
    /// Queues itself again while `goes_on`.
    chain: Told,
    goes_on: AtomicBool,
}

impl Crowd {
    /// For so many threads that make barriers, and so many callbacks of a flood. `None`: no
    /// memory for it.
    pub fn try_new(barriers: usize, flood: usize) -> Option<Self> {
        let told = || Told {
            callback: Callback::new(),
            pending: AtomicBool::new(false),
        };
        let some = |count: usize| {
            let mut all = Vec::new();
            all.try_reserve_exact(count).ok()?;
            all.resize_with(count, told);
            Some(all)
        };
        Some(Self {
            barriers: some(barriers * OF_A_BARRIER)?,
            flood: some(flood)?,
            chain: told(),
            goes_on: AtomicBool::new(false),
        })
    }
}

/// # Safety
///
/// The head is that of a [`Told`], queued by [`Torture::queue`], and this is its turn.
unsafe fn tell<M: Machine, G: Ground<M>>(head: NonNull<Head>) {
    // SAFETY: as the caller promises.
    let (torture, callback) = unsafe { Torture::<M, G>::invoked(head) };
    // SAFETY: the callback is a `Told`'s first field, and the whole is the torture's.
    let told = unsafe { head.cast::<Told>().as_ref() };
    debug_assert!(core::ptr::eq(callback, &told.callback));
    torture.ran();
    // Release: whoever sees it may queue it again.
    told.pending.store(false, Ordering::Release);
}

/// # Safety
///
/// As for [`tell`].
unsafe fn tell_or_go_on<M: Machine, G: Ground<M>>(head: NonNull<Head>) {
    // SAFETY: as the caller promises.
    let (torture, callback) = unsafe { Torture::<M, G>::invoked(head) };
    // Relaxed: it is noticed sooner or later.
    if torture.crowd.goes_on.load(Ordering::Relaxed) {
        torture.tally.flooded.fetch_add(1, Ordering::Relaxed);
        // SAFETY: it has run, and nobody else queues it while it is pending.
        unsafe { torture.queue(callback, tell_or_go_on::<M, G>) };
        torture.ran();
    } else {
        // SAFETY: as the caller promises.
        unsafe { tell::<M, G>(head) };
    }
}

impl<M: Machine, G: Ground<M>> Torture<M, G> {
    /// Queues a callback that is not pending; any context but NMI.
    fn queue_told(&self, told: &Told, run: crate::Function) {
        // Acquire pairs with the Release in `tell`: it is the engine's no more.
        let was = told.pending.swap(true, Ordering::Acquire);
        debug_assert!(!was, "queued twice");
        // SAFETY: it lies in `crowd`, and was not pending.
        unsafe { self.queue(&told.callback, run) };
    }

    /// Waits until none of these is pending. `false`: there is no end to it, which is noted.
    fn all_told<'a>(&self, mut told: impl Iterator<Item = &'a Told>) -> bool {
        let patience = M::now_ns() + self.options.patience_ns();
        told.all(|told| {
            while told.pending.load(Ordering::Acquire) {
                if M::now_ns() > patience || self.is_given_up() {
                    self.wrong(Wrong::NotRun, 0);
                    return false;
                }
                self.nap(MS);
            }
            true
        })
    }

    /// Thread number `number` of those that make barriers.
    pub(super) fn barriers(&self, seat: &Seat, random: &mut Random, number: usize) {
        let own = &self.crowd.barriers[number * OF_A_BARRIER..][..OF_A_BARRIER];
        while self.goes_on(seat) {
            self.pause(random.below(20 * MS));
            let cpus = M::online_cpus();
            let cpus: CpuMask = cpus.iter().filter(|_| random.one_in(2)).collect();
            M::call(cpus, &|| {
                self.queue_told(&own[M::current_cpu().index()], tell::<M, G>);
            });
            if random.one_in(2) {
                self.queue_told(&own[MAX_CPUS], tell::<M, G>);
            }
            // Between a callback and the barrier its CPU may go away.
            self.pause(random.below(2) * random.below(2 * MS));
            self.ground.rcu().barrier();
            self.tally.barriers.fetch_add(1, Ordering::Relaxed);
            let pending = own
                .iter()
                .filter(|told| told.pending.load(Ordering::Acquire));
            let pending = pending.count() as u64;
            if pending > 0 {
                self.wrong(Wrong::Barrier, pending);
                if !self.all_told(own.iter()) {
                    return;
                }
            }
        }
    }

    /// The thread that floods: queues callbacks as fast as it can, each again as soon as it
    /// has run, and one that queues itself. All must have run in the end.
    pub(super) fn floods(&self, seat: &Seat, random: &mut Random) {
        let Crowd {
            flood,
            chain,
            goes_on,
            ..
        } = &self.crowd;
        while self.goes_on(seat) {
            self.pause(random.between(self.options.flood_ns, 5 * self.options.flood_ns));
            if self.is_stopping() {
                break;
            }
            goes_on.store(true, Ordering::Relaxed);
            self.queue_told(chain, tell_or_go_on::<M, G>);
            let end = M::now_ns() + self.options.flood_ns;
            let mut queued = 0;
            while M::now_ns() < end && !self.is_stopping() {
                let before = queued;
                for told in flood {
                    if !told.pending.load(Ordering::Acquire) {
                        self.queue_told(told, tell::<M, G>);
                        queued += 1;
                    }
                }
                if queued == before {
                    self.nap(100 * US);
                }
            }
            goes_on.store(false, Ordering::Relaxed);
            self.tally.flooded.fetch_add(queued, Ordering::Relaxed);
            self.tally.floods.fetch_add(1, Ordering::Relaxed);
            if !self.all_told(flood.iter().chain([chain])) {
                return;
            }
        }
    }
}
