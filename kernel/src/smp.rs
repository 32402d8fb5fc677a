//! Many CPUs: who is there, and calling a function on others.
//!
//! Calls go through [`platform::call_list`], which has the protocol; here are the interrupt
//! that it needs and the waiting. CPUs come and go at run time ([`crate::hotplug`]): a call
//! runs on those that are online, and waits for nobody else.
//!
//! A caller with interrupts off serves its own list while it waits, so two CPUs that call
//! each other from interrupt context do not wait for ever. Nobody may call while holding a
//! lock that a handler takes.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use platform::{
    CpuId, CpuMask, MAX_CPUS, Mark, Platform,
    call_list::{Call, CallList, Node, Pushed},
};

use crate::{
    arch::{
        apic, cpu_local,
        interrupts::vector,
        irq,
        percpu::{self, PerCpuCell},
        preempt, tlb,
    },
    boot,
    machine::Kernel,
    percpu, percpu_area,
};

percpu! {
    /// The own CPU's number.
    static CPU_NUMBER: u64 = 0;
    /// Call interrupts taken.
    pub static CALLS: u64 = 0;
    /// Reschedule interrupts taken.
    pub static RESCHEDULES: u64 = 0;
    /// TLB shootdown interrupts taken.
    pub static SHOOTDOWNS: u64 = 0;
    /// Interrupts for deferred work taken.
    pub static DEFERRED: u64 = 0;
    /// Interrupts taken because RCU waited for the CPU.
    pub static RCU: u64 = 0;
    /// NMIs taken.
    pub static NMIS: u64 = 0;
    /// Timer interrupts taken.
    pub static TIMERS: u64 = 0;
}

/// CPUs that take interrupts. Each CPU sets and clears its own bit.
static ONLINE: AtomicU64 = AtomicU64::new(1);
/// Those of them where threads may be put. A CPU's bit is changed with the lock of its run
/// queue held.
static ACTIVE: AtomicU64 = AtomicU64::new(1);
static LISTS: [CallList; MAX_CPUS] = [const { CallList::new() }; MAX_CPUS];

/// Interrupts that a CPU took, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpiCounts {
    /// Function calls from other CPUs.
    pub call: u64,
    /// Wake-ups.
    pub reschedule: u64,
    /// TLB shootdowns.
    pub shootdown: u64,
    /// RCU waited.
    pub rcu: u64,
    /// NMIs.
    pub nmi: u64,
    /// Timer.
    pub timer: u64,
}

/// The CPU that runs this. It may be another one by the time the caller looks, unless
/// interrupts are off.
#[inline(always)]
pub fn this_cpu() -> CpuId {
    // SAFETY: only `install_percpu` writes it: a CPU's number (0 in the template).
    unsafe { CpuId::new_unchecked(CPU_NUMBER.get() as u32) }
}

/// [`this_cpu`] for a panic, which cannot rely on what the CPU's own data say.
#[inline]
pub fn try_this_cpu() -> Option<CpuId> {
    CpuId::new(u32::try_from(CPU_NUMBER.get()).ok()?)
}

/// CPUs that run, at the time. One may go at once, unless
/// [`hotplug::read_lock`](crate::hotplug::read_lock) is held.
pub fn online() -> CpuMask {
    // Acquire pairs with the change in `join`: the CPU's structures are there.
    CpuMask::from_bits(ONLINE.load(Ordering::Acquire))
}

/// CPUs that threads may be put on: those that are online, but for ones that are about to go
/// or have just come. Exact for who holds a CPU's run queue lock, as far as that CPU goes.
#[inline]
pub fn active() -> CpuMask {
    // Relaxed: a hint, or ordered by the run queue's lock.
    CpuMask::from_bits(ACTIVE.load(Ordering::Relaxed))
}

/// Changes whether threads may be put on a CPU. With the lock of its run queue.
pub fn set_active(cpu: CpuId, active: bool) {
    let bit = CpuMask::only(cpu).bits();
    // Relaxed: the lock orders it.
    if active {
        ACTIVE.fetch_or(bit, Ordering::Relaxed);
    } else {
        ACTIVE.fetch_and(!bit, Ordering::Relaxed);
    }
}

/// CPUs that the machine has and this kernel serves.
pub fn cpus() -> CpuMask {
    boot::topology().cpus()
}

/// This CPU, which has just started, can be called from here on. Interrupts off.
pub fn join() {
    let own = this_cpu();
    LISTS[own.index()].open();
    // Release: who sees the bit sees the CPU's structures, and its list open.
    ONLINE.fetch_or(CpuMask::only(own).bits(), Ordering::Release);
    // SeqCst with the one in `flush_tlb`: who did not find this CPU online has what it
    // unmapped seen by what follows.
    fence(Ordering::SeqCst);
    tlb::flush_all_local();
}

/// This CPU cannot be called any more, if no call waits for it; whether that is so. Interrupts
/// off; nothing of others may run here until [`join`].
#[must_use = "a call may have come first"]
pub fn leave() -> bool {
    let own = this_cpu();
    if !LISTS[own.index()].close() {
        return false;
    }
    // Release: what this CPU did while online comes before.
    ONLINE.fetch_and(!CpuMask::only(own).bits(), Ordering::Release);
    true
}

