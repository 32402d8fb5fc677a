//! A CPU's timer hardware lent out, for those who need an interrupt after exactly so many
//! nanoseconds: the interrupt sweep.

use super::base;
use crate::{
    arch::apic::{self, TimerVector},
    sched::Pinned,
    smp,
};

/// How the lent hardware interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawKind {
    /// An interrupt, given to [`Raw::take`]'s handler.
    Irq,
    /// An NMI, likewise. Emulators deliver it; a real local APIC's timer may not.
    Nmi,
}

/// The timer of the CPU that made it; the CPU's own timers and tick stand still meanwhile.
/// Preemption is off.
#[derive(Debug)]
pub struct Raw {
    kind: RawKind,
    /// Keeps the CPU.
    _pinned: Pinned,
}

impl Raw {
    /// Takes the hardware of this CPU.
    pub fn take(kind: RawKind) -> Self {
        let pinned = Pinned::disable();
        let mut base = base::lock(smp::this_cpu());
        assert!(!base.taken, "the timer is lent out already");
        base.taken = true;
        apic::disarm_timer();
        drop(base);
        Self {
            kind,
            _pinned: pinned,
        }
    }

    /// One interrupt `counts` counts of the hardware from now: exactly that many
    /// instructions on the `icount` machine.
    #[inline]
    pub fn arm(&self, counts: u32) {
        apic::start_timer(
            counts,
            match self.kind {
                RawKind::Irq => TimerVector::Sweep,
                RawKind::Nmi => TimerVector::Nmi,
            },
        );
    }

    /// None any more.
    pub fn disarm(&self) {
        apic::disarm_timer();
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        apic::disarm_timer();
        let mut base = base::lock(smp::this_cpu());
        base.taken = false;
        base.reprogram();
    }
}
