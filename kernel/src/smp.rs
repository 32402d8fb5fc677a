//! Many CPUs: who is there, and calling a function on others.
//!
//! # Calls between CPUs
//!
//! A call puts one node a target on that target's list (a lock-free stack: push by
//! compare-and-exchange, the target takes all at once), and raises the call vector there
//! when the list was empty. The target runs the function in interrupt context and counts
//! the call's `remaining` down; that is its last access to anything of the caller's, whose
//! stack holds nodes and call. The caller waits until `remaining` is 0.
//!
//! | state of a node | who moves it on | how |
//! |---|---|---|
//! | private | caller | push onto the target's list (Release) |
//! | listed | target | takes the whole list (Acquire), oldest first |
//! | running | target | calls the function, then `remaining` minus one (Release) |
//! | done | caller | sees `remaining` at 0 (Acquire), leaves |
//!
//! A caller with interrupts off serves its own list while it waits, so two CPUs that call
//! each other from interrupt context do not wait for ever. Nobody may call while holding a
//! lock that a handler takes.

use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use platform::{CpuId, CpuMask, MAX_CPUS};

use crate::{
    arch::{
        apic, cpu_local,
        interrupts::vector,
        irq, paging,
        percpu::{self, PerCpuCell},
        smp_boot,
    },
    boot,
    memory::{self, Purpose},
    percpu,
};
use kernel_early::layout::{PAGE_SIZE, phys_to_virt};

percpu! {
    /// The own CPU's number.
    static CPU_NUMBER: u64 = 0;
    /// Call interrupts taken.
    pub static CALLS: u64 = 0;
    /// Reschedule interrupts taken.
    pub static RESCHEDULES: u64 = 0;
    /// TLB shootdown interrupts taken.
    pub static SHOOTDOWNS: u64 = 0;
    /// NMIs taken.
    pub static NMIS: u64 = 0;
    /// Timer interrupts taken.
    pub static TIMERS: u64 = 0;
}

static ONLINE: AtomicU64 = AtomicU64::new(1);
static LISTS: [AtomicPtr<Node>; MAX_CPUS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];

/// Interrupts that a CPU took, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpiCounts {
    /// Function calls from other CPUs.
    pub call: u64,
    /// Wake-ups.
    pub reschedule: u64,
    /// TLB shootdowns.
    pub shootdown: u64,
    /// NMIs.
    pub nmi: u64,
    /// Timer.
    pub timer: u64,
}

/// The CPU that runs this. It may be another one by the time the caller looks, unless
/// interrupts are off.
#[inline]
pub fn this_cpu() -> CpuId {
    CpuId::new(CPU_NUMBER.get() as u32).expect("CPU_NUMBER holds a CPU's number")
}

/// CPUs that run.
pub fn online() -> CpuMask {
    // Acquire pairs with the Release in `mark_online`: the CPU's structures are there.
    CpuMask::from_bits(ONLINE.load(Ordering::Acquire))
}

/// CPUs that the machine has and this kernel serves.
pub fn cpus() -> CpuMask {
    boot::topology().cpus()
}

/// A new CPU's last step of start-up.
pub fn mark_online(cpu: CpuId) {
    ONLINE.fetch_or(CpuMask::only(cpu).bits(), Ordering::Release);
}

/// A CPU's interrupt counts.
pub fn ipi_counts(cpu: CpuId) -> IpiCounts {
    // Relaxed: statistics.
    let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
    IpiCounts {
        call: read(CALLS.on(cpu)),
        reschedule: read(RESCHEDULES.on(cpu)),
        shootdown: read(SHOOTDOWNS.on(cpu)),
        nmi: read(NMIS.on(cpu)),
        timer: read(TIMERS.on(cpu)),
    }
}

/// Makes the per-CPU copy of `cpu`, on its node.
fn install_percpu(cpu: CpuId) {
    let (_, len) = percpu::template();
    let pages = (len as u64).div_ceil(PAGE_SIZE);
    let phys = memory::take_pages(pages, Purpose::PerCpu, Some(cpu))
        .expect("no memory for a CPU's own data");
    // SAFETY: the pages were just handed to us alone, for ever; the CPU runs on no copy of
    // its own yet (the boot CPU: on the template, with nothing counted that matters).
    unsafe { percpu::install(cpu, phys_to_virt(phys) as *mut u8) };
    // The copy's own number, written from outside before anyone uses the copy.
    CPU_NUMBER
        .on(cpu)
        .store(u64::from(cpu.number()), Ordering::Relaxed);
}

