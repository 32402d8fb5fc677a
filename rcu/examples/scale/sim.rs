//! The machine of grace periods and its tree on CPUs that are contexts of one thread, so that
//! there can be thousands of them: a step is a look by the machine, or a CPU that begins or
//! ends a section, goes idle or comes back, or reports.
//!
//! What it must come to is known at each step: all have reported exactly if every CPU that
//! was there at the beginning has passed a quiescent state since, and the tree was told.

use std::cell::Cell;

use platform::{
    eqs::{Eqs, Snapshot},
    hosted::{Hosted, Machine},
};
use rcu::{
    geometry::Geometry,
    grace_period::{Cpus, GracePeriod, Step, Times, Wanted},
    tree::{Kind, Request, Tree},
};

/// The CPU that steps the machine.
const OWN: usize = 0;
const TIMES: Times = Times {
    first_scan: 0,
    next_scan: 4_000_000,
    urge: u64::MAX / 2,
    stall: u64::MAX / 2,
    interval: 0,
};

/// A plain generator.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// The CPUs in some order.
    pub fn order(&mut self, cpus: usize) -> Vec<usize> {
        let mut order: Vec<_> = (0..cpus).collect();
        for place in (1..cpus).rev() {
            order.swap(place, self.below(place + 1));
        }
        order
    }
}

/// What the CPUs do in a grace period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// All are idle but the one that makes it.
    Idle,
    /// All are in a section, and report one by one when that ends.
    Busy,
    /// Half are idle; a quarter report; a quarter go idle, which a later look finds.
    Mixed,
}

impl Load {
    pub const ALL: [Self; 3] = [Self::Idle, Self::Busy, Self::Mixed];
}

/// How often locks of nodes were taken, by node; the root is the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locks(pub Vec<u64>);

impl Locks {
    pub fn root(&self) -> u64 {
        self.0[0]
    }

    pub fn all(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Of the node whose lock was taken most.
    pub fn most(&self) -> u64 {
        self.0.iter().copied().max().unwrap_or(0)
    }

    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.0.iter().zip(&earlier.0);
        Self(pairs.map(|(now, then)| now - then).collect())
    }
}

/// What a grace period came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub locks: Locks,
    /// Looks at all CPUs.
    pub looks: u64,
    /// CPUs that reported themselves, by leaf, from the first on.
    pub reports: Vec<u64>,
    /// Another one is wanted.
    pub more: bool,
}

struct Context {
    idle: Eqs,
    /// The machine wants a report.
    asked: Cell<bool>,
    /// When the section began that the CPU is in.
    section: Option<u64>,
    /// The running grace period still waits for it, as far as the simulation knows.
    owes: Cell<bool>,
}

/// The CPUs, as the machine sees them.
struct Contexts {
    cpus: Vec<Context>,
    /// How many owe a report.
    owing: Cell<usize>,
    /// When the last grace period began.
    began: u64,
    now_ns: u64,
}

impl Contexts {
    /// What the whole thing is for.
    fn assert_passed(&self, cpu: usize) {
        assert!(
            self.cpus[cpu]
                .section
                .is_none_or(|since| since >= self.began),
            "cpu{cpu} is in a section that began before the grace period"
        );
    }

    /// A CPU has passed a quiescent state, and the tree is told. Whether it owed that.
    fn pass(&self, cpu: usize) -> bool {
        self.assert_passed(cpu);
        let owed = self.cpus[cpu].owes.take();
        self.owing.set(self.owing.get() - usize::from(owed));
        owed
    }
}

impl Cpus for Contexts {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn own(&self) -> Option<usize> {
        self.pass(OWN);
        Some(OWN)
    }

    fn busy(&self, cpu: usize) -> Option<Snapshot> {
        let snapshot = self.cpus[cpu].idle.snapshot();
        if snapshot.in_eqs() {
            self.pass(cpu);
            return None;
        }
        Some(snapshot)
    }

    fn passed_since(&self, cpu: usize, snapshot: Snapshot) -> bool {
        let passed = self.cpus[cpu].idle.passed_since(snapshot);
        if passed {
            // By now it may be in a section again.
            self.pass(cpu);
        }
        passed
    }

    fn ask(&self, cpu: usize) {
        self.cpus[cpu].asked.set(true);
    }

