//! A grace period that does not end: who holds it, what the tree waits for, and what the
//! thread that makes grace periods is doing.

use core::fmt;

use arrayvec::ArrayVec;
use platform::{CpuId, CpuMask, sync::Ordering};

use crate::{
    Machine, Rcu, arrows::Arrow, grace_period::bits, seq::Seq, text::NodeLine, tree::Kind,
};

/// The most threads that a report names.
const MOST_THREADS: usize = 16;
/// The most nodes.
const MOST_NODES: usize = 16;
/// How much longer than the stall time a CPU's tick waits before it reports that the
/// engine's thread has not: that factor.
const THREAD_LATE: u64 = 2;

/// What is known of it, all of it taken before: to print it needs no lock. Its text says all
/// but the stacks.
pub struct Stall {
    what: &'static str,
    seq: Seq,
    age_ns: u64,
    cpus: CpuMask,
    threads: ArrayVec<u32, MOST_THREADS>,
    thread: ThreadState,
    /// The nodes that wait for something, from the root on.
    nodes: ArrayVec<NodeLine, MOST_NODES>,
}

/// What the thread that makes grace periods is doing.
#[derive(Debug)]
enum ThreadState {
    /// Somebody steps its machine at this moment.
    Stepped,
    /// Its machine waits.
    Waits { running: bool, scans: u32 },
}

impl Stall {
    /// CPUs that have not reported.
    pub fn cpus(&self) -> CpuMask {
        self.cpus
    }

    /// Numbers of threads that were switched away in a section that the grace period waits
    /// for.
    pub fn threads(&self) -> impl Iterator<Item = u32> {
        self.threads.iter().copied()
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} grace period {} has not ended for {} ms; waits for CPUs ",
            self.what,
            self.seq,
            self.age_ns / 1_000_000,
        )?;
        if self.cpus.is_empty() {
            f.write_str("none")?;
        } else {
            self.cpus.fmt(f)?;
        }
        f.write_str(", switched-away threads ")?;
        if self.threads.is_empty() {
            f.write_str("none")?;
        }
        for (index, thread) in self.threads.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{thread}")?;
        }
        match self.thread {
            ThreadState::Stepped => f.write_str("; the machine is being stepped")?,
            ThreadState::Waits { running, scans } => {
                let state = if running { "running" } else { "idle" };
                write!(f, "; the machine is {state} and has looked {scans} times")?;
            }
        }
        self.nodes
            .iter()
            .try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl fmt::Debug for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<M: Machine> Rcu<M> {
    /// The CPUs and threads that a grace period waits for.
    fn holdouts(&self, kind: Kind) -> (CpuMask, ArrayVec<u32, MOST_THREADS>) {
        let mut cpus = CpuMask::EMPTY;
        let mut threads = ArrayVec::new();
        for leaf in self.tree.leaves() {
            let node = &self.tree.nodes()[leaf];
            let state = node.lock();
            for bit in bits(state.mask[kind as usize]) {
                cpus = CpuId::from_index(node.place.first + bit).map_or(cpus, |cpu| cpus.with(cpu));
            }
            for thread in state.blocked.threads(kind) {
                // More are not named.
                let _ = threads.try_push(thread);
            }
        }
        (cpus, threads)
    }

    fn report_holdouts(&self, what: &'static str, kind: Kind, seq: Seq, age_ns: u64) {
        let (cpus, threads) = self.holdouts(kind);
        if cpus.is_empty() && threads.is_empty() && self.is_over(kind) {
            // It has ended meanwhile.
            return;
        }
        M::stalled(&Stall {
            what,
            seq,
            age_ns,
            cpus,
            threads,
            thread: self.thread_state(),
            nodes: (0..self.tree.nodes().len())
                .map(|number| NodeLine::of(&self.tree, number))
                .filter(|line| line.waits(kind))
                .take(MOST_NODES)
                .collect(),
        });
    }

    fn thread_state(&self) -> ThreadState {
        self.grace_period
            .try_lock()
            .map_or(ThreadState::Stepped, |gp| ThreadState::Waits {
                running: gp.machine.is_running(),
                scans: gp.machine.scans(),
            })
    }

    fn is_over(&self, kind: Kind) -> bool {
        match kind {
            Kind::Normal => !self.tree.seq().is_running() || self.tree.is_reported(),
            Kind::Expedited => self.tree.expedited_reported(),
        }
    }

    /// The machine says that it has been waiting for too long.
    pub(crate) fn report_stall(&self, age_ns: u64) {
        self.report_holdouts("normal", Kind::Normal, self.tree.seq(), age_ns);
    }

    pub(crate) fn report_expedited_stall(&self, age_ns: u64) {
        self.report_holdouts("expedited", Kind::Expedited, self.expedited.seq(), age_ns);
    }

    /// In a tick: whether the thread that makes grace periods does not come to run, and so
    /// cannot report a stall itself.
    #[inline]
    pub(crate) fn check_thread(&self) {
        // Relaxed: a look.
        let next = self.step_due.load(Ordering::Relaxed);
        if next != NEVER {
            let late = next.saturating_add(THREAD_LATE.saturating_mul(self.stall_ns()));
            if M::now_ns() > late {
                self.report_late_thread(next);
            }
        }
    }

    #[cold]
    fn report_late_thread(&self, due: u64) {
        // Once: who stores first reports. Relaxed: nothing else hangs on it.
        let reported =
            self.step_due
                .compare_exchange(due, NEVER, Ordering::Relaxed, Ordering::Relaxed);
        if reported.is_ok() {
            self.tree.arrows.take(Arrow::GpThreadLate);
            let age = M::now_ns().saturating_sub(due);
            self.report_holdouts(
                "(its thread does not come to run) normal",
                Kind::Normal,
                self.tree.seq(),
                age,
            );
        }
    }
}

/// Of `Rcu::step_due`: no step is due.
pub(crate) const NEVER: u64 = u64::MAX;
