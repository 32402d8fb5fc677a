//! The preempt count: one word of per-CPU data that says what kind of code runs and whether
//! a thread switch is allowed and wanted.
//!
//! | bits | meaning |
//! |---|---|
//! | 0-15 | how often preemption was turned off |
//! | 16-19 | soft interrupts being served |
//! | 20-23 | interrupts being served |
//! | 24-27 | NMIs being served |
//! | 31 | *no* switch is wanted |
//!
//! The last bit is upside down, so that the word is 0 exactly if a switch is both allowed
//! and wanted, and turning preemption on is one decrement and one branch.
//!
//! Every operation is one GS-relative instruction, which neither an interrupt nor a move to
//! another CPU can split; only the own CPU changes its word. (Reading the base first and
//! adding then would hit another CPU's word after a move in between.) The assembly is a
//! compiler barrier by its default of touching memory: nothing moves out of a section.
//!
//! A count that runs over would silently mean something else. Checked builds look at every
//! step; in all builds the tick looks (`check`), long before 16 bits have gone by through
//! leaked guards.

use core::{
    arch::asm,
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};

use platform::{Context, CpuId};

use super::percpu::{self, PerCpuCell};
use crate::percpu;

const DEPTH: u32 = 0xffff;
const SOFTIRQ: u32 = 1 << 16;
const HARDIRQ: u32 = 1 << 20;
const NMI: u32 = 1 << 24;
const NO_SWITCH: u32 = 1 << 31;
/// Deeper than any honest nesting.
const DEEPEST: u32 = 0x4000;

/// A CPU begins with preemption off once, until its scheduler runs.
#[unsafe(link_section = ".percpu")]
static WORD: AtomicU32 = AtomicU32::new(NO_SWITCH | 1);

/// Turns preemption off; nests. Any context.
#[inline(always)]
pub fn disable() {
    // SAFETY: `gs:[WORD]` is the own CPU's copy (see `percpu`); one instruction.
    unsafe { asm!("inc dword ptr gs:[{word}]", word = sym WORD, options(nostack)) };
    #[cfg(debug_assertions)]
    check();
}

/// Undoes one [`disable`], and switches to another thread if that is wanted now.
#[inline(always)]
pub fn enable() {
    #[cfg(debug_assertions)]
    assert!(
        get() & DEPTH != 0,
        "preemption is turned on more often than off"
    );
    // SAFETY: as in `disable`.
    unsafe {
        asm!(
            "dec dword ptr gs:[{word}]",
            "jz {switch}",
            word = sym WORD,
            switch = label { crate::sched::preempt() },
        );
    }
}

/// Undoes one [`disable`] where the caller looks after a wanted switch itself.
#[inline(always)]
pub fn enable_no_switch() {
    // SAFETY: as in `disable`.
    unsafe { asm!("dec dword ptr gs:[{word}]", word = sym WORD, options(nostack)) };
}

/// The word.
#[inline(always)]
fn get() -> u32 {
    let value: u32;
    // SAFETY: as in `disable`; reads only.
    unsafe {
        asm!(
            "mov {value:e}, gs:[{word}]",
            value = out(reg) value,
            word = sym WORD,
            options(nostack, preserves_flags, readonly),
        );
    }
    value
}

#[inline(always)]
fn add(value: u32) {
    // SAFETY: as in `disable`.
    unsafe {
        asm!(
            "add dword ptr gs:[{word}], {value:e}",
            value = in(reg) value,
            word = sym WORD,
            options(nostack),
        );
    }
}

/// A switch is wanted; the next chance is taken. Own CPU.
#[inline]
pub fn want_switch() {
    // SAFETY: as in `disable`.
    unsafe { asm!("and dword ptr gs:[{word}], 0x7fffffff", word = sym WORD, options(nostack)) };
}

/// A switch is being made. Own CPU, preemption off.
#[inline]
pub fn switch_made() {
    // SAFETY: as in `disable`.
    unsafe { asm!("or dword ptr gs:[{word}], 0x80000000", word = sym WORD, options(nostack)) };
}

