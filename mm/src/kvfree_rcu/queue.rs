//! `kfree_rcu`: where an object goes. The roads, from the highest to the lowest:
//!
//! | road | for | unless |
//! |---|---|---|
//! | rcu sheaf | objects of caches with sheaves, of the CPU's own node | no memory for one; the local lock is taken; the cache is going |
//! | page of pointers | all else, large kmalloc, vmalloc | no page |
//! | head | objects that were given with one | there is none |
//! | wait | callers that may sleep | |

use core::{panic::Location, ptr::NonNull};

use platform::Preempt;

use super::{
    Head,
    lane::{Lane, Stage, Then},
    loose::{Item, Kind, Put},
};
use crate::{
    Gfp, Use,
    frame::PAGE_SIZE,
    slab::{Hooks, KmemCache, Machine, Slabs, ZERO_SIZE, arrows::Arrow, kmalloc::At},
};

impl<M: Machine> Slabs<M> {
    /// Frees memory of kmalloc, of any cache, or of vmalloc, once all sections of now are over.
    /// Never fails, and never waits, unless the caller may sleep and far too much waits already. Any context but NMI, in a
    /// section too.
    ///
    /// # Safety
    ///
    /// `memory` is the caller's, and nobody finds it any more but readers that are in a section; `head` lies in it, and
    /// no reader looks at that.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn kfree_rcu(&self, memory: NonNull<u8>, head: NonNull<Head>) {
        // SAFETY: as the caller promises.
        unsafe { self.kfree_rcu_of(memory, head, Location::caller()) };
    }

    /// [`kfree_rcu`](Self::kfree_rcu), for a caller.
    ///
    /// # Safety
    ///
    /// As for that.
    #[inline(always)]
    pub(super) unsafe fn kfree_rcu_of(
        &self,
        memory: NonNull<u8>,
        head: NonNull<Head>,
        caller: &'static Location<'static>,
    ) {
        // SAFETY: as the caller promises. (It is queued: there is a head.)
        unsafe {
            match self.slab_of(memory) {
                Some(slab) => slab.cache().as_ref().free_rcu(memory, Some(head)),
                None => self.free_rcu_odd(memory, Some(head), caller),
            };
        }
    }

    /// [`kfree_rcu`](Self::kfree_rcu) of what has no room for a head: may wait for a grace period
    /// if there is no memory. Task context, may sleep, not in a section.
    ///
    /// # Safety
    ///
    /// `memory` is the caller's, and nobody finds it any more but readers that are in a section.
    #[track_caller]
    pub unsafe fn kfree_rcu_mightsleep(&self, memory: NonNull<u8>) {
        // SAFETY: as the caller promises.
        unsafe {
            let owner = self.slab_of(memory).map(|slab| slab.cache());
            let queued = match owner {
                Some(cache) => cache.as_ref().free_rcu(memory, None),
                None => self.free_rcu_odd(memory, None, Location::caller()),
            };
            if queued || self.free_rcu_with_effort(memory) {
                return;
            }
            if let Some(cache) = owner
                && let Some(destructor) = cache.as_ref().destructor
            {
                destructor(memory);
            }
            self.free_now(memory);
        }
    }

    /// Has memory freed for which there was no page at hand. `false`: there is none at all; but a grace period has passed, and it is
    /// the caller's to free. Task context, may sleep, not in a section.
    ///
    /// # Safety
    ///
    /// As for [`kfree_rcu_mightsleep`](Self::kfree_rcu_mightsleep).
    #[cold]
    pub(crate) unsafe fn free_rcu_with_effort(&self, memory: NonNull<u8>) -> bool {
        if let Some(page) = self.page_for_pointers(Gfp::KERNEL | Gfp::NOWARN)
            // SAFETY: as the caller promises.
            && unsafe { self.queue_loose(memory, None, Some(page)) }
        {
            return true;
        }
        self.arrow(Arrow::RcuSynchronize);
        if let Some(rcu) = self.rcu() {
            rcu.synchronize();
        }
        false
    }

    /// Frees what is no object of a slab.
    #[cold]
    #[inline(never)]
    unsafe fn free_rcu_odd(
        &self,
        memory: NonNull<u8>,
        head: Option<NonNull<Head>>,
        caller: &'static Location<'static>,
    ) -> bool {
        if memory == ZERO_SIZE {
            return true;
        }
        let known = self.kvfree_rcu.is_vmalloc(memory) || matches!(self.at(memory), At::Large(..));
        if !known {
            self.bad_address(memory, caller);
            return true;
        }
        // SAFETY: as the caller promises.
        unsafe { self.queue_loose(memory, head, None) }
    }

    unsafe fn free_now(&self, memory: NonNull<u8>) {
        // SAFETY: as the caller promises.
        unsafe {
            match self.kind_of(memory) {
                Kind::Kmalloc => self.kfree(memory),
                Kind::Vmalloc => self.kvfree_rcu.vfree(memory),
            }
        }
    }

    pub(crate) fn kind_of(&self, memory: NonNull<u8>) -> Kind {
        if self.kvfree_rcu.is_vmalloc(memory) {
            Kind::Vmalloc
        } else {
            Kind::Kmalloc
        }
    }

    /// Bytes for which memory counts while it waits. Of vmalloc a page: how large it is would take a lock
    /// to know.
    pub(crate) fn bytes_of(&self, memory: NonNull<u8>, kind: Kind) -> u64 {
        if kind == Kind::Vmalloc {
            return PAGE_SIZE as u64;
        }
        match self.at(memory) {
            // SAFETY: the object keeps its cache.
            At::Slab(slab) => u64::from(unsafe { slab.cache().as_ref() }.layout().size),
            At::Large(_, order) => (PAGE_SIZE << order) as u64,
            _ => 0,
        }
    }

    fn page_for_pointers(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        let pfn = self.mm().alloc_pages(gfp, 0, Use::Meta)?;
        NonNull::new(self.mm().frames().address_of(pfn))
    }

    /// Puts memory into a page of pointers of this CPU's lane (`page` may become one), or links
    /// it by its head. `false`: there is neither. Any context but NMI, no lock of the slab allocator held.
    ///
    /// # Safety
    ///
    /// As for [`kfree_rcu`](Self::kfree_rcu).
    pub(crate) unsafe fn queue_loose(
        &self,
        memory: NonNull<u8>,
        head: Option<NonNull<Head>>,
        mut page: Option<NonNull<u8>>,
    ) -> bool {
        let pinned = Preempt::<M>::disable();
        let lane = self.kvfree_rcu.lane(pinned.cpu());
        let kind = self.kind_of(memory);
        let owner = self.slab_of(memory).map(|slab| {
            // SAFETY: the object keeps its cache.
            unsafe { &*slab.cache().as_ptr() }
        });
        let held = owner.is_some_and(KmemCache::is_dying);
        if held && let Some(cache) = owner {
            self.arrow(Arrow::RcuDying);
            cache.hold();
        }
        let item = Item::new(memory, held);
        // SAFETY: as the caller promises.
        let mut queued = unsafe { lane.put(kind, item, owner, &mut page, None) };
        if queued.is_none() && page.is_none() {
            page = self.page_for_pointers(Gfp::NOWAIT);
            if page.is_some() {
                // SAFETY: the same.
                queued = unsafe { lane.put(kind, item, owner, &mut page, None) };
            }
        }
        if queued.is_none() && head.is_some() {
            // SAFETY: the same.
            queued = unsafe { lane.put(kind, item, owner, &mut page, head) };
        }
        if let Some(page) = page {
            lane.free_page(page);
        }
        match queued {
            Some(then) => {
                lane.follow(then);
                drop(pinned);
                self.kvfree_rcu.help(lane);
                true
            }
            None => {
                if held && let Some(cache) = owner {
                    // SAFETY: held above; the object keeps it.
                    unsafe { cache.release() };
                }
                false
            }
        }
    }
}

