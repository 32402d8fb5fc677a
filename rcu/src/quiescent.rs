//! Where CPUs pass quiescent states, and how they are asked to.
//!
//! A CPU's word ([`Cpu::wanted`](crate::cpu::Cpu)) says whether a grace period waits for it:
//!
//! | state | left by | to |
//! |---|---|---|
//! | not wanted | a grace period finds the CPU busy: a normal one at its look, an expedited one at its beginning | wanted |
//! | wanted | the CPU changes threads | not wanted: it reports |
//! | | its tick, or an interrupt sent for it, comes upon no section | not wanted: it reports |
//! | | its tick, or that interrupt, comes upon a section | wanted; the CPU is made to change threads, or (preemptible) the section's end asked to call |
//! | | the end of a (preemptible) section that was asked | not wanted: it reports; with preemption off, wanted: the CPU is made to change threads |
//!
//! The word is a hint. The CPU takes the wish off it first and then reports under its leaf's
//! lock, so a wish that comes in between is reported to (its grace period has begun on the
//! leaf before anybody could wish), or stays and leads to a report too many, which does
//! nothing.

use platform::{
    Context, CpuId, IrqsOff,
    sync::{AtomicU32, Ordering},
};

use crate::{
    Machine, Rcu,
    arrows::Arrow,
    call::reported,
    cpu::{EXPEDITED, NORMAL, UNBLOCK},
    tree::Kind,
};

impl<M: Machine> Rcu<M> {
    /// The CPU is about to change threads, or could: on the CPU, interrupts off, no lock
    /// held, in no section but that (preemptible) of the thread that is left.
    #[inline]
    pub fn note_switch(&self) {
        let in_section = M::preemptible() && M::reader_depth() != 0;
        // Relaxed: a hint, see the module.
        if in_section || self.wanted_here().load(Ordering::Relaxed) != 0 {
            self.switch_slowly(in_section);
        }
    }

    #[inline(always)]
    fn wanted_here(&self) -> &AtomicU32 {
        let cpu = M::percpu_here(self.cpus.addr()).cast::<crate::cpu::Cpu<M>>();
        // SAFETY: the CPU's own, as long as the engine lives; the callers have interrupts
        // off, so they stay on the CPU.
        &unsafe { cpu.as_ref() }.wanted
    }

    #[cold]
    fn switch_slowly(&self, in_section: bool) {
        if in_section {
            self.block();
        }
        if self.wanted_here().load(Ordering::Relaxed) != 0 {
            self.tree.arrows.take(Arrow::CpuSwitch);
            self.pass();
        }
    }

    /// The thread of this CPU is left in a section. Interrupts off.
    fn block(&self) {
        let entry = M::reader_entry();
        // SAFETY: the entry of the thread that runs here (or is being left by this code).
        let queued = unsafe { entry.as_ref().leaf() }.is_some();
        // Also if it is queued: the end of another section may have been told already.
        M::ask_reader();
        if queued {
            // Still in the section in which it was left before, or in one that began before
            // that was over.
            return;
        }
        let cpu = M::current_cpu().index();
        // SAFETY: on no list; it stays as long as the thread, which takes it off when its
        // section ends.
        let blocks = unsafe { self.tree.block(cpu, entry, M::thread_number()) };
        // The thread's place on the list stands for the section: the CPU is in none now.
        let wants = [NORMAL, EXPEDITED];
        let wanted = wants
            .iter()
            .zip(blocks)
            .filter(|(_, blocks)| *blocks)
            .fold(0, |wanted, (want, _)| wanted | want);
        // Relaxed: for this CPU itself, just below.
        self.wanted_here().fetch_or(wanted, Ordering::Relaxed);
    }

    /// The section in which the thread of this CPU was left, if it was, is over. Interrupts off.
    fn unblock(&self) {
        let entry = M::reader_entry();
        // SAFETY: the entry of the thread that runs this (or is being left by this code).
        let Some(leaf) = (unsafe { entry.as_ref().leaf() }) else {
            return;
        };
        // SAFETY: it is on the list of that leaf.
        let [normal, expedited] = unsafe { self.tree.unblock(leaf, entry) };
        if normal {
            self.wake();
        }
        if expedited {
            self.expedited.done();
        }
    }

