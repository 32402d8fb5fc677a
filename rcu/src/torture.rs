//! Torture: everything that RCU offers, used at once and at random, for a set time.
//!
//! After the idea of Linux's `rcutorture` (`kernel/rcu/rcutorture.c`,
//! `Documentation/RCU/torture.rst`), whose names and lines of output are kept where they mean
//! the same. See `docs/rcutorture.md` for how to run it and read what it says.
//!
//! | module | what |
//! |---|---|
//! | [`element`] | what is read and replaced, and how its age shows a grace period that was too short |
//! | [`read`] | readers: in threads, interrupts; short and long, preempted, in changing sections |
//! | [`update`] | updaters that wait in every way there is |
//! | [`barrier`] | barriers, floods of callbacks |
//! | [`hotplug`] | CPUs that go and come back |
//! | [`threads`] | who does what, and whether they get on |
//! | [`tally`] | what is counted, and what can go wrong |
//!
//! All is decided by one seed and the machine's time: on a machine that counts instructions
//! a run repeats to the last number.
//!
//! A run that has found something ends soon after. What it left queued, or waiting, may be
//! there for ever then; so its memory is leaked.

mod barrier;
mod callback;
mod element;
mod hotplug;
mod random;
mod read;
mod run;
mod tally;
mod threads;
mod update;

use alloc::{boxed::Box, vec::Vec};
use core::{
    fmt,
    marker::PhantomData,
    sync::atomic::{AtomicBool, Ordering},
};

use platform::CpuId;

use self::{
    barrier::Crowd,
    element::Elements,
    random::Shared,
    tally::{Tally, Wrong},
    threads::Seat,
};
use crate::{Machine, Rcu};

pub use run::run;

/// What the torture needs of a machine besides [`Machine`].
pub trait Ground<M: Machine>: Send + Sync + 'static {
    /// Interrupts that read, until it is dropped.
    type Interrupts;

    /// The engine. Any context.
    fn rcu(&self) -> &Rcu<M>;

    /// Prints a line. Task context.
    fn line(&self, text: fmt::Arguments<'_>);

    /// Takes a CPU off. Whether it went; it is no failure if not. Task context.
    fn offline(&self, cpu: CpuId) -> bool;

    /// Lets another thread run on this CPU, as preemption does: also in a (preemptible)
    /// section, which may not sleep. Task context.
    fn preempt(&self);

    /// Brings it back. Whether it came; it must. Task context.
    fn online(&self, cpu: CpuId) -> bool;

    /// Calls `read` from interrupts (soft ones, timers, NMIs: what there is), now and then,
    /// until the result is dropped. After that it is not called any more.
    fn interrupts(&self, seed: u64, read: Box<dyn Fn() + Send + Sync>) -> Self::Interrupts;
}

/// What a run shall be.
#[derive(Debug, Clone)]
pub struct Options {
    /// What decides all that is decided at random.
    pub seed: u64,
    /// How long it lasts, by the machine's time, unless it finds something.
    pub duration_ns: u64,
    /// How often it says how far it is; 0: never.
    pub report_ns: u64,
    /// How long a grace period of the engine may last before it counts as stalled
    /// ([`Config::stall_ns`](crate::Config::stall_ns)).
    pub stall_ns: u64,
    /// Threads that read most of the time.
    pub readers: usize,
    /// Threads that read and sleep in turns.
    pub nappers: usize,
    /// Interrupts that read.
    pub interrupts: bool,
    /// Threads that replace what is read.
    pub writers: usize,
    /// Threads that only wait for grace periods.
    pub fake_writers: usize,
    /// Threads that make barriers.
    pub barriers: usize,
    /// Callbacks of a flood; 0: no floods.
    pub flood: usize,
    /// How long a flood lasts.
    pub flood_ns: u64,
    /// CPUs go and come back.
    pub hotplug: bool,
    /// A section is held for longer than the stall time, which must be reported, and is no
    /// failure then.
    pub overlong: bool,
    /// What is switched on while it runs: then it should fail.
    #[cfg(debug_assertions)]
    pub faults: crate::Faults,
}

impl Options {
    /// For a machine with so many CPUs.
    pub fn new(seed: u64, duration_ns: u64, cpus: usize) -> Self {
        Self {
            seed,
            duration_ns,
            report_ns: 15_000_000_000,
            stall_ns: 10_000_000_000,
            readers: cpus / 2 + 2,
            nappers: cpus,
            interrupts: true,
            writers: 3,
            fake_writers: 4,
            barriers: 2,
            flood: 16_384,
            flood_ns: 400_000_000,
            hotplug: cpus > 1,
            overlong: false,
            #[cfg(debug_assertions)]
            faults: crate::Faults::NONE,
        }
    }

    /// How long anything may take before it counts as never.
    fn patience_ns(&self) -> u64 {
        // One more stall where one is made on purpose.
        self.stall_ns
            .saturating_mul(2 + 2 * u64::from(self.overlong))
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed={} duration_ms={} stall_ms={} readers={} nappers={} interrupts={} writers={} \
             fakewriters={} barriers={} flood={} hotplug={} overlong={}",
            self.seed,
            self.duration_ns / 1_000_000,
            self.stall_ns / 1_000_000,
            self.readers,
            self.nappers,
            u8::from(self.interrupts),
            self.writers,
            self.fake_writers,
            self.barriers,
            self.flood,
            u8::from(self.hotplug),
            u8::from(self.overlong),
        )?;
        #[cfg(debug_assertions)]
        for (name, fault) in crate::Faults::ALL {
            if self.faults.contains(fault) {
                write!(f, " fault={name}")?;
            }
        }
        Ok(())
    }
}

/// A run.
struct Torture<M: Machine, G> {
    ground: G,
    options: Options,
    elements: Elements<M>,
    crowd: Crowd,
    seats: Vec<Seat>,
    tally: Tally,
    shared_random: Shared,
    /// All threads wait for a while, so that the engine comes to rest.
    pausing: AtomicBool,
    stopping: AtomicBool,
    /// What has not ended will not.
    given_up: AtomicBool,
    machine: PhantomData<fn(M)>,
}

impl<M: Machine, G: Ground<M>> Torture<M, G> {
    // Relaxed in these: noticed sooner or later, and nothing else is passed on.

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Something went wrong. Any context.
    fn wrong(&self, wrong: Wrong, number: u64) {
        self.tally.wrong(wrong, number, M::now_ns());
    }

    /// Prints a line of the torture's.
    fn say(&self, text: fmt::Arguments<'_>) {
        self.ground.line(format_args!("rcu-torture: {text}"));
    }
}
