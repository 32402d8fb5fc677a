//! The seam, for hosted machines.

use core::{
    alloc::Layout,
    any::Any,
    fmt,
    panic::Location,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};
use std::{
    format,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
    vec::Vec,
};

use super::{
    attached::Attachment,
    here::with,
    join,
    machine::{CALLS, DEFERRED},
    quick,
    thread::Thread,
};
use crate::{
    Acquisition, Context, CpuId, CpuMask, Mark, NodeId, NodeMask, PerCpuAddr, Platform, Spawn,
    SpawnError,
    call_list::{Call, Node, Pushed},
    deferred::List,
    eqs::Eqs,
    lock::LockClass,
};

/// The most threads of a machine.
const MAX_THREADS: usize = 1 << 14;

/// Ends the process where the stack must not be unwound.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        std::eprintln!("a panic in the middle of a call to other CPUs");
        std::process::abort();
    }
}

/// The calling thread's machine, as a [`Platform`]. See [`hosted`](crate::hosted).
#[derive(Debug, Clone, Copy)]
pub struct Hosted;

impl Hosted {
    /// [`Machine::attached`](super::Machine::attached) of the calling thread's machine. Any
    /// context.
    ///
    /// # Panics
    ///
    /// If the thread belongs to no machine.
    #[track_caller]
    pub fn attached<T: Attachment>() -> Arc<T> {
        with(|here| here.machine.attachments.get())
    }

    /// What a crate on top keeps with the calling thread: the one value of type `T`, made
    /// when it is first asked for. It lives as long as the thread, at least. In an interrupt
    /// of a CPU that was idle it is that of the CPU's idle thread. Any context.
    pub fn thread_value<T: Any + Send + Sync + Default>() -> Arc<T> {
        with(|here| here.values().get(|_| {}))
    }

    /// The word by which others see that `cpu` is idle: even exactly while nobody holds its
    /// baton and nobody has borrowed it. Not to be kept beyond the machine's life. Any
    /// context.
    ///
    /// # Panics
    ///
    /// If `cpu` is not possible.
    pub fn idle_word(cpu: CpuId) -> &'static Eqs {
        with(|here| {
            let word: *const Eqs = &here.machine.idle_words[cpu.index()];
            // SAFETY: the machine outlives its threads, and this is asked for by one that
            // does not keep the result.
            unsafe { &*word }
        })
    }

    /// What was given to [`Machine::on_switch`](super::Machine::on_switch) shall be called on
    /// this CPU at the next point with preemption and interrupts on, even if no thread
    /// changes. Preemption or interrupts off.
    pub fn want_switch() {
        with(|here| {
            assert!(
                here.is_pinned(),
                "wants a switch of a CPU that it may leave"
            );
            // Relaxed: only this CPU uses it.
            here.own().switch_wanted.store(true, Ordering::Relaxed);
        });
    }

    /// Takes a CPU that is online away: threads that are bound to no CPU leave it, then this
    /// waits until its own threads sleep; then `dying` runs as the last thing in its name, with
    /// interrupts off, and from then on nothing does. Threads of its own that are woken wait
    /// until it is back. Task context, on another CPU; one who takes this CPU away or brings
    /// it back at a time.
    ///
    /// # Panics
    ///
    /// If it is not online, or is the own CPU or the first one.
    pub fn offline(cpu: CpuId, dying: impl FnOnce()) {
        with(|here| here.offline(cpu, dying));
    }

    /// Brings a CPU back that was taken away: `starting` runs as the first thing in its name,
    /// with interrupts off, while its idle word is still even. Task context.
    ///
    /// # Panics
    ///
    /// If it was not taken away.
    pub fn online(cpu: CpuId, starting: impl FnOnce()) {
        with(|here| here.online(cpu, starting));
    }

    /// In an interrupt or NMI: whether it came upon a thread with preemption and interrupts
    /// on, or upon an idle CPU; not upon another interrupt.
    pub fn interrupted_quiescent() -> bool {
        with(|here| here.context.get() != Context::Task && here.upon_quiescent.get())
    }
}

