//! What a thread knows of itself, and its points: where interrupts come and CPUs change
//! hands.

use core::{
    cell::Cell,
    ptr::{self, NonNull},
    sync::atomic::Ordering,
};
use std::{sync::Arc, time::Instant};

use super::{
    attached::Values,
    machine::{CALLS, CpuState, DEFERRED, Inner, LOOK},
    quick,
    seam::Hosted,
    thread::Thread,
};
use crate::{
    Context, CpuId, CpuMask, Platform, Priority,
    lockdep::{Checker, Held, Now, Report},
};

/// Of 64 points, how many give the host's other threads a turn.
const DELAYS: u64 = 2;
/// Of 64 points, how many hand the CPU to a waiting thread of the same priority.
const SWITCHES: u64 = 8;
/// Of 64 points, how many move a thread that may run anywhere to an idle CPU.
const MOVES: u64 = 2;
/// What is drawn on a machine without chance: none of these.
const STEADY: u64 = u64::MAX;
/// Turns of a waiting loop between looks at the clock.
const SPINS: u32 = 1 << 12;

std::thread_local! {
    static HERE: Cell<*const Here> = const { Cell::new(ptr::null()) };
}

/// The state of the CPU, as far as it belongs to the thread that holds it.
pub(super) struct Here {
    pub(super) machine: Arc<Inner>,
    pub(super) thread: Thread,
    cpu: Cell<CpuId>,
    pub(super) irqs_off: Cell<bool>,
    pub(super) context: Cell<Context>,
    /// In an interrupt: what it came upon could sleep, or was the idle loop.
    pub(super) upon_quiescent: Cell<bool>,
    /// This runs in the name of a CPU that is idle otherwise.
    pub(super) borrowed: Cell<bool>,
    /// Nothing is injected.
    pub(super) calm: Cell<bool>,
    spins: Cell<u32>,
}

/// The calling thread belongs to a machine while this lives.
pub(super) struct Inside<'a>(#[allow(dead_code, reason = "a borrow")] &'a Here);

impl<'a> Inside<'a> {
    pub(super) fn new(here: &'a Here) -> Self {
        assert_outside();
        HERE.set(here);
        quick::set_preempt(0);
        quick::set_skip(here.machine.steady);
        here.set_cpu(here.cpu());
        Self(here)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        quick::set_area(ptr::null_mut());
        HERE.set(ptr::null());
    }
}

/// The calling thread, if it belongs to a machine.
pub(super) fn try_with<R>(f: impl FnOnce(&Here) -> R) -> Option<R> {
    let here = NonNull::new(HERE.get().cast_mut())?;
    // SAFETY: `Inside` borrows it as long as the pointer is there.
    Some(f(unsafe { here.as_ref() }))
}

/// The calling thread.
#[inline]
#[track_caller]
pub(super) fn with<R>(f: impl FnOnce(&Here) -> R) -> R {
    match try_with(f) {
        Some(result) => result,
        None => panic!(
            "this thread belongs to no hosted machine: use Machine::run, run_on_all or spawn_on"
        ),
    }
}

#[track_caller]
pub(super) fn assert_outside() {
    assert!(
        HERE.get().is_null(),
        "called from a thread of a hosted machine, which would wait for itself"
    );
}

/// Brings back, when it is dropped, the state that the CPU had.
pub(super) struct Restore<'a> {
    here: &'a Here,
    cpu: CpuId,
    preempt: u32,
    irqs_off: bool,
    context: Context,
    upon_quiescent: bool,
    borrowed: bool,
    calm: bool,
}

impl<'a> Restore<'a> {
    pub(super) fn of(here: &'a Here) -> Self {
        Self {
            here,
            cpu: here.cpu(),
            preempt: quick::preempt(),
            irqs_off: here.irqs_off.get(),
            context: here.context.get(),
            upon_quiescent: here.upon_quiescent.get(),
            borrowed: here.borrowed.get(),
            calm: here.calm.get(),
        }
    }
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        self.here.set_cpu(self.cpu);
        quick::set_preempt(self.preempt);
        self.here.irqs_off.set(self.irqs_off);
        self.here.context.set(self.context);
        self.here.upon_quiescent.set(self.upon_quiescent);
        self.here.borrowed.set(self.borrowed);
        self.here.calm.set(self.calm);
    }
}

/// Why a thread gives up its CPU while it could go on.
#[derive(Debug, Clone, Copy)]
enum Leave {
    /// For a thread of at least this priority, if one waits.
    For(Priority),
    /// For another CPU.
    Move,
}

impl Here {
    pub(super) fn new(machine: Arc<Inner>, thread: Thread) -> Self {
        Self {
            machine,
            thread,
            cpu: Cell::new(CpuId::BOOT),
            irqs_off: Cell::new(false),
            context: Cell::new(Context::Task),
            upon_quiescent: Cell::new(false),
            borrowed: Cell::new(false),
            calm: Cell::new(false),
            spins: Cell::new(0),
        }
    }

    /// The CPU whose baton the thread has.
    pub(super) fn cpu(&self) -> CpuId {
        self.cpu.get()
    }

