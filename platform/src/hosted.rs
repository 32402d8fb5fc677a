//! The machine whose CPUs are threads of the host, for tests of the portable crates at full
//! speed and under sanitizers.
//!
//! ```
//! # #[cfg(feature = "hosted")] {
//! use platform::{CpuId, Platform, hosted::{Hosted, Machine}};
//!
//! let machine = Machine::builder().cpus(4).nodes(2).seed(7).build();
//! let cpus = machine.run_on_all(|cpu| {
//!     assert_eq!(Hosted::current_cpu(), cpu);
//!     cpu
//! });
//! assert_eq!(cpus.last(), CpuId::new(3).as_ref());
//! # }
//! ```
//!
//! There may be many machines in a process. A thread belongs to one from
//! [`Machine::run`], [`Machine::run_on_all`], [`Machine::spawn_on`] or
//! [`Platform::spawn`](crate::Platform::spawn) to the end of the function given; any other
//! thread that calls [`Hosted`] panics.
//!
//! # CPUs
//!
//! A CPU is a baton. Of the threads that belong to one, only its holder runs; threads of
//! different CPUs run at the same time. The baton is handed on
//!
//! - in `park` and `yield_now`;
//! - at a *point* with preemption and interrupts on: [`Platform::mark`](crate::Platform),
//!   `preempt_enable` to 0, `irq_restore` to on, `relax`. To a waiting thread of higher
//!   priority always, to one of the same priority if the seed says so.
//!
//! (Marks are points in builds with debug assertions only: the others are for figures, and a
//! mark costs them nothing.)
//!
//! So whatever lies between `preempt_disable` and `preempt_enable` has its CPU for itself,
//! as on metal, and so has a straight piece of code without a point. A thread that may run
//! anywhere (`cpu: None`) takes any idle CPU when it is woken, and may move at a point.
//!
//! A thread that blocks in the host (in a `Barrier` of `std`, say) keeps its CPU: another
//! thread of that CPU must not be what it waits for.
//!
//! # Interrupts
//!
//! They come at points, on the thread that holds the CPU, with `Context::HardIrq`,
//! preemption and interrupts off: calls from other CPUs and deferred work where interrupts
//! are on; handlers that a test injects ([`Machine::on_interrupt`]) where the seed says so;
//! and as NMI ([`Machine::on_nmi`]), also where interrupts are off, but not in another NMI.
//! A call to a CPU whose baton nobody holds is served by the caller, which borrows it: then
//! it comes upon an idle loop.
//!
//! # For RCU
//!
//! The machine has what `rcu` asks of one: [`Hosted::idle_word`], [`Machine::on_switch`],
//! [`Hosted::want_switch`], [`Hosted::interrupted_quiescent`] and [`Hosted::thread_value`].
//! An injected interrupt can be its tick.
//!
//! # CPUs that come and go
//!
//! [`Hosted::offline`] takes a CPU away and [`Hosted::online`] brings it back. All are back
//! before the machine ends, or their own threads would not.
//!
//! # Seeds
//!
//! Each CPU has a generator for what is decided at its points, so that the decisions of a
//! CPU repeat as far as the CPUs do not influence each other; on a machine of one CPU whose
//! threads use no time-outs, everything repeats. `GRANARY_SEED` in the environment overrides
//! the seed. A machine that fails prints its seed.
//!
//! # Failure
//!
//! A panic in any thread fails the machine: its other threads panic at their next `relax`,
//! `mark` or `park`, and so does who waits in `run`. So does a machine that is older than
//! its [`Builder::limit`] in a wait: a hang ends with a list of the threads. A machine that
//! has failed keeps no promises while its threads unwind.

use std::{
    boxed::Box,
    string::String,
    sync::Arc,
    time::{Duration, Instant},
    vec::Vec,
};

use crate::{CpuId, LOCAL_DISTANCE, MAX_CPUS, MAX_NODES, NodeId, Priority, Spawn, Topology};

mod areas;
mod attached;
mod here;
mod hotplug;
mod inject;
mod join;
mod machine;
mod quick;
mod random;
mod sched;
mod seam;
mod thread;

