//! A thread: what the scheduler knows of it.

use alloc::{boxed::Box, sync::Arc};
use core::{
    cell::UnsafeCell,
    fmt,
    ops::Deref,
    ptr,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering},
};

use arrayvec::ArrayString;
use intrusive_collections::{LinkedListAtomicLink, UnsafeRef, intrusive_adapter};
use platform::{CpuId, CpuMask, Priority, lockdep::Held, park::ParkWord};

use super::{spawn::Builder, stack_pool::ThreadStack};
#[cfg(feature = "rcu_preemptible")]
use crate::arch::reader;
use crate::{
    arch::stacks::Stack,
    heap, smp,
    sync::{IrqLock, ThreadEnd},
    timer::TimerNode,
};

/// Longest name; longer ones are cut.
pub const NAME_LEN: usize = 31;

/// What a new thread runs.
pub(super) type Entry = Box<dyn FnOnce() + Send>;

/// A thread.
///
/// # Invariants
///
/// While a thread is alive (from its creation until a CPU has left it for the last time) the
/// table of threads holds a reference to it. So a run queue, a CPU's `CURRENT` and a timer
/// may point to it without one.
pub struct Thread {
    /// Number, never used again.
    pub id: u32,
    /// Name, for people.
    pub name: ArrayString<NAME_LEN>,
    /// See [`ParkWord`].
    pub(super) wake: ParkWord,
    /// Stack pointer while no CPU runs it. Written by the CPU that leaves it, read by the
    /// CPU that takes it up; the run queue's lock orders these.
    pub(super) saved_rsp: UnsafeCell<u64>,
    /// Where its own stack is, or was; `None`: it has that of a CPU (first threads).
    pub own_stack: Option<Stack>,
    /// Its stack, until it is buried. Changed by who buries it.
    stack: UnsafeCell<Option<ThreadStack>>,
    /// The thread itself, by an address that its reference count can be reached from.
    this: AtomicPtr<Self>,
    /// What it shall run; taken by the thread itself, once.
    pub(super) entry: UnsafeCell<Option<Entry>>,
    /// A [`Priority`].
    priority: AtomicU8,
    /// A [`CpuMask`]: where it may run.
    allowed: AtomicU64,
    /// It is not run while its CPU is offline, instead of elsewhere.
    stays: bool,
    /// The CPU that runs it, or ran it last, or on whose queue it is.
    cpu: AtomicU32,
    /// Its place on a run queue.
    pub(super) link: LinkedListAtomicLink,
    /// Ends a sleep with a time-out.
    pub(super) alarm: TimerNode,
    /// Never to be run again (a test that hangs).
    pub(super) frozen: AtomicBool,
    /// What the scheduler last did with it, for `ps`.
    state: AtomicU8,
    /// Guest nanoseconds that it ran, without the current stretch.
    pub(super) ran_ns: AtomicU64,
    /// How often a CPU took it up.
    pub(super) switches: AtomicU64,
    /// Who waits for its end.
    pub(super) end: IrqLock<End, ThreadEnd>,
    /// For the order checker.
    #[cfg(debug_assertions)]
    held: Held,
    /// For RCU.
    #[cfg(feature = "rcu_preemptible")]
    pub(super) reader: Reader,
}

/// A thread's part in RCU.
#[cfg(feature = "rcu_preemptible")]
#[derive(Debug)]
pub(super) struct Reader {
    /// The reader word while no CPU runs the thread; moved as `saved_rsp` is.
    word: AtomicU32,
    /// Its place among those that were switched away in a section. It is in a section while
    /// the engine has that, so it does not end.
    entry: rcu::blocked::Entry,
}

#[cfg(feature = "rcu_preemptible")]
impl Reader {
    const fn new() -> Self {
        Self {
            word: AtomicU32::new(reader::NONE),
            entry: rcu::blocked::Entry::new(),
        }
    }

    /// This CPU goes from this thread to `next`. Interrupts off.
    #[inline]
    pub(super) fn switch_to(&self, next: &Self) {
        // Relaxed: ordered by the run queue's lock, as `saved_rsp` is.
        self.word.store(reader::get(), Ordering::Relaxed);
        reader::set(next.word.load(Ordering::Relaxed));
    }
}