    fn set_cpu(&self, cpu: CpuId) {
        self.cpu.set(cpu);
        quick::set_area(self.machine.areas.base(cpu));
    }

    pub(super) fn own(&self) -> &CpuState {
        &self.machine.cpus[self.cpu().index()]
    }

    /// The values of the thread that runs here, or was interrupted here.
    pub(super) fn values(&self) -> &Values {
        if self.borrowed.get() {
            &self.own().idle_values
        } else {
            &self.thread.0.values
        }
    }

    pub(super) fn is_pinned(&self) -> bool {
        quick::preempt() > 0 || self.irqs_off.get()
    }

    pub(super) fn may_sleep(&self) -> bool {
        !self.is_pinned() && self.context.get() == Context::Task
    }

    /// The thread begins.
    pub(super) fn start(&self) {
        self.wait_for_cpu();
        self.point();
    }

    /// The thread ends.
    pub(super) fn finish(&self) {
        assert_eq!(quick::preempt(), 0, "a thread ends with preemption off");
        assert!(!self.irqs_off.get(), "a thread ends with interrupts off");
        self.check_empty(Context::Task);
        self.take_interrupts();
        self.note_switch();
    }

    fn check_empty(&self, context: Context) {
        if Hosted::CHECK_LOCKS {
            self.check(|checker, held, now, sink| checker.check_empty(held, context, now, sink));
        }
    }

    /// Asks the lock checker, and passes on what it finds.
    pub(super) fn check(
        &self,
        ask: impl FnOnce(&Checker, &Held, &Now, &mut dyn FnMut(&Report<'_>)),
    ) {
        ask(
            &self.machine.checker,
            &self.thread.0.held,
            &Now::of::<Hosted>(),
            &mut |report| self.machine.report(std::format!("{report}")),
        );
    }

    /// Runs `f` as an interrupt or NMI of this CPU, or of one that was borrowed.
    pub(super) fn as_interrupt(&self, context: Context, f: impl FnOnce()) {
        let _return = Restore::of(self);
        let preempt = quick::preempt();
        self.upon_quiescent.set(self.may_sleep());
        quick::set_preempt(preempt + 1);
        self.irqs_off.set(true);
        self.context.set(context);
        f();
        assert_eq!(
            quick::preempt(),
            preempt + 1,
            "a handler turned preemption off and left it so"
        );
        assert!(self.irqs_off.get(), "a handler turned interrupts on");
        self.check_empty(context);
    }

    /// Takes what interrupts are raised, if they are on.
    pub(super) fn take_interrupts(&self) {
        while !self.irqs_off.get() {
            let raised = self.own().take();
            if raised == 0 {
                break;
            }
            self.handle(raised);
        }
    }

    fn handle(&self, raised: u32) {
        if raised & CALLS != 0 {
            self.as_interrupt(Context::HardIrq, || self.own().calls.serve());
        }
        // After a failure items may be freed that were not waited for.
        if raised & DEFERRED != 0 && !self.machine.has_failed() {
            self.as_interrupt(Context::HardIrq, || self.own().deferred.run::<Hosted>());
        }
    }

    /// One turn of the wait for `call`, which was sent to `cpus`. Serves others' calls, also
    /// with interrupts off, so that two who call each other get on; runs what idle CPUs were
    /// sent. Goes on after a failure: call and nodes lie on this stack.
    pub(super) fn wait_for_call(&self, cpus: CpuMask) {
        cpus.iter().for_each(|cpu| self.serve_for(cpu));
        if self.irqs_off.get() {
            self.as_interrupt(Context::HardIrq, || self.own().calls.serve());
        } else {
            self.take_interrupts();
        }
        std::thread::yield_now();
        assert!(!self.machine.is_late(), "a call is not served");
    }

    /// A point: NMIs, interrupts, and the next thread, as is due or the seed says. See the
    /// module `hosted`.
    pub(super) fn point(&self) {
        let machine = &*self.machine;
        machine.check_failure();
        if std::thread::panicking() {
            // Others may wait for a call; nothing else helps now.
            self.take_interrupts();
            return;
        }
        let drawn = if machine.steady {
            STEADY
        } else {
            self.own().random.next()
        };
        if drawn & 63 < DELAYS {
            std::thread::yield_now();
        }
        self.own().injections.at_point(self);
        self.take_interrupts();
        if !self.may_sleep() {
            return;
        }
        // Relaxed: only this CPU uses it.
        if self.own().switch_wanted.load(Ordering::Relaxed) {
            self.note_switch();
        }
        let wanted = machine.hints.wanted(self.cpu());
        let mine = self.thread.0.priority as u8 + 1;
        let floats = self.thread.0.cpu.is_none();
        if floats && !machine.online().contains(self.cpu()) {
            self.leave(Leave::Move);
        } else if wanted > mine || wanted == mine && drawn >> 8 & 63 < SWITCHES {
            self.leave(Leave::For(self.thread.0.priority));
        } else if floats && drawn >> 16 & 63 < MOVES && !machine.hints.idle().is_empty() {
            self.leave(Leave::Move);
        }
    }

    /// One turn of a loop that waits.
    pub(super) fn relax(&self) {
        self.point();
        std::thread::yield_now();
        let spins = self.spins.get().wrapping_add(1);
        self.spins.set(spins);
        if spins.is_multiple_of(SPINS) && self.machine.is_late() {
            self.machine.hang("in a loop that spins");
        }
    }

    /// Lets others of the same priority run.
    pub(super) fn yield_now(&self) {
        assert!(self.may_sleep(), "yields where it may not");
        self.point();
        let priority = self.thread.0.priority;
        let wanted = self.machine.hints.wanted(self.cpu());
        if !std::thread::panicking() && wanted > priority as u8 {
            self.leave(Leave::For(priority));
        }
        std::thread::yield_now();
    }

    /// Tells who wants to know that the CPU is about to change threads. From here to the
    /// change there is no point.
    fn note_switch(&self) {
        // Relaxed: only this CPU uses it.
        self.own().switch_wanted.store(false, Ordering::Relaxed);
        if let Some(told) = self.machine.on_switch.get() {
            let _return = Restore::of(self);
            self.irqs_off.set(true);
            told();
        }
    }

    fn leave(&self, why: Leave) {
        self.note_switch();
        let (machine, cpu, thread) = (&*self.machine, self.cpu(), &self.thread);
        let mut sched = machine.sched();
        let next = match why {
            Leave::For(priority) => match sched.pick(cpu, priority, &machine.hints) {
                Some(next) => Some(next),
                None => return,
            },
            Leave::Move => sched.pick(cpu, Priority::Low, &machine.hints),
        };
        thread.set_on_cpu(None);
        // The next one runs as soon as it has the CPU; by then this one is in its queue, so
        // that a seed repeats. It may get this CPU again only if there is no next one.
        let leaves_idle = next.is_none();
        if leaves_idle {
            sched.give(cpu, None, &machine.hints);
        }
        sched.make_ready(thread.clone(), &machine.hints);
        if !leaves_idle {
            sched.give(cpu, next, &machine.hints);
        }
        drop(sched);
        self.wait_for_cpu();
        self.take_interrupts();
    }

    /// Sleeps until it is woken, or until `deadline`.
    pub(super) fn park(&self, deadline: Option<Instant>) {
        assert!(self.may_sleep(), "sleeps where it may not");
        self.point();
        let (machine, thread) = (&*self.machine, &self.thread);
        if machine.has_failed() || !thread.0.park.begin() {
            return;
        }
        self.note_switch();
        {
            let mut sched = machine.sched();
            thread.set_on_cpu(None);
            sched.give_up(self.cpu(), &machine.hints);
            // Whoever wakes it from here on comes to this lock.
            if thread.0.park.left() {
                sched.make_ready(thread.clone(), &machine.hints);
            }
        }
        if let Some(deadline) = deadline {
            self.wait_until(deadline);
        }
        self.wait_for_cpu();
        self.point();
    }

    /// Waits for a CPU, but at most until `deadline`; then wakes itself.
    fn wait_until(&self, deadline: Instant) {
        while self.thread.on_cpu().is_none() && !self.machine.has_failed() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Else somebody has made it ready, or is about to.
                if self.thread.0.park.wake() {
                    let mut sched = self.machine.sched();
                    sched.make_ready(self.thread.clone(), &self.machine.hints);
                }
                break;
            }
            std::thread::park_timeout(left.min(LOOK));
        }
    }

