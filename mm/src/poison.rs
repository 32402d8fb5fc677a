//! Free memory is filled with a pattern; where it is something else when it is allocated,
//! somebody wrote to memory that was not theirs any more.
//!
//! Here is what fills and compares; which frames are filled is remembered by
//! [`debug`](crate::debug).

use core::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::frame::Pfn;

/// What free memory is filled with, as on Linux.
pub const PATTERN: u8 = 0xaa;

const WORD: u64 = u64::from_ne_bytes([PATTERN; 8]);
/// Words that are looked at together.
const STEP: usize = 8;
/// Bytes that are shown around the damage.
const SHOWN: usize = 64;
/// Bytes in a line of them.
const LINE: usize = 16;

/// What is wrong with memory that should be filled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// The frame, if it is known.
    pub frame: Option<Pfn>,
    /// The first byte that is wrong, from the beginning of what was compared.
    pub offset: u32,
    /// The last one.
    pub last: u32,
    /// How many are.
    pub bytes: u32,
    /// If only one bit is wrong, which bit of that byte: memory may be failing.
    pub flipped: Option<u8>,
    /// Where `shown` begins.
    from: u32,
    shown_len: u32,
    shown: [u8; SHOWN],
}

/// Fills memory.
///
/// # Safety
///
/// The memory is the caller's to write.
pub unsafe fn fill(start: *mut u8, bytes: usize) {
    // SAFETY: as the caller promises.
    unsafe { start.write_bytes(PATTERN, bytes) };
}

/// Looks whether all is still as [`fill`] left it.
///
/// # Errors
///
/// What is not.
///
/// # Safety
///
/// The memory is mapped and can be read; `start` and `bytes` are multiples of 8. It may be
/// written meanwhile by those who should not: that is what this is for.
pub unsafe fn check(start: *const u8, bytes: usize) -> Result<(), Damage> {
    debug_assert!(start.addr().is_multiple_of(8) && bytes.is_multiple_of(8));
    // SAFETY: readable and aligned, as the caller promises. Atomic, for whoever writes there
    // writes whenever it likes.
    let words = unsafe { core::slice::from_raw_parts(start.cast::<AtomicU64>(), bytes / 8) };
    // Relaxed: the words stand for nothing but themselves.
    let differs = |word: &AtomicU64| word.load(Ordering::Relaxed) ^ WORD;
    let (steps, rest) = words.as_chunks::<STEP>();
    let whole = |step: &[AtomicU64; STEP]| step.iter().fold(0, |all, word| all | differs(word));
    let Some(first) = steps
        .iter()
        .position(|step| whole(step) != 0)
        .map(|step| step * STEP)
        .or_else(|| {
            let word = rest.iter().position(|word| differs(word) != 0);
            word.map(|word| steps.len() * STEP + word)
        })
    else {
        return Ok(());
    };
    // Should it have been put right meanwhile there is no damage to show.
    Damage::of(words, first).map_or(Ok(()), Err)
}

impl Damage {
    /// The damage in `words`, none of which below `first` is wrong.
    #[cold]
    fn of(words: &[AtomicU64], first: usize) -> Option<Self> {
        let byte = |at: usize| words[at / 8].load(Ordering::Relaxed).to_ne_bytes()[at % 8];
        let end = words.len() * 8;
        let mut found: Option<Self> = None;
        for at in first * 8..end {
            let value = byte(at);
            if value == PATTERN {
                continue;
            }
            let wrong = value ^ PATTERN;
            let damage = found.get_or_insert_with(|| {
                let from = (at & !(LINE - 1)).saturating_sub(LINE);
                let len = SHOWN.min(end - from);
                let mut shown = [0; SHOWN];
                for (place, shown) in shown[..len].iter_mut().enumerate() {
                    *shown = byte(from + place);
                }
                Self {
                    frame: None,
                    offset: at as u32,
                    last: at as u32,
                    bytes: 0,
                    flipped: wrong
                        .is_power_of_two()
                        .then(|| wrong.trailing_zeros() as u8),
                    from: from as u32,
                    shown_len: len as u32,
                    shown,
                }
            });
            damage.bytes += 1;
            damage.last = at as u32;
            if damage.bytes > 1 {
                damage.flipped = None;
            }
        }
        found
    }

    /// Says which frame it is.
    #[must_use]
    pub const fn in_frame(mut self, pfn: Pfn) -> Self {
        self.frame = Some(pfn);
        self
    }
}

impl fmt::Display for Damage {
    /// A sentence, and the bytes around the first that is wrong.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, offset, .. } = self;
        let plural = if *bytes == 1 { " is" } else { "s are" };
        write!(
            f,
            "expected {PATTERN:#04x}, {bytes} byte{plural} not, the first at offset {offset:#x}"
        )?;
        if self.last != self.offset {
            write!(f, ", the last at {:#x}", self.last)?;
        }
        if let Some(bit) = self.flipped {
            write!(f, "; a single bit, {bit}, is flipped")?;
        }
        let shown = &self.shown[..self.shown_len as usize];
        for (line, bytes) in shown.chunks(LINE).enumerate() {
            write!(f, "\n  {:04x}:", self.from as usize + line * LINE)?;
            bytes.iter().try_for_each(|byte| write!(f, " {byte:02x}"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
