//! The kernel as a [`Platform`]: the machine that `platform`, `rcu` and `mm` run on here.

pub mod memory;
pub mod rcu;

use core::{alloc::Layout, fmt, panic::Location, ptr::NonNull};

use platform::{
    Acquisition, Context, CpuId, CpuMask, MAX_CPUS, Mark, NodeId, NodeMask, PerCpuAddr, Platform,
    Spawn, SpawnError, deferred, lock::LockClass,
};

use crate::{
    arch::{apic, interrupts::vector, irq, percpu, preempt},
    boot, lockdep, percpu_area,
    sched::{self, ThreadRef},
    schedule, smp, time,
};

/// The machine. No value of it is needed: there is one.
#[derive(Debug, Clone, Copy)]
pub struct Kernel;

static DEFERRED: [deferred::List; MAX_CPUS] = [const { deferred::List::new() }; MAX_CPUS];

// SAFETY: `arch::preempt` and `arch::irq` are the processor's own; per-CPU memory lies in each
// CPU's window (`percpu_area`), mapped while it is allocated, and reached through GS; parking is the
// park word's protocol, calls are the call list's.
unsafe impl Platform for Kernel {
    const CHECK_LOCKS: bool = cfg!(debug_assertions);

    type Thread = ThreadRef;
    /// Whether interrupts were on.
    type IrqState = bool;

    #[inline(always)]
    fn current_cpu() -> CpuId {
        smp::this_cpu()
    }

    fn possible_cpus() -> CpuMask {
        smp::cpus()
    }

    fn online_cpus() -> CpuMask {
        smp::online()
    }

    fn node_of(cpu: CpuId) -> NodeId {
        boot::topology().node_of(cpu)
    }

    fn nodes() -> NodeMask {
        boot::topology().nodes()
    }

    fn distance(from: NodeId, to: NodeId) -> u8 {
        boot::topology().distance(from, to)
    }

    #[inline(always)]
    fn preempt_disable() {
        preempt::disable();
    }

    #[inline(always)]
    fn preempt_enable() {
        preempt::enable();
        Self::mark(Mark::Preempt);
    }

    #[inline(always)]
    fn irq_save() -> bool {
        irq::save()
    }

    #[inline(always)]
    fn irq_restore(were_on: bool) {
        irq::restore(were_on);
    }

    #[inline(always)]
    fn irqs_enabled() -> bool {
        irq::enabled()
    }

    #[inline(always)]
    fn context() -> Context {
        preempt::context()
    }

    fn may_sleep() -> bool {
        sched::may_sleep()
    }

    fn percpu_alloc(layout: Layout) -> Option<PerCpuAddr> {
        percpu_area::alloc(layout)
    }

    unsafe fn percpu_free(addr: PerCpuAddr, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { percpu_area::free(addr, layout) };
    }

    #[inline(always)]
    fn percpu_here(addr: PerCpuAddr) -> NonNull<u8> {
        percpu::dynamic_here(addr.0)
    }

    fn percpu_on(addr: PerCpuAddr, cpu: CpuId) -> NonNull<u8> {
        percpu::dynamic_on(addr.0, cpu)
    }

    #[inline(always)]
    unsafe fn percpu_add(addr: PerCpuAddr, value: u64) {
        // SAFETY: as the caller promises.
        unsafe { percpu::dynamic_add(addr.0, value) };
    }

    #[inline]
    fn now_ns() -> u64 {
        time::now_ns()
    }

    fn current_thread() -> ThreadRef {
        sched::current_ref()
    }

    fn park() {
        sched::park();
    }

    fn park_until(deadline_ns: u64) {
        sched::park_until(deadline_ns);
    }

    fn unpark(thread: &ThreadRef) {
        sched::unpark(thread);
    }

    fn yield_now() {
        sched::yield_now();
    }

    fn spawn(spawn: Spawn, entry: fn(usize), argument: usize) -> Result<ThreadRef, SpawnError> {
        let mut builder = sched::Builder::new().priority(spawn.priority);
        if let Some(cpu) = spawn.cpu {
            builder = builder.on(cpu);
        }
        let handle = builder.spawn(format_args!("{}", spawn.name), move || entry(argument))?;
        let thread = handle.thread().clone();
        handle.detach();
        Ok(thread)
    }

    fn call(cpus: CpuMask, f: &(dyn Fn() + Sync)) {
        smp::call_many(cpus, f);
    }

    fn raise_deferred() {
        apic::send_self(vector::DEFERRED);
    }

    fn deferred() -> &'static deferred::List {
        &DEFERRED[smp::this_cpu().index()]
    }

    #[inline(always)]
    fn relax() {
        core::hint::spin_loop();
    }

    #[inline(always)]
    fn mark(mark: Mark) {
        if cfg!(debug_assertions) {
            schedule::mark(mark);
        }
    }

    #[inline]
    fn lock_acquire(acquisition: &Acquisition) {
        lockdep::acquire(acquisition);
    }

    #[inline]
    fn lock_release(class: &'static LockClass, lock: usize) {
        lockdep::release(class, lock);
    }

    fn might_sleep(at: &'static Location<'static>) {
        lockdep::might_sleep(at);
    }

    fn report(what: fmt::Arguments<'_>) {
        lockdep::report_word(what);
    }
}

/// The interrupt for deferred work.
pub fn run_deferred() {
    DEFERRED[smp::this_cpu().index()].run::<Kernel>();
}
