//! Giving empty slabs back: at once, or after a grace period.
//!
//! A slab that is discarded is empty and on no list, so it is the discarder's alone. One of a cache
//! with TYPESAFE_BY_RCU waits for a grace period ([`Place::WaitsForRcu`]) with the callback's head in its frame, since
//! its memory must stay what it is; and so readers may still look at its objects.

use core::{mem::offset_of, ptr::NonNull};

use platform::{lock::IrqSpinLock, lock_class, sync::Ordering};
use rcu::{Rcu, callbacks::Head};

use super::{
    Flags, KmemCache, Machine, Mode, Place, Slab, Slabs, arrows::Arrow, kept::Turn, list::SlabList,
    node::Node, stats::Stat,
};
use crate::{Use, frame::Frame};

lock_class! {
    /// Slabs that wait for an engine.
    pub struct EarlyLock = ("slab early discards", 84);
}

/// Slabs that wait for a grace period, before there is an engine.
pub(crate) struct EarlyDiscards<M: Machine>(IrqSpinLock<SlabList, M, EarlyLock>);

impl<M: Machine> Default for EarlyDiscards<M> {
    fn default() -> Self {
        Self(IrqSpinLock::new(SlabList::default()))
    }
}

// A head lies in `links` and `extra`.
#[cfg(not(model))]
const _: () = assert!(
    size_of::<Head>() <= size_of::<Frame>() - offset_of!(Frame, links)
        && offset_of!(Frame, links).is_multiple_of(align_of::<Head>())
);

impl<M: Machine> KmemCache<M> {
    /// Gives slabs back that are empty and on no list, and still in the counts of `node`. Context: as
    /// [`flush`](Self::flush), no list lock held. Frames that they have.
    pub(crate) fn discard(&self, node: &Node<M>, mut slabs: SlabList, mode: Mode) -> usize {
        let mut frames = 0;
        while let Some(slab) = slabs.pop_front::<M>(*self.slabs().mm().frames()) {
            frames += 1 << slab.order();
            if self.flags.contains(Flags::TYPESAFE_BY_RCU) {
                self.forget(node, slab);
                // Relaxed: the slab is this CPU's still; whoever waits for it counts it first.
                node.waiting.fetch_add(1, Ordering::Relaxed);
                slab.set_place(Place::WaitsForRcu);
                if !self.is_dying() || !self.keep(slab) {
                    self.discard_by_rcu(slab);
                }
            } else {
                self.arrow(Arrow::SlabGone);
                // SAFETY: the discarder's.
                unsafe { self.unmake(node, slab, mode) };
            }
        }
        frames
    }

    /// Takes an empty slab, which nobody else knows of, off the counts.
    fn forget(&self, node: &Node<M>, slab: Slab<M>) {
        if self.is_debug() {
            self.debug_old_slab(slab);
        }
        self.count(Stat::FreeSlab);
        node.uncount_slab(slab.freelist().load().objects());
    }

    /// Gives an empty slab back at once. Context: as `mode` says.
    ///
    /// # Safety
    ///
    /// The slab is the caller's, and nobody else looks at its objects.
    pub(crate) unsafe fn unmake(&self, node: &Node<M>, slab: Slab<M>, mode: Mode) {
        self.forget(node, slab);
        // SAFETY: passed on.
        unsafe { self.free_slab(slab, mode) };
    }

    /// Gives a slab's pages back. The cache may be gone afterwards, if the caller has nothing else
    /// of it.
    ///
    /// # Safety
    ///
    /// The slab is the caller's, and nobody else looks at its objects.
    unsafe fn free_slab(&self, slab: Slab<M>, mode: Mode) {
        let (pfn, order, mm) = (slab.pfn(), slab.order(), self.slabs().mm());
        // Relaxed: see `Slab::cache`; nobody has an object.
        slab.frame().owner.store(0, Ordering::Relaxed);
        // SAFETY: the block was allocated so, and is the caller's.
        unsafe {
            match mode {
                Mode::Spin => mm.free_pages(pfn, order, Use::Slab),
                Mode::NoLock => mm.free_pages_nolock(pfn, order, Use::Slab),
            }
        }
        // SAFETY: of the `hold` that `grow` made for the slab.
        unsafe { self.release() };
    }

    pub(super) fn discard_by_rcu(&self, slab: Slab<M>) {
        let slabs = self.slabs();
        let rcu = slabs.rcu().or_else(|| {
            let mut early = slabs.early_discards.0.lock();
            // Again: the engine is set before the list is emptied.
            let rcu = slabs.rcu();
            if rcu.is_none() {
                self.arrow(Arrow::SlabWaitsEarly);
                early.push_back(slab);
            }
            rcu
        });
        if let Some(rcu) = rcu {
            call(rcu, slab);
            self.arrow(Arrow::SlabWaits);
        }
    }