    fn wait_for_cpu(&self) {
        loop {
            if let Some(cpu) = self.thread.on_cpu() {
                self.set_cpu(cpu);
                return;
            }
            if self.machine.has_failed() {
                self.machine.check_failure();
                return;
            }
            if self.machine.is_late() {
                self.machine.hang("for a CPU or to be woken");
            }
            std::thread::park_timeout(LOOK);
        }
    }

    /// Runs, in the name of `cpu`, what others have raised there, if nobody holds it.
    pub(super) fn serve_for(&self, cpu: CpuId) {
        let machine = &*self.machine;
        if !machine.hints.idle().contains(cpu) || !machine.sched().borrow(cpu, &machine.hints) {
            return;
        }
        struct GiveUp<'a>(&'a Here, CpuId);
        impl Drop for GiveUp<'_> {
            fn drop(&mut self) {
                let Self(here, borrowed) = *self;
                let machine = &*here.machine;
                machine.sched().give_up(borrowed, &machine.hints);
            }
        }
        let _give_up = GiveUp(self, cpu);
        // What the interrupts come upon is an idle loop.
        let _return = self.stand_for(cpu);
        self.take_interrupts();
    }

    /// This is the idle loop of `cpu`, which it has borrowed, until the result is dropped.
    pub(super) fn stand_for(&self, cpu: CpuId) -> Restore<'_> {
        let restore = Restore::of(self);
        self.set_cpu(cpu);
        quick::set_preempt(0);
        self.irqs_off.set(false);
        self.context.set(Context::Task);
        self.borrowed.set(true);
        restore
    }
}
