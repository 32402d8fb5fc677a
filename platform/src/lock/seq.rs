//! The sequence lock: a few words that are read much more often than written, by readers
//! that write nothing, and so do not get in each other's way.
//!
//! | sequence | the words |
//! |---|---|
//! | even | are those of one write |
//! | odd | are being written, by the holder of the writers' lock |
//!
//! A writer makes the sequence odd, stores the words, makes it even. A reader loads the
//! sequence, the words, and the sequence again; if both are the same even number the words
//! are of one write, else it tries again. The words are atomics, so a reader that comes in
//! between reads a mixture, not undefined behaviour; the mixture is thrown away before it is
//! made a value.
//!
//! Ordering, for a reader that loads `a`, then the words, then `b`:
//!
//! - *No word older than `a`*: `a` is loaded with Acquire from the Release that made the
//!   sequence even; so the words of that write are seen, or later ones.
//! - *A word newer than `a` shows in `b`*: the writer has a Release fence between making the
//!   sequence odd and its stores, the reader an Acquire fence between its loads and `b`. A
//!   reader that saw a store of the writer's then sees the odd sequence at least.
//!
//! Writers hold an [`IrqSpinLock`], so an interrupt handler that reads cannot have stopped
//! the writer that it waits for. An NMI can: there, [`SeqLock::try_read`].

use core::{fmt, marker::PhantomData};

use super::{Class, IrqSpinLock};
use crate::{
    Mark, Platform,
    sync::{AtomicU64, Ordering, fence},
};

/// What can be written as `N` words and made of them again.
pub trait Words<const N: usize>: Copy {
    /// The words.
    fn to_words(self) -> [u64; N];

    /// The value, from what [`to_words`](Self::to_words) once gave.
    fn from_words(words: [u64; N]) -> Self;
}

impl<const N: usize> Words<N> for [u64; N] {
    #[inline(always)]
    fn to_words(self) -> [u64; N] {
        self
    }

    #[inline(always)]
    fn from_words(words: [u64; N]) -> Self {
        words
    }
}

/// A `V` of `N` words behind a sequence lock. See the module.
pub struct SeqLock<V, P: Platform, C: Class, const N: usize> {
    sequence: AtomicU64,
    words: [AtomicU64; N],
    writers: IrqSpinLock<(), P, C>,
    /// Values are made and given out, never kept as such.
    value: PhantomData<fn(V) -> V>,
}

impl<V: Words<N>, P: Platform, C: Class, const N: usize> SeqLock<V, P, C, N> {
    /// Holds `value` at first.
    pub fn new(value: V) -> Self {
        Self::from_words(value.to_words())
    }

    /// Holds what `words` are at first; for statics.
    #[cfg(not(model))]
    pub const fn from_words(words: [u64; N]) -> Self {
        let mut atomics = [const { AtomicU64::new(0) }; N];
        let mut index = 0;
        while index < N {
            atomics[index] = AtomicU64::new(words[index]);
            index += 1;
        }
        Self {
            sequence: AtomicU64::new(0),
            words: atomics,
            writers: IrqSpinLock::new(()),
            value: PhantomData,
        }
    }

    /// Holds what `words` are at first.
    #[cfg(model)]
    pub fn from_words(words: [u64; N]) -> Self {
        Self {
            sequence: AtomicU64::new(0),
            words: words.map(AtomicU64::new),
            writers: IrqSpinLock::new(()),
            value: PhantomData,
        }
    }

    /// What was last written. Retries while a writer is at it. Any context but NMI.
    pub fn read(&self) -> V {
        loop {
            if let Some(value) = self.try_read() {
                return value;
            }
            P::relax();
        }
    }

    /// What was last written, or `None` if a writer is at it, or was meanwhile. Any context.
    #[inline]
    pub fn try_read(&self) -> Option<V> {
        // Acquire: no word is older than this.
        let before = self.sequence.load(Ordering::Acquire);
        if !before.is_multiple_of(2) {
            return None;
        }
        P::mark(Mark::Step);
        // Relaxed: what they are good for is decided below.
        let words = core::array::from_fn(|index| self.words[index].load(Ordering::Relaxed));
        // Pairs with the writer's fence: if a word was newer, so is the sequence now.
        fence(Ordering::Acquire);
        // Relaxed: ordered by the fence.
        if self.sequence.load(Ordering::Relaxed) != before {
            return None;
        }
        Some(V::from_words(words))
    }

    /// Writes `value`; spins while another CPU writes. Not in NMI.
    #[track_caller]
    pub fn write(&self, value: V) {
        self.update(|_| value);
    }

    /// Writes what `change` makes of the last value, and gives that back; spins while
    /// another CPU writes. `change` is called once, with the writers' lock held, and may
    /// read this. Not in NMI.
    #[track_caller]
    pub fn update(&self, change: impl FnOnce(V) -> V) -> V {
        let writer = self.writers.lock();
        // Relaxed: only writers write, and the lock orders those.
        let old = core::array::from_fn(|index| self.words[index].load(Ordering::Relaxed));
        // Before the sequence is odd: should this panic, readers go on.
        let value = change(V::from_words(old));
        let sequence = self.sequence.load(Ordering::Relaxed);
        // Relaxed: the fence orders it before the words.
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        // Pairs with the reader's fence: who sees a word sees the odd sequence.
        fence(Ordering::Release);
        for (word, new) in self.words.iter().zip(value.to_words()) {
            word.store(new, Ordering::Relaxed);
            P::mark(Mark::Step);
        }
        // Release: who sees this sequence sees the words.
        self.sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
        drop(writer);
        value
    }
}

impl<V: Words<N> + fmt::Debug, P: Platform, C: Class, const N: usize> fmt::Debug
    for SeqLock<V, P, C, N>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeqLock")
            .field("class", &C::class().name)
            .field("value", &self.try_read())
            .finish_non_exhaustive()
    }
}