pub use attached::Attachment;
pub use inject::Injection;
pub use join::JoinHandle;
pub use seam::Hosted;
pub use thread::Thread;

use machine::Inner;

/// A machine. See the module's documentation. Dropped, it waits for its threads to end.
#[derive(Debug)]
pub struct Machine(Arc<Inner>);

/// A machine to be.
#[derive(Debug, Clone)]
pub struct Builder {
    cpus: usize,
    possible: usize,
    nodes: usize,
    distances: [[u8; MAX_NODES]; MAX_NODES],
    seed: u64,
    percpu_bytes: usize,
    steady: bool,
    limit: Duration,
}

impl Builder {
    /// How many CPUs run. One, unless said.
    ///
    /// # Panics
    ///
    /// If there is no or more than [`MAX_CPUS`].
    #[must_use]
    pub fn cpus(self, cpus: usize) -> Self {
        assert!((1..=MAX_CPUS).contains(&cpus));
        let possible = self.possible.max(cpus);
        Self {
            cpus,
            possible,
            ..self
        }
    }

    /// How many CPUs have per-CPU memory; those beyond [`cpus`](Self::cpus) never run.
    ///
    /// # Panics
    ///
    /// If there are more than [`MAX_CPUS`] or fewer than run.
    #[must_use]
    pub fn possible(self, possible: usize) -> Self {
        assert!((self.cpus..=MAX_CPUS).contains(&possible));
        Self { possible, ..self }
    }

    /// How many nodes; the CPUs are divided evenly, neighbours together. One, unless said.
    ///
    /// # Panics
    ///
    /// If there is no or more than [`MAX_NODES`].
    #[must_use]
    pub fn nodes(self, nodes: usize) -> Self {
        assert!((1..=MAX_NODES).contains(&nodes));
        Self { nodes, ..self }
    }

    /// How far apart two nodes lie, in both directions. 20, unless said.
    ///
    /// # Panics
    ///
    /// If the two are one, or the distance is less than 10, which is that of a node to itself.
    #[must_use]
    pub fn distance(mut self, one: NodeId, other: NodeId, distance: u8) -> Self {
        assert!(one != other && distance >= LOCAL_DISTANCE);
        self.distances[one.index()][other.index()] = distance;
        self.distances[other.index()][one.index()] = distance;
        self
    }

    /// What decides at points, unless `GRANARY_SEED` does. 1, unless said.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// How much per-CPU memory there is for each CPU. 4 MiB, unless said; touched only as it
    /// is used.
    #[must_use]
    pub fn percpu_bytes(self, percpu_bytes: usize) -> Self {
        Self {
            percpu_bytes,
            ..self
        }
    }

    /// Points decide nothing by chance: a thread keeps its CPU until one of higher priority
    /// wants it, and is not delayed. Where preemption or interrupts come on, only one place in
    /// 256 is a point. For figures; tests want chance.
    #[must_use]
    pub fn steady(self) -> Self {
        Self {
            steady: true,
            ..self
        }
    }

    /// How old the machine may become before a wait in it counts as a hang. Two minutes,
    /// unless said.
    #[must_use]
    pub fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// The machine.
    ///
    /// # Panics
    ///
    /// If `GRANARY_SEED` is set and no number.
    pub fn build(mut self) -> Machine {
        if let Ok(text) = std::env::var("GRANARY_SEED") {
            self.seed = text.parse().expect("GRANARY_SEED is no number");
        }
        Machine(Arc::new(Inner::new(&self, Instant::now())))
    }
}

impl Machine {
    /// A machine to be: one CPU, one node.
    pub fn builder() -> Builder {
        Builder {
            cpus: 1,
            possible: 1,
            nodes: 1,
            distances: Topology::default_distances(),
            seed: 1,
            percpu_bytes: 4 << 20,
            steady: false,
            limit: Duration::from_secs(120),
        }
    }

