//! Who holds which CPU's baton, and who waits for one. All of it under one lock.
//!
//! | state of a CPU | left by |
//! |---|---|
//! | `Idle` | a thread made ready takes it; a caller borrows it |
//! | `Held` by a thread | that thread, to the next that waits, or to `Idle` |
//! | `Borrowed`: a caller runs interrupts in its name | that caller, in the same way; or to `Offline` |
//! | `Offline`: nothing runs there | who brings it back, as one who gives it up |
//!
//! A CPU is `Idle` only while no thread waits that could use it. A CPU that is not *online*
//! has no use for threads that are bound to no CPU; it may still be held by threads of its own,
//! until they sleep.
//!
//! Its idle word ([`Eqs`]) is even exactly while it is `Idle` or `Offline`. Whoever changes the state
//! writes the word, under the lock, in the CPU's name: one who makes it idle has had the
//! baton until then, and one who ends that gives the baton on after the word's fence, by a
//! Release that the new holder's Acquire of its CPU pairs with. So the accesses of a holder
//! lie between the two changes, as those of a CPU do.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::{collections::VecDeque, sync::Arc, vec::Vec};

use super::{random::Random, thread::Thread};
use crate::{CpuId, CpuMask, Priority, eqs::Eqs};

const PRIORITIES: [Priority; 4] = [
    Priority::Urgent,
    Priority::High,
    Priority::Normal,
    Priority::Low,
];

/// Threads that are ready, by priority, in the order in which they became so.
#[derive(Debug, Default)]
struct Ready([VecDeque<Thread>; 4]);

impl Ready {
    fn push(&mut self, thread: Thread) {
        self.0[thread.0.priority as usize].push_back(thread);
    }

    /// The highest priority, plus 1; 0 if there is nobody.
    fn highest(&self) -> u8 {
        let highest = PRIORITIES
            .iter()
            .find(|&&priority| !self.0[priority as usize].is_empty());
        highest.map_or(0, |&priority| priority as u8 + 1)
    }

    fn remove(&mut self, thread: &Thread) {
        self.0[thread.0.priority as usize].retain(|other| other != thread);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Idle,
    Held,
    Borrowed,
    Offline,
}

impl Holder {
    fn is_quiet(self) -> bool {
        matches!(self, Self::Idle | Self::Offline)
    }
}

#[derive(Debug)]
pub(super) struct Sched {
    holders: Vec<Holder>,
    /// CPUs that take threads.
    online: CpuMask,
    /// By CPU, what others see of `holders`.
    idle_words: Arc<[Eqs]>,
    /// Threads that wait for one CPU, by CPU.
    bound: Vec<Ready>,
    /// Threads that wait for any.
    floating: Ready,
    /// All that have not ended.
    pub(super) threads: Vec<Thread>,
    random: Random,
}

/// What can be seen of [`Sched`] without its lock: hints, no more.
#[derive(Debug)]
pub(super) struct Hints {
    /// By CPU: the highest priority that waits for it, plus 1.
    bound: Vec<AtomicU8>,
    /// The same of threads that wait for any CPU.
    floating: AtomicU8,
    /// CPUs that are idle.
    idle: AtomicU64,
}

// Relaxed throughout: hints.
impl Hints {
    pub(super) fn new(cpus: usize) -> Self {
        Self {
            bound: (0..cpus).map(|_| AtomicU8::new(0)).collect(),
            floating: AtomicU8::new(0),
            idle: AtomicU64::new(CpuMask::first_n(cpus).bits()),
        }
    }

    /// The highest priority that waits for `cpu`, plus 1; or 0.
    pub(super) fn wanted(&self, cpu: CpuId) -> u8 {
        let bound = self.bound[cpu.index()].load(Ordering::Relaxed);
        bound.max(self.floating.load(Ordering::Relaxed))
    }

    pub(super) fn idle(&self) -> CpuMask {
        CpuMask::from_bits(self.idle.load(Ordering::Relaxed))
    }
}

impl Sched {
    /// All CPUs are idle, and their words say so.
    pub(super) fn new(cpus: usize, idle_words: Arc<[Eqs]>, random: Random) -> Self {
        Self {
            holders: (0..cpus).map(|_| Holder::Idle).collect(),
            online: CpuMask::first_n(cpus),
            idle_words,
            bound: (0..cpus).map(|_| Ready::default()).collect(),
            floating: Ready::default(),
            threads: Vec::new(),
            random,
        }
    }

