//! The seam, for the model checker. See the parent module for what is modelled.

use core::{
    alloc::Layout,
    cell::{Cell, RefCell},
    fmt,
    panic::Location,
    ptr::NonNull,
};
use std::{sync::Arc, vec::Vec};

use super::Machine;
use crate::{
    Acquisition, Context, CpuId, CpuMask, LOCAL_DISTANCE, LockKind, Mark, NodeId, NodeMask,
    PerCpuAddr, Platform, REMOTE_DISTANCE, Spawn, SpawnError,
    call_list::{Call, Node, Pushed},
    deferred::List,
    lock::LockClass,
    park::ParkWord,
    sync::{AtomicU64, Ordering},
};

/// The machine of the model checker, as a [`Platform`].
#[derive(Debug, Clone, Copy)]
pub struct Model;

/// A thread of the model.
#[derive(Clone)]
pub struct Thread(Arc<ThreadState>);

struct ThreadState {
    park: ParkWord,
    /// The run queue: it was parked, and was made ready.
    ready: loom::sync::Mutex<bool>,
    made_ready: loom::sync::Condvar,
}

impl Thread {
    pub(super) fn new() -> Self {
        Self(Arc::new(ThreadState {
            park: ParkWord::new(),
            ready: loom::sync::Mutex::new(false),
            made_ready: loom::sync::Condvar::new(),
        }))
    }

    /// Waits, off its CPU, until somebody makes it ready.
    fn wait_ready(&self) {
        let mut ready = self.0.ready.lock().unwrap();
        while !*ready {
            ready = self.0.made_ready.wait(ready).unwrap();
        }
        *ready = false;
    }
}

impl PartialEq for Thread {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thread({:p})", Arc::as_ptr(&self.0))
    }
}

/// What a CPU knows of itself.
struct Here {
    cpu: Cell<CpuId>,
    preempt: Cell<u32>,
    irqs_off: Cell<bool>,
    in_irq: Cell<bool>,
    deferred: Cell<bool>,
    thread: RefCell<Option<Thread>>,
}

loom::thread_local! {
    static HERE: Here = Here {
        cpu: Cell::new(CpuId::BOOT),
        preempt: Cell::new(0),
        irqs_off: Cell::new(false),
        in_irq: Cell::new(false),
        deferred: Cell::new(false),
        thread: RefCell::new(None),
    };
}

/// This thread begins as `cpu`.
pub(super) fn enter(cpu: CpuId, thread: Thread) {
    HERE.with(|here| {
        here.cpu.set(cpu);
        *here.thread.borrow_mut() = Some(thread);
    });
    attend(cpu, true);
}

/// This thread ends.
pub(super) fn leave() {
    take_interrupts();
    HERE.with(|here| {
        assert_eq!(here.preempt.get(), 0, "ends with preemption off");
        assert!(!here.irqs_off.get(), "ends with interrupts off");
    });
    attend(here(), false);
    // What the handler holds may be the last of its kind, to be dropped in this execution.
    let handler = Machine::get().cpus[here().index()].handler.take();
    drop(handler);
}

/// The CPU that runs this.
pub(super) fn here() -> CpuId {
    HERE.with(|here| here.cpu.get())
}

/// From now on `cpu`, which is the own one, serves its calls itself, or does not.
pub(super) fn attend(cpu: CpuId, attends: bool) {
    let machine = Machine::get();
    if !machine.setup.calls {
        return;
    }
    let mut attending = machine.attending.lock().unwrap();
    *attending = if attends {
        attending.with(cpu)
    } else {
        attending.without(cpu)
    };
    drop(attending);
    if !attends {
        // Nobody adds to it any more.
        as_interrupt(|| machine.cpus[cpu.index()].calls.serve());
    }
}

/// Runs `f` as an interrupt of this CPU.
fn as_interrupt(f: impl FnOnce()) {
    let (in_irq, irqs_off) = HERE.with(|here| {
        here.preempt.set(here.preempt.get() + 1);
        (here.in_irq.replace(true), here.irqs_off.replace(true))
    });
    f();
    HERE.with(|here| {
        here.in_irq.set(in_irq);
        here.irqs_off.set(irqs_off);
        here.preempt.set(here.preempt.get() - 1);
    });
}