/// Whether a switch is wanted on this CPU.
#[inline]
pub fn switch_wanted() -> bool {
    get() & NO_SWITCH == 0
}

/// Whether a switch is allowed and wanted. (Interrupts may still be off.)
#[inline(always)]
pub fn switch_due() -> bool {
    get() == 0
}

/// How often preemption is off.
#[inline]
pub fn depth() -> u32 {
    get() & DEPTH
}

/// Whether code of a thread runs that could be switched away from, but for interrupts off.
#[inline]
pub fn is_preemptible() -> bool {
    get() & !NO_SWITCH == 0
}

/// What kind of code runs.
#[inline]
pub fn context() -> Context {
    match get() & !NO_SWITCH {
        word if word >= NMI => Context::Nmi,
        word if word >= HARDIRQ => Context::HardIrq,
        word if word >= SOFTIRQ => Context::SoftIrq,
        _ => Context::Task,
    }
}

/// Kinds of code that interrupt others.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Interrupt {
    /// Deferred work.
    Soft = SOFTIRQ,
    /// A device, the timer, another CPU.
    Hard = HARDIRQ,
    /// Not maskable.
    Nmi = NMI,
}

/// An interrupt handler begins.
#[inline]
pub fn enter(kind: Interrupt) {
    add(kind as u32);
}

/// It ends; a wanted switch is the caller's to make.
#[inline]
pub fn leave(kind: Interrupt) {
    add((kind as u32).wrapping_neg());
}

percpu! {
    /// The word in an interrupt that came upon an extended quiescent state; else 0.
    static UPON_EQS: u64 = 0;
}

/// The interrupt that has just begun came upon an extended quiescent state: the CPU was in
/// no read-side section, although preemption was off.
#[inline]
pub fn begins_upon_eqs() {
    UPON_EQS.set(u64::from(get() & !NO_SWITCH));
}

/// That interrupt ends.
#[inline]
pub fn ends_upon_eqs() {
    UPON_EQS.set(0);
}

/// In an interrupt handler: whether it came upon a thread with preemption on (and so with
/// interrupts on), or upon an extended quiescent state. Not so in an interrupt within an
/// interrupt, nor where the handler has turned preemption off itself.
#[inline]
pub fn interrupted_preemptible() -> bool {
    let word = get() & !NO_SWITCH;
    word == HARDIRQ || word != 0 && u64::from(word) == UPON_EQS.get()
}

/// A word in words: what kind of code it is the word of.
pub fn describe(word: u32) -> Described {
    Described(word)
}

/// See [`describe`].
#[derive(Debug, Clone, Copy)]
pub struct Described(u32);

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.0;
        f.write_str(match word & !NO_SWITCH {
            word if word >= NMI => "nmi",
            word if word >= HARDIRQ => "interrupt",
            word if word >= SOFTIRQ => "soft interrupt",
            _ => "thread",
        })?;
        match word & DEPTH {
            0 => {}
            1 => f.write_str(", preemption off")?,
            depth => write!(f, ", preemption off {depth} times")?,
        }
        if word & NO_SWITCH == 0 {
            f.write_str(", switch wanted")?;
        }
        Ok(())
    }
}

/// The word of what an NMI came upon; in its handler.
#[inline]
pub fn before_nmi() -> u32 {
    get().wrapping_sub(NMI)
}

/// The word of this CPU, to be shown.
#[inline]
pub fn here() -> u32 {
    get()
}

/// The word of any CPU, to be shown.
pub fn of(cpu: CpuId) -> u32 {
    let offset = percpu::offset_of(cpu);
    let address = (&raw const WORD as u64).wrapping_add(offset);
    // SAFETY: the copy of that CPU, which lives for ever. Relaxed: a glance.
    unsafe { &*(address as *const AtomicU32) }.load(Ordering::Relaxed)
}

/// Panics if the count has run away.
#[inline]
pub fn check() {
    let word = get();
    if word & DEPTH > DEEPEST {
        overflow(word);
    }
}

#[cold]
#[inline(never)]
fn overflow(word: u32) -> ! {
    panic!(
        "preemption was turned off {} times and not on again",
        word & DEPTH
    )
}