    /// Gives back a node's empty slabs, and sorts the others so that the fullest are used first: how many
    /// frames were freed (or wait for a grace period). Context: any but NMI, no lock of the slab allocator held.
    pub(crate) fn shrink_node(&self, node: &Node<M>) -> usize {
        /// Slabs with fewer free objects than this are sorted.
        const SORTED: usize = 32;
        let mut empty = SlabList::default();
        let mut by_free: [SlabList; SORTED] = [const { SlabList::new() }; SORTED];
        let map = *self.slabs().mm().frames();
        let Some(mut lists) = node.lock(Mode::Spin) else {
            return 0;
        };
        for slab in lists.partial.iter::<M>(map) {
            let now = slab.freelist().load();
            if now.is_empty() {
                lists.partial.remove(slab);
                // Nobody has an object of it, so the word stays but for this.
                slab.freelist().unlist();
                self.arrow(Arrow::SlabShrunk);
                empty.push_back(slab);
            } else if now.free() < SORTED {
                lists.partial.remove(slab);
                by_free[now.free()].push_back(slab);
            }
        }
        for sorted in by_free.iter_mut().rev() {
            lists.partial.prepend(sorted);
        }
        node.publish(&lists);
        drop(lists);
        self.discard(node, empty, Mode::Spin)
    }
}

/// Has a slab's pages given back after a grace period.
fn call<M: Machine>(rcu: &Rcu<M>, slab: Slab<M>) {
    let frame = core::ptr::from_ref(slab.frame()).cast_mut();
    // SAFETY: within the descriptor.
    let head = unsafe { frame.byte_add(offset_of!(Frame, links)) }.cast::<Head>();
    // SAFETY: links and what follows are the discarder's, for a head (see the assertion), until the callback has
    // run; the callback may run anywhere.
    unsafe {
        head.write(Head::new());
        rcu.call(NonNull::new_unchecked(head), after_grace_period::<M>);
    }
}

/// # Safety
///
/// `head` is that of a discarded slab, after its grace period.
unsafe fn after_grace_period<M: Machine>(head: NonNull<Head>) {
    // SAFETY: it lies in a descriptor of a frame.
    let frame = unsafe { head.byte_sub(offset_of!(Frame, links)) }.cast::<Frame>();
    // SAFETY: descriptors are there for ever.
    let owner = unsafe { frame.as_ref() }.owner.load(Ordering::Relaxed);
    // SAFETY: a slab's owner is its cache, which its slabs keep.
    let cache = unsafe { &*core::ptr::with_exposed_provenance::<KmemCache<M>>(owner) };
    // SAFETY: the slab's head.
    let slab = unsafe { Slab::<M>::of_frame(*cache.slabs().mm().frames(), frame) };
    // SAFETY: a grace period has passed since the last object was freed. Who is counted as running has the cache kept for it.
    unsafe {
        match cache.callback_runs(slab) {
            Turn::Kept => {}
            Turn::Counted => {
                cache.free_waited(slab);
                cache.callback_ran();
            }
            Turn::Late => cache.free_waited(slab),
        }
    }
}

impl<M: Machine> KmemCache<M> {
    /// Gives a slab back that has waited for its grace period. The cache may be gone afterwards, as after
    /// [`free_slab`](Self::free_slab).
    ///
    /// # Safety
    ///
    /// A grace period has passed since it was discarded, and it is the caller's.
    pub(super) unsafe fn free_waited(&self, slab: Slab<M>) {
        slab.set_place(Place::Full);
        self.arrow(Arrow::SlabGoneByRcu);
        if let Some(node) = self.node_of(slab) {
            // Release: who sees that none waits sees what was done to them, but for the pages, which
            // the cache's holds stand for.
            node.waiting.fetch_sub(1, Ordering::Release);
        }
        // SAFETY: as the caller promises.
        unsafe { self.free_slab(slab, Mode::Spin) };
    }
}

impl<M: Machine> Slabs<M> {
    /// Slabs that were to wait for a grace period before there was an engine begin to. Called by `set_rcu`,
    /// after the engine is set. Task context.
    pub(crate) fn call_early_discards(&self) {
        let Some(rcu) = self.rcu() else { return };
        let mut early = core::mem::take(&mut *self.early_discards.0.lock());
        while let Some(slab) = early.pop_front::<M>(*self.mm().frames()) {
            call(rcu, slab);
        }
    }
}