    fn urge(&self, _cpus: &[usize]) {
        panic!("the time for that never comes");
    }

    fn begins(&mut self) {
        self.cpus.iter().for_each(|context| context.owes.set(true));
        self.owing.set(self.cpus.len());
        self.began = self.now_ns;
    }
}

/// A machine with its tree. Made and used by a thread of a hosted machine ([`on_one_cpu`]).
pub struct Sim {
    tree: Tree<Hosted>,
    machine: GracePeriod,
    contexts: Contexts,
    reports: Vec<u64>,
}

/// Runs a simulation: locks want to know which CPU takes them, and all are taken by one.
pub fn on_one_cpu<R>(run: impl FnOnce() -> R) -> R {
    Machine::builder().steady().build().run(run)
}

impl Sim {
    /// CPUs that are all busy, and in no section.
    pub fn new(cpus: usize, fanout: usize) -> Self {
        let tree = Tree::try_new(Geometry::new(cpus, fanout, fanout)).unwrap();
        let context = |cpu| {
            tree.online(cpu);
            let idle = Eqs::new();
            idle.idle_exit();
            Context {
                idle,
                asked: Cell::new(false),
                section: None,
                owes: Cell::new(false),
            }
        };
        let contexts = Contexts {
            cpus: (0..cpus).map(context).collect(),
            owing: Cell::new(0),
            began: 0,
            now_ns: 1,
        };
        let leaves = tree.geometry().nodes() - tree.geometry().first_leaf();
        Self {
            machine: GracePeriod::try_new(cpus).unwrap(),
            contexts,
            reports: vec![0; leaves],
            tree,
        }
    }

    pub fn geometry(&self) -> &Geometry {
        self.tree.geometry()
    }

    pub fn cpus(&self) -> usize {
        self.contexts.cpus.len()
    }

    pub fn locks(&self) -> Locks {
        let nodes = 0..self.tree.geometry().nodes();
        Locks(nodes.map(|node| self.tree.locked(node)).collect())
    }

    // What a CPU does. The one that steps the machine does nothing of this.

    fn context(&mut self, cpu: usize) -> &mut Context {
        self.contexts.now_ns += 1;
        &mut self.contexts.cpus[cpu]
    }

    fn is_idle(&self, cpu: usize) -> bool {
        !self.contexts.cpus[cpu].idle.is_watching()
    }

    fn enter(&mut self, cpu: usize) {
        let now = self.contexts.now_ns;
        let context = self.context(cpu);
        assert!(context.idle.is_watching());
        context.section.get_or_insert(now);
    }

    fn exit(&mut self, cpu: usize) {
        self.context(cpu).section = None;
    }

    fn go_idle(&mut self, cpu: usize) {
        if !self.is_idle(cpu) {
            let context = self.context(cpu);
            assert_eq!(context.section, None);
            context.idle.idle_enter();
        }
    }

    fn come_back(&mut self, cpu: usize) {
        if self.is_idle(cpu) {
            self.context(cpu).idle.idle_exit();
        }
    }

    /// A thread switch: reports, if that is wanted.
    fn switch(&mut self, cpu: usize) {
        let context = self.context(cpu);
        assert_eq!(context.section, None);
        if !context.asked.take() {
            return;
        }
        let owed = self.contexts.pass(cpu);
        let was_last = self.tree.report(cpu, Kind::Normal);
        let geometry = self.tree.geometry();
        self.reports[geometry.leaf_of(cpu).0 - geometry.first_leaf()] += 1;
        let is_last = owed && self.owing() == 0;
        assert_eq!(was_last, is_last, "the last report is not known as that");
    }

    // What the machine does.

    fn owing(&self) -> usize {
        self.contexts.owing.get()
    }

    fn step(&mut self, wanted: Wanted) -> Step {
        self.contexts.now_ns += 1;
        self.machine
            .step(&self.tree, &mut self.contexts, wanted, &TIMES)
    }

    fn begin(&mut self) {
        self.reports.fill(0);
        assert_eq!(self.step(Wanted::Now), Step::Began);
        self.check();
    }

    fn look(&mut self) {
        assert_eq!(self.step(Wanted::Nothing), Step::Again);
        self.check();
    }

    fn look_later(&mut self) {
        self.contexts.now_ns += TIMES.next_scan;
        self.look();
    }

