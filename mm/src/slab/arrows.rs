//! Counters of the arrows in the state tables of `docs/slab.md`: a table entry that no test
//! ever takes is a claim that nothing has checked. Counted in builds that check locks; the
//! others have no code for it.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{KmemCache, Machine};

macro_rules! arrows {
    ($($(#[doc = $doc:literal])+ $arrow:ident = $name:literal,)*) => {
        /// An arrow of a state table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Arrow {
            $($(#[doc = $doc])+ $arrow,)*
        }

        impl Arrow {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$arrow,)*];

            /// The name in `docs/slab.md` and in listings.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$arrow => $name,)*
                }
            }
        }
    };
}

arrows! {
    /// Main is empty and the spare full: they change places.
    AllocSwap = "alloc.swap",
    /// Main is empty: exchanged for a full sheaf of the barn.
    AllocExchange = "alloc.exchange",
    /// Main is empty and the barn has nothing: main is refilled from slabs.
    AllocRefill = "alloc.refill",
    /// A CPU gets its first main sheaf.
    AllocFirstMain = "alloc.first_main",
    /// The local lock was taken: one object from a slab.
    AllocLockTaken = "alloc.lock_taken",
    /// Main is full and the spare empty: they change places.
    FreeSwap = "free.swap",
}

/// A counter for each arrow.
#[derive(Debug)]
pub struct Arrows([AtomicU64; Arrow::ALL.len()]);

impl Arrows {
    /// All at 0.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Arrow::ALL.len()])
    }

    /// It is taken `count` times.
    #[inline]
    pub(crate) fn add(&self, arrow: Arrow, count: u64) {
        // Relaxed: a statistic.
        self.0[arrow as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// How often it was taken.
    pub fn count(&self, arrow: Arrow) -> u64 {
        self.0[arrow as usize].load(Ordering::Relaxed)
    }
}

impl Default for Arrows {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> KmemCache<M> {
    /// An arrow of the state tables is taken. Any context.
    #[inline(always)]
    pub(crate) fn arrow(&self, arrow: Arrow) {
        if M::CHECK_LOCKS {
            self.slabs().arrows.add(arrow, 1);
        }
    }
}