/// Takes what interrupts there are, if they are on.
fn take_interrupts() {
    if !Model::irqs_enabled() {
        return;
    }
    let machine = Machine::get();
    let own = &machine.cpus[here().index()];
    if HERE.with(|here| here.deferred.take()) {
        as_interrupt(|| own.deferred.run::<Model>());
    }
    let handler = own.handler.borrow().clone();
    // Acquire: the handler sees what came before the interrupt.
    if (handler.is_some() || machine.setup.calls) && own.line.swap(false, Ordering::Acquire) {
        as_interrupt(|| {
            own.calls.serve();
            if let Some(handler) = handler {
                handler();
            }
        });
    }
}

// SAFETY: a CPU of the model is one thread, per-CPU memory is allocated for each of them and
// lives as long as the model runs, and the rest is by the real protocols.
unsafe impl Platform for Model {
    /// The checker finds what goes wrong, and each access costs executions.
    const CHECK_LOCKS: bool = false;

    type Thread = Thread;
    type IrqState = bool;

    fn current_cpu() -> CpuId {
        here()
    }

    fn possible_cpus() -> CpuMask {
        CpuMask::first_n(Machine::get().setup.cpus)
    }

    fn online_cpus() -> CpuMask {
        Self::possible_cpus()
    }

    fn node_of(cpu: CpuId) -> NodeId {
        NodeId::from_index(cpu.index() % Machine::get().setup.nodes).expect("checked in `Setup`")
    }

    fn nodes() -> NodeMask {
        NodeMask::first_n(Machine::get().setup.nodes)
    }

    fn distance(from: NodeId, to: NodeId) -> u8 {
        if from == to {
            LOCAL_DISTANCE
        } else {
            REMOTE_DISTANCE
        }
    }

    fn preempt_disable() {
        HERE.with(|here| here.preempt.set(here.preempt.get() + 1));
    }

    fn preempt_enable() {
        let depth = HERE.with(|here| {
            let depth = here.preempt.get().checked_sub(1);
            here.preempt.set(depth.expect("preemption was not off"));
            here.preempt.get()
        });
        if depth == 0 {
            Self::mark(Mark::Preempt);
        }
    }

    fn irq_save() -> bool {
        HERE.with(|here| here.irqs_off.replace(true))
    }

    fn irq_restore(was_off: bool) {
        HERE.with(|here| here.irqs_off.set(was_off));
        take_interrupts();
    }

    fn irqs_enabled() -> bool {
        HERE.with(|here| !here.irqs_off.get())
    }

    fn context() -> Context {
        if HERE.with(|here| here.in_irq.get()) {
            Context::HardIrq
        } else {
            Context::Task
        }
    }

    fn may_sleep() -> bool {
        HERE.with(|here| here.preempt.get() == 0 && !here.irqs_off.get())
    }

    fn percpu_alloc(layout: Layout) -> Option<PerCpuAddr> {
        Machine::get().alloc(layout).map(PerCpuAddr)
    }

    unsafe fn percpu_free(addr: PerCpuAddr, _layout: Layout) {
        Machine::get().free(addr.0);
    }

    fn percpu_here(addr: PerCpuAddr) -> NonNull<u8> {
        assert!(
            HERE.with(|here| here.preempt.get() > 0 || here.irqs_off.get()),
            "per-CPU memory is used with preemption on"
        );
        Self::percpu_on(addr, here())
    }

    fn percpu_on(addr: PerCpuAddr, cpu: CpuId) -> NonNull<u8> {
        Machine::get().copy_on(addr.0, cpu)
    }

    unsafe fn percpu_add(addr: PerCpuAddr, value: u64) {
        // SAFETY: as the caller promises.
        let word = unsafe { Self::percpu_on(addr, here()).cast::<AtomicU64>().as_ref() };
        // Relaxed: a statistic. One access, since a load before the store would keep the
        // checker from seeing that the store races with other loads.
        word.fetch_add(value, Ordering::Relaxed);
    }

    fn now_ns() -> u64 {
        Machine::get().now_ns.get()
    }

