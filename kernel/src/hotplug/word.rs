//! What the controller of hotplug and a CPU settle between them: one word a CPU. The table of
//! its states is in `docs/hotplug.md`.

use core::sync::atomic::{AtomicU8, Ordering};

use platform::{CpuId, MAX_CPUS};

/// What a CPU is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Word {
    /// It has not started, or has stopped for good.
    Off = 0,
    /// The controller starts it.
    Starting = 1,
    /// It runs.
    Running = 2,
    /// It runs, and goes when it has nothing left to do.
    Leaving = 3,
    /// It goes.
    Dying = 4,
}

static WORDS: [AtomicU8; MAX_CPUS] = [const { AtomicU8::new(Word::Off as u8) }; MAX_CPUS];

/// Whether the word is `word`. What its writer did before is seen then.
pub(super) fn is(cpu: CpuId, word: Word) -> bool {
    // Acquire pairs with the Release in `change` and `set`.
    WORDS[cpu.index()].load(Ordering::Acquire) == word as u8
}

/// Moves the word on, if it is `from`; whether it was.
#[must_use = "another CPU may have moved it"]
pub(super) fn change(cpu: CpuId, from: Word, to: Word) -> bool {
    // AcqRel: either side sees what the other did before its move.
    WORDS[cpu.index()]
        .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire)
        .is_ok()
}

/// Moves the word on where nobody else does: the boot CPU's at first, and a dying one's.
pub(super) fn set(cpu: CpuId, to: Word) {
    WORDS[cpu.index()].store(to as u8, Ordering::Release);
}
