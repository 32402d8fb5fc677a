//! Hosted machines ([`platform::hosted`]) as machines of RCU: whole engines under test at
//! full speed, with injected interrupts as ticks.
//!
//! ```
//! # #[cfg(feature = "hosted")] {
//! use platform::hosted::Machine;
//! use rcu::{Config, hosted::Engine};
//!
//! let machine = Machine::builder().cpus(4).build();
//! rcu::hosted::make_preemptible(&machine); // or not
//! machine.run(|| {
//!     let rcu = Engine::start(&machine, Config::default());
//!     let guard = rcu::hosted::read();
//!     drop(guard);
//!     rcu.synchronize();
//! });
//! # }
//! ```
//!
//! | | non-preemptible, the default | preemptible |
//! |---|---|---|
//! | a section | preemption off | a count that is kept with the thread |
//! | its thread is switched away | never | at any point |
//!
//! An interrupt adds to the count of the thread that it came upon; one of a CPU that was idle
//! to that of an idle thread. A stall, or a wrong use of RCU, fails the machine, unless the
//! test takes the reports ([`Machine::take_reports`]).

use core::{
    fmt,
    ops::Deref,
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use platform::{
    Context, CpuId, Mark, Platform,
    eqs::Eqs,
    hosted::{Attachment, Hosted, Injection, Machine},
};

use crate::{Config, Guard, Rcu, Stall, blocked::Entry};

/// At one of how many points where interrupts are on a tick comes.
const TICK_ONE_IN: u32 = 64;

/// Sections of this machine are preemptible from now on. Before any begins, and before there
/// is an engine.
///
/// # Panics
///
/// If it is too late.
pub fn make_preemptible(machine: &Machine) {
    let shared = machine.attached::<Shared>();
    let chosen = *shared.preemptible.get_or_init(|| true);
    assert!(
        chosen,
        "the machine has had sections, which were not preemptible"
    );
}

/// [`read`](crate::read) on the machine that the calling thread belongs to.
pub fn read() -> Guard<Hosted> {
    crate::read()
}

/// Takes a CPU away ([`Hosted::offline`], which says when); its callbacks come to the caller's.
pub fn offline(rcu: &Rcu<Hosted>, cpu: CpuId) {
    Hosted::offline(cpu, || rcu.cpu_dying(cpu));
    rcu.cpu_dead(cpu);
}

/// Brings it back.
///
/// # Panics
///
/// If the thread for its callbacks cannot be started, which it was not before.
pub fn online(rcu: &Arc<Rcu<Hosted>>, cpu: CpuId) {
    Hosted::online(cpu, || rcu.cpu_starting(cpu));
    rcu.cpu_online(cpu).expect("a thread starts");
}

/// What belongs to a machine.
#[derive(Default)]
struct Shared {
    preemptible: OnceLock<bool>,
    engine: RwLock<Option<Arc<Rcu<Hosted>>>>,
    /// The machine tells of changes of threads.
    hooked: OnceLock<()>,
}

impl Attachment for Shared {}

impl Shared {
    /// The engine, if there is one now. Nothing in here is a point.
    fn engine(&self) -> Option<Arc<Rcu<Hosted>>> {
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        engine.clone()
    }

    fn set_engine(&self, engine: Option<Arc<Rcu<Hosted>>>) {
        let mut known = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        let last = core::mem::replace(&mut *known, engine);
        drop(known);
        // Not under the lock: it may be the end of the engine.
        drop(last);
    }
}

/// What belongs to a thread. Only that thread, and interrupts that come upon it, change it,
/// and those come at points; so Relaxed will do throughout.
#[derive(Default)]
struct Reader {
    shared: OnceLock<Arc<Shared>>,
    /// Sections that it is in, one within the other.
    depth: AtomicU32,
    /// The engine wants to know of the end of the outermost one.
    asked: AtomicBool,
    entry: Entry,
}

impl Reader {
    fn here() -> Arc<Self> {
        Hosted::thread_value()
    }

    fn shared(&self) -> &Shared {
        self.shared.get_or_init(Hosted::attached)
    }

    fn preemptible(&self) -> bool {
        *self.shared().preemptible.get_or_init(|| false)
    }
}

// SAFETY: a CPU's word is even only while no thread has its baton and no interrupt runs in its
// name, so while nothing runs there; `interrupted_quiescent` is the machine's, which knows
// what runs with preemption and interrupts on, and looks at the count; the engine is called
// by `Engine::start`'s hooks and by `read_exit` alone.
unsafe impl crate::Machine for Hosted {
    fn preemptible() -> bool {
        Reader::here().preemptible()
    }

    fn read_enter() {
        let reader = Reader::here();
        if reader.preemptible() {
            reader.depth.fetch_add(1, Ordering::Relaxed);
            Self::mark(Mark::Step);
        } else {
            Self::preempt_disable();
        }
    }

    fn read_exit() {
        let reader = Reader::here();
        if !reader.preemptible() {
            Self::preempt_enable();
            return;
        }
        Self::mark(Mark::Step);
        let depth = reader.depth.fetch_sub(1, Ordering::Relaxed);
        assert!(depth > 0, "a section ends that has not begun");
        if depth > 1 {
            return;
        }
        // What comes here finds no section, but what was asked at its end.
        Self::mark(Mark::Step);
        // An NMI leaves it to what it came upon, which looks after this, or is in a section.
        if Self::context() != Context::Nmi && reader.asked.swap(false, Ordering::Relaxed) {
            Self::mark(Mark::Step);
            if let Some(rcu) = reader.shared().engine() {
                rcu.section_ended();
            }
        }
    }

    fn reader_depth() -> u32 {
        Reader::here().depth.load(Ordering::Relaxed)
    }

    fn ask_reader() {
        let reader = Reader::here();
        assert!(!Self::irqs_enabled(), "asks with interrupts on");
        assert!(reader.depth.load(Ordering::Relaxed) > 0, "asks no section");
        reader.asked.store(true, Ordering::Relaxed);
    }

    fn reader_entry() -> NonNull<Entry> {
        // The thread (or the CPU, for its idle thread) keeps what it lies in.
        NonNull::from(&Reader::here().entry)
    }

    fn interrupted_quiescent() -> bool {
        Self::interrupted_quiescent() && Self::reader_depth() == 0
    }

    fn resched_here() {
        assert!(!Self::irqs_enabled(), "wants a switch with interrupts on");
        Self::want_switch();
    }

    fn idle(cpu: CpuId) -> &'static Eqs {
        Self::idle_word(cpu)
    }

    fn thread_number() -> u32 {
        Self::current_thread().number()
    }

    fn stalled(stall: &Stall) {
        Self::report(format_args!("rcu: {stall}"));
    }

    fn rcu_report(what: fmt::Arguments<'_>) {
        Self::report(format_args!("rcu: {what}"));
    }
}