/// A thread's end, for who joins it.
#[derive(Debug, Default)]
pub(super) struct End {
    pub(super) over: bool,
    pub(super) joiner: Option<ThreadRef>,
}

// SAFETY: the cells are `saved_rsp`, `stack` and `entry`, touched by one CPU at a time as
// their comments say; all else is shared safely.
unsafe impl Send for Thread {}
// SAFETY: as above.
unsafe impl Sync for Thread {}

intrusive_adapter!(pub(super) QueueAdapter = UnsafeRef<Thread>: Thread { link => LinkedListAtomicLink });

/// What a thread is doing, for `ps`. Nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// On a run queue.
    Ready,
    /// On a CPU.
    Running,
    /// Waiting to be woken.
    Asleep,
    /// Taken out of the running for good.
    Frozen,
    /// At its end.
    Ended,
}

impl Thread {
    /// A thread that is not alive yet. `None`: no memory.
    pub(super) fn new(
        id: u32,
        name: fmt::Arguments<'_>,
        stack: Option<ThreadStack>,
        be: Builder,
        cpu: CpuId,
        entry: Option<Entry>,
    ) -> Option<Arc<Self>> {
        let thread = heap::try_arc(Self {
            id,
            name: cut(name),
            wake: ParkWord::new(),
            saved_rsp: UnsafeCell::new(0),
            own_stack: stack.as_ref().map(ThreadStack::memory),
            stack: UnsafeCell::new(stack),
            this: AtomicPtr::new(ptr::null_mut()),
            entry: UnsafeCell::new(entry),
            priority: AtomicU8::new(be.priority as u8),
            allowed: AtomicU64::new(be.allowed.bits()),
            stays: be.stays,
            cpu: AtomicU32::new(cpu.number()),
            link: LinkedListAtomicLink::new(),
            alarm: TimerNode::for_thread(),
            frozen: AtomicBool::new(false),
            state: AtomicU8::new(State::Ready as u8),
            ran_ns: AtomicU64::new(0),
            switches: AtomicU64::new(0),
            end: IrqLock::new(End::default()),
            #[cfg(debug_assertions)]
            held: Held::new(),
            #[cfg(feature = "rcu_preemptible")]
            reader: Reader::new(),
        })?;
        // Relaxed: the thread is handed to other CPUs by locks.
        thread
            .this
            .store(Arc::as_ptr(&thread).cast_mut(), Ordering::Relaxed);
        Some(thread)
    }

    /// A handle to it.
    ///
    /// # Safety
    ///
    /// The thread must be alive.
    pub(super) unsafe fn handle(&self) -> ThreadRef {
        let this = self.this.load(Ordering::Relaxed).cast_const();
        // SAFETY: `this` is the address from an `Arc`, whose count is at least one as long as
        // the thread is alive (invariant of `Thread`).
        unsafe {
            Arc::increment_strong_count(this);
            ThreadRef(Arc::from_raw(this))
        }
    }

    /// Takes its stack away.
    ///
    /// # Safety
    ///
    /// No CPU is on the stack or will be, and nobody else takes it.
    pub(super) unsafe fn take_stack(&self) -> Option<ThreadStack> {
        // SAFETY: as the caller promises.
        unsafe { (*self.stack.get()).take() }
    }

    // Relaxed in all of these: each is one word by itself, and a scheduler that reads the
    // older value does what it would have done a moment ago.

    /// Its priority.
    pub fn priority(&self) -> Priority {
        match self.priority.load(Ordering::Relaxed) {
            0 => Priority::Low,
            1 => Priority::Normal,
            2 => Priority::High,
            _ => Priority::Urgent,
        }
    }

    /// Changes its priority, from its next turn on.
    pub fn set_priority(&self, priority: Priority) {
        self.priority.store(priority as u8, Ordering::Relaxed);
    }

    /// Where it may run.
    pub fn allowed(&self) -> CpuMask {
        CpuMask::from_bits(self.allowed.load(Ordering::Relaxed))
    }

    /// Whether it may run on one CPU only.
    pub fn is_bound(&self) -> bool {
        self.allowed().bits().is_power_of_two()
    }

