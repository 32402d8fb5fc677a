//! The life of a cache: who keeps its descriptor, and frees that come after it was destroyed.
//!
//! The descriptor has a count of those who need it:
//!
//! | who | from | to |
//! |---|---|---|
//! | the cache, while it is not destroyed, and its destroyer | creation | the end of `destroy` |
//! | each slab, those that wait for a grace period too | [`hold`](KmemCache::hold), before it is published | [`release`](KmemCache::release), after its pages went back |
//! | each free to a [dying](super::Hooks::DYING) cache | [`hold`](KmemCache::hold), before it looks at the slab | [`release`](KmemCache::release), as the last access |
//!
//! Who drops the last one has the cache taken apart, by deferred work: it may be in an NMI.

use super::{KmemCache, Machine};

impl<M: Machine> KmemCache<M> {
    /// Keeps the descriptor. The caller knows that it is kept already, by its own object, say.
    /// Any context.
    #[inline]
    pub(crate) fn hold(&self) {
        panic!("not written yet")
    }

    /// The opposite of [`hold`](Self::hold). Any context.
    ///
    /// # Safety
    ///
    /// The caller made a `hold` that nobody else gives back, and does not touch the cache any
    /// more, unless it knows by something else that it is kept.
    #[inline]
    pub(crate) unsafe fn release(&self) {
        panic!("not written yet")
    }

    /// Whether it is destroyed, or about to be: nothing may go into sheaves and barns any
    /// more, only back to slabs. True for ever once it is. Sections of a CPU's local lock
    /// that begin after [`drain_all`](Self::drain_all) was there see it.
    #[inline]
    pub fn is_dying(&self) -> bool {
        self.hooks().contains(super::Hooks::DYING)
    }
}
