//! Changing threads.
//!
//! A CPU leaves a thread in two steps, because nobody may take the thread up before its
//! registers are saved: it notes which thread it leaves and why, switches to the other
//! thread's stack, and there finishes ([`finish`]) with the one it left: makes it ready, or
//! parked, or buries it. Interrupts are off from the choice to the end of `finish`, and no
//! lock is held across the switch.
//!
//! | why | what `finish` does with the thread that was left |
//! |---|---|
//! | turn over, or yields | makes it ready, behind the others |
//! | somebody goes first | makes it ready, before the others |
//! | parks | [`ParkWord::left`](platform::park::ParkWord::left); ready if it was woken |
//! | ends | returns its stack, tells who joins it, drops it |
//! | frozen | nothing, ever |
//! | idle | nothing: it is not on any queue |

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::Deref,
    panic::Location,
    ptr,
    sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering},
};

use ::rcu::Machine;
use platform::{CpuId, MAX_CPUS};

use super::{
    exit, idle,
    run_queue::{self, Place},
    thread::{State, Thread},
};
use crate::{
    arch::{context, irq, percpu::PerCpuCell, preempt},
    lockdep,
    machine::Kernel,
    percpu, rcu, smp, standstill, time,
};

percpu! {
    /// Address of the thread that runs; 0 before there are threads.
    static CURRENT: u64 = 0;
    /// When it was taken up.
    static SINCE: u64 = 0;
    /// Its turn is over.
    static TURN_OVER: u64 = 0;
    /// Thread switches.
    pub static SWITCHES: u64 = 0;
}

/// Why a thread is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Why {
    /// Another one goes before it, or it is not to run here any more.
    Preempted,
    /// Its turn is over, or it gives it up.
    TurnOver,
    /// It sleeps.
    Parks,
    /// It is over.
    Ends,
    /// It is the CPU's idle thread.
    Idle,
}

/// Which thread a CPU has just left. Only the own CPU, with interrupts off.
struct Left {
    thread: AtomicPtr<Thread>,
    why: AtomicU8,
}

static LEFT: [Left; MAX_CPUS] = [const {
    Left {
        thread: AtomicPtr::new(ptr::null_mut()),
        why: AtomicU8::new(0),
    }
}; MAX_CPUS];

/// The thread that runs this. Not for other threads: it belongs to this one's stack.
#[derive(Debug, Clone, Copy)]
pub struct Current {
    thread: *const Thread,
    not_send: PhantomData<*mut ()>,
}

impl Deref for Current {
    type Target = Thread;

    fn deref(&self) -> &Thread {
        // SAFETY: the thread runs this code, so it is alive (invariant of `Thread`).
        unsafe { &*self.thread }
    }
}

/// The thread that runs this (the interrupted one, in an interrupt). `None`: early in boot.
#[inline]
pub fn try_current() -> Option<Current> {
    let thread = CURRENT.get() as *const Thread;
    (!thread.is_null()).then_some(Current {
        thread,
        not_send: PhantomData,
    })
}

/// The thread that runs this.
///
/// # Panics
///
/// Early in boot, when there is none.
#[inline]
pub fn current() -> Current {
    try_current().expect("there are no threads yet")
}

/// The thread that runs on a CPU, for a panic: it may be gone when looked at.
pub fn running_on(cpu: CpuId) -> Option<*const Thread> {
    let thread = CURRENT.on(cpu).load(Ordering::Relaxed) as *const Thread;
    (!thread.is_null()).then_some(thread)
}

/// Makes a thread the one that runs here without a switch: a CPU's first.
pub(super) fn adopt(thread: &Thread) {
    CURRENT.set(ptr::from_ref(thread) as u64);
    SINCE.set(time::now_ns());
    thread.note_state(State::Running);
}

/// A switch is wanted and allowed: what preemption coming on calls.
#[cold]
#[inline(never)]
pub fn preempt() {
    // With interrupts off the switch waits until they come on.
    while preempt::switch_due() && irq::enabled() {
        standstill::at_section_end();
        preempt::disable();
        reschedule();
        preempt::enable_no_switch();
    }
}

/// The end of an interrupt that came while a thread ran. Interrupts off.
pub fn preempt_from_interrupt() {
    while preempt::switch_due() {
        preempt::disable();
        reschedule();
        preempt::enable_no_switch();
    }
}

/// Looks whether another thread should run. Preemption off once.
fn reschedule() {
    let turn_over = TURN_OVER.get() != 0;
    leave(if turn_over {
        Why::TurnOver
    } else {
        Why::Preempted
    });
}

/// The tick says that the running thread's turn is over. Interrupt context.
pub(super) fn end_turn() {
    TURN_OVER.set(1);
    preempt::want_switch();
}

/// Lets others of the same priority run.
#[track_caller]
pub fn yield_now() {
    lockdep::might_sleep(Location::caller());
    preempt::disable();
    let there_was_one = leave(Why::TurnOver);
    preempt::enable();
    if !there_was_one {
        // Who calls this in a loop spins, for another CPU. An emulator that runs all CPUs in one
        // thread goes on to the next one here, else at the next timer only: it may then be that
        // timer's interrupt that CPU gets to run each time, and nothing else.
        core::hint::spin_loop();
    }
}

