//! The threads of a run: what each does, and whether it gets on.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use platform::{Priority, Spawn, SpawnError};

use super::{Ground, Options, Torture, random::Random, tally::Wrong};
use crate::Machine;

const MS: u64 = 1_000_000;
/// The longest sleep without a look at whether the run goes on.
const LOOK_NS: u64 = 20 * MS;

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads without a pause, most of the time.
    Reader,
    /// The same, with the lowest priority: where sections can be preempted it often is.
    LowReader,
    /// Sleeps between any two sections.
    Napper,
    /// Interrupts CPUs that then read.
    Interrupter,
    /// Holds sections for long.
    Holder,
    /// Holds one section for too long, on purpose.
    Overlong,
    /// Replaces the current element.
    Writer,
    /// Makes grace periods go on.
    FakeWriter,
    /// Makes barriers, with this number.
    Barriers(usize),
    /// Floods a CPU with callbacks.
    Floods,
    /// Takes CPUs off and brings them back.
    Hotplug,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Reader => "rcut-reader",
            Self::LowReader => "rcut-low",
            Self::Napper => "rcut-napper",
            Self::Interrupter => "rcut-irq",
            Self::Holder => "rcut-holder",
            Self::Overlong => "rcut-overlong",
            Self::Writer => "rcut-writer",
            Self::FakeWriter => "rcut-fake",
            Self::Barriers(_) => "rcut-barrier",
            Self::Floods => "rcut-flood",
            Self::Hotplug => "rcut-hotplug",
        }
    }

    /// All those that `options` ask for.
    pub fn all(options: &Options) -> Vec<Self> {
        let mut roles = Vec::new();
        let mut add = |role, count: usize| roles.extend(core::iter::repeat_n(role, count));
        add(Self::Reader, options.readers.div_ceil(2));
        add(Self::LowReader, options.readers / 2);
        add(Self::Napper, options.nappers);
        add(Self::Interrupter, usize::from(options.interrupts));
        add(Self::Holder, 1);
        add(Self::Overlong, usize::from(options.overlong));
        add(Self::Writer, options.writers);
        add(Self::FakeWriter, options.fake_writers);
        for number in 0..options.barriers {
            add(Self::Barriers(number), 1);
        }
        add(Self::Floods, usize::from(options.flood > 0));
        add(Self::Hotplug, usize::from(options.hotplug));
        roles
    }
}

/// Where it is seen whether a thread gets on.
#[derive(Debug)]
pub struct Seat {
    role: Role,
    rounds: AtomicU64,
    ended: AtomicBool,
}

/// How far threads were when they were last looked at.
pub struct Watch {
    seen: Vec<(u64, u64)>,
}

/// What a new thread is given.
struct Job<M: Machine, G: Ground<M>> {
    torture: Arc<Torture<M, G>>,
    seat: usize,
}

fn begin<M: Machine, G: Ground<M>>(argument: usize) {
    let job = core::ptr::with_exposed_provenance_mut::<Job<M, G>>(argument);
    // SAFETY: `spawn` made a box of it, for this thread alone.
    let Job { torture, seat } = *unsafe { Box::from_raw(job) };
    torture.work(seat);
    // Release pairs with the Acquire in `have_ended`.
    torture.seats[seat].ended.store(true, Ordering::Release);
}

impl Seat {
    pub fn new(role: Role) -> Self {
        Self {
            role,
            rounds: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }
}

impl<M: Machine, G: Ground<M>> Torture<M, G> {
    /// Starts the thread of a seat.
    pub(super) fn spawn(self: &Arc<Self>, seat: usize) -> Result<(), SpawnError> {
        let job = Box::into_raw(Box::new(Job {
            torture: Arc::clone(self),
            seat,
        }));
        let role = self.seats[seat].role;
        let spawn = Spawn {
            name: role.name(),
            cpu: None,
            priority: match role {
                Role::LowReader => Priority::Low,
                _ => Priority::Normal,
            },
        };
        M::spawn(spawn, begin::<M, G>, job.expose_provenance())
            .map(drop)
            .inspect_err(|_| {
                self.seats[seat].ended.store(true, Ordering::Release);
                // SAFETY: the box from above, which no thread was given.
                drop(unsafe { Box::from_raw(job) });
            })
    }

    fn work(&self, seat: usize) {
        let mut random = Random::new(self.options.seed, seat as u64);
        let random = &mut random;
        let seat = &self.seats[seat];
        match seat.role {
            Role::Reader | Role::LowReader => self.reader(seat, random, false),
            Role::Napper => self.reader(seat, random, true),
            Role::Interrupter => self.interrupter(seat, random),
            Role::Holder => self.holder(seat, random),
            Role::Overlong => self.overlong(),
            Role::Writer => self.writer(seat, random),
            Role::FakeWriter => self.fake_writer(seat, random),
            Role::Barriers(number) => self.barriers(seat, random, number),
            Role::Floods => self.floods(seat, random),
            Role::Hotplug => self.hotplug(seat, random),
        }
    }

    /// What each thread asks once a round: waits while all pause; `false`: the run is over.
    pub(super) fn goes_on(&self, seat: &Seat) -> bool {
        seat.rounds.fetch_add(1, Ordering::Relaxed);
        // Relaxed: it is noticed sooner or later.
        while self.pausing.load(Ordering::Relaxed) && !self.is_stopping() {
            self.nap(5 * MS);
        }
        !self.is_stopping()
    }

    /// Sleeps for `ns`, or until the run is over.
    pub(super) fn pause(&self, ns: u64) {
        let end = M::now_ns() + ns;
        loop {
            let now = M::now_ns();
            if now >= end || self.is_stopping() {
                return;
            }
            self.nap((end - now).min(LOOK_NS));
        }
    }

    /// Sleeps for `ns`.
    pub(super) fn nap(&self, ns: u64) {
        let end = M::now_ns() + ns;
        while M::now_ns() < end {
            M::park_until(end);
        }
    }

    /// Whether all threads have ended.
    pub(super) fn have_ended(&self) -> bool {
        let ended = |seat: &Seat| seat.ended.load(Ordering::Acquire);
        self.seats.iter().all(ended)
    }

    /// The names of those that have not, for the failure that this is.
    pub(super) fn say_who_goes_on(&self) {
        for seat in &self.seats {
            if !seat.ended.load(Ordering::Acquire) {
                let rounds = seat.rounds.load(Ordering::Relaxed);
                self.say(format_args!(
                    "{} does not end (round {rounds})",
                    seat.role.name()
                ));
            }
        }
    }

    pub(super) fn watch(&self) -> Watch {
        let now = M::now_ns();
        Watch {
            seen: self.seats.iter().map(|_| (0, now)).collect(),
        }
    }

    /// Looks whether each thread has made a round since it was seen to do so, in the time
    /// that there is for it.
    pub(super) fn check_progress(&self, watch: &mut Watch) {
        let now = M::now_ns();
        for (seat, (rounds, since)) in self.seats.iter().zip(&mut watch.seen) {
            let done = seat.rounds.load(Ordering::Relaxed);
            if done != *rounds || seat.role == Role::Overlong {
                (*rounds, *since) = (done, now);
            } else if now - *since > self.options.patience_ns() {
                *since = now;
                self.say(format_args!(
                    "{} makes no progress (round {done})",
                    seat.role.name()
                ));
                self.wrong(Wrong::Stuck, done);
            }
        }
    }
}
