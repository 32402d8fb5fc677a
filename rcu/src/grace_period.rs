//! Who makes grace periods: a machine with explicit states, stepped by whoever has its lock.
//!
//! | state | left by | to |
//! |---|---|---|
//! | idle | [`step`](GracePeriod::step), with a grace period wanted | running: the tree begins |
//! | | `step`, with one wanted by callbacks only, and the last begun too short a time ago | idle; again when that time has passed |
//! | running | `step`, all have reported | idle: the tree ends |
//! | | `step`, the time for a look has come | running: idle CPUs are reported for, the others asked; later looks interrupt them |
//! | | `step`, it has been running for too long | running: a stall is reported |
//!
//! The engine's thread steps it, and so does a caller of `synchronize` that would otherwise
//! wait for that thread: when all other CPUs are idle, the caller makes the whole grace
//! period itself. A step is short and never sleeps; between steps anybody may take over.
//!
//! The first look comes at once. It is what ends most grace periods: CPUs that are idle need
//! not be woken, and the CPU that makes the look is in no section. A CPU that is busy is
//! asked to report: it does so at its next thread switch, or at its next tick, and if that
//! comes upon a section, at the end of that section.

use alloc::vec::Vec;

use platform::{
    Platform,
    eqs::Snapshot,
    sync::{Ordering, fence},
};

use crate::{
    arrows::Arrow,
    tree::{Kind, Tree},
};

/// What the machine needs of the CPUs, by their index.
pub trait Cpus {
    /// Now.
    fn now_ns(&self) -> u64;
    /// The CPU that steps the machine, which is in no section.
    fn own(&self) -> Option<usize>;
    /// `None`: the CPU is idle. Otherwise the word by which it will say that it has been.
    fn busy(&self, cpu: usize) -> Option<Snapshot>;
    /// Whether it has been idle since.
    fn passed_since(&self, cpu: usize, snapshot: Snapshot) -> bool;
    /// Asks a busy CPU to report at its next chance.
    fn ask(&self, cpu: usize);
    /// Interrupts CPUs, so that they report. No lock of the tree is held.
    fn urge(&self, cpus: &[usize]);
    /// A grace period is about to begin: requests that come from here on are for the next.
    fn begins(&mut self);
}

/// What is wanted of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No grace period.
    Nothing,
    /// One, for callbacks.
    Soon,
    /// One, for somebody who waits.
    Now,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A grace period has begun; there is more to do.
    Began,
    /// There is more to do.
    Again,
    /// One has ended, after that many nanoseconds; there may be more to do.
    Ended(u64),
    /// Nothing to do until that time, or until somebody wants something or the last CPU
    /// reports.
    Wait(Option<u64>),
    /// The grace period has been running for too long; how long.
    Stalled(u64),
}

/// Times, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// From the beginning to the first look.
    pub first_scan: u64,
    /// From one look to the next.
    pub next_scan: u64,
    /// The age at which holdouts are interrupted.
    pub urge: u64,
    /// The age at which a stall is reported; then again three times that long after it.
    pub stall: u64,
    /// At least from one beginning to the next, if only callbacks want it.
    pub interval: u64,
}

/// The machine.
#[derive(Debug)]
pub struct GracePeriod {
    running: bool,
    /// When the last one began.
    began: Option<u64>,
    next_scan: u64,
    scans: u32,
    stall_at: u64,
    /// Idle words as the first look found them, by CPU.
    snapshots: Vec<Option<Snapshot>>,
    /// CPUs to interrupt, as the last look found.
    holdouts: Vec<usize>,
}

impl GracePeriod {
    /// An idle one for that many CPUs. `None`: no memory.
    pub fn try_new(cpus: usize) -> Option<Self> {
        let mut snapshots = Vec::new();
        snapshots.try_reserve_exact(cpus).ok()?;
        snapshots.resize(cpus, None);
        let mut holdouts = Vec::new();
        holdouts.try_reserve_exact(cpus).ok()?;
        Some(Self {
            running: false,
            began: None,
            next_scan: 0,
            scans: 0,
            stall_at: 0,
            snapshots,
            holdouts,
        })
    }

    /// Whether one is running.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// When the last one began.
    pub fn began(&self) -> Option<u64> {
        self.began
    }

    /// How often it has looked for idle CPUs since.
    pub fn scans(&self) -> u32 {
        self.scans
    }

