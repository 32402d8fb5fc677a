//! The seam: what the portable crates ask of a machine, as one trait.
//!
//! Three machines implement it: the kernel, on bare metal; `hosted`, where
//! threads of the host stand for CPUs; and the model, where a model checker runs a few
//! threads through every order. All functions are associated functions without `self`: a
//! thread knows the machine that it runs on (in the kernel there is one; elsewhere it is
//! kept with the thread), so that locks and guards carry no pointer to it.
//!
//! Dispatch is static. In the kernel the functions of the hot path ([`Platform::preempt_disable`] and
//! its opposite, [`Platform::percpu_here`], [`Platform::percpu_add`]) are one to three
//! instructions without a call.

use core::{alloc::Layout, fmt, panic::Location, ptr::NonNull};

use crate::{CpuId, CpuMask, NodeId, NodeMask, lock::LockClass};

/// What kind of code runs, by what it interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Context {
    /// A thread.
    Task,
    /// Deferred work at the end of an interrupt: interrupts on, no preemption.
    SoftIrq,
    /// An interrupt handler: interrupts off.
    HardIrq,
    /// A non-maskable interrupt: may have come anywhere.
    Nmi,
}

/// Which of two threads runs when both could. Within a priority threads take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Priority {
    /// Runs when nothing else wants to.
    Low = 0,
    /// What most threads have.
    #[default]
    Normal = 1,
    /// Workers that others wait for.
    High = 2,
    /// Must run even under full load, and briefly: grace periods, watchdogs.
    Urgent = 3,
}

/// What a new thread shall be.
#[derive(Debug, Clone, Copy)]
pub struct Spawn {
    /// Shown by `ps` and in reports.
    pub name: &'static str,
    /// The only CPU that it runs on, while that is online; `None`: any.
    pub cpu: Option<CpuId>,
    /// Its priority.
    pub priority: Priority,
}

/// Why there is no new thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpawnError {
    /// No memory for it.
    OutOfMemory,
    /// As many threads as there can be exist.
    TooManyThreads,
    /// The CPU it should be bound to does not run.
    Offline(CpuId),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("no memory for a thread"),
            Self::TooManyThreads => f.write_str("too many threads"),
            Self::Offline(cpu) => write!(f, "cpu{cpu} is not online"),
        }
    }
}

impl core::error::Error for SpawnError {}

/// An address in per-CPU memory: the same on every CPU, of different memory on each.
/// [`Platform::percpu_here`] and [`Platform::percpu_on`] make pointers of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerCpuAddr(pub usize);

/// Places where a seeded schedule may step in (see [`Platform::mark`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Before a lock is taken, local locks too.
    Lock,
    /// After a lock was released.
    Unlock,
    /// A CPU is about to interrupt another one.
    Call,
    /// Preemption has just become possible.
    Preempt,
    /// A place that a protocol names as interesting.
    Step,
}

/// What the order checker hears of an acquisition.
#[derive(Debug, Clone, Copy)]
pub struct Acquisition {
    /// The lock's class.
    pub class: &'static LockClass,
    /// The lock's address.
    pub lock: usize,
    /// What kind of lock.
    pub kind: LockKind,
    /// It does not wait, so it cannot deadlock (and is allowed in NMI).
    pub is_try: bool,
    /// 0, or which of several locks of the class this is (`lock_nested`).
    pub nesting: u8,
    /// Who takes it.
    pub at: &'static Location<'static>,
}

/// How a lock waits and what it turns off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Spins, preemption off.
    Spin,
    /// Spins, interrupts off.
    IrqSpin,
    /// Never waits; only its own CPU can hold it.
    Local,
    /// Sleeps; one holder.
    Sleep,
    /// Sleeps; shared.
    SleepShared,
}