/// A CPU's interrupt counts.
pub fn ipi_counts(cpu: CpuId) -> IpiCounts {
    // Relaxed: statistics.
    let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
    IpiCounts {
        call: read(CALLS.on(cpu)),
        reschedule: read(RESCHEDULES.on(cpu)),
        shootdown: read(SHOOTDOWNS.on(cpu)),
        rcu: read(RCU.on(cpu)),
        nmi: read(NMIS.on(cpu)),
        timer: read(TIMERS.on(cpu)),
    }
}

/// Makes the per-CPU copy of `cpu`, on its node.
fn install_percpu(cpu: CpuId) {
    let window = percpu_area::map_first(cpu).expect("no memory for a CPU's own data");
    // SAFETY: just mapped, for ever, and long enough; the CPU runs on no copy of its own yet
    // (the boot CPU: on the template, with nothing counted that matters).
    unsafe { percpu::install(cpu, window.as_ptr()) };
    // The copy's own number, written from outside before anyone uses the copy.
    CPU_NUMBER
        .on(cpu)
        .store(u64::from(cpu.number()), Ordering::Relaxed);
}

/// Gives every CPU its per-CPU copy, the boot CPU also its interrupt stacks. From here on
/// there is dynamic per-CPU memory.
pub fn prepare_boot_cpu() {
    install_percpu(CpuId::BOOT);
    let _irqs_off = irq::disable();
    // SAFETY: this is the boot CPU, and interrupts are off.
    unsafe { percpu::activate(CpuId::BOOT) };
    for cpu in cpus().without(CpuId::BOOT) {
        install_percpu(cpu);
    }
    percpu_area::start();
    let stacks = cpu_local::make_ist_stacks(CpuId::BOOT).expect("no memory for stacks");
    cpu_local::set_boot_stacks(stacks);
}

/// Says how many CPUs there are, when those that could be started have been.
pub fn report() {
    log::info!(
        "smp: {} of {} CPUs online ({})",
        online().count(),
        boot::acpi().cpus.len(),
        apic::mode()
    );
}

/// Runs `f` on `cpu`, in interrupt context, and returns when it has run. On the own CPU it
/// is a plain call with interrupts off. Task and interrupt context.
///
/// # Panics
///
/// If the CPU is not online. Where it may go, use [`call_many`].
pub fn call_on(cpu: CpuId, f: &(dyn Fn() + Sync)) {
    let ran = call_many(CpuMask::only(cpu), f);
    assert!(ran.contains(cpu), "{cpu:?} is not online");
}

/// [`call_many`] for every CPU that is online.
pub fn call_all(f: &(dyn Fn() + Sync)) -> CpuMask {
    call_many(online(), f)
}

/// [`call_on`] for those of `mask` that are online, all at once; on which it ran. A CPU that
/// goes offline meanwhile runs it, or is not waited for.
pub fn call_many(mask: CpuMask, f: &(dyn Fn() + Sync)) -> CpuMask {
    call_by(mask, vector::CALL, f)
}

/// Raises the interrupt by which RCU asks, on those of `mask` that are online; does not wait.
/// Not from NMI.
pub fn ask_for_rcu(mask: CpuMask) {
    raise(mask, vector::RCU);
}

/// The same for the interrupt that asks to [stand still](crate::standstill).
pub fn ask_to_stand(mask: CpuMask) {
    raise(mask, vector::STANDSTILL);
}

fn raise(mask: CpuMask, vector: u8) {
    for cpu in mask.intersection(online()) {
        apic::send_vector(boot::acpi().cpus[cpu.index()].apic_id, vector);
    }
}

/// Drops TLB entries for `virt..virt+len` on every CPU. May not be called with a lock held
/// that an interrupt handler takes.
pub fn flush_tlb(virt: u64, len: u64) {
    // SeqCst: see `join`.
    fence(Ordering::SeqCst);
    call_by(online(), vector::SHOOTDOWN, &|| tlb::flush_local(virt, len));
}

fn call_by(mask: CpuMask, vector: u8, f: &(dyn Fn() + Sync)) -> CpuMask {
    Kernel::mark(Mark::Call);
    let mut targets = mask.intersection(online());
    let irqs_off = irq::disable();
    // What is called here and below did not interrupt the thread: RCU must not take it for
    // code that came upon preemption being on.
    preempt::disable();
    let own = this_cpu();
    let others = targets.without(own);
    let call = Call::new(f, others.count());
    let nodes: [Node; MAX_CPUS] = core::array::from_fn(|_| Node::new(&call));
    for cpu in others {
        // SAFETY: call and nodes stay on this stack until the call is done, below. A panic
        // in `f` on this CPU does not unwind.
        match unsafe { LISTS[cpu.index()].push(&nodes[cpu.index()]) } {
            Pushed::First => {
                apic::send_vector(boot::acpi().cpus[cpu.index()].apic_id, vector);
            }
            // It has its interrupt under way.
            Pushed::Behind => {}
            Pushed::Closed => {
                call.skip();
                targets.clear(cpu);
            }
        }
    }
    if targets.contains(own) {
        f();
    }
    preempt::enable_no_switch();
    drop(irqs_off);
    while !call.is_done() {
        if !irq::enabled() {
            preempt::disable();
            serve();
            preempt::enable_no_switch();
        }
        core::hint::spin_loop();
    }
    targets
}

/// Runs what other CPUs asked of this one. Interrupts off.
pub fn serve() {
    LISTS[this_cpu().index()].serve();
}
