//! Fault injection: allocations that fail though there is memory, so that what their callers
//! do then is tested. With the knobs of Linux's `lib/fault-inject`, and one of our own.
//!
//! A *point* is a place that could fail: a call of [`FaultAttr::should_fail`]. What happens
//! there, in this order, as on Linux:
//!
//! 1. The filter: if threads are marked (`task`), points of others, and points in
//!    interrupts, do not count at all.
//! 2. `nth`, if it is not 0, is counted down; the point that takes it to 0 fails, others
//!    pass. (On Linux each thread has its own; here one that is marked.)
//! 3. `probability` 0 or `times` 0: passes.
//! 4. `space`: while it is more than the size asked for, that is taken from it, and the
//!    point passes.
//! 5. `interval`: of the points that come here only each n-th goes on; the others pass.
//! 6. `probability`: a random number below 100 decides.
//! 7. `times`, if it is not -1, is counted down; if it was used up meanwhile, the point
//!    passes after all.
//!
//! # Protocol
//!
//! Every count is an atomic word of its own, changed by one compare-exchange or addition, so
//! a point may be in any context, NMI too: there is no lock, and nothing that a point waits
//! for but a word that another point has just changed. Each count is exact by itself: of
//! `nth` points on any CPUs exactly one fails; never more than `times` fail; no space is
//! taken twice; of `interval` points one goes on. Between the counts there is no order: a
//! point that meets a change of the knobs may see some of the new ones and not others.
//!
//! The random numbers are a pure function of the seed and of how many were drawn, so what
//! one thread does is repeatable; which of several CPUs draws which is not.
//!
//! Orderings are Relaxed throughout: no other memory is concluded about from these words.

