//! The engine: its parts, and how its machine of grace periods is driven.

mod threads;

use alloc::sync::Arc;
use core::sync::atomic::AtomicU64 as Statistic;

use platform::{
    CpuId, CpuMask, Preempt,
    eqs::Snapshot,
    lock::{IrqSpinLock, SpinLock},
    lock_class,
    percpu::PerCpu,
    sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use crate::{
    Machine,
    arrows::Arrow,
    barrier::Barrier,
    config::Config,
    cpu::{Cpu, NORMAL},
    expedited::Expedited,
    geometry::Geometry,
    grace_period::{Cpus, GracePeriod, Step, Times, Wanted},
    seq::Cookie,
    stall::NEVER,
    stats::Latency,
    tree::Tree,
    waiters::{Chain, Waiters},
};

lock_class! {
    /// The machine of grace periods: stepped by who holds this. Callers only try it.
    pub struct GracePeriodLock = ("rcu grace period", 78);
    /// The engine's own thread.
    pub struct EngineThread = ("rcu thread", 89);
}

/// The RCU of a machine. See the crate's documentation.
pub struct Rcu<M: Machine> {
    pub(crate) config: Config,
    times: Times,
    /// [`Config::stall_ns`], which may be changed.
    stall_ns: Statistic,
    pub(crate) tree: Tree<M>,
    pub(crate) cpus: PerCpu<Cpu<M>, M>,
    pub(crate) grace_period: SpinLock<Gp<M>, M, GracePeriodLock>,
    /// Those who wait for the next grace period.
    pub(crate) waiters: Waiters<M>,
    /// The bits of a cookie: grace periods for callbacks up to it begin at once.
    hurry_until: AtomicU64,
    thread: IrqSpinLock<Option<M::Thread>, M, EngineThread>,
    /// When the thread should have run again, for ticks to look at; `NEVER`: it need not.
    pub(crate) step_due: Statistic,
    pub(crate) stopping: AtomicBool,
    /// Threads that have not ended.
    threads: AtomicUsize,
    pub(crate) expedited: Expedited<M>,
    pub(crate) barrier: Barrier<M>,
    pub(crate) latency: Latency,
    pub(crate) urged: Statistic,
    #[cfg(debug_assertions)]
    pub(crate) faults: crate::fault::Switches,
}

/// The machine, and who waits for what it makes.
pub(crate) struct Gp<M: Machine> {
    pub machine: GracePeriod,
    /// Those who wait for the running one.
    waiting: Chain<M>,
}

/// What is left to do after steps of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nothing.
    Nothing,
    /// Something, not before that time.
    NotBefore(u64),
    /// Something, for the engine's thread.
    Others,
}

/// The CPUs as the machine of grace periods sees them.
struct View<'a, M: Machine> {
    rcu: &'a Rcu<M>,
    waiting: &'a mut Chain<M>,
}

fn cpu_of(index: usize) -> CpuId {
    CpuId::from_index(index).expect("the tree has the machine's CPUs")
}

impl<M: Machine> Cpus for View<'_, M> {
    fn now_ns(&self) -> u64 {
        M::now_ns()
    }

    fn own(&self) -> Option<usize> {
        // Who steps the machine may sleep but for its lock, so is in no section.
        Some(M::current_cpu().index())
    }

    fn busy(&self, cpu: usize) -> Option<Snapshot> {
        self.rcu.busy(cpu)
    }

    fn passed_since(&self, cpu: usize, snapshot: Snapshot) -> bool {
        M::idle(cpu_of(cpu)).passed_since(snapshot)
    }

    fn ask(&self, cpu: usize) {
        // Relaxed: a hint. The CPU reports under the lock of its leaf.
        let wanted = &self.rcu.cpus.on(cpu_of(cpu)).wanted;
        wanted.fetch_or(NORMAL, Ordering::Relaxed);
    }

    fn urge(&self, cpus: &[usize]) {
        let mask = cpus
            .iter()
            .fold(CpuMask::EMPTY, |mask, cpu| mask.with(cpu_of(*cpu)));
        // Relaxed: a statistic.
        self.rcu
            .urged
            .fetch_add(cpus.len() as u64, Ordering::Relaxed);
        M::interrupt(self.rcu, mask);
    }

    fn begins(&mut self) {
        *self.waiting = self.rcu.waiters.take();
    }
}