impl<M: Machine> Lane<M> {
    /// Puts an item into a page, or (`head`) links it. `None`: there is no page.
    ///
    /// # Safety
    ///
    /// As for [`Slabs::queue_loose`]; the lane is that of the CPU that runs this, which is pinned.
    unsafe fn put(
        &self,
        kind: Kind,
        item: Item,
        owner: Option<&KmemCache<M>>,
        page: &mut Option<NonNull<u8>>,
        head: Option<NonNull<Head>>,
    ) -> Option<Then> {
        let bytes = self.slabs().bytes_of(item.memory(), kind);
        let mut state = self.state.lock();
        if let Some(memory) = page.take() {
            // SAFETY: a page of the caller's.
            *page = unsafe { state.loose.give(memory) };
        }
        let was_open = state.loose.has_open();
        let mut then = Then::Nothing;
        match head {
            Some(head) => {
                // SAFETY: as the caller promises.
                unsafe { state.loose.chain(head, item) };
                self.arrow(Arrow::RcuChain);
            }
            None => {
                match state.loose.put(kind, item, || self.name()) {
                    Put::In => {}
                    Put::Closed => {
                        self.arrow(Arrow::RcuClosePage);
                        then = self.call_for(&mut state);
                    }
                    Put::NoPage(closed) => {
                        if closed {
                            self.arrow(Arrow::RcuClosePage);
                            then = self.call_for(&mut state);
                        }
                        drop(state);
                        self.follow(then);
                        return None;
                    }
                }
                self.arrow(Arrow::RcuPage);
            }
        }
        if !was_open {
            state.loose.open_since = M::now_ns().max(1);
        }
        if let Some(cache) = owner {
            // SAFETY: with the lock, and no other is there.
            unsafe { cache.part(self.cpu).locked() }.loose(1);
        }
        let urge = self.add_bytes(&mut state, bytes);
        if state.stage == Stage::Idle {
            state.stage = Stage::Awake;
            return Some(then.and_wake(true));
        }
        Some(then.and_wake(urge))
    }
}

impl<M: Machine> KmemCache<M> {
    /// [`Slabs::kfree_rcu`] of an object of this cache; `false`: there is no memory to note it in, and no head.
    ///
    /// # Safety
    ///
    /// As for that.
    #[inline(always)]
    pub unsafe fn free_rcu(&self, object: NonNull<u8>, head: Option<NonNull<Head>>) -> bool {
        let hooks = self.hooks();
        // SAFETY: as the caller promises.
        unsafe {
            if hooks.intersects(Hooks::DEBUG | Hooks::DYING) {
                return self.free_rcu_slowly(object, head, Arrow::RcuNoSheaf);
            }
            self.free_rcu_here(hooks.contains(Hooks::NUMA), object, head)
        }
    }

    /// An object that goes past the sheaves.
    ///
    /// # Safety
    ///
    /// As for [`free_rcu`](Self::free_rcu).
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn free_rcu_slowly(
        &self,
        object: NonNull<u8>,
        head: Option<NonNull<Head>>,
        why: Arrow,
    ) -> bool {
        self.count(crate::slab::stats::Stat::FreeRcuSheafFail);
        self.arrow(why);
        // SAFETY: as the caller promises.
        unsafe { self.slabs().queue_loose(object, head, None) }
    }
}
