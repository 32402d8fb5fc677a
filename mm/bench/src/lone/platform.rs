//! [`Lone`] as a [`Platform`], and for RCU, which nobody runs here.

use std::{
    alloc::Layout,
    cell::Cell,
    fmt,
    panic::Location,
    ptr::{self, NonNull},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering, compiler_fence},
    },
    time::{Duration, Instant},
};

use platform::{
    Acquisition, Context, CpuId, CpuMask, Mark, NodeId, NodeMask, PerCpuAddr, Platform, Spawn,
    SpawnError, deferred::List, eqs::Eqs, lock::LockClass,
};
use rcu::{Rcu, Stall, blocked::Entry};

/// The machine.
#[derive(Debug)]
pub struct Lone;

/// [`DEPTH`] with nothing to do when preemption is on again. So turning it on is one
/// subtraction, which says whether there is something, as in the kernel.
const CALM: u32 = 1 << 31;

thread_local! {
    /// How often preemption is off; with [`CALM`], unless deferred work waits.
    static DEPTH: Cell<u32> = const { Cell::new(CALM) };
    /// Where the CPU's own data lies: 0 on threads that are no CPU.
    static BASE: Cell<usize> = const { Cell::new(0) };
    static IN_INTERRUPT: Cell<bool> = const { Cell::new(false) };
    /// Of the CPU's own data: what is taken, and all of it.
    static TAKEN: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

static DEFERRED: List = List::new();
static IDLE: Eqs = Eqs::new();
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The thread that calls this is the CPU from now on, with zeros at `base` as its own.
pub fn start(base: usize, bytes: usize) {
    BASE.set(base);
    TAKEN.set((0, bytes));
    IDLE.idle_exit();
}

#[cold]
fn run_deferred() {
    DEPTH.set(DEPTH.get() | CALM);
    interrupt(|| DEFERRED.run::<Lone>());
}

/// Runs `f` as an interrupt.
fn interrupt(f: impl FnOnce()) {
    let was = IN_INTERRUPT.replace(true);
    DEPTH.set(DEPTH.get() + 1);
    f();
    DEPTH.set(DEPTH.get() - 1);
    IN_INTERRUPT.set(was);
}

/// A thread of the host.
#[derive(Clone)]
pub struct Thread(std::thread::Thread);

impl PartialEq for Thread {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// SAFETY: there is one thread, which is the CPU and is interrupted only where it asks for it:
// when preemption comes on. Its own data is `TAKEN` piece by piece, and never given again.
unsafe impl Platform for Lone {
    const CHECK_LOCKS: bool = false;

    type Thread = Thread;
    type IrqState = ();

    #[inline(always)]
    fn current_cpu() -> CpuId {
        CpuId::BOOT
    }

    fn possible_cpus() -> CpuMask {
        CpuMask::only(CpuId::BOOT)
    }

    fn online_cpus() -> CpuMask {
        CpuMask::only(CpuId::BOOT)
    }

    fn node_of(_: CpuId) -> NodeId {
        NodeId::FIRST
    }

    fn nodes() -> NodeMask {
        NodeMask::only(NodeId::FIRST)
    }

    fn distance(_: NodeId, _: NodeId) -> u8 {
        platform::LOCAL_DISTANCE
    }

    #[inline(always)]
    fn preempt_disable() {
        DEPTH.set(DEPTH.get() + 1);
        compiler_fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn preempt_enable() {
        compiler_fence(Ordering::SeqCst);
        let depth = DEPTH.get() - 1;
        DEPTH.set(depth);
        if depth == 0 {
            run_deferred();
        }
    }

    // Interrupts come only where preemption comes on, and locks turn that off, too.
    #[inline(always)]
    fn irq_save() {
        Self::preempt_disable();
    }

    #[inline(always)]
    fn irq_restore((): ()) {
        Self::preempt_enable();
    }

    fn irqs_enabled() -> bool {
        Self::may_sleep()
    }

    fn context() -> Context {
        if IN_INTERRUPT.get() {
            Context::HardIrq
        } else {
            Context::Task
        }
    }

    fn may_sleep() -> bool {
        DEPTH.get() & !CALM == 0
    }

    fn percpu_alloc(layout: Layout) -> Option<PerCpuAddr> {
        let (taken, bytes) = TAKEN.get();
        let start = taken.next_multiple_of(layout.align().max(64));
        let end = start + layout.size();
        (end <= bytes).then(|| {
            TAKEN.set((end, bytes));
            PerCpuAddr(start)
        })
    }

    unsafe fn percpu_free(_: PerCpuAddr, _: Layout) {
        // The few workloads with caches of their own do not use it up.
    }

    #[inline(always)]
    fn percpu_here(addr: PerCpuAddr) -> NonNull<u8> {
        let place = ptr::with_exposed_provenance_mut(BASE.get() + addr.0);
        // SAFETY: the data of a CPU does not lie at address 0.
        unsafe { NonNull::new_unchecked(place) }
    }

    fn percpu_on(addr: PerCpuAddr, _: CpuId) -> NonNull<u8> {
        Self::percpu_here(addr)
    }

    #[inline(always)]
    unsafe fn percpu_add(addr: PerCpuAddr, value: u64) {
        // SAFETY: a live atomic word (contract).
        let word = unsafe { Self::percpu_here(addr).cast::<AtomicU64>().as_ref() };
        // Relaxed: only this thread.
        let sum = word.load(Ordering::Relaxed).wrapping_add(value);
        word.store(sum, Ordering::Relaxed);
    }

    fn now_ns() -> u64 {
        START.elapsed().as_nanos() as u64
    }

    fn current_thread() -> Thread {
        Thread(std::thread::current())
    }

    fn park() {
        std::thread::park();
    }

    fn park_until(deadline_ns: u64) {
        let left = deadline_ns.saturating_sub(Self::now_ns());
        std::thread::park_timeout(Duration::from_nanos(left));
    }

    fn unpark(thread: &Thread) {
        thread.0.unpark();
    }

    fn yield_now() {
        std::thread::yield_now();
    }

    fn spawn(_: Spawn, _: fn(usize), _: usize) -> Result<Thread, SpawnError> {
        Err(SpawnError::TooManyThreads)
    }

    fn call(cpus: CpuMask, f: &(dyn Fn() + Sync)) {
        if cpus.contains(CpuId::BOOT) {
            interrupt(f);
        }
    }

    fn raise_deferred() {
        if Self::may_sleep() {
            interrupt(|| DEFERRED.run::<Self>());
        } else {
            DEPTH.set(DEPTH.get() & !CALM);
        }
    }

    fn deferred() -> &'static List {
        &DEFERRED
    }

    #[inline(always)]
    fn relax() {
        std::hint::spin_loop();
    }

    #[inline(always)]
    fn mark(_: Mark) {}

    fn lock_acquire(_: &Acquisition) {}

    fn lock_release(_: &'static LockClass, _: usize) {}

    fn might_sleep(_: &'static Location<'static>) {}

    fn report(what: fmt::Arguments<'_>) {
        eprintln!("{what}");
    }
}

// SAFETY: sections are code with preemption off, and the CPU is never idle.
unsafe impl rcu::Machine for Lone {
    fn preemptible() -> bool {
        false
    }

    #[inline(always)]
    fn read_enter() {
        Self::preempt_disable();
    }

    #[inline(always)]
    fn read_exit() {
        Self::preempt_enable();
    }

    fn reader_depth() -> u32 {
        0
    }

    fn ask_reader() {}

    fn reader_entry() -> NonNull<Entry> {
        unreachable!("sections are not preemptible")
    }

    fn interrupted_quiescent() -> bool {
        false
    }

    fn resched_here() {}

    fn interrupt(_: &Rcu<Self>, _: CpuMask) {}

    fn idle(_: CpuId) -> &'static Eqs {
        &IDLE
    }

    fn thread_number() -> u32 {
        0
    }

    fn stalled(stall: &Stall) {
        eprintln!("{stall:?}");
    }

    fn rcu_report(what: fmt::Arguments<'_>) {
        eprintln!("{what}");
    }
}
