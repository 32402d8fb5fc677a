//! The machine of the model checker ([`platform::model`]) as a machine of RCU, and an engine
//! whose parts a test runs by hand: with its threads there would be too many.
//!
//! A CPU of the model runs one thread, to its end, so what belongs to a thread is kept by
//! CPU. A CPU is idle until its body calls [`begin_cpu`], and after [`end_cpu`]. Time stands
//! still: a grace period has its first look, and CPUs that are busy then must report by
//! [`switch`], or by the end of a section.

use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};
use core::{
    cell::{Cell, RefCell},
    fmt,
    ptr::NonNull,
};

use platform::{CpuId, IrqsOff, Platform, eqs::Eqs, model::Model, sync::Ordering};

use crate::{Config, Machine, Rcu, Stall, blocked::Entry, callbacks::Queue, cpu::NORMAL};

/// What there is of each CPU in one execution. The checker's threads are coroutines of one
/// thread of the host, so plain cells do.
struct Cpu {
    idle: Eqs,
    /// Sections that its thread is in, if they are preemptible.
    depth: Cell<u32>,
    asked: Cell<bool>,
    entry: Entry,
}

struct World {
    preemptible: bool,
    cpus: Vec<Cpu>,
    rcu: Weak<Rcu<Model>>,
}

std::thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// A CPU of this execution. Not to be kept beyond it.
fn state(cpu: CpuId) -> &'static Cpu {
    let state = WORLD.with_borrow(|world| {
        let world = world.as_ref().expect("`engine` comes first");
        NonNull::from(&world.cpus[cpu.index()])
    });
    // SAFETY: there until the next execution makes others.
    unsafe { state.as_ref() }
}

fn own() -> &'static Cpu {
    state(Model::current_cpu())
}

/// The engine of this execution; its threads are not started. On CPU 0. To be dropped after
/// all others have been joined.
pub fn engine(preemptible: bool, config: Config) -> Arc<Rcu<Model>> {
    let cpu = |_| Cpu {
        idle: Eqs::new(),
        depth: Cell::new(0),
        asked: Cell::new(false),
        entry: Entry::new(),
    };
    let world = World {
        preemptible,
        cpus: Model::possible_cpus().iter().map(cpu).collect(),
        rcu: Weak::new(),
    };
    drop(WORLD.replace(Some(world)));
    // SAFETY: the one engine of the model's machine.
    let rcu = unsafe { Rcu::try_new(config) }.expect("there is memory");
    let weak = Arc::downgrade(&rcu);
    WORLD.with_borrow_mut(|world| world.as_mut().expect("made above").rcu = weak);
    rcu
}

/// The CPU that runs this is not idle any more.
pub fn begin_cpu() {
    own().idle.idle_exit();
}

/// [`begin_cpu`] for a CPU whose body does not run yet: then it has no fence of its own, which
/// would hide what is missing elsewhere.
pub fn begin_early(number: CpuId) {
    state(number).idle.idle_exit();
}

/// The CPU that runs this is idle from here on.
pub fn end_cpu() {
    own().idle.idle_enter();
}

/// The CPU that runs this changes threads, or could; in a (preemptible) section the thread
/// goes on with that, afterwards.
pub fn switch(rcu: &Rcu<Model>) {
    let _off = IrqsOff::<Model>::disable();
    rcu.note_switch();
}

impl Rcu<Model> {
    /// Makes grace periods as far as that needs no waiting. Task context, not in a section.
    pub fn make_by_hand(&self) {
        self.help();
    }

    /// A CPU is to report at its next [`switch`], whether a grace period waits for it or not:
    /// as the look of one that is over may have left it.
    pub fn ask_by_hand(&self, number: CpuId) {
        self.cpus
            .on(number)
            .wanted
            .fetch_or(NORMAL, Ordering::Relaxed);
    }

    /// Takes what has arrived on a CPU. Nobody else takes anything at that time: this is without
    /// the lock of the list, so what is taken came by the stack alone.
    pub fn take_arrived(&self, number: CpuId) -> Queue {
        let taken = self.cpus.on(number).arrivals.take();
        taken.map_or_else(Queue::new, |taken| taken.queue)
    }

    /// Whether somebody will come for what has arrived on a CPU, if anything has: something on
    /// its list waits, and its end is looked for. While nobody else does anything.
    pub fn comes_by(&self, number: CpuId) -> bool {
        let cpu = self.cpus.on(number);
        cpu.due().is_some() || !cpu.arrivals.any()
    }

    /// Whether a barrier would pass a CPU by without its lock.
    pub fn has_none(&self, number: CpuId) -> bool {
        self.cpus.on(number).has_none()
    }

    /// Runs what is ripe on a CPU, in the place of its thread.
    pub fn run_by_hand(&self, number: CpuId) {
        self.run_ripe(number);
    }
}

// SAFETY: bodies say when their CPU is idle (`begin_cpu`, `end_cpu`), and the engine is called
// by `switch` and `read_exit` alone.
unsafe impl Machine for Model {
    fn preemptible() -> bool {
        WORLD.with_borrow(|world| world.as_ref().is_some_and(|world| world.preemptible))
    }

    fn read_enter() {
        if Self::preemptible() {
            own().depth.update(|depth| depth + 1);
        } else {
            Self::preempt_disable();
        }
    }

    fn read_exit() {
        if !Self::preemptible() {
            Self::preempt_enable();
            return;
        }
        own().depth.update(|depth| depth - 1);
        if own().depth.get() == 0 && own().asked.replace(false) {
            let rcu =
                WORLD.with_borrow(|world| world.as_ref().and_then(|world| world.rcu.upgrade()));
            rcu.expect("the engine is there").section_ended();
        }
    }

    fn reader_depth() -> u32 {
        own().depth.get()
    }

    fn ask_reader() {
        own().asked.set(true);
    }

    fn reader_entry() -> NonNull<Entry> {
        NonNull::from(&own().entry)
    }

    fn interrupted_quiescent() -> bool {
        // The model does not say what an interrupt came upon.
        false
    }

    fn resched_here() {
        // Bodies switch by themselves.
    }

    fn idle(cpu: CpuId) -> &'static Eqs {
        &state(cpu).idle
    }

    fn thread_number() -> u32 {
        Self::current_cpu().number()
    }

    fn stalled(stall: &Stall) {
        panic!("{stall}");
    }

    fn rcu_report(what: fmt::Arguments<'_>) {
        panic!("{what}");
    }
}
