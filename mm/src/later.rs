//! Blocks that were freed by code that may not wait for the zone's lock.
//!
//! A stack of blocks through their heads' descriptors, pushed without a lock from any
//! context, and taken as a whole by whoever has the zone's lock next.
//!
//! | from | to | who, how |
//! |---|---|---|
//! | used | later | the owner: writes the word and the link, then makes it the head (compare-and-exchange, Release) |
//! | later | free | the holder of the zone's lock: takes all (swap, Acquire), puts each in |
//!
//! Only *push* and *take all* exist, so a head that was taken and came back in between (ABA)
//! does no harm: the link that was written is to a block that is on the stack now.
//! Release and Acquire make the words and links, and what the owner wrote to the memory
//! before it freed it, visible to who takes them. A push between two pushes needs no order of
//! its own: a read-modify-write continues the release sequence of the one before it.
//!
//! Blocks may wait here for as long as nobody takes the lock. They count as used until they are
//! taken in; whoever counts takes the lock, so nobody sees that.

use platform::sync::{AtomicU32, Ordering};

use crate::{
    buddy::NONE,
    frame::{FrameMap, Pfn},
    machine::Layout,
};

/// The stack.
#[derive(Debug)]
pub struct Later {
    head: AtomicU32,
}

impl Later {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            head: AtomicU32::new(NONE),
        }
    }

    /// Whether there is nothing. May be out of date at once.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        // Relaxed: a glance; `take` orders what it takes.
        self.head.load(Ordering::Relaxed) == NONE
    }

    /// Pushes a frame that belongs to the caller. Any context.
    ///
    /// # Safety
    ///
    /// `pfn` has a descriptor of its own, which is on no list.
    pub unsafe fn push<L: Layout>(&self, map: &FrameMap<L>, pfn: Pfn) {
        // SAFETY: as the caller promises.
        let frame = unsafe { map.at(pfn) };
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            frame.next.store(head, Ordering::Relaxed);
            match self
                .head
                .compare_exchange_weak(head, pfn.0, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all and calls `each` with every frame, which is the callee's from then on. Any
    /// context.
    pub fn take<L: Layout>(&self, map: &FrameMap<L>, mut each: impl FnMut(Pfn)) {
        let mut at = self.head.swap(NONE, Ordering::Acquire);
        while at != NONE {
            let pfn = Pfn(at);
            // The link first: `each` may use the descriptor.
            // SAFETY: what was pushed has a descriptor.
            at = unsafe { map.at(pfn) }.next.load(Ordering::Relaxed);
            each(pfn);
        }
    }
}

impl Default for Later {
    fn default() -> Self {
        Self::new()
    }
}
