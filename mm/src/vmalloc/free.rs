//! The way of an area from its free to its addresses' next use. The states are in
//! [`vmalloc`](super).

use core::{panic::Location, ptr::NonNull};

use super::{
    Source, Vmalloc,
    later::Later,
    node::{Kind, NodeRef, Range},
};
use crate::{
    frame::PAGE_SIZE,
    machine::Machine,
    reclaim::{Shrink, Wanted},
};

/// Ranges that are freed in one section of the areas lock.
const AT_ONCE: usize = 16;

impl<M: Machine, S: Source> Vmalloc<M, S> {
    /// Frees the area at `address`; only one of `kind`, if that is said. May sleep.
    pub(super) fn free_now(
        &self,
        address: usize,
        kind: Option<Kind>,
        caller: &'static Location<'static>,
    ) {
        self.drain();
        self.free_one(address, kind, caller);
    }

    /// Has the area at `address` freed by a thread that may sleep. Any context.
    ///
    /// # Safety
    ///
    /// `entry` is valid and nobody else's until the area is freed.
    pub(super) unsafe fn free_later(
        &self,
        entry: NonNull<Later>,
        address: usize,
        caller: &'static Location<'static>,
    ) {
        // SAFETY: as the caller promises.
        if unsafe { self.later.push(entry, address, caller) } {
            (self.kick)();
        }
    }

    /// Frees what was freed where it could not be done. May sleep.
    pub fn drain(&self) {
        if !self.later.is_empty() {
            self.later
                .take(|address, caller| self.free_one(address, None, caller));
        }
    }

    fn free_one(&self, address: usize, kind: Option<Kind>, caller: &'static Location<'static>) {
        let left = {
            let mut space = self.space.lock();
            let fits = |node: NodeRef| {
                kind.is_none() || node.info.get().is_some_and(|info| Some(info.kind) == kind)
            };
            match space.tree.at(address) {
                Some(node) if node.state.get() == Range::Busy && !fits(node) => {
                    Err("an area of the other kind (vfree, vunmap)")
                }
                _ => space.leave(address).map_err(|found| match found {
                    None => "not in the vmalloc range",
                    Some(Range::Busy) => "inside an area, not its beginning",
                    Some(Range::Leaving | Range::Lazy | Range::Purging) => {
                        "an area that was freed already"
                    }
                    Some(Range::Free | Range::Claimed) => "no area",
                }),
            }
        };
        match left {
            Err(what) => self.bad_free(address, what, caller),
            Ok(node) => self.unmap(node),
        }
    }

    /// Unmaps an area that is leaving.
    fn unmap(&self, node: NodeRef) {
        let memory = node.memory();
        let of_others = node.info.get().map(|info| info.kind) == Some(Kind::Vmap);
        // SAFETY: mapped when it became busy; its owner has freed it, and one free makes it
        // leave.
        unsafe { M::unmap(self.layout, memory.start, memory.len() / PAGE_SIZE) };
        let lazy = self.space.lock().lazy(node);
        if of_others || lazy > self.limit.saturating_mul(2) {
            self.purge_batch();
        } else if lazy > self.limit {
            // Whoever purges now may come too early for us; the next will not.
            self.try_purge();
        }
    }

    /// Flushes all CPUs' translations of unmapped ranges; after it they and their frames are
    /// free. Of those that were freed before the call, none is left. Gives the number of
    /// frames that it freed. May sleep.
    pub fn purge(&self) -> usize {
        self.drain();
        self.purge_batch()
    }

    /// [`purge`](Self::purge), unless somebody else is at it. Does not wait for others.
    pub fn try_purge(&self) -> usize {
        match self.purging.try_lock() {
            None => 0,
            Some(_turn) => self.purge_with_turn(),
        }
    }

    fn purge_batch(&self) -> usize {
        let _turn = self.purging.lock();
        self.purge_with_turn()
    }

    /// With the purge mutex held.
    fn purge_with_turn(&self) -> usize {
        let Some(mut batch) = self.space.lock().take_lazy() else {
            return 0;
        };
        // The ranges were unmapped before they became lazy, and we have seen that under the
        // lock: no CPU can load a translation of them any more.
        M::flush(self.layout, batch.span.clone());
        let mut freed = 0;
        for node in batch.iter() {
            let frames = node.frames.get();
            if let Some(info) = node.info.get() {
                frames.give_back(&self.source, info.usage);
                freed += frames.count as usize;
            }
        }
        loop {
            let more = self.space.lock().release_some(&mut batch, AT_ONCE);
            self.free_retired();
            if !more {
                return freed;
            }
        }
    }
}

impl<M: Machine, S: Source> Shrink for Vmalloc<M, S> {
    fn name(&self) -> &'static str {
        "vmalloc"
    }

    fn count(&self) -> u64 {
        self.space.lock().counts.held as u64
    }

    /// Frees all that is lazy, whatever is wanted: a flush costs the same. Does not wait for
    /// the purge mutex: its holder may wait for this thread's locks.
    fn scan(&self, _wanted: Wanted) -> u64 {
        self.try_purge() as u64
    }
}
