//! What `rcu` asks of a machine beyond [`Platform`]: what a read-side section is made of,
//! which CPUs are idle, and how to make a CPU pass a quiescent state soon.
//!
//! There are two flavours of read-side sections, and a machine has one of them:
//!
//! - *non-preemptible*: a section is code that runs with preemption off. What turns
//!   preemption or interrupts off is a section, too, and so is an interrupt handler.
//! - *preemptible*: a section is counted in a word of its thread, and its thread may be
//!   switched away; the engine then keeps the thread's [`Entry`] on a list until the section
//!   ends. Code with preemption or interrupts off is a section, too.

use core::ptr::NonNull;

use platform::{CpuId, CpuMask, Platform, eqs::Eqs};

use crate::{Rcu, blocked::Entry, stall::Stall};

/// A machine whose memory is read under RCU.
///
/// The machine calls the engine: [`Rcu::note_switch`](crate::Rcu::note_switch) whenever a CPU
/// is about to change threads or was asked to by [`resched_here`](Self::resched_here),
/// [`Rcu::tick`](crate::Rcu::tick) at each tick, and the functions for CPUs that come and go.
///
/// # Safety
///
/// The engine relies on: [`idle`](Self::idle) is even only while its CPU runs no section;
/// [`interrupted_quiescent`](Self::interrupted_quiescent) is true only where it says;
/// the engine is called only where its functions say.
pub unsafe trait Machine: Platform {
    /// Whether sections are preemptible. The same for the machine's whole life.
    fn preemptible() -> bool;

    /// Begins a section; nests. Any context, NMI too.
    fn read_enter();

    /// Ends one. If the outermost one ended and [`ask_reader`](Self::ask_reader) was called
    /// since it began, calls [`Rcu::section_ended`](crate::Rcu::section_ended).
    fn read_exit();

    /// Preemptible: how many sections the thread that runs here (or was interrupted here)
    /// is in. Otherwise 0.
    fn reader_depth() -> u32;

    /// Preemptible: asks for [`Rcu::section_ended`](crate::Rcu::section_ended) at the end of
    /// the section that the thread of this CPU is in. Interrupts off, on the own CPU,
    /// [`reader_depth`](Self::reader_depth) not 0.
    fn ask_reader();

    /// Preemptible: the entry of the thread that runs this (or was interrupted). It stays
    /// where it is at least as long as the thread lives. Interrupts off.
    fn reader_entry() -> NonNull<Entry>;

    /// In an interrupt handler: whether what it came upon is in no section of any kind: a
    /// thread with preemption and interrupts on (and, preemptible, with
    /// [`reader_depth`](Self::reader_depth) 0), or an idle loop.
    fn interrupted_quiescent() -> bool;

    /// Makes the CPU that runs this call [`Rcu::note_switch`](crate::Rcu::note_switch) as
    /// soon as preemption and interrupts are on. Interrupts off; not from NMI.
    fn resched_here();

    /// Makes each of the CPUs that is online call
    /// [`Rcu::interrupted`](crate::Rcu::interrupted) in an interrupt handler. Need not wait for
    /// that: a CPU that keeps interrupts off for too long is to be reported, not to be waited
    /// for. Task context; preemption may be off.
    fn interrupt(rcu: &Rcu<Self>, cpus: CpuMask) {
        Self::call(cpus, &|| rcu.interrupted());
    }

    /// The word by which others see from afar that `cpu` is idle.
    fn idle(cpu: CpuId) -> &'static Eqs;

    /// A number for the thread that runs this, for reports. Any context.
    fn thread_number() -> u32;

    /// A grace period does not end: the machine says so, with the stacks of the CPUs in
    /// [`Stall::cpus`]. Task or interrupt context, no lock of the engine held.
    fn stalled(stall: &Stall);

    /// Something is wrong with the use of RCU (a head queued twice, say), and the machine
    /// says so. Any context but NMI.
    fn rcu_report(what: core::fmt::Arguments<'_>);
}
