//! Expedited grace periods: CPUs that are not idle are interrupted. The fast way, for a
//! price that others pay.
//!
//! | state of the sequence number | left by | to |
//! |---|---|---|
//! | idle | a caller that came up to the root and has the owner's lock | running: all CPUs have to report |
//! | running | the owner, when all have | idle |
//!
//! The owner looks which CPUs are idle and reports for them, as for its own, then interrupts
//! the others. An interrupt that comes upon no section reports; one that comes upon a
//! section makes its end report ([`crate::quiescent`]).
//!
//! Callers meet in a funnel: each computes the number that would do, and marks the nodes
//! from its CPU's leaf up to the root with it. Who finds a mark that is as high waits there
//! for who made it. So of many callers at a time few come to the owner's lock, and each
//! grace period serves all who came before it began.

use core::sync::atomic::AtomicU64 as Statistic;

use platform::{
    CpuId, CpuMask, Platform, Preempt,
    lock::IrqSpinLock,
    lock_class,
    sync::{AtomicU64, Ordering, fence},
    wait::{Mutex, WaitQueue},
};

use crate::{
    Machine, Rcu,
    arrows::Arrow,
    call::reported,
    cpu::EXPEDITED,
    engine::EngineThread,
    grace_period::bits,
    seq::{Cookie, Seq},
};

lock_class! {
    /// Who makes the expedited grace period.
    pub struct ExpeditedOwner = ("rcu expedited", 5);
}

/// What the engine has for expedited grace periods.
pub(crate) struct Expedited<M: Machine> {
    seq: AtomicU64,
    owner: Mutex<(), M, ExpeditedOwner>,
    /// The owner, until all have reported.
    all_reported: WaitQueue<M>,
    /// The furthest cookie that was asked for, for the thread.
    asked: AtomicU64,
    /// Makes those that somebody asked for and does not wait for.
    pub thread: IrqSpinLock<Option<M::Thread>, M, EngineThread>,
    /// The sum of their durations, in nanoseconds.
    pub took_ns: Statistic,
    pub count: Statistic,
}

/// A node's part of the funnel.
pub(crate) struct Funnel<P: Platform> {
    /// The highest cookie that somebody has taken on from here.
    mark: AtomicU64,
    waiting: WaitQueue<P>,
}

impl<P: Platform> Funnel<P> {
    pub fn new() -> Self {
        Self {
            mark: AtomicU64::new(Cookie::COMPLETED.to_bits()),
            waiting: WaitQueue::new(),
        }
    }

    /// Marks the node. `false`: somebody has, with as much.
    fn mark(&self, cookie: Cookie) -> bool {
        // Relaxed: the mark says who does it, nothing more; what the owner did is seen by
        // the sequence number.
        let mut known = self.mark.load(Ordering::Relaxed);
        loop {
            if Cookie::from_bits(known).later(cookie).to_bits() == known {
                return false;
            }
            match self.mark.compare_exchange_weak(
                known,
                cookie.to_bits(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => known = now,
            }
        }
    }
}

impl<M: Machine> Expedited<M> {
    pub fn new() -> Self {
        Self {
            seq: AtomicU64::new(Seq::INITIAL.to_bits()),
            owner: Mutex::new(()),
            all_reported: WaitQueue::new(),
            asked: AtomicU64::new(Cookie::COMPLETED.to_bits()),
            thread: IrqSpinLock::new(None),
            took_ns: Statistic::new(0),
            count: Statistic::new(0),
        }
    }

    pub fn seq(&self) -> Seq {
        // Acquire pairs with the Release at its end.
        Seq::from_bits(self.seq.load(Ordering::Acquire))
    }

    pub fn snap(&self) -> Cookie {
        // SeqCst: what the caller unpublished comes before the number is read; pairs with
        // the fence of each CPU at its report, as in `tree`.
        fence(Ordering::SeqCst);
        self.seq().snap()
    }

    /// Has the thread make the grace period of a cookie. Any context but NMI.
    pub fn ask(&self, cookie: Cookie) {
        // Relaxed: the lock of the wake-up orders it.
        let mut asked = self.asked.load(Ordering::Relaxed);
        loop {
            let furthest = Cookie::from_bits(asked).later(cookie).to_bits();
            if furthest == asked {
                break;
            }
            match self.asked.compare_exchange_weak(
                asked,
                furthest,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => asked = now,
            }
        }
        self.wake();
    }

    /// Lets its thread look. Any context but NMI.
    pub fn wake(&self) {
        if let Some(thread) = &*self.thread.lock() {
            M::unpark(thread);
        }
    }

