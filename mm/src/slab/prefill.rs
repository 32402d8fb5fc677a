//! Prefilled sheaves: objects that are there before they are needed.
//!
//! | from | to | who |
//! |---|---|---|
//! | a CPU's spare, the barn's, or fresh | prefilled | [`KmemCache::prefill`]; the objects come from sheaf, barn, slabs |
//! | prefilled, larger than the cache's | gone; its objects to their slabs | the end of [`Prefilled`] |
//! | prefilled | a CPU's spare, with what is in it | the same, if that CPU has none |
//! | prefilled, full | the barn's | the same, if there is room |
//! | prefilled | emptied: into main as far as there is room, then to slabs; then the barn's, or gone | the same |

use core::{fmt, panic::Location, ptr::NonNull};

use super::{
    KmemCache, Machine, Mode, arrows::Arrow, barn::Barn, cache::Hooks, percpu::pair_of,
    sheaf::Sheaf, stats::Stat,
};
use crate::Gfp;

/// A sheaf with objects, for code that will allocate where that may not fail. Dropped (in any
/// context but NMI, with no lock of the slab allocator held), it goes back to the cache with
/// what is left in it.
pub struct Prefilled<'a, M: Machine> {
    cache: &'a KmemCache<M>,
    sheaf: NonNull<Sheaf>,
}

// SAFETY: it owns its sheaf, and the objects in it; the cache is shared.
unsafe impl<M: Machine> Send for Prefilled<'_, M> {}

impl<M: Machine> KmemCache<M> {
    /// A sheaf with at least `count` objects; also with more than the cache's sheaves have
    /// room for. `None`: no memory. Context as for [`alloc`](Self::alloc).
    #[track_caller]
    pub fn prefill(&self, gfp: Gfp, count: usize) -> Option<Prefilled<'_, M>> {
        if self.fails(gfp) {
            return None;
        }
        let capacity = self.capacity() as usize;
        let sheaf = if capacity > 0 && count <= capacity && !self.is_dying() {
            self.arrow(Arrow::PrefillOwn);
            self.sheaf_to_fill()?
        } else {
            self.count(Stat::SheafPrefillOversize);
            self.arrow(Arrow::PrefillOversize);
            self.new_sheaf_of(u32::try_from(count.max(1)).ok()?, gfp)?
        };
        self.parts_with_sheaf();
        let mut prefilled = Prefilled { cache: self, sheaf };
        prefilled
            .fill(gfp, count, Location::caller())
            .then_some(prefilled)
    }

    /// A sheaf of the cache's, with some objects or without.
    fn sheaf_to_fill(&self) -> Option<NonNull<Sheaf>> {
        let (spare, home) = match self.lock_here() {
            Some((mut sheaves, home)) => (sheaves.spare.take(), home),
            None => (None, pair_of(self.home())),
        };
        let of_barn = |get: fn(&Barn<M>, Mode) -> Option<NonNull<Sheaf>>| {
            get(&self.home_node(home)?.barn, Mode::Spin)
        };
        let at_hand = spare
            .or_else(|| of_barn(Barn::get_full))
            .or_else(|| of_barn(Barn::get_empty));
        self.count(if at_hand.is_some() {
            Stat::SheafPrefillFast
        } else {
            Stat::SheafPrefillSlow
        });
        at_hand.or_else(|| self.new_sheaf())
    }

    /// Takes a sheaf back that was prefilled, with what is in it.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf, and gives it up.
    unsafe fn take_back(&self, sheaf: NonNull<Sheaf>) {
        self.keeps_sheaf();
        let hooks = self.hooks();
        // SAFETY: this one's. What is put elsewhere is not used here any more.
        unsafe {
            let is_own = Sheaf::capacity(sheaf) == self.capacity();
            if !is_own || hooks.intersects(Hooks::DEBUG | Hooks::DYING) {
                self.give_back(Sheaf::filled_mut(sheaf), Location::caller());
                Sheaf::set_len(sheaf, 0);
                return self.free_sheaf(sheaf);
            }
            let mut home_pair = None;
            if let Some((mut sheaves, home)) = self.lock_here() {
                home_pair = Some(home);
                if sheaves.spare.is_none() {
                    sheaves.spare = Some(sheaf);
                    self.count(Stat::SheafReturnFast);
                    return self.arrow(Arrow::ReturnSpare);
                }
                if Sheaf::has_room(sheaf) {
                    let objects = Sheaf::filled(sheaf);
                    let moved = Sheaf::put(sheaves.main, objects);
                    // The first ones went: the last ones take their places.
                    let left = objects.len() - moved;
                    let first = Sheaf::objects(sheaf).as_ptr();
                    first.copy_from(first.add(moved), left);
                    Sheaf::set_len(sheaf, left as u32);
                }
            }
            self.count(Stat::SheafReturnSlow);
            let home = home_pair.unwrap_or_else(|| pair_of(self.home()));
            if !Sheaf::has_room(sheaf)
                && let Some(node) = self.home_node(home)
                && node.barn.put_full(sheaf, Mode::Spin).is_ok()
            {
                self.count(Stat::BarnPut);
                return self.arrow(Arrow::ReturnBarn);
            }
            self.arrow(Arrow::ReturnFlushed);
            self.flush_sheaf(sheaf);
            self.keep_empty(sheaf, home);
        }
    }
}