impl<M: Machine> Rcu<M> {
    /// An engine for the machine's CPUs; of those, the ones that are online take part.
    /// `None`: no memory. Task context, before other CPUs come or go; then
    /// [`start`](Self::start).
    ///
    /// # Safety
    ///
    /// It is the engine that the machine tells of its CPUs and readers (see [`Machine`]), the
    /// only one, from before anything that is read in sections is reclaimed by it.
    pub unsafe fn try_new(config: Config) -> Option<Arc<Self>> {
        let count = M::possible_cpus()
            .iter()
            .map(CpuId::index)
            .max()
            .map_or(1, |last| last + 1);
        let geometry = Geometry::new(count, config.leaf_fanout, config.fanout);
        let this = Self {
            times: config.times(),
            stall_ns: Statistic::new(config.stall_ns.max(1)),
            tree: Tree::try_new(geometry)?,
            cpus: PerCpu::try_new(|_| Cpu::new())?,
            grace_period: SpinLock::new(Gp {
                machine: GracePeriod::try_new(count)?,
                waiting: Chain::EMPTY,
            }),
            waiters: Waiters::new(),
            hurry_until: AtomicU64::new(Cookie::COMPLETED.to_bits()),
            thread: IrqSpinLock::new(None),
            step_due: Statistic::new(NEVER),
            stopping: AtomicBool::new(false),
            threads: AtomicUsize::new(0),
            expedited: Expedited::new(),
            barrier: Barrier::new(),
            latency: Latency::new(),
            urged: Statistic::new(0),
            #[cfg(debug_assertions)]
            faults: crate::fault::Switches::new(),
            config,
        };
        M::online_cpus()
            .iter()
            .for_each(|cpu| this.tree.online(cpu.index()));
        crate::memory::try_arc(this)
    }

    /// The entry of the own CPU, for code that is pinned.
    #[inline(always)]
    pub(crate) fn here<'a>(&'a self, pinned: &'a Preempt<M>) -> &'a Cpu<M> {
        self.cpus.here(pinned)
    }

    /// Lets the engine's thread look. Any context but NMI.
    pub(crate) fn wake(&self) {
        // Relaxed: for reports.
        if self.step_due.load(Ordering::Relaxed) == NEVER {
            self.step_due.store(M::now_ns(), Ordering::Relaxed);
        }
        if let Some(thread) = &*self.thread.lock() {
            M::unpark(thread);
        }
    }

    /// A grace period that somebody has asked for begins now, and not when the least time
    /// between two has passed. Any context but NMI.
    pub fn hurry(&self) {
        self.hurry_until(self.tree.snap());
        self.wake();
    }

    /// Grace periods up to that of `cookie` begin at once, and no more: who waits for them may
    /// be kept from running by what they make run. Somebody is woken after this.
    pub(crate) fn hurry_until(&self, cookie: Cookie) {
        // Relaxed: see `wanted`.
        let later = |bits| Some(Cookie::from_bits(bits).later(cookie).to_bits());
        let _ = self
            .hurry_until
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }

    /// The age, in nanoseconds, at which a grace period is reported.
    pub fn stall_ns(&self) -> u64 {
        // Relaxed: a number by itself.
        self.stall_ns.load(Ordering::Relaxed)
    }

    /// Sets that for grace periods that begin from now on. Any context.
    pub fn set_stall_ns(&self, ns: u64) {
        self.stall_ns.store(ns.max(1), Ordering::Relaxed);
    }

