//! The kernel as a [`Machine`]: what `rcu` runs on here.
//!
//! A build has one of the two flavours, by the feature `rcu_preemptible`. Without it a
//! read-side section is code with preemption off; with it a section counts in the reader word
//! (`arch/x86_64/reader.rs`).

use core::{fmt, ptr::NonNull};

use ::rcu::{Machine, Rcu, Stall, blocked::Entry};
use platform::{CpuId, CpuMask, eqs::Eqs};

use super::Kernel;
use crate::{arch::preempt, rcu, sched, smp};

// SAFETY: `sched::eqs` is even only in the idle loop and in `sched::extended`, outside of
// sections; `interrupted_preemptible` says what `interrupted_quiescent` promises; the hooks
// that call the engine are listed in `crate::rcu`.
unsafe impl Machine for Kernel {
    #[inline(always)]
    fn preemptible() -> bool {
        cfg!(feature = "rcu_preemptible")
    }

    #[inline(always)]
    fn read_enter() {
        flavour::enter();
        #[cfg(debug_assertions)]
        check_watching();
    }

    #[inline(always)]
    fn read_exit() {
        flavour::exit();
    }

    #[inline]
    fn reader_depth() -> u32 {
        flavour::depth()
    }

    #[inline]
    fn ask_reader() {
        flavour::ask();
    }

    fn reader_entry() -> NonNull<Entry> {
        flavour::entry()
    }

    #[inline]
    fn interrupted_quiescent() -> bool {
        preempt::interrupted_preemptible() && flavour::depth() == 0
    }

    #[inline]
    fn resched_here() {
        preempt::want_switch();
    }

    fn interrupt(_: &Rcu<Self>, cpus: CpuMask) {
        // There is one engine, which the handler knows.
        smp::ask_for_rcu(cpus);
    }

    #[inline]
    fn idle(cpu: CpuId) -> &'static Eqs {
        sched::eqs(cpu)
    }

    #[inline]
    fn thread_number() -> u32 {
        sched::try_current().map_or(0, |thread| thread.id)
    }

    fn stalled(stall: &Stall) {
        rcu::report_stall(stall);
    }

    fn rcu_report(what: fmt::Arguments<'_>) {
        rcu::report_misuse(what);
    }
}

/// A section that begins on a CPU that says to be idle protects nothing.
#[cfg(debug_assertions)]
fn check_watching() {
    // Before there is an engine nothing is reclaimed.
    if rcu::try_rcu().is_some() {
        // Preemptible: on this CPU or on another one, the thread is not idle where it is.
        let _pinned = sched::Pinned::disable();
        let cpu = smp::this_cpu();
        if !sched::eqs(cpu).is_watching() {
            rcu::report_misuse(format_args!(
                "a read-side section begins while cpu{cpu} is idle"
            ));
        }
    }
}

/// Sections are code with preemption off.
#[cfg(not(feature = "rcu_preemptible"))]
mod flavour {
    use core::ptr::NonNull;

    use ::rcu::blocked::Entry;
    use platform::Platform;

    use super::Kernel;

    #[inline(always)]
    pub fn enter() {
        Kernel::preempt_disable();
    }

    #[inline(always)]
    pub fn exit() {
        Kernel::preempt_enable();
    }

    pub const fn depth() -> u32 {
        0
    }

    pub fn ask() {
        unreachable!("no thread is in a section when it is asked");
    }

    pub fn entry() -> NonNull<Entry> {
        unreachable!("no thread is switched away in a section");
    }
}

/// Sections count in the reader word.
#[cfg(feature = "rcu_preemptible")]
mod flavour {
    use core::ptr::NonNull;

    use ::rcu::blocked::Entry;
    use platform::{Context, Mark, Platform};

    use super::Kernel;
    use crate::{
        arch::{irq, preempt, reader},
        rcu, sched,
    };

    pub use crate::arch::reader::{ask, depth, enter};

    #[inline(always)]
    pub fn exit() {
        reader::exit(ended);
        Kernel::mark(Mark::Preempt);
    }

    /// The outermost section has ended, and the engine asked to hear of it.
    #[cold]
    #[inline(never)]
    fn ended() {
        // An NMI came upon the very end of a section: whose it is tells.
        if preempt::context() == Context::Nmi {
            return;
        }
        let ended = {
            // Of those who may have seen the end only one takes it.
            let _irqs_off = irq::disable();
            reader::take_end()
        };
        if ended {
            rcu::rcu().section_ended();
        }
    }

    pub fn entry() -> NonNull<Entry> {
        NonNull::from(sched::current().reader_entry())
    }
}