    fn current_thread() -> Thread {
        let thread = HERE.with(|here| here.thread.borrow().clone());
        thread.expect("a CPU of the model was not started by it")
    }

    fn park() {
        assert!(Self::may_sleep(), "sleeps where it may not");
        let thread = Self::current_thread();
        if !thread.0.park.begin() || thread.0.park.left() {
            take_interrupts();
            return;
        }
        attend(here(), false);
        thread.wait_ready();
        attend(here(), true);
        take_interrupts();
    }

    fn park_until(deadline_ns: u64) {
        assert!(Self::may_sleep(), "sleeps where it may not");
        let thread = Self::current_thread();
        if thread.0.park.begin() && !thread.0.park.left() {
            // Nobody woke it until here: the timer does.
            if thread.0.park.wake() {
                let machine = Machine::get();
                machine.now_ns.set(machine.now_ns.get().max(deadline_ns));
            } else {
                // Somebody else made it ready, or is about to.
                thread.wait_ready();
            }
        }
        take_interrupts();
    }

    fn unpark(thread: &Thread) {
        if thread.0.park.wake() {
            let mut ready = thread.0.ready.lock().unwrap();
            assert!(!*ready, "a thread is made ready twice");
            *ready = true;
            thread.0.made_ready.notify_one();
        }
    }

    fn yield_now() {
        assert!(Self::may_sleep(), "yields where it may not");
        take_interrupts();
        loom::thread::yield_now();
    }

    fn spawn(spawn: Spawn, entry: fn(usize), argument: usize) -> Result<Thread, SpawnError> {
        let cpu = Machine::get()
            .start(spawn.cpu)
            .ok_or(SpawnError::TooManyThreads)?;
        Ok(super::start(cpu, move || entry(argument)).thread)
    }

    fn call(cpus: CpuMask, f: &(dyn Fn() + Sync)) {
        let machine = Machine::get();
        assert!(machine.setup.calls, "a model with calls must say so");
        let own = here();
        let attending = machine.attending.lock().unwrap();
        let others = cpus.intersection(Self::online_cpus()).without(own);
        let targets = others.intersection(*attending);
        let call = Call::new(f, targets.count());
        let nodes: Vec<Node> = targets.iter().map(|_| Node::new(&call)).collect();
        for (cpu, node) in targets.iter().zip(&nodes) {
            let target = &machine.cpus[cpu.index()];
            // SAFETY: call and node stay until the call is done, below.
            if unsafe { target.calls.push(node) } == Pushed::First {
                target.raise();
            }
        }
        for cpu in others.difference(targets).iter() {
            // It is kept from going on by the lock.
            HERE.with(|here| here.cpu.set(cpu));
            as_interrupt(f);
            HERE.with(|here| here.cpu.set(own));
        }
        drop(attending);
        if cpus.contains(own) {
            as_interrupt(f);
        }
        while !call.is_done() {
            if !Self::irqs_enabled() {
                as_interrupt(|| machine.cpus[own.index()].calls.serve());
            }
            Self::relax();
        }
    }

    fn raise_deferred() {
        HERE.with(|here| here.deferred.set(true));
    }

    fn deferred() -> &'static List {
        let list: *const List = &Machine::get().cpus[here().index()].deferred;
        // SAFETY: the machine lives to the end of the execution, in which nothing that runs
        // under the checker goes on.
        unsafe { &*list }
    }

    fn relax() {
        take_interrupts();
        loom::thread::yield_now();
    }

    fn mark(_mark: Mark) {
        take_interrupts();
    }

    fn lock_acquire(acquisition: &Acquisition) {
        let sleeps = matches!(acquisition.kind, LockKind::Sleep | LockKind::SleepShared);
        assert!(
            !sleeps || acquisition.is_try || Self::may_sleep(),
            "waits for a sleeping lock where it may not sleep"
        );
    }

    fn lock_release(_class: &'static LockClass, _lock: usize) {}

    fn might_sleep(_at: &'static Location<'static>) {
        assert!(Self::may_sleep(), "may sleep where it may not");
    }

    fn report(what: fmt::Arguments<'_>) {
        panic!("{what}");
    }
}