use core::{
    fmt,
    marker::PhantomData,
    sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use platform::{Context, Mark};

use crate::{
    machine::Machine,
    owner::{self, Stack},
    report::{Kind, Report},
};

mod knobs;
mod pages;
mod slab;

pub use knobs::{KnobError, Knobs, MARKS, Marks};
pub use pages::PageFaults;
pub use slab::SlabFaults;

/// No thread, in a word that names one.
const NOBODY: u64 = u64::MAX;

/// A kind of points, and the knobs that say which of them fail. See the module.
pub struct FaultAttr<M> {
    name: &'static str,
    probability: AtomicU32,
    interval: AtomicU32,
    times: AtomicI32,
    space: AtomicU32,
    verbose: AtomicU32,
    nth: AtomicU32,
    seed: AtomicU64,
    task: [AtomicU64; MARKS],
    /// Points that `interval` has counted.
    count: AtomicU32,
    /// Random numbers drawn since the seed was set.
    drawn: AtomicU64,
    points: AtomicU64,
    failures: AtomicU64,
    machine: PhantomData<fn(M)>,
}

impl<M: Machine> FaultAttr<M> {
    /// Points called `name` in reports; none fails.
    pub const fn new(name: &'static str) -> Self {
        let off = Knobs::OFF;
        Self {
            name,
            probability: AtomicU32::new(off.probability),
            interval: AtomicU32::new(off.interval),
            times: AtomicI32::new(off.times),
            space: AtomicU32::new(off.space),
            verbose: AtomicU32::new(off.verbose),
            nth: AtomicU32::new(off.nth),
            seed: AtomicU64::new(off.seed),
            task: [const { AtomicU64::new(NOBODY) }; MARKS],
            count: AtomicU32::new(0),
            drawn: AtomicU64::new(0),
            points: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            machine: PhantomData,
        }
    }

    /// What the points are called.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether a point could fail. Where not, [`should_fail`](Self::should_fail) need not be
    /// called; it is then not counted.
    #[inline]
    pub fn is_armed(&self) -> bool {
        self.nth.load(Relaxed) != 0 || self.probability.load(Relaxed) != 0
    }

    /// Whether this point fails. `size` is what is to be allocated, in the unit that `space`
    /// is meant in. Any context, NMI too, any locks held; but a failure with `verbose` above
    /// 0 makes a report.
    pub fn should_fail(&self, size: usize) -> bool {
        self.should_fail_quietly(size) && {
            self.tell(size);
            true
        }
    }

    /// [`should_fail`](Self::should_fail), silent whatever `verbose` says: for allocations
    /// that want no report of their failure.
    pub fn should_fail_quietly(&self, size: usize) -> bool {
        if !self.counts_here() {
            return false;
        }
        self.points.fetch_add(1, Relaxed);
        let fails = match take(&self.nth, |nth| nth.checked_sub(1)) {
            Some(left) => left == 0,
            None => self.fails_by_chance(size),
        };
        if fails {
            self.failures.fetch_add(1, Relaxed);
        }
        fails
    }

    /// The filter by threads.
    fn counts_here(&self) -> bool {
        let mut marks = self.task.iter().map(|mark| mark.load(Relaxed));
        // The filter is off if there are no marks.
        let mut here = None;
        let mut any = false;
        let found = marks.any(|mark| {
            any |= mark != NOBODY;
            mark != NOBODY && mark == *here.get_or_insert_with(|| M::thread_number().into())
        });
        !any || found && M::context() == Context::Task
    }

    fn fails_by_chance(&self, size: usize) -> bool {
        let probability = self.probability.load(Relaxed);
        if probability == 0 || self.times.load(Relaxed) == 0 {
            return false;
        }
        let within_space = |space: u32| {
            let left = u64::from(space).checked_sub(size as u64)?;
            // Below the space itself, so it fits.
            (left > 0).then_some(left as u32)
        };
        if take(&self.space, within_space).is_some() {
            return false;
        }
        let interval = self.interval.load(Relaxed);
        if interval > 1 {
            let count = self.count.fetch_add(1, Relaxed).wrapping_add(1);
            if !count.is_multiple_of(interval) {
                return false;
            }
        }
        if self.draw() >= probability {
            return false;
        }
        M::mark(Mark::Step);
        self.use_up_time()
    }

    /// A random number below 100.
    fn draw(&self) -> u32 {
        let drawn = self.drawn.fetch_add(1, Relaxed);
        let random = mix(self.seed.load(Relaxed), drawn);
        // The high half of the product: each number comes as often as any other.
        ((u128::from(random) * 100) >> 64) as u32
    }

    /// Counts `times` down. `false`: it is used up.
    fn use_up_time(&self) -> bool {
        let one_less = |times| match times {
            0 => None,
            ..0 => Some(times),
            1.. => Some(times - 1),
        };
        self.times.fetch_update(Relaxed, Relaxed, one_less).is_ok()
    }

    /// Says that a point is made to fail, as loud as wished.
    #[cold]
    fn tell(&self, size: usize) {
        let verbose = self.verbose.load(Relaxed);
        if verbose == 0 {
            return;
        }
        let knobs = self.knobs();
        let stack = (verbose > 1).then(owner::capture::<M>);
        M::memory_report(&Report {
            kind: Kind::Injected,
            frame: None,
            details: format_args!(
                "{}, size {size}, interval {}, probability {}, space {}, times {}, thread {}{}",
                self.name,
                knobs.interval,
                knobs.probability,
                knobs.space,
                knobs.times,
                M::thread_number(),
                Callers(stack),
            ),
            caller: None,
            owner: None,
        });
    }

    /// The knobs as they are; what counts down shows what is left.
    pub fn knobs(&self) -> Knobs {
        Knobs {
            probability: self.probability.load(Relaxed),
            interval: self.interval.load(Relaxed),
            times: self.times.load(Relaxed),
            space: self.space.load(Relaxed),
            verbose: self.verbose.load(Relaxed),
            nth: self.nth.load(Relaxed),
            seed: self.seed.load(Relaxed),
            task: Marks(core::array::from_fn(|index| {
                u32::try_from(self.task[index].load(Relaxed)).ok()
            })),
        }
    }

    /// Sets all knobs, and begins the random numbers and the count of `interval` again.
    /// Points meanwhile may see some of them and not others.
    pub fn configure(&self, knobs: &Knobs) {
        // What makes points fail comes last, and is off meanwhile.
        self.nth.store(0, Relaxed);
        self.probability.store(0, Relaxed);
        for (mark, thread) in self.task.iter().zip(knobs.task.0) {
            mark.store(thread.map_or(NOBODY, u64::from), Relaxed);
        }
        self.interval.store(knobs.interval, Relaxed);
        self.times.store(knobs.times, Relaxed);
        self.space.store(knobs.space, Relaxed);
        self.verbose.store(knobs.verbose, Relaxed);
        self.seed.store(knobs.seed, Relaxed);
        self.count.store(0, Relaxed);
        self.drawn.store(0, Relaxed);
        self.probability.store(knobs.probability, Relaxed);
        self.nth.store(knobs.nth, Relaxed);
    }

    /// Sets the knobs as Linux's command line does: `<interval>,<probability>,<space>,<times>`.
    ///
    /// # Errors
    ///
    /// [`KnobError`]; then nothing has changed.
    pub fn parse<'a>(&self, text: &'a str) -> Result<(), KnobError<'a>> {
        Knobs::parse(text).map(|knobs| self.configure(&knobs))
    }

    /// Sets one knob by its name; the others stay, also how far they have counted down. For
    /// `seed`, the random numbers begin again.
    ///
    /// # Errors
    ///
    /// [`KnobError`]; then nothing has changed.
    pub fn set<'a>(&self, name: &'a str, value: &'a str) -> Result<(), KnobError<'a>> {
        let mut knobs = self.knobs();
        knobs.set(name, value)?;
        match name {
            "probability" => self.probability.store(knobs.probability, Relaxed),
            "interval" => self.interval.store(knobs.interval, Relaxed),
            "times" => self.times.store(knobs.times, Relaxed),
            "space" => self.space.store(knobs.space, Relaxed),
            "verbose" => self.verbose.store(knobs.verbose, Relaxed),
            "nth" => self.nth.store(knobs.nth, Relaxed),
            "seed" => {
                self.seed.store(knobs.seed, Relaxed);
                self.drawn.store(0, Relaxed);
            }
            _ => {
                for (mark, thread) in self.task.iter().zip(knobs.task.0) {
                    mark.store(thread.map_or(NOBODY, u64::from), Relaxed);
                }
            }
        }
        Ok(())
    }

    /// Makes exactly the `nth` point from now fail; 0: none.
    pub fn fail_nth(&self, nth: u32) {
        self.nth.store(nth, Relaxed);
    }

    /// Points that counted so far: those that passed the filter while something was armed.
    pub fn points(&self) -> u64 {
        self.points.load(Relaxed)
    }

    /// How many of them failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }
}