// SAFETY: only the holder of a CPU's baton runs, and keeps it with preemption off; each CPU
// has a mapping of its own for per-CPU memory; interrupts are injected where they are on.
unsafe impl Platform for Hosted {
    const CHECK_LOCKS: bool = cfg!(debug_assertions);

    type Thread = Thread;
    /// Whether interrupts were off.
    type IrqState = bool;

    fn current_cpu() -> CpuId {
        with(|here| here.cpu())
    }

    fn possible_cpus() -> CpuMask {
        CpuMask::first_n(with(|here| here.machine.possible))
    }

    fn online_cpus() -> CpuMask {
        with(|here| here.machine.online())
    }

    fn node_of(cpu: CpuId) -> NodeId {
        let node = with(|here| cpu.index() * here.machine.nodes / here.machine.possible);
        NodeId::from_index(node).expect("the CPU is a possible one")
    }

    fn nodes() -> NodeMask {
        NodeMask::first_n(with(|here| here.machine.nodes))
    }

    fn distance(from: NodeId, to: NodeId) -> u8 {
        with(|here| here.machine.distances[from.index()][to.index()])
    }

    #[inline(always)]
    fn preempt_disable() {
        quick::disable();
    }

    #[inline(always)]
    fn preempt_enable() {
        quick::enable();
    }

    fn irq_save() -> bool {
        with(|here| here.irqs_off.replace(true))
    }

    fn irq_restore(was_off: bool) {
        with(|here| {
            here.irqs_off.set(was_off);
        });
        if !was_off {
            quick::place();
        }
    }

    fn irqs_enabled() -> bool {
        with(|here| !here.irqs_off.get())
    }

    fn context() -> Context {
        with(|here| here.context.get())
    }

    fn may_sleep() -> bool {
        with(|here| here.may_sleep())
    }

    fn percpu_alloc(layout: Layout) -> Option<PerCpuAddr> {
        with(|here| here.machine.areas.alloc(layout)).map(PerCpuAddr)
    }

    unsafe fn percpu_free(addr: PerCpuAddr, layout: Layout) {
        // SAFETY: as the caller promises.
        with(|here| unsafe { here.machine.areas.free(addr.0, layout) });
    }

    #[inline(always)]
    fn percpu_here(addr: PerCpuAddr) -> NonNull<u8> {
        if cfg!(debug_assertions) {
            return with(|here| {
                assert!(
                    here.is_pinned(),
                    "per-CPU memory is used with preemption on"
                );
                here.machine.areas.on(addr.0, here.cpu())
            });
        }
        quick::own_copy(addr.0)
    }

    fn percpu_on(addr: PerCpuAddr, cpu: CpuId) -> NonNull<u8> {
        with(|here| here.machine.areas.on(addr.0, cpu))
    }

    #[inline(always)]
    unsafe fn percpu_add(addr: PerCpuAddr, value: u64) {
        // SAFETY: a live atomic word (contract).
        let word = unsafe { quick::own_copy(addr.0).cast::<AtomicU64>().as_ref() };
        // Load and store apart will do: only the holder of a CPU's baton writes its words,
        // interrupts and other threads of the CPU come at points only, and there is none in
        // here. Relaxed: a statistic; the next holder of the baton sees the store because the
        // baton is handed on under a lock.
        let sum = word.load(Ordering::Relaxed).wrapping_add(value);
        word.store(sum, Ordering::Relaxed);
    }

    fn now_ns() -> u64 {
        with(|here| here.machine.start.elapsed().as_nanos() as u64)
    }

    fn current_thread() -> Thread {
        with(|here| here.thread.clone())
    }

    fn park() {
        with(|here| here.park(None));
    }

    fn park_until(deadline_ns: u64) {
        with(|here| {
            let after = Duration::from_nanos(deadline_ns);
            here.park(here.machine.start.checked_add(after));
        });
    }