/// Sleeps until woken; at once back if that came already. See
/// [`Platform::park`](platform::Platform::park).
#[track_caller]
pub fn park() {
    lockdep::might_sleep(Location::caller());
    preempt::disable();
    leave(Why::Parks);
    preempt::enable();
}

/// The idle thread runs what there is to run. Whether there was something. Preemption off.
pub(super) fn leave_idle() -> bool {
    leave(Why::Idle)
}

/// The running thread ends here.
pub(super) fn end() -> ! {
    // RCU would keep what is freed with the thread.
    assert_eq!(
        Kernel::reader_depth(),
        0,
        "a thread ends in a read-side section"
    );
    preempt::disable();
    leave(Why::Ends);
    unreachable!("a thread that has ended runs again")
}

/// Switches away from the running thread, if there is a reason to; whether there was.
/// Preemption off exactly once.
fn leave(why: Why) -> bool {
    assert_eq!(preempt::depth(), 1, "a thread switch with preemption off");
    let irqs_off = irq::disable();
    // Even if the CPU stays with the thread: it may have been asked for this alone.
    rcu::note_switch();
    let cpu = smp::this_cpu();
    let this = current();
    // A thread that goes on without a look at the queue leaves a wanted switch wanted.
    if why == Why::Parks && !this.wake.begin() {
        return false;
    }
    preempt::switch_made();
    TURN_OVER.set(0);
    let here = this.may_run_on(cpu) && !this.frozen.load(Ordering::Relaxed);
    let keep = match why {
        Why::Preempted if here => Some(false),
        Why::TurnOver if here => Some(true),
        _ => None,
    };
    let next = loop {
        match run_queue::pick(cpu, &this, keep) {
            // Frozen while it was ready: never taken up again.
            Some(thread) if thread.frozen.load(Ordering::Relaxed) => continue,
            Some(thread) => break intrusive_collections::UnsafeRef::into_raw(thread).cast_const(),
            None if keep.is_some() || why == Why::Idle => {
                run_queue::share(cpu);
                return false;
            }
            None => break idle::thread_of(cpu),
        }
    };
    run_queue::share(cpu);
    idle::change(cpu, why == Why::Idle);
    // SAFETY: taken from a queue, or an idle thread: alive (invariant of `Thread`).
    let next = unsafe { &*next };
    account(&this);
    match why {
        Why::Parks => this.note_state(State::Asleep),
        Why::Ends => this.note_state(State::Ended),
        Why::Idle => this.note_state(State::Ready),
        _ => {}
    }
    let left = &LEFT[cpu.index()];
    // Relaxed: this CPU's alone.
    left.thread
        .store(ptr::from_ref(&*this).cast_mut(), Ordering::Relaxed);
    left.why.store(why as u8, Ordering::Relaxed);
    CURRENT.set(ptr::from_ref(next) as u64);
    next.set_cpu(cpu);
    next.note_state(State::Running);
    next.switches.fetch_add(1, Ordering::Relaxed);
    SWITCHES.add(1);
    #[cfg(feature = "rcu_preemptible")]
    this.reader.switch_to(&next.reader);
    // SAFETY: interrupts are off. `next` is on no queue and no CPU, so its stack was saved
    // by whoever left it (ordered by the queue's lock) and nobody else takes it up; `this`
    // is taken up again only after `finish` has given it away.
    unsafe { context::switch_to(this.saved_rsp.get(), rsp_of(&next.saved_rsp)) };
    // Back, perhaps on another CPU.
    finish();
    drop(irqs_off);
    true
}

/// # Safety
///
/// The thread is not running, and the caller alone may take it up.
unsafe fn rsp_of(cell: &UnsafeCell<u64>) -> u64 {
    // SAFETY: as the caller promises.
    unsafe { *cell.get() }
}

fn account(leaving: &Thread) {
    let now = time::now_ns();
    let ran = now.saturating_sub(SINCE.get());
    // Relaxed: a statistic.
    leaving.ran_ns.fetch_add(ran, Ordering::Relaxed);
    SINCE.set(now);
}

/// Ends a switch on the new thread's stack. Interrupts off, preemption off.
pub(super) fn finish() {
    let left = &LEFT[smp::this_cpu().index()];
    let thread = left.thread.swap(ptr::null_mut(), Ordering::Relaxed);
    // SAFETY: the thread that this CPU left a moment ago: nobody else could bury it.
    let Some(thread) = (unsafe { thread.as_ref() }) else {
        return;
    };
    let why = left.why.load(Ordering::Relaxed);
    if thread.frozen.load(Ordering::Relaxed) && why != Why::Ends as u8 {
        return;
    }
    match why {
        why if why == Why::Preempted as u8 => run_queue::requeue(thread, Place::First),
        why if why == Why::TurnOver as u8 => run_queue::requeue(thread, Place::Last),
        why if why == Why::Parks as u8 && thread.wake.left() => {
            run_queue::make_ready(thread, Place::Last);
        }
        why if why == Why::Ends as u8 => exit::bury(thread),
        _ => {}
    }
}

/// Guest nanoseconds that the running thread has run since it was taken up.
pub fn current_stretch_ns(cpu: CpuId) -> u64 {
    let since: &AtomicU64 = SINCE.on(cpu);
    time::now_ns().saturating_sub(since.load(Ordering::Relaxed))
}