/// The engine of a hosted machine, with its hooks. Dropped, on a thread of the machine, with
/// all CPUs online, it waits until all callbacks have run and everybody else has dropped the engine.
pub struct Engine {
    rcu: Option<Arc<Rcu<Hosted>>>,
    shared: Arc<Shared>,
    tick: Option<Injection>,
}

impl Engine {
    /// Makes and starts one. On a thread of `machine`, which has no other engine.
    ///
    /// # Panics
    ///
    /// If there is no memory for it.
    pub fn start(machine: &Machine, config: Config) -> Self {
        let shared = machine.attached::<Shared>();
        assert!(shared.engine().is_none(), "the machine has an engine");
        assert!(
            Arc::ptr_eq(&shared, &Hosted::attached()),
            "it is started by a thread of another machine"
        );
        // SAFETY: the machine has no other, and the hooks below tell this one.
        let rcu = unsafe { Rcu::try_new(config) }.expect("there is memory for an engine");
        shared.set_engine(Some(Arc::clone(&rcu)));
        shared.hooked.get_or_init(|| {
            let shared = Arc::clone(&shared);
            machine.on_switch(move || {
                if let Some(rcu) = shared.engine() {
                    rcu.note_switch();
                }
            });
        });
        let ticked = Arc::clone(&shared);
        let tick = machine.on_interrupt(TICK_ONE_IN, move || {
            if let Some(rcu) = ticked.engine() {
                rcu.tick();
            }
        });
        rcu.start().expect("the engine's threads start");
        Self {
            rcu: Some(rcu),
            shared,
            tick: Some(tick),
        }
    }
}

impl Deref for Engine {
    type Target = Arc<Rcu<Hosted>>;

    fn deref(&self) -> &Arc<Rcu<Hosted>> {
        // It is taken by `drop` alone.
        self.rcu.as_ref().expect("the engine runs")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(rcu) = self.rcu.take() else {
            return;
        };
        if std::thread::panicking() {
            // The machine has failed, or is about to: the threads do not end as they should,
            // and outside of the machine the engine cannot be dropped.
            core::mem::forget(rcu);
            return;
        }
        rcu.stop();
        self.tick = None;
        self.shared.set_engine(None);
        // Hooks that are under way.
        while Arc::strong_count(&rcu) > 1 {
            Hosted::yield_now();
            Hosted::relax();
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("preemptible", &self.shared.preemptible)
            .field("tick", &self.tick)
            .finish_non_exhaustive()
    }
}