    fn unpark(thread: &Thread) {
        // From outside of all machines, too.
        let in_nmi = super::here::try_with(|here| here.context.get() == Context::Nmi);
        assert!(in_nmi != Some(true), "an NMI wakes a thread");
        if let Some(machine) = thread.0.machine.upgrade()
            && thread.0.park.wake()
        {
            machine.sched().make_ready(thread.clone(), &machine.hints);
        }
    }

    fn yield_now() {
        with(|here| here.yield_now());
    }

    fn spawn(spawn: Spawn, entry: fn(usize), argument: usize) -> Result<Thread, SpawnError> {
        let machine = with(|here| Arc::clone(&here.machine));
        if let Some(cpu) = spawn.cpu
            && !machine.online().contains(cpu)
        {
            return Err(SpawnError::Offline(cpu));
        }
        if machine.sched().threads.len() >= MAX_THREADS {
            return Err(SpawnError::TooManyThreads);
        }
        let thread = join::start(&machine, &spawn, move || entry(argument));
        Self::mark(Mark::Step);
        thread.map_err(|_| SpawnError::OutOfMemory)
    }

    fn call(cpus: CpuMask, f: &(dyn Fn() + Sync)) {
        let panics = Mutex::new(None);
        // A panic must not keep the call from being counted as done: then the list would go
        // on pointing to what is on this stack.
        let function = || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(f)) {
                *panics.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
        };
        with(|here| {
            assert!(here.context.get() != Context::Nmi, "an NMI calls CPUs");
            Self::mark(Mark::Call);
            let depth = quick::preempt();
            quick::set_preempt(depth + 1);
            let machine = &*here.machine;
            let own = here.cpu();
            // No CPU goes while the call is sent.
            let sending = machine.sending.lock();
            let sending = sending.unwrap_or_else(PoisonError::into_inner);
            let others = cpus.intersection(machine.online()).without(own);
            let call = Call::new(&function, others.count());
            let nodes: Vec<Node> = others.iter().map(|_| Node::new(&call)).collect();
            let bomb = Bomb;
            for (cpu, node) in others.iter().zip(&nodes) {
                let target = &machine.cpus[cpu.index()];
                // SAFETY: call and node stay until the call is done: the bomb keeps what runs
                // until then from unwinding.
                if unsafe { target.calls.push(node) } == Pushed::First {
                    target.raise(CALLS);
                }
            }
            drop(sending);
            if cpus.contains(own) {
                here.as_interrupt(Context::HardIrq, function);
            }
            while !call.is_done() {
                here.wait_for_call(others);
            }
            core::mem::forget(bomb);
            quick::set_preempt(depth);
        });
        let panic = panics.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        Self::mark(Mark::Step);
    }

    fn raise_deferred() {
        with(|here| here.own().raise(DEFERRED));
    }

    fn deferred() -> &'static List {
        with(|here| {
            let list: *const List = &here.own().deferred;
            // SAFETY: the machine outlives its threads, and this is asked for by code that
            // is pinned to a CPU of it and does not keep the result.
            unsafe { &*list }
        })
    }

    fn relax() {
        with(|here| here.relax());
    }

    #[inline(always)]
    fn mark(_mark: Mark) {
        if cfg!(debug_assertions) {
            with(|here| here.point());
        }
    }

    fn lock_acquire(acquisition: &Acquisition) {
        with(|here| {
            here.check(|checker, held, now, sink| checker.acquire(held, acquisition, now, sink))
        });
    }

    fn lock_release(class: &'static LockClass, lock: usize) {
        with(|here| {
            here.check(|checker, held, now, sink| checker.release(held, class, lock, now, sink))
        });
    }

    fn might_sleep(at: &'static Location<'static>) {
        with(|here| {
            here.check(|checker, held, now, sink| checker.might_sleep(held, at, now, sink))
        });
    }

    fn report(what: fmt::Arguments<'_>) {
        with(|here| here.machine.report(format!("{what}")));
    }
}