    /// A thread that has no CPU wants one: it gets an idle one, or waits.
    pub(super) fn make_ready(&mut self, thread: Thread, hints: &Hints) {
        debug_assert!(thread.on_cpu().is_none());
        let place = match thread.0.cpu {
            Some(cpu) => Some(cpu).filter(|cpu| self.holders[cpu.index()] == Holder::Idle),
            None => {
                let idle = hints.idle().intersection(self.online);
                let skip = self.random.next() as usize % idle.count().max(1);
                idle.iter().nth(skip)
            }
        };
        match (place, thread.0.cpu) {
            (Some(cpu), _) => self.give(cpu, Some(thread), hints),
            (None, Some(cpu)) => {
                self.bound[cpu.index()].push(thread);
                self.hint(cpu, hints);
            }
            (None, None) => {
                self.floating.push(thread);
                self.hint(CpuId::BOOT, hints);
            }
        }
    }

    /// Takes the thread that shall have `cpu` next, of at least that priority, off its
    /// queue.
    pub(super) fn pick(&mut self, cpu: CpuId, at_least: Priority, hints: &Hints) -> Option<Thread> {
        let may_float = self.online.contains(cpu);
        let bound = &mut self.bound[cpu.index()];
        let next = PRIORITIES
            .iter()
            .filter(|&&priority| priority >= at_least)
            .find_map(|&priority| {
                let (bound, floating) = (
                    &mut bound.0[priority as usize],
                    &mut self.floating.0[priority as usize],
                );
                let floats = may_float
                    && (bound.is_empty() || !floating.is_empty() && self.random.one_in(2));
                if floats { floating } else { bound }.pop_front()
            });
        self.hint(cpu, hints);
        next
    }

    /// The caller, who has the baton of `cpu`, hands it to `thread`, or to nobody.
    pub(super) fn give(&mut self, cpu: CpuId, thread: Option<Thread>, hints: &Hints) {
        let holder = match thread {
            Some(_) => Holder::Held,
            None => Holder::Idle,
        };
        self.set_holder(cpu, holder, hints);
        if let Some(thread) = thread {
            thread.set_on_cpu(Some(cpu));
        }
    }

    /// The caller has the baton of `cpu` and gives it up.
    pub(super) fn give_up(&mut self, cpu: CpuId, hints: &Hints) {
        let next = self.pick(cpu, Priority::Low, hints);
        self.give(cpu, next, hints);
    }

    /// Borrows the baton of `cpu` if nobody has it.
    pub(super) fn borrow(&mut self, cpu: CpuId, hints: &Hints) -> bool {
        let idle = self.holders[cpu.index()] == Holder::Idle;
        if idle {
            self.set_holder(cpu, Holder::Borrowed, hints);
        }
        idle
    }

    /// CPUs that take threads.
    pub(super) fn online(&self) -> CpuMask {
        self.online
    }

    /// From now on `cpu` is online, or is not.
    pub(super) fn set_online(&mut self, cpu: CpuId, online: bool) {
        self.online = if online {
            self.online.with(cpu)
        } else {
            self.online.without(cpu)
        };
    }

    /// The caller has borrowed the baton of `cpu`, and nobody gets it from now on.
    pub(super) fn put_away(&mut self, cpu: CpuId, hints: &Hints) {
        self.set_holder(cpu, Holder::Offline, hints);
    }

    /// Whether `cpu` was put away.
    pub(super) fn is_away(&self, cpu: CpuId) -> bool {
        self.holders[cpu.index()] == Holder::Offline
    }

    fn set_holder(&mut self, cpu: CpuId, holder: Holder, hints: &Hints) {
        let was = core::mem::replace(&mut self.holders[cpu.index()], holder);
        let word = &self.idle_words[cpu.index()];
        match (was.is_quiet(), holder.is_quiet()) {
            (true, false) => word.idle_exit(),
            (false, true) => word.idle_enter(),
            _ => {}
        }
        self.hint(cpu, hints);
    }

    /// A thread ends.
    pub(super) fn forget(&mut self, thread: &Thread, hints: &Hints) {
        self.floating.remove(thread);
        self.bound.iter_mut().for_each(|ready| ready.remove(thread));
        self.threads.retain(|other| other != thread);
        (0..self.bound.len())
            .filter_map(CpuId::from_index)
            .for_each(|cpu| self.hint(cpu, hints));
    }

    /// Brings the hints of `cpu` up to date.
    fn hint(&self, cpu: CpuId, hints: &Hints) {
        let bound = self.bound[cpu.index()].highest();
        hints.bound[cpu.index()].store(bound, Ordering::Relaxed);
        let floating = self.floating.highest();
        hints.floating.store(floating, Ordering::Relaxed);
        let idle = hints.idle();
        let idle = if self.holders[cpu.index()] == Holder::Idle {
            idle.with(cpu)
        } else {
            idle.without(cpu)
        };
        hints.idle.store(idle.bits(), Ordering::Relaxed);
    }
}
