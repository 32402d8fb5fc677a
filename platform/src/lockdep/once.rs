//! Every finding is reported once.

use core::sync::atomic::{AtomicU64, Ordering};

use super::finding::Kind;

/// How many findings are remembered. Beyond, they are counted and not reported.
const REMEMBERED: usize = if cfg!(model) { 16 } else { 256 };

/// Findings already reported, by a hash that is never 0.
#[derive(Debug)]
pub struct Once {
    keys: [AtomicU64; REMEMBERED],
    reported: AtomicU64,
    suppressed: AtomicU64,
}

impl Once {
    /// Nothing reported.
    pub const fn new() -> Self {
        Self {
            keys: [const { AtomicU64::new(0) }; REMEMBERED],
            reported: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Whether to report: `false` if a finding of this kind about the same things was.
    pub fn first(&self, kind: Kind, about: [u64; 3]) -> bool {
        let key = hash(kind, about);
        // Relaxed throughout: a key stands for itself. It never leaves its slot but by
        // `clear`, and every CPU looks at the slots in the same order, so of two that
        // bring the same key one finds the other's.
        for slot in &self.keys {
            match slot.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.reported.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                Err(other) if other == key => break,
                Err(_) => {}
            }
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Everything may be reported again.
    pub fn clear(&self) {
        for slot in &self.keys {
            slot.store(0, Ordering::Relaxed);
        }
    }

    /// How many were reported, and how many were not because they had been.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.reported.load(Ordering::Relaxed),
            self.suppressed.load(Ordering::Relaxed),
        )
    }
}

fn hash(kind: Kind, about: [u64; 3]) -> u64 {
    // The steps of splitmix64, which spreads every bit over the word.
    let mut hash = kind as u64;
    for word in about {
        hash = hash.wrapping_add(word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
    }
    hash.max(1)
}