    pub(super) fn set_allowed(&self, allowed: CpuMask) {
        debug_assert!(!self.stays, "a CPU's own thread moves");
        self.allowed.store(allowed.bits(), Ordering::Relaxed);
    }

    /// Whether it is bound to a CPU even while that is offline.
    pub fn stays(&self) -> bool {
        self.stays
    }

    /// Where it may be put now: on those of its CPUs that are active; on any if none is.
    #[inline]
    pub(super) fn places(&self) -> CpuMask {
        if self.stays {
            return self.allowed();
        }
        let active = smp::active();
        let own = self.allowed().intersection(active);
        if own.is_empty() { active } else { own }
    }

    /// Whether it may run on `cpu` now.
    #[inline]
    pub(super) fn may_run_on(&self, cpu: CpuId) -> bool {
        let (allowed, active) = (self.allowed(), smp::active());
        if allowed.contains(cpu) {
            return active.contains(cpu) || self.stays;
        }
        !self.stays && active.contains(cpu) && allowed.intersection(active).is_empty()
    }

    /// The CPU that runs it, or will, or did.
    pub fn cpu(&self) -> CpuId {
        CpuId::new(self.cpu.load(Ordering::Relaxed)).unwrap_or(CpuId::BOOT)
    }

    pub(super) fn set_cpu(&self, cpu: CpuId) {
        self.cpu.store(cpu.number(), Ordering::Relaxed);
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        if self.frozen.load(Ordering::Relaxed) {
            return State::Frozen;
        }
        match self.state.load(Ordering::Relaxed) {
            0 => State::Ready,
            1 => State::Running,
            2 => State::Asleep,
            3 => State::Frozen,
            _ => State::Ended,
        }
    }

    pub(super) fn note_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Whether it is off all CPUs, waiting to be woken.
    pub fn is_asleep(&self) -> bool {
        self.wake.is_parked()
    }

    /// Whether it holds locks that somebody may wait for, or waits for one itself.
    /// Builds that do not check locks do not know.
    pub fn holds_locks(&self) -> bool {
        self.held().is_some_and(|held| held.depth() != 0)
    }

    /// The locks that it holds or waits for, and interrupts on top of it. `None`: this build
    /// does not check locks.
    #[inline]
    pub fn held(&self) -> Option<&Held> {
        #[cfg(debug_assertions)]
        return Some(&self.held);
        #[cfg(not(debug_assertions))]
        return None;
    }

    /// Whether it was in a section that may be preempted when a CPU left it last.
    pub fn is_reading(&self) -> bool {
        #[cfg(feature = "rcu_preemptible")]
        return reader::depth_of(self.reader.word.load(Ordering::Relaxed)) != 0;
        #[cfg(not(feature = "rcu_preemptible"))]
        return false;
    }

    /// For RCU.
    #[cfg(feature = "rcu_preemptible")]
    pub fn reader_entry(&self) -> &rcu::blocked::Entry {
        &self.reader.entry
    }

    /// Guest nanoseconds that it ran up to its last switch.
    pub fn ran_ns(&self) -> u64 {
        self.ran_ns.load(Ordering::Relaxed)
    }

    /// How often a CPU took it up.
    pub fn switches(&self) -> u64 {
        self.switches.load(Ordering::Relaxed)
    }
}

/// The first bytes of a name, whole characters.
fn cut(name: fmt::Arguments<'_>) -> ArrayString<NAME_LEN> {
    struct Cutter(ArrayString<NAME_LEN>);
    impl fmt::Write for Cutter {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for c in text.chars() {
                self.0.try_push(c).map_err(|_| fmt::Error)?;
            }
            Ok(())
        }
    }
    let mut cutter = Cutter(ArrayString::new());
    // An error is a name that was too long.
    let _ = fmt::write(&mut cutter, name);
    cutter.0
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} '{}'", self.id, self.name)
    }
}

/// A handle to a thread, which may have ended.
#[derive(Clone)]
pub struct ThreadRef(pub(super) Arc<Thread>);

impl Deref for ThreadRef {
    type Target = Thread;

    fn deref(&self) -> &Thread {
        &self.0
    }
}

impl PartialEq for ThreadRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ThreadRef {}

impl fmt::Debug for ThreadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