/// Gives the boot CPU its own per-CPU copy and interrupt stacks.
pub fn prepare_boot_cpu() {
    install_percpu(CpuId::BOOT);
    let _irqs_off = irq::disable();
    // SAFETY: this is the boot CPU, and interrupts are off.
    unsafe { percpu::activate(CpuId::BOOT) };
    let stacks = cpu_local::make_ist_stacks(CpuId::BOOT).expect("no memory for stacks");
    cpu_local::set_boot_stacks(stacks);
}

/// Starts every other CPU that the topology has.
pub fn start_others() {
    let wanted = cpus();
    for cpu in wanted.without(CpuId::BOOT) {
        install_percpu(cpu);
    }
    smp_boot::start(wanted.without(CpuId::BOOT));
    log::info!(
        "smp: {} of {} CPUs online ({})",
        online().count(),
        boot::acpi().cpus.len(),
        apic::mode()
    );
}

struct Call<'a> {
    function: &'a (dyn Fn() + Sync),
    remaining: AtomicUsize,
}

struct Node {
    /// The call, which outlives the node's time on a list (the caller waits).
    call: *const Call<'static>,
    next: AtomicPtr<Node>,
}

/// Runs `f` on `cpu`, in interrupt context, and returns when it has run. On the own CPU it
/// is a plain call with interrupts off. Task and interrupt context.
///
/// # Panics
///
/// If the CPU is not online.
pub fn call_on(cpu: CpuId, f: &(dyn Fn() + Sync)) {
    assert!(online().contains(cpu), "{cpu:?} is not online");
    call_many(CpuMask::only(cpu), f);
}

/// [`call_on`] for every CPU that is online.
pub fn call_all(f: &(dyn Fn() + Sync)) {
    call_many(online(), f);
}

/// [`call_on`] for those of `mask` that are online, all at once.
pub fn call_many(mask: CpuMask, f: &(dyn Fn() + Sync)) {
    call_by(mask, vector::CALL, f);
}

/// Drops TLB entries for `virt..virt+len` on every CPU. May not be called with a lock held
/// that an interrupt handler takes.
pub fn flush_tlb(virt: u64, len: u64) {
    call_by(online(), vector::SHOOTDOWN, &|| {
        paging::flush_local(virt, len)
    });
}

fn call_by(mask: CpuMask, vector: u8, f: &(dyn Fn() + Sync)) {
    let targets = mask.intersection(online());
    let irqs_off = irq::disable();
    let own = this_cpu();
    let others = targets.without(own);
    let call = Call {
        function: f,
        remaining: AtomicUsize::new(others.count()),
    };
    let nodes: [Node; MAX_CPUS] = core::array::from_fn(|_| Node {
        call: core::ptr::from_ref(&call).cast(),
        next: AtomicPtr::new(core::ptr::null_mut()),
    });
    for cpu in others {
        push(cpu, &nodes[cpu.index()], vector);
    }
    if targets.contains(own) {
        f();
    }
    drop(irqs_off);
    // Acquire pairs with the Release in `serve`: what the functions did is seen here.
    while call.remaining.load(Ordering::Acquire) != 0 {
        if !irq::enabled() {
            serve();
        }
        core::hint::spin_loop();
    }
}

fn push(cpu: CpuId, node: &Node, vector: u8) {
    let list = &LISTS[cpu.index()];
    let new = core::ptr::from_ref(node).cast_mut();
    let mut head = list.load(Ordering::Relaxed);
    loop {
        node.next.store(head, Ordering::Relaxed);
        // Release: who takes the list sees the node filled in.
        match list.compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => head = now,
        }
    }
    // A list that was not empty has its interrupt under way.
    if head.is_null() {
        apic::send_vector(boot::acpi().cpus[cpu.index()].apic_id, vector);
    }
}

/// Runs what other CPUs asked of this one. Interrupts off.
pub fn serve() {
    let list = &LISTS[this_cpu().index()];
    // Acquire pairs with the Release in `push`.
    let mut newest = list.swap(core::ptr::null_mut(), Ordering::Acquire);
    // Oldest first: reverse the chain.
    let mut oldest: *mut Node = core::ptr::null_mut();
    while !newest.is_null() {
        // SAFETY: nodes on the taken chain stay valid until `remaining` of their call is
        // counted down, which happens below, once for each.
        let node = unsafe { &*newest };
        let next = node.next.swap(oldest, Ordering::Relaxed);
        oldest = newest;
        newest = next;
    }
    while !oldest.is_null() {
        // SAFETY: as above.
        let (call, next) = unsafe {
            let node = &*oldest;
            (&*node.call, node.next.load(Ordering::Relaxed))
        };
        (call.function)();
        // The last access to the caller's stack.
        call.remaining.fetch_sub(1, Ordering::Release);
        oldest = next;
    }
}