    /// This CPU is in no section: reports to whoever wants it. Interrupts off.
    fn pass(&self) {
        // Relaxed: what counts is the mask under the leaf's lock.
        let wanted = self.wanted_here().swap(0, Ordering::Relaxed);
        let cpu = M::current_cpu().index();
        // In a section again the thread goes on blocking what it did.
        if wanted & UNBLOCK != 0 && M::reader_depth() == 0 {
            self.unblock();
        }
        if wanted & NORMAL != 0 && self.tree.report(cpu, Kind::Normal) {
            self.wake();
        }
        if wanted & EXPEDITED != 0 && self.tree.report(cpu, Kind::Expedited) {
            self.expedited.done();
        }
        reported();
    }

    /// The CPU's tick. Hard interrupt context.
    #[inline]
    pub fn tick(&self) {
        if self.wanted_here().load(Ordering::Relaxed) != 0 {
            self.poke(Arrow::CpuTick, Arrow::CpuTickInSection);
        }
        self.check_thread();
    }

    /// An interrupt that was sent to this CPU so that it reports
    /// ([`Machine::interrupt`]). Hard interrupt context.
    pub fn interrupted(&self) {
        // Relaxed: a hint, see the module.
        let wanted = self.wanted_here().load(Ordering::Relaxed);
        if wanted & EXPEDITED != 0 {
            self.poke(Arrow::ExpReported, Arrow::ExpInSection);
        } else if wanted != 0 {
            self.poke(Arrow::CpuInterrupt, Arrow::CpuInterruptInSection);
        }
    }

    /// Reports, if this interrupt came upon no section; else makes the section's end do it.
    fn poke(&self, outside: Arrow, inside: Arrow) {
        if M::interrupted_quiescent() {
            self.tree.arrows.take(outside);
            self.pass();
            return;
        }
        self.tree.arrows.take(inside);
        if M::preemptible() && M::reader_depth() != 0 {
            // Not to be switched away for that, and be on a list.
            M::ask_reader();
        } else {
            M::resched_here();
        }
    }

    /// The outermost section of the thread that runs this has ended, and was asked to say
    /// so: because its thread was switched away in it, or because a grace period waits for
    /// the CPU. Any context but NMI.
    pub fn section_ended(&self) {
        // If it may sleep it could not be in a section of any other kind; on whatever CPU it
        // is by the next line.
        let outside = M::may_sleep();
        let _irqs_off = IrqsOff::<M>::disable();
        let entry = M::reader_entry();
        // SAFETY: the entry of the thread that runs this.
        if unsafe { entry.as_ref().leaf() }.is_some() {
            if outside {
                self.unblock();
            } else {
                // It goes on as a section of another kind, of the same thread or (in an
                // interrupt) of what its thread will do next.
                self.tree.arrows.take(Arrow::ReaderOverstays);
                // Relaxed: for this CPU itself, on which the thread stays until it looks.
                self.wanted_here().fetch_or(UNBLOCK, Ordering::Relaxed);
                M::resched_here();
            }
        }
        if self.wanted_here().load(Ordering::Relaxed) == 0 {
            return;
        }
        if outside {
            self.tree.arrows.take(Arrow::CpuSectionEnd);
            self.pass();
        } else {
            self.tree.arrows.take(Arrow::CpuSectionEndLater);
            if M::context() == Context::Task {
                M::resched_here();
            }
        }
    }

    /// A CPU comes: on that CPU, interrupts off, before its first section, while its idle
    /// word is still even.
    pub fn cpu_starting(&self, cpu: CpuId) {
        self.tree.online(cpu.index());
    }

    /// A CPU goes: on that CPU, interrupts off, after its last section; its idle word is
    /// even from soon after on.
    pub fn cpu_dying(&self, cpu: CpuId) {
        let [normal, expedited] = self.tree.offline(cpu.index());
        // Relaxed: nobody looks at it while the CPU is away.
        self.wanted_here().store(0, Ordering::Relaxed);
        if normal {
            self.wake();
        }
        if expedited {
            self.expedited.done();
        }
    }
}