impl<M: Machine> fmt::Display for FaultAttr<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.knobs(), f)?;
        writeln!(f, "{:<16} {}", "points", self.points())?;
        writeln!(f, "{:<16} {}", "failures", self.failures())
    }
}

impl<M: Machine> fmt::Debug for FaultAttr<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultAttr")
            .field("name", &self.name)
            .field("knobs", &self.knobs())
            .field("points", &self.points())
            .field("failures", &self.failures())
            .finish_non_exhaustive()
    }
}

struct Callers(Option<Stack>);

impl fmt::Display for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(stack) = &self.0 else { return Ok(()) };
        f.write_str(", callers")?;
        let mut stack = stack.iter().take_while(|address| **address != 0);
        stack.try_for_each(|address| write!(f, " {address:#x}"))
    }
}

/// Changes a word unless `change` says `None`; gives the new value.
fn take(word: &AtomicU32, change: impl Fn(u32) -> Option<u32>) -> Option<u32> {
    let old = word.fetch_update(Relaxed, Relaxed, &change).ok()?;
    change(old)
}

/// The `n`-th random number of a seed: SplitMix64, of which any number can be had without
/// those before it.
fn mix(seed: u64, n: u64) -> u64 {
    let step = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut z = seed.wrapping_add(step);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
