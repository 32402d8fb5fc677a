//! Taking what is ripe off a lane, and freeing it.
//!
//! Whoever takes something counts it in the hands of the lane, and of the cache, with the lane's
//! lock, before the lane stops counting it. Then it is his alone: no lock is held while destructors run and
//! objects go to barns and slabs. When they rest he takes them off the hands, as his last access to the cache.
//!
//! Where an object rests: a sheaf that is as full as it can be goes into the barn of the CPU that
//! filled it, as a full one; of all others the objects go to slabs. Of a cache that is being destroyed nothing
//! goes into a barn but what is emptied from there by the destroyer, who first waits for the hands.

use core::ptr::NonNull;

use arrayvec::ArrayVec;

use super::{
    hands::{Hands, Ticket},
    lane::{Lane, State},
    loose::{Item, Kind, Loose, Popped},
    part::{Fifo, Part},
};
use crate::{
    Use,
    slab::{
        Hooks, KmemCache, Machine, Mode, Slab, Stage, arrows::Arrow, sheaf::Sheaf, stats::Stat,
    },
};

/// Sheaves that are taken at a time, at most: others may want some of them.
const SHEAVES: usize = 8;
/// Objects of pages and chains that are taken at a time, at most.
const LOOSE: usize = 32;

/// An object that was in a page or a chain; one of a slab with the ticket of its cache.
pub(crate) type Taken<M> = (Item, Kind, Option<(NonNull<KmemCache<M>>, Ticket)>);

/// What was taken off a lane.
#[expect(
    clippy::large_enum_variant,
    reason = "on the stack of who frees it; there may be no memory for a box"
)]
pub(crate) enum Hand<M: Machine> {
    /// Sheaves of one cache.
    Sheaves {
        cache: NonNull<KmemCache<M>>,
        sheaves: Fifo,
        objects: u64,
        ticket: Ticket,
        lane: Ticket,
    },
    /// Objects that were in pages and chains; those of slabs each with the ticket of their cache.
    Loose {
        items: ArrayVec<Taken<M>, LOOSE>,
        /// Pages that became empty.
        pages: ArrayVec<NonNull<u8>, LOOSE>,
        lane: Ticket,
    },
}

impl<M: Machine> Hand<M> {
    /// How many objects it has.
    pub fn objects(&self) -> u64 {
        match self {
            Self::Sheaves { objects, .. } => *objects,
            Self::Loose { items, .. } => items.len() as u64,
        }
    }
}

impl<M: Machine> Lane<M> {
    /// Takes something that is ripe. The drainer, or who helps.
    pub fn take_ripe(&self) -> Option<Hand<M>> {
        let mut state = self.state.lock();
        for _ in 0..state.parts() {
            let part = state.rotate()?;
            // SAFETY: on the list, so its cache is there.
            let part = unsafe { part.as_ref() };
            if let Some(hand) = self.take_sheaves(&mut state, part, SHEAVES, |c| self.is_ripe(c)) {
                self.arrow(Arrow::RcuTakeSheaf);
                return Some(hand);
            }
        }
        let ripe = |cookie| self.is_ripe(cookie);
        let hand = self.take_loose(&mut state, |loose| loose.pop_ripe(ripe))?;
        self.arrow(Arrow::RcuTakeLoose);
        Some(hand)
    }

    /// Takes something of one cache that is ripe.
    pub fn take_own(&self, part: &Part<M>) -> Option<Hand<M>> {
        let mut state = self.state.lock();
        let ripe = |cookie| self.is_ripe(cookie);
        let hand = self
            .take_sheaves(&mut state, part, usize::MAX, ripe)
            .or_else(|| {
                // SAFETY: with the lock, and no other is there.
                if unsafe { part.locked() }.loose_objects() == 0 {
                    return None;
                }
                let is_own = |memory| self.slabs().cache_of(memory) == Some(part.cache);
                self.take_loose(&mut state, |loose| loose.pop_own(ripe, is_own))
            });
        hand.inspect(|_| self.arrow(Arrow::RcuTakeOwn))
    }

    /// With the lock.
    fn take_sheaves(
        &self,
        state: &mut State<M>,
        part: &Part<M>,
        most: usize,
        ripe: impl Fn(u64) -> bool,
    ) -> Option<Hand<M>> {
        // SAFETY: with the lock, and no other is there.
        let mut locked = unsafe { part.locked() };
        let (mut sheaves, mut objects, mut taken) = (Fifo::default(), 0, 0);
        while taken < most
            && let Some(sheaf) = locked.pop_if(&ripe)
        {
            taken += 1;
            // SAFETY: taken off, so this one's.
            unsafe {
                objects += u64::from(Sheaf::len(sheaf));
                sheaves.push(sheaf);
            }
        }
        if taken == 0 {
            return None;
        }
        // SAFETY: the cache has objects here, so it is there.
        let cache = unsafe { part.cache.as_ref() };
        // First into the hands, then off the lane.
        let (ticket, lane) = (cache.hands.take(objects), self.hands.take(objects));
        locked.uncount(objects);
        self.sub_bytes(state, objects * u64::from(cache.layout().size));
        state.relink(part, &mut locked);
        Some(Hand::Sheaves {
            cache: part.cache,
            sheaves,
            objects,
            ticket,
            lane,
        })
    }

