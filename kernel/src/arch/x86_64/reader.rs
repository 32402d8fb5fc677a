//! The reader word: in how many preemptible read-side sections the running thread is, one
//! word of per-CPU data that changes threads with the CPU.
//!
//! | bits | meaning |
//! |---|---|
//! | 0-30 | how many sections the thread is in, interrupts on top of it included |
//! | 31 | *nobody* has asked to hear of the end of the outermost one |
//!
//! The last bit is upside down, so that the word is 0 exactly if no section is left and
//! somebody asked; the end of a section is one decrement and one branch not taken.
//!
//! | state (depth, asked) | event | state | what else |
//! |---|---|---|---|
//! | 0, no | [`enter`] | 1, no | |
//! | n, any | [`enter`], nested or in an interrupt | n + 1, same | |
//! | n, any | [`ask`], interrupts off | n, yes | |
//! | n > 1, any | [`exit`] | n - 1, same | |
//! | 1, no | [`exit`] | 0, no | |
//! | 1, yes | [`exit`] | 0, yes | the branch is taken |
//! | 0, yes | an interrupt or NMI comes before [`take_end`] | same | its sections begin and end on top; the first end that is no NMI's is the next line |
//! | 0, yes | [`take_end`], interrupts off, not in NMI | 0, no | its caller alone tells of the end |
//! | any | the thread is left: [`get`] | kept with the thread | |
//! | any | the thread is taken up: [`set`] | as it was kept | a new thread: [`NONE`] |
//!
//! An interrupt leaves the word as it found it, but for the last bit. Every operation is one
//! GS-relative instruction; only the own CPU changes its word, as in
//! [`preempt`](super::preempt). Checked builds look at every step.

use core::{arch::asm, sync::atomic::AtomicU32};

const NOT_ASKED: u32 = 1 << 31;
/// Deeper than any honest nesting.
#[cfg(debug_assertions)]
const DEEPEST: u32 = 0x4000;

/// The word of a thread that is in no section.
pub const NONE: u32 = NOT_ASKED;

#[unsafe(link_section = ".percpu")]
static WORD: AtomicU32 = AtomicU32::new(NONE);

/// Begins a section. Any context.
#[inline(always)]
pub fn enter() {
    // SAFETY: `gs:[WORD]` is the own CPU's copy (see `percpu`); one instruction. What is
    // read in the section is not moved out of it: the assembly may touch memory.
    unsafe { asm!("inc dword ptr gs:[{word}]", word = sym WORD, options(nostack)) };
    #[cfg(debug_assertions)]
    assert!(depth() <= DEEPEST, "{} nested read-side sections", depth());
}

/// Ends a section; calls `asked` if it was the outermost one and somebody asked. Any
/// context.
#[inline(always)]
pub fn exit(asked: impl FnOnce()) {
    #[cfg(debug_assertions)]
    assert!(depth() != 0, "more read-side sections end than began");
    // SAFETY: as in `enter`.
    unsafe {
        asm!(
            "dec dword ptr gs:[{word}]",
            "jz {asked}",
            word = sym WORD,
            asked = label { asked() },
        );
    }
}

/// The word of the thread that runs, or was interrupted.
#[inline(always)]
pub fn get() -> u32 {
    let value: u32;
    // SAFETY: as in `enter`; reads only.
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

/// Another thread is taken up, with the word that [`get`] gave when it was left. Interrupts
/// off.
#[inline(always)]
pub fn set(value: u32) {
    // SAFETY: as in `enter`.
    unsafe {
        asm!(
            "mov dword ptr gs:[{word}], {value:e}",
            value = in(reg) value,
            word = sym WORD,
            options(nostack, preserves_flags),
        );
    }
}

/// How many sections the thread that runs, or was interrupted, is in.
#[inline(always)]
pub fn depth() -> u32 {
    depth_of(get())
}

/// How many sections a thread with this word is in.
#[inline(always)]
pub const fn depth_of(word: u32) -> u32 {
    word & !NOT_ASKED
}

/// The end of the outermost section shall be told. Interrupts off, within a section.
#[inline]
pub fn ask() {
    // SAFETY: as in `enter`.
    unsafe { asm!("and dword ptr gs:[{word}], 0x7fffffff", word = sym WORD, options(nostack)) };
}

/// Whether the end of the outermost section is to be told, by the caller alone. Interrupts
/// off, not in NMI.
#[inline]
pub fn take_end() -> bool {
    let ended = get() == 0;
    if ended {
        set(NOT_ASKED);
    }
    ended
}