    /// The last one has reported. Any context but NMI, no lock held.
    pub fn done(&self) {
        self.all_reported.wake_all();
    }
}

impl<M: Machine> Rcu<M> {
    /// Waits until all sections of now are over, and interrupts CPUs for that:
    /// `synchronize_rcu_expedited`. Task context, may sleep, not in a section.
    pub fn synchronize_expedited(&self) {
        self.assert_may_wait();
        let cookie = self.expedited.snap();
        self.expedite(cookie);
    }

    /// The thread for those that nobody waits for.
    pub(crate) fn make_asked_expedited(&self) {
        // Acquire pairs with the Release in `stop`.
        while !self.stopping.load(Ordering::Acquire) {
            let asked = Cookie::from_bits(self.expedited.asked.load(Ordering::Relaxed));
            if asked.is_done(self.expedited.seq()) {
                M::park();
            } else {
                self.expedite(asked);
            }
        }
    }

    /// Returns when the expedited grace period of a cookie is over.
    pub(crate) fn expedite(&self, cookie: Cookie) {
        let expedited = &self.expedited;
        let is_done = || cookie.is_done(expedited.seq());
        // Any leaf will do; the own one keeps CPUs of different nodes apart.
        let cpu = Preempt::<M>::disable().cpu().index();
        let mut node = Some(self.tree.geometry().leaf_of(cpu).0);
        while let Some(number) = node {
            if is_done() {
                self.tree.arrows.take(Arrow::ExpShared);
                return;
            }
            let this = &self.tree.nodes()[number];
            if !this.funnel.mark(cookie) {
                self.tree.arrows.take(Arrow::ExpWaits);
                this.funnel.waiting.wait_until(is_done);
                return;
            }
            node = this.place.parent.map(|(parent, _)| parent);
        }
        let owner = expedited.owner.lock();
        if !is_done() {
            self.make_expedited();
        }
        drop(owner);
        for node in self.tree.nodes() {
            node.funnel.waiting.wake_all();
        }
    }

    /// Makes one, as the owner.
    fn make_expedited(&self) {
        let expedited = &self.expedited;
        let start = M::now_ns();
        self.tree.arrows.take(Arrow::ExpStart);
        // Relaxed: only the owner writes it.
        let seq = Seq::from_bits(expedited.seq.load(Ordering::Relaxed)).start();
        expedited.seq.store(seq.to_bits(), Ordering::Release);
        let (done, busy) = self.select_busy();
        if !busy.is_empty() {
            self.tree.arrows.take(Arrow::ExpInterrupt);
            for cpu in busy {
                // Relaxed: a hint. The CPU reports under the lock of its leaf.
                let wanted = &self.cpus.on(cpu).wanted;
                wanted.fetch_or(EXPEDITED, Ordering::Relaxed);
            }
            M::interrupt(self, busy);
        }
        if !done {
            self.wait_for_reports(start);
        }
        expedited.seq.store(seq.end().to_bits(), Ordering::Release);
        // Relaxed: statistics.
        expedited
            .took_ns
            .fetch_add(M::now_ns() - start, Ordering::Relaxed);
        expedited.count.fetch_add(1, Ordering::Relaxed);
        self.tree.arrows.take(Arrow::ExpEnd);
    }

    /// Begins on the tree. Whether nobody has to report, and who has to be interrupted.
    fn select_busy(&self) -> (bool, CpuMask) {
        let mut busy = CpuMask::EMPTY;
        // This thread is in no section, so the CPU is not while it stays.
        let own = Preempt::<M>::disable();
        let this_cpu = own.cpu().index();
        let quiescent = |first: usize, online: u64| {
            bits(online)
                .filter(|bit| {
                    let cpu = first + bit;
                    cpu == this_cpu || self.is_idle(cpu)
                })
                .fold(0, |mask, bit| mask | 1 << bit)
        };
        let done = self.tree.begin_expedited(quiescent, |first, mask| {
            for bit in bits(mask) {
                busy = CpuId::from_index(first + bit).map_or(busy, |cpu| busy.with(cpu));
            }
        });
        reported();
        (done, busy)
    }

    fn is_idle(&self, cpu: usize) -> bool {
        let idle = self.busy(cpu).is_none();
        if idle {
            self.tree.arrows.take(Arrow::ExpIdle);
        }
        idle
    }

    fn wait_for_reports(&self, start: u64) {
        let mut stall_at = start + self.stall_ns();
        let done = || self.tree.expedited_reported();
        while !self
            .expedited
            .all_reported
            .wait_until_timeout(done, stall_at)
        {
            self.tree.arrows.take(Arrow::ExpStall);
            self.report_expedited_stall(M::now_ns() - start);
            stall_at = M::now_ns() + 3 * self.stall_ns();
        }
    }
}