    /// `None`: a CPU is idle. Otherwise the word by which it will say that it has been.
    pub(crate) fn busy(&self, cpu: usize) -> Option<Snapshot> {
        let snapshot = M::idle(cpu_of(cpu)).snapshot();
        let idle = snapshot.in_eqs();
        #[cfg(debug_assertions)]
        let idle = self.faults.takes_as_idle(cpu, idle);
        (!idle).then_some(snapshot)
    }

    /// Switches faults on and off, to see that the tests find them.
    #[cfg(debug_assertions)]
    pub fn set_faults(&self, faults: crate::Faults) {
        self.faults.set(faults);
        let lose = faults.contains(crate::Faults::LOSE_QS);
        let [normal, expedited] = self.tree.lose_reports(lose);
        if normal {
            self.wake();
        }
        if expedited {
            self.expedited.done();
        }
    }

    fn wanted(&self) -> Wanted {
        if !self.waiters.is_empty() {
            return Wanted::Now;
        }
        if !self.tree.is_requested() {
            return Wanted::Nothing;
        }
        // Relaxed: who sets it wakes somebody afterwards.
        let until = Cookie::from_bits(self.hurry_until.load(Ordering::Relaxed));
        if !until.is_done(self.tree.seq()) {
            Wanted::Now
        } else {
            Wanted::Soon
        }
    }

    /// Lets a thread of this CPU make what was asked for; other CPUs need not be woken.
    pub(crate) fn wake_near(&self, cpu: &Cpu<M>) {
        if !cpu.wake() {
            self.wake();
        }
    }

    /// Makes grace periods as far as that needs no waiting, so that a caller need not wait
    /// for the engine's thread. The caller may sleep, and is in no section.
    pub(crate) fn help(&self) {
        if self.drive(true) != Left::Nothing {
            self.wake();
        }
    }

    /// Steps the machine until it has to wait. A helper does not wait for others who step
    /// it, and makes what it came for and no more.
    pub(crate) fn drive(&self, helper: bool) -> Left {
        // What a helper came for begins after what is running.
        let mut may_end = if helper { 2 } else { u32::MAX };
        while may_end > 0 {
            let guard = if helper {
                self.grace_period.try_lock()
            } else {
                Some(self.grace_period.lock())
            };
            let Some(mut guard) = guard else {
                // Whoever has it may have looked before the helper wanted something.
                return Left::Others;
            };
            let gp = &mut *guard;
            let times = Times {
                stall: self.stall_ns(),
                ..self.times
            };
            let mut view = View {
                rcu: self,
                waiting: &mut gp.waiting,
            };
            let wanted = self.wanted();
            let step = gp.machine.step(&self.tree, &mut view, wanted, &times);
            let running = gp.machine.is_running();
            let ended = match step {
                Step::Ended(_) => core::mem::replace(&mut gp.waiting, Chain::EMPTY),
                _ => Chain::EMPTY,
            };
            drop(guard);
            match step {
                Step::Began => self.tree.arrows.take(if helper {
                    Arrow::GpStartHelped
                } else {
                    Arrow::GpStart
                }),
                Step::Again => {}
                Step::Ended(ns) => {
                    self.latency.add(ns);
                    ended.complete();
                    self.ripen();
                    if helper {
                        may_end -= 1;
                    }
                }
                Step::Stalled(age) => self.report_stall(age),
                // The thread looks after what is running.
                Step::Wait(_) if helper && running => return Left::Others,
                Step::Wait(Some(at)) => return Left::NotBefore(at),
                Step::Wait(None) => return Left::Nothing,
            }
        }
        Left::Others
    }

    /// A grace period has ended: wakes the threads of CPUs whose callbacks are ripe.
    fn ripen(&self) {
        let now = self.tree.seq();
        for (_, cpu) in self.cpus.iter() {
            if cpu.due().is_some_and(|due| due.is_done(now)) {
                let _ = cpu.wake();
            }
        }
    }
}