impl<M: Machine> Prefilled<'_, M> {
    /// An object of the sheaf; `None`: it is empty. Only [`Gfp::ZERO`] of `gfp` matters. Any
    /// context.
    #[inline]
    #[track_caller]
    pub fn alloc(&mut self, gfp: Gfp) -> Option<NonNull<u8>> {
        // SAFETY: the sheaf is this one's.
        let object = unsafe { Sheaf::pop(self.sheaf) }?;
        self.cache
            .hand_out_prefilled(gfp, object, Location::caller());
        Some(object)
    }

    /// Sees to it that there are at least `count` objects; `false`: no memory, and what was
    /// there is still there. Context as for [`KmemCache::alloc`].
    #[track_caller]
    pub fn refill(&mut self, gfp: Gfp, count: usize) -> bool {
        let caller = Location::caller();
        if self.len() < count && self.cache.fails(gfp) {
            return false;
        }
        // SAFETY: the sheaves are this one's.
        unsafe {
            if count > Sheaf::capacity(self.sheaf) as usize {
                let Ok(capacity) = u32::try_from(count) else {
                    return false;
                };
                let Some(larger) = self.cache.new_sheaf_of(capacity, gfp) else {
                    return false;
                };
                self.cache.parts_with_sheaf();
                self.cache.arrow(Arrow::PrefillLarger);
                Sheaf::put(larger, Sheaf::filled(self.sheaf));
                Sheaf::set_len(self.sheaf, 0);
                let smaller = core::mem::replace(&mut self.sheaf, larger);
                self.cache.take_back(smaller);
            }
        }
        self.fill(gfp, count, caller)
    }

    /// Fills up to `count` objects, for which there is room.
    fn fill(&mut self, gfp: Gfp, count: usize, caller: &'static Location<'static>) -> bool {
        let len = self.len();
        let Some(want) = count.checked_sub(len).filter(|want| *want > 0) else {
            return true;
        };
        let cache = self.cache;
        // SAFETY: the sheaf is this one's, and has room for `want` more.
        unsafe {
            let first = Sheaf::objects(self.sheaf).as_ptr().add(len);
            let mut got = cache.take_many_here(first, want);
            if got < want {
                got += cache.take_from_slabs(gfp, first.add(got), want - got, caller);
            }
            Sheaf::set_len(self.sheaf, (len + got) as u32);
            got == want
        }
    }

    /// Objects in it.
    pub fn len(&self) -> usize {
        // SAFETY: the sheaf is this one's.
        unsafe { Sheaf::len(self.sheaf) as usize }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Objects that it has room for.
    pub fn capacity(&self) -> usize {
        // SAFETY: the sheaf is this one's.
        unsafe { Sheaf::capacity(self.sheaf) as usize }
    }
}

impl<M: Machine> Drop for Prefilled<'_, M> {
    fn drop(&mut self) {
        // SAFETY: the sheaf is this one's.
        unsafe { self.cache.take_back(self.sheaf) };
    }
}

impl<M: Machine> fmt::Debug for Prefilled<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefilled")
            .field("cache", self.cache.name())
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish()
    }
}