    /// The seed in force.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// Runs `f` as a thread of CPU 0, then waits until every thread of the machine has
    /// ended.
    ///
    /// # Panics
    ///
    /// If a thread of the machine does, or from a thread of a machine.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        here::assert_outside();
        let thread = self.0.register(&main_thread(CpuId::BOOT));
        let result = self.0.enter(&thread, f);
        self.0.wait_for_ends();
        result
    }

    /// Runs `f` as a thread of every CPU that runs, at the same time, then waits until every
    /// thread of the machine has ended. What they returned, by CPU.
    ///
    /// # Panics
    ///
    /// As for [`run`](Self::run).
    pub fn run_on_all<R: Send>(&self, f: impl Fn(CpuId) -> R + Sync) -> Vec<R> {
        here::assert_outside();
        let results = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .0
                .online()
                .iter()
                .map(|cpu| {
                    let thread = self.0.register(&main_thread(cpu));
                    let (inner, f) = (&self.0, &f);
                    scope.spawn(move || inner.enter(&thread, || f(cpu)))
                })
                .collect();
            // All are joined before a panic of one is passed on, so that the first cause,
            // which the machine has noted, is what is shown.
            let joined: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            self.0.check_failure();
            joined
                .into_iter()
                .map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        self.0.wait_for_ends();
        results
    }

    /// Starts a thread of `cpu`, with normal priority. From any thread, of this machine or
    /// of none.
    ///
    /// # Panics
    ///
    /// If `cpu` does not run, or the host cannot start a thread.
    pub fn spawn_on<T: Send + 'static>(
        &self,
        cpu: CpuId,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let spawn = Spawn {
            name: "spawned",
            cpu: Some(cpu),
            priority: Priority::Normal,
        };
        self.spawn(spawn, f)
    }

    /// Starts a thread. From any thread, of this machine or of none.
    ///
    /// # Panics
    ///
    /// As for [`spawn_on`](Self::spawn_on).
    pub fn spawn<T: Send + 'static>(
        &self,
        spawn: Spawn,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        JoinHandle::start(&self.0, &spawn, f)
    }

    /// Injects `handler` as an interrupt at one of `one_in` points where interrupts are on
    /// (as the seed decides), until the result is dropped. A run that has begun then goes
    /// on.
    pub fn on_interrupt(
        &self,
        one_in: u32,
        handler: impl Fn() + Send + Sync + 'static,
    ) -> Injection {
        Injection::new(&self.0, one_in, false, Box::new(handler))
    }

    /// [`on_interrupt`](Self::on_interrupt) as NMI: where interrupts are off, too.
    pub fn on_nmi(&self, one_in: u32, handler: impl Fn() + Send + Sync + 'static) -> Injection {
        Injection::new(&self.0, one_in, true, Box::new(handler))
    }

    /// From now on `told` is called when a CPU is about to change threads: when its thread
    /// sleeps, ends, moves, or makes way for another (which may then turn out to be gone);
    /// and where [`Hosted::want_switch`] asked for it. On that CPU, in its thread, interrupts
    /// off; may take spinning locks and wake threads.
    ///
    /// # Panics
    ///
    /// If the machine has one already.
    pub fn on_switch(&self, told: impl Fn() + Send + Sync + 'static) {
        let is_first = self.0.on_switch.set(Box::new(told)).is_ok();
        assert!(is_first, "a machine tells one only of changes of threads");
    }

    /// From now on what the lock checker (or [`Platform::report`](crate::Platform::report))
    /// says is kept instead of failing the machine; what it said so far.
    pub fn take_reports(&self) -> Vec<String> {
        self.0.take_reports()
    }

    /// What a crate on top keeps with this machine: the one value of type `T`, made when it
    /// is first asked for. [`Hosted::attached`] gives it to the machine's own threads.
    pub fn attached<T: Attachment>(&self) -> Arc<T> {
        self.0.attachments.get()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.wait_for_ends();
            self.0.areas.assert_free();
            self.0.attachments.end();
        }
    }
}

fn main_thread(cpu: CpuId) -> Spawn {
    Spawn {
        name: "main",
        cpu: Some(cpu),
        priority: Priority::Normal,
    }
}