    /// The tree says that all have reported if they have, and not before.
    fn check(&self) {
        let owing = self.owing();
        assert_eq!(self.tree.is_reported(), owing == 0, "{owing} owe a report");
    }

    /// Whether the grace period is over, and another one wanted. Steps the machine once.
    fn try_end(&mut self) -> Option<bool> {
        if !self.tree.is_reported() {
            return None;
        }
        let more = self.end();
        (0..self.cpus()).for_each(|cpu| self.contexts.assert_passed(cpu));
        Some(more)
    }

    fn end(&mut self) -> bool {
        assert!(matches!(self.step(Wanted::Nothing), Step::Ended(_)));
        self.tree.is_requested()
    }

    /// One grace period under a load. `meanwhile` is called after the first look.
    pub fn grace_period(
        &mut self,
        load: Load,
        random: &mut Random,
        meanwhile: impl FnOnce(&mut Self, &mut Random),
    ) -> Outcome {
        let mut later = Vec::new();
        for cpu in 1..self.cpus() {
            let part = match load {
                Load::Idle => 0,
                Load::Busy => 2,
                Load::Mixed => random.below(4),
            };
            if part < 2 {
                self.go_idle(cpu);
            } else {
                self.come_back(cpu);
                self.enter(cpu);
                if part == 3 {
                    later.push(cpu);
                }
            }
        }
        let before = self.locks();
        self.begin();
        self.look();
        meanwhile(self, random);
        for cpu in random.order(self.cpus()) {
            if cpu == OWN || self.is_idle(cpu) || later.contains(&cpu) {
                continue;
            }
            self.exit(cpu);
            self.switch(cpu);
            // A section that is too young to matter.
            self.enter(cpu);
            self.check();
        }
        for cpu in &later {
            self.exit(*cpu);
            self.go_idle(*cpu);
        }
        if !later.is_empty() {
            self.look_later();
        }
        let looks = u64::from(self.machine.scans());
        let more = self.try_end().expect("nobody owes a report");
        self.settle();
        Outcome {
            locks: self.locks().since(&before),
            looks,
            reports: self.reports.clone(),
            more,
        }
    }

    /// All CPUs leave their sections; nobody is asked.
    fn settle(&mut self) {
        for cpu in 0..self.cpus() {
            self.exit(cpu);
            self.contexts.cpus[cpu].asked.set(false);
        }
    }

    /// Every CPU asks for a grace period, in some order. How many were told to wake the
    /// engine.
    pub fn requests(&mut self, random: &mut Random) -> usize {
        let order = random.order(self.cpus());
        let answers = order.iter().map(|cpu| {
            let cookie = self.tree.snap();
            self.tree.request(*cpu, cookie)
        });
        answers.filter(|answer| *answer == Request::Wake).count()
    }

    /// [`requests`](Self::requests) while no grace period runs: the locks it took.
    pub fn requests_when_idle(&mut self, random: &mut Random) -> (usize, Locks) {
        let before = self.locks();
        let woken = self.requests(random);
        assert!(self.tree.is_requested());
        (woken, self.locks().since(&before))
    }

    /// As many grace periods as said, with CPUs that do anything at any time. How many CPUs
    /// reported themselves.
    pub fn churn(&mut self, grace_periods: usize, random: &mut Random) -> u64 {
        let mut reports = 0;
        for _ in 0..grace_periods {
            self.anything(random, 2);
            self.begin();
            self.look();
            while self.try_end().is_none() {
                self.anything(random, 4);
                if !self.tree.is_reported() {
                    self.look_later();
                }
            }
            reports += self.reports.iter().sum::<u64>();
        }
        reports
    }

    /// One in `one_in` CPUs does something.
    fn anything(&mut self, random: &mut Random, one_in: usize) {
        for cpu in 1..self.cpus() {
            if random.below(one_in) != 0 {
                continue;
            }
            match random.below(5) {
                0 if !self.is_idle(cpu) => self.enter(cpu),
                1 => self.exit(cpu),
                2 if self.contexts.cpus[cpu].section.is_none() => self.switch(cpu),
                3 if self.contexts.cpus[cpu].section.is_none() => self.go_idle(cpu),
                4 => self.come_back(cpu),
                _ => {}
            }
            if self.machine.is_running() {
                self.check();
            }
        }
    }
}