    /// With the lock.
    fn take_loose(
        &self,
        state: &mut State<M>,
        mut pop: impl FnMut(&mut Loose) -> Option<Popped>,
    ) -> Option<Hand<M>> {
        let (mut items, mut pages) = (ArrayVec::new(), ArrayVec::new());
        while !items.is_full()
            && let Some((item, kind, page)) = pop(&mut state.loose)
        {
            pages.extend(page);
            let cache = self.slabs().cache_of(item.memory());
            let owner = cache.map(|cache| {
                // SAFETY: the object keeps its cache.
                let cache = unsafe { cache.as_ref() };
                let ticket = cache.hands.take(1);
                // SAFETY: with the lock, and no other is there.
                unsafe { cache.part(self.cpu).locked() }.loose(-1);
                (NonNull::from(cache), ticket)
            });
            let kind = kind.unwrap_or_else(|| self.slabs().kind_of(item.memory()));
            self.sub_bytes(state, self.slabs().bytes_of(item.memory(), kind));
            items.push((item, kind, owner));
        }
        if items.is_empty() {
            return None;
        }
        // At once, so that all have the same ticket: a phase may end at any time.
        let lane = self.hands.take(items.len() as u64);
        Some(Hand::Loose { items, pages, lane })
    }

    /// Frees what was taken. Any context in which destructors may run: a thread; no lock of the allocator held.
    pub fn free(&self, hand: Hand<M>) {
        let (count, ticket) = match hand {
            Hand::Sheaves {
                cache,
                mut sheaves,
                objects,
                ticket,
                lane,
            } => {
                // SAFETY: the hands keep the cache until they rest. A zombie's do not, since nobody
                // waits for them: its objects do, the last of which may be here, so it is held.
                let cache = unsafe { cache.as_ref() };
                let is_zombie = cache.stage() == Stage::Zombie;
                if is_zombie {
                    cache.hold();
                }
                while let Some(sheaf) = sheaves.pop() {
                    // SAFETY: taken off the lane, so this one's; its grace period is over.
                    unsafe { cache.free_ripe_sheaf(self, sheaf) };
                }
                self.rest(&cache.hands, ticket, objects);
                if is_zombie {
                    // SAFETY: of the `hold` above.
                    unsafe { cache.release() };
                }
                (objects, lane)
            }
            Hand::Loose { items, pages, lane } => {
                let count = items.len() as u64;
                for page in pages {
                    self.free_page(page);
                }
                for (item, kind, owner) in items {
                    self.free_loose(item, kind, owner);
                }
                (count, lane)
            }
        };
        self.rest(&self.hands, ticket, count);
    }

    fn free_loose(&self, item: Item, kind: Kind, owner: Option<(NonNull<KmemCache<M>>, Ticket)>) {
        let slabs = self.slabs();
        // SAFETY: taken off the lane, so this one's; its grace period is over. The hands keep the cache.
        unsafe {
            let mut is_held = item.is_held();
            if let Some((cache, _)) = owner
                && !is_held
                && cache.as_ref().stage() == Stage::Zombie
            {
                // As of sheaves.
                cache.as_ref().hold();
                is_held = true;
            }
            if let Some((cache, _)) = owner
                && let Some(destructor) = cache.as_ref().destructor
            {
                destructor(item.memory());
            }
            match kind {
                Kind::Kmalloc => slabs.kfree(item.memory()),
                Kind::Vmalloc => slabs.kvfree_rcu.vfree(item.memory()),
            }
            if let Some((cache, ticket)) = owner {
                self.rest(&cache.as_ref().hands, ticket, 1);
                if is_held {
                    cache.as_ref().release();
                }
            }
        }
    }

    /// Objects rest.
    fn rest(&self, hands: &Hands, ticket: Ticket, objects: u64) {
        // `hands` may be gone after this.
        if hands.rest(ticket, objects) {
            self.slabs().kvfree_rcu.rested.wake_all();
        }
    }

    /// Gives back an empty page of pointers.
    pub fn free_page(&self, page: NonNull<u8>) {
        let mm = self.slabs().mm();
        if let Some(pfn) = mm.frames().pfn_of_address(page.addr().get()) {
            // SAFETY: allocated so, and the caller's.
            unsafe { mm.free_pages(pfn, 0, Use::Meta) };
        }
    }
}

impl<M: Machine> KmemCache<M> {
    /// The objects of a sheaf are free again.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf, whose cookie is ripe, and its objects, which nobody uses any more.
    unsafe fn free_ripe_sheaf(&self, lane: &Lane<M>, sheaf: NonNull<Sheaf>) {
        let home = self.cpus.on(lane.cpu).home;
        // SAFETY: the caller's.
        unsafe {
            if let Some(destructor) = self.destructor {
                for object in Sheaf::filled(sheaf) {
                    destructor(*object);
                }
            }
            let hooks = self.hooks();
            if hooks.intersects(Hooks::FREE) {
                lane.arrow(Arrow::RcuFreeEach);
                for object in Sheaf::filled(sheaf) {
                    self.free(*object);
                }
                Sheaf::set_len(sheaf, 0);
                if hooks.contains(Hooks::DYING) {
                    return self.free_sheaf(sheaf);
                }
                return self.keep_empty(sheaf, home);
            }
            if !Sheaf::is_full_rcu(sheaf) {
                lane.arrow(Arrow::RcuFlushPartial);
            } else if let Some(node) = self.home_node(home)
                && node.barn.put_full(sheaf, Mode::Spin).is_ok()
            {
                self.count(Stat::BarnPut);
                return lane.arrow(Arrow::RcuToBarn);
            } else {
                self.count(Stat::BarnPutFail);
                lane.arrow(Arrow::RcuBarnFull);
            }
            self.flush_sheaf(sheaf);
            self.keep_empty(sheaf, home);
        }
    }
}

impl<M: Machine> crate::slab::Slabs<M> {
    /// The cache of an object; `None`: the address is no slab's.
    pub(crate) fn cache_of(&self, memory: NonNull<u8>) -> Option<NonNull<KmemCache<M>>> {
        self.slab_of(memory).map(|slab: Slab<M>| slab.cache())
    }
}