/// A machine. See the module's documentation.
///
/// # Safety
///
/// Safe code of this crate relies on: a thread with preemption off stays on the CPU that
/// [`current_cpu`](Self::current_cpu) names, and no other thread runs there;
/// [`percpu_alloc`](Self::percpu_alloc) gives zeroed memory that is valid, aligned as asked
/// and nobody else's on every CPU of [`possible_cpus`](Self::possible_cpus), which never
/// change; [`percpu_here`](Self::percpu_here) and [`percpu_on`](Self::percpu_on) point to it;
/// [`irq_save`](Self::irq_save) keeps interrupt handlers away; [`park`](Self::park) and
/// [`call`](Self::call) order memory as they say; a thread whose `entry` runs has a stack of
/// its own.
pub unsafe trait Platform: Sized + 'static {
    /// Locks tell [`lock_acquire`](Self::lock_acquire) and
    /// [`lock_release`](Self::lock_release).
    const CHECK_LOCKS: bool;

    /// A handle to a thread.
    type Thread: Clone + PartialEq + fmt::Debug + Send + Sync + 'static;

    /// What [`irq_save`](Self::irq_save) found.
    type IrqState: Copy;

    // Who and where.

    /// The CPU that runs this. Stays true only while preemption is off.
    fn current_cpu() -> CpuId;
    /// CPUs that may ever run.
    fn possible_cpus() -> CpuMask;
    /// CPUs that run.
    fn online_cpus() -> CpuMask;
    /// The node that a CPU belongs to.
    fn node_of(cpu: CpuId) -> NodeId;
    /// Nodes that the machine has.
    fn nodes() -> NodeMask;
    /// How far apart nodes lie, as SLIT says (10: the same).
    fn distance(from: NodeId, to: NodeId) -> u8;

    // Context.

    /// Turns preemption off; nests. Any context. Safe code uses
    /// [`Preempt`](crate::Preempt).
    fn preempt_disable();
    /// Undoes one [`preempt_disable`](Self::preempt_disable); may switch to another thread.
    fn preempt_enable();
    /// Turns interrupts off on this CPU and says what was before. Safe code uses
    /// [`IrqsOff`](crate::IrqsOff).
    fn irq_save() -> Self::IrqState;
    /// Restores what [`irq_save`](Self::irq_save) found.
    fn irq_restore(state: Self::IrqState);
    /// Whether this CPU takes interrupts now.
    fn irqs_enabled() -> bool;
    /// What kind of code runs.
    fn context() -> Context;
    /// Whether this code may sleep: a thread with preemption and interrupts on.
    fn may_sleep() -> bool;

    // Per-CPU memory.

    /// Zeroed memory on every possible CPU. May sleep. `None`: no memory.
    fn percpu_alloc(layout: Layout) -> Option<PerCpuAddr>;
    /// Gives it back. May sleep.
    ///
    /// # Safety
    ///
    /// `addr` came from [`percpu_alloc`](Self::percpu_alloc) with `layout`, and nobody uses
    /// it any more.
    unsafe fn percpu_free(addr: PerCpuAddr, layout: Layout);
    /// The copy of the CPU that runs this; the caller is pinned to it.
    fn percpu_here(addr: PerCpuAddr) -> NonNull<u8>;
    /// The copy of `cpu`.
    fn percpu_on(addr: PerCpuAddr, cpu: CpuId) -> NonNull<u8>;
    /// Adds to the own CPU's copy of a counter. An interrupt or a move to another CPU
    /// cannot split it, so no guard is needed.
    ///
    /// # Safety
    ///
    /// `addr` is that of a live `AtomicU64` (or a field of one) in per-CPU memory, which
    /// other CPUs only read.
    unsafe fn percpu_add(addr: PerCpuAddr, value: u64);

    // Time.

    /// Monotonic nanoseconds. Any context.
    fn now_ns() -> u64;

    // Threads.

    /// The thread that runs this (the interrupted one, in an interrupt).
    fn current_thread() -> Self::Thread;
    /// Sleeps until [`unpark`](Self::unpark), which may have come before. May return for
    /// no reason. Task context only.
    fn park();
    /// [`park`](Self::park), but at most until [`now_ns`](Self::now_ns) is `deadline_ns`.
    fn park_until(deadline_ns: u64);
    /// Wakes a thread, or lets its next [`park`](Self::park) return at once. What came
    /// before this is seen after that `park`. Not from NMI.
    fn unpark(thread: &Self::Thread);
    /// Lets other threads of the same priority run. Task context only.
    fn yield_now();
    /// Starts a thread that runs `entry(argument)` and ends with it. May sleep.
    ///
    /// # Errors
    ///
    /// [`SpawnError`].
    fn spawn(spawn: Spawn, entry: fn(usize), argument: usize) -> Result<Self::Thread, SpawnError>;

    // Between CPUs.

    /// Runs `f` on those of `cpus` that are online, in interrupt context, and returns when
    /// all have. No lock may be held that an interrupt handler takes. Not from NMI.
    fn call(cpus: CpuMask, f: &(dyn Fn() + Sync));
    /// Raises an interrupt on this CPU that runs what is on its list of deferred work.
    /// Any context, NMI too.
    fn raise_deferred();
    /// The deferred work of the CPU that runs this; the caller is pinned to it.
    fn deferred() -> &'static crate::deferred::List;

    // For those who watch.

    /// One turn of a loop that waits for another CPU.
    fn relax();
    /// A place where a seeded schedule may yield, delay or interrupt. Nothing otherwise.
    fn mark(mark: Mark);
    /// A lock is about to be taken (`is_try`: has been). Only if
    /// [`CHECK_LOCKS`](Self::CHECK_LOCKS).
    fn lock_acquire(acquisition: &Acquisition);
    /// A lock is about to be released. Only if [`CHECK_LOCKS`](Self::CHECK_LOCKS).
    fn lock_release(class: &'static LockClass, lock: usize);
    /// What follows may sleep; a report if that is not allowed here. Only if
    /// [`CHECK_LOCKS`](Self::CHECK_LOCKS).
    fn might_sleep(at: &'static Location<'static>);
    /// Something is wrong with the use of a lock (`what`), and the machine says so.
    fn report(what: fmt::Arguments<'_>);
}