    /// Does what there is to do next. The tree is this machine's alone to begin and end.
    pub fn step<P: Platform>(
        &mut self,
        tree: &Tree<P>,
        cpus: &mut impl Cpus,
        wanted: Wanted,
        times: &Times,
    ) -> Step {
        if !self.running {
            return self.begin(tree, cpus, wanted, times);
        }
        if tree.is_reported() {
            return self.end(tree, cpus);
        }
        let now = cpus.now_ns();
        if now >= self.next_scan {
            self.scan(tree, cpus, now, times);
            return Step::Again;
        }
        if now >= self.stall_at {
            let age = now - self.began.unwrap_or(now);
            self.stall_at = now + 3 * times.stall;
            tree.arrows.take(Arrow::GpStall);
            return Step::Stalled(age);
        }
        Step::Wait(Some(self.next_scan.min(self.stall_at)))
    }

    fn begin<P: Platform>(
        &mut self,
        tree: &Tree<P>,
        cpus: &mut impl Cpus,
        wanted: Wanted,
        times: &Times,
    ) -> Step {
        if wanted == Wanted::Nothing {
            return Step::Wait(None);
        }
        let now = cpus.now_ns();
        if let (Wanted::Soon, Some(began)) = (wanted, self.began)
            && now < began + times.interval
        {
            tree.arrows.take(Arrow::GpDelay);
            return Step::Wait(Some(began + times.interval));
        }
        cpus.begins();
        self.running = true;
        self.began = Some(now);
        self.next_scan = now + times.first_scan;
        self.scans = 0;
        self.stall_at = now + times.stall;
        tree.begin();
        Step::Began
    }

    fn end<P: Platform>(&mut self, tree: &Tree<P>, cpus: &mut impl Cpus) -> Step {
        self.running = false;
        tree.arrows.take(if tree.end() {
            Arrow::GpEndMore
        } else {
            Arrow::GpEnd
        });
        Step::Ended(cpus.now_ns() - self.began.unwrap_or_default())
    }

    /// Looks at all CPUs that have not reported.
    fn scan<P: Platform>(&mut self, tree: &Tree<P>, cpus: &mut impl Cpus, now: u64, times: &Times) {
        let first = self.scans == 0;
        self.scans += 1;
        self.next_scan = now + times.next_scan;
        tree.arrows.take(if first {
            Arrow::GpFirstScan
        } else {
            Arrow::GpScan
        });
        let own = cpus.own();
        let urge = !first && now - self.began.unwrap_or(now) >= times.urge;
        self.holdouts.clear();
        for leaf in tree.leaves() {
            let start = tree.nodes()[leaf].place.first;
            tree.report_on(leaf, Kind::Normal, |waiting| {
                let mut passed = 0;
                for bit in bits(waiting) {
                    let cpu = start + bit;
                    let quiescent = if own == Some(cpu) {
                        tree.arrows.take(Arrow::CpuOwn);
                        true
                    } else {
                        self.look_at(tree, cpus, cpu, first)
                    };
                    if quiescent {
                        passed |= 1 << bit;
                    } else {
                        if first {
                            tree.arrows.take(Arrow::CpuAsk);
                        }
                        cpus.ask(cpu);
                        if urge {
                            // Within what was reserved: a CPU is met once.
                            self.holdouts.push(cpu);
                        }
                    }
                }
                passed
            });
        }
        // SeqCst: the own CPU has reported, and goes on (see `tree`).
        fence(Ordering::SeqCst);
        if !self.holdouts.is_empty() {
            tree.arrows.take(Arrow::GpUrge);
            cpus.urge(&self.holdouts);
        }
    }

    /// Whether a CPU is idle, or has been since the first look.
    fn look_at<P: Platform>(
        &mut self,
        tree: &Tree<P>,
        cpus: &impl Cpus,
        cpu: usize,
        first: bool,
    ) -> bool {
        match self.snapshots[cpu] {
            Some(snapshot) if !first => {
                let passed = cpus.passed_since(cpu, snapshot);
                if passed {
                    tree.arrows.take(Arrow::CpuPassed);
                }
                passed
            }
            _ => {
                self.snapshots[cpu] = cpus.busy(cpu);
                let idle = self.snapshots[cpu].is_none();
                if idle {
                    tree.arrows.take(Arrow::CpuIdle);
                }
                idle
            }
        }
    }
}

/// The numbers of the bits that are set.
pub(crate) fn bits(mask: u64) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    core::iter::from_fn(move || {
        let bit = rest.trailing_zeros();
        (rest != 0).then(|| {
            rest &= rest - 1;
            bit as usize
        })
    })
}
