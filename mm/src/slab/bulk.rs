//! Allocation and freeing of many objects: between sheaves and the caller's array they are
//! copied a sheaf's worth at a time; what the sheaves do not have, or do not take, goes between
//! slabs and the array without them.

use core::{mem::MaybeUninit, panic::Location, ptr::NonNull};

use super::{
    KmemCache, Machine, Mode, alloc::TRIES, arrows::Arrow, barn::Stack, cache::Hooks,
    percpu::pair_of, sheaf::Sheaf, stats::Stat, supply::From,
};
use crate::Gfp;

/// How many objects are copied before they are flushed from the copy.
const CHUNK: usize = 64;

impl<M: Machine> KmemCache<M> {
    /// Fills `into` with objects: all of it (the result is its length), or nothing (0).
    /// Context as for [`alloc`](Self::alloc).
    #[track_caller]
    pub fn alloc_bulk(&self, gfp: Gfp, into: &mut [MaybeUninit<NonNull<u8>>]) -> usize {
        let caller = Location::caller();
        let want = into.len();
        let first = into.as_mut_ptr().cast::<NonNull<u8>>();
        // SAFETY: the array is the caller's; what was filled of it are objects.
        unsafe {
            let mut got = self.take_many_here(first, want);
            self.count_many(Stat::AllocFastpath, got);
            if got < want {
                got += self.take_from_slabs(gfp, first.add(got), want - got, caller);
            }
            if got == want && self.hand_out_many(gfp, first, want, caller) {
                return want;
            }
            self.give_back(core::slice::from_raw_parts_mut(first, got), caller);
        }
        0
    }

    /// Takes up to `want` objects from this CPU's sheaves and the barn's full ones: how many.
    ///
    /// # Safety
    ///
    /// `into` has room for `want` pointers, which are the caller's.
    pub(super) unsafe fn take_many_here(&self, into: *mut NonNull<u8>, want: usize) -> usize {
        let mut surplus = Stack::default();
        let mut got = 0;
        match self.lock_here() {
            None => {
                self.count(Stat::AllocLockTaken);
                self.arrow(Arrow::AllocLockTaken);
            }
            // SAFETY: the lock is held, so main is this one's; as the caller promises.
            Some((mut sheaves, home)) => unsafe {
                loop {
                    got += Sheaf::take(sheaves.main, into.add(got), want - got);
                    if got == want {
                        break;
                    }
                    if sheaves.swap_for_objects() {
                        self.arrow(Arrow::AllocSwap);
                    } else if !self.exchange_empty_main(
                        &mut sheaves,
                        home,
                        Mode::Spin,
                        &mut surplus,
                    ) {
                        break;
                    }
                }
            },
        }
        // SAFETY: they are nobody else's, and empty.
        unsafe { self.free_sheaves(surplus) };
        got
    }

    /// Takes `want` objects from slabs, past the sheaves; fewer, if there is no memory: how
    /// many. Without hooks. Context as `gfp` says, no lock of the slab allocator held.
    ///
    /// # Safety
    ///
    /// As for [`take_many_here`](Self::take_many_here).
    pub(super) unsafe fn take_from_slabs(
        &self,
        gfp: Gfp,
        into: *mut NonNull<u8>,
        want: usize,
        caller: &'static Location<'static>,
    ) -> usize {
        self.count(Stat::AllocSlowpath);
        let mut got = 0;
        if !self.hooks().contains(Hooks::DEBUG) {
            let home = pair_of(self.home());
            // SAFETY: as the caller promises.
            let take = |from, got: usize| unsafe {
                self.take_partial(home, from, into.add(got), want - got, Mode::Spin)
            };
            let mut in_vain = 0;
            while got < want && in_vain < TRIES {
                let found = take(From::Own, got);
                self.count_many(Stat::SheafRefill, found);
                got += found;
                if got == want {
                    break;
                }
                in_vain = if found > 0 { 0 } else { in_vain + 1 };
                let more = |from| Some(take(from, got)).filter(|found| *found > 0);
                match self.supply(gfp, more) {
                    Ok(found) => got += found.unwrap_or(0),
                    Err(_) => return got,
                }
            }
        }
        while got < want {
            let Some(object) = self.alloc_single(None, gfp, Mode::Spin, caller) else {
                break;
            };
            // SAFETY: below `want`.
            unsafe { into.add(got).write(object) };
            got += 1;
        }
        got
    }

    /// The end of an allocation of many: as [`hand_out`](Self::hand_out). `false`: it shall fail, and
    /// the objects are still the allocator's.
    ///
    /// # Safety
    ///
    /// At `first` are `count` objects of the allocator's.
    unsafe fn hand_out_many(
        &self,
        gfp: Gfp,
        first: *mut NonNull<u8>,
        count: usize,
        caller: &'static Location<'static>,
    ) -> bool {
        let hooks = self.hooks();
        if !gfp.contains(Gfp::ZERO) && !hooks.intersects(Hooks::ALLOC) {
            return true;
        }
        if self.fails(gfp) {
            return false;
        }
        for index in 0..count {
            // SAFETY: as the caller promises.
            let object = unsafe { first.add(index).read() };
            self.hook_alloc(hooks, gfp, object, caller);
        }
        true
    }

    /// Gives objects that nobody has had back to their slabs. Without hooks. Any context but NMI, no
    /// lock of the slab allocator held.
    ///
    /// # Safety
    ///
    /// The caller owns the objects, and gives them up.
    pub(super) unsafe fn give_back(
        &self,
        objects: &mut [NonNull<u8>],
        caller: &'static Location<'static>,
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            if self.hooks().contains(Hooks::DEBUG) {
                for object in objects {
                    self.free_to_slab(*object, caller);
                }
            } else if !objects.is_empty() {
                self.flush(objects, Mode::Spin);
            }
        }
    }

    /// Frees objects. Context as for [`free`](Self::free).
    ///
    /// # Safety
    ///
    /// As for [`free`](Self::free), for each of them; no object is named twice.
    #[track_caller]
    pub unsafe fn free_bulk(&self, objects: &[NonNull<u8>]) {
        let hooks = self.hooks();
        // SAFETY: as the caller promises.
        unsafe {
            if hooks.intersects(Hooks::DEBUG | Hooks::DYING | Hooks::QUARANTINE) {
                for object in objects {
                    self.free(*object);
                }
                return;
            }
            if hooks.intersects(Hooks::FREED) {
                for object in objects {
                    self.hook_free(hooks, *object);
                }
            }
            if hooks.contains(Hooks::NUMA) {
                self.free_runs(objects);
            } else {
                self.free_many_here(objects);
            }
        }
    }

    /// Objects of this CPU's own node go to its sheaves, others to their slabs.
    ///
    /// # Safety
    ///
    /// As for [`free_bulk`](Self::free_bulk).
    unsafe fn free_runs(&self, objects: &[NonNull<u8>]) {
        // Where the CPU changes meanwhile, sheaves get some objects of another node.
        let home = pair_of(self.home());
        // SAFETY: as the caller promises.
        unsafe {
            let is_own = |object: &NonNull<u8>| self.pair_of_object(*object) == home;
            for run in objects.chunk_by(|one, next| is_own(one) == is_own(next)) {
                if run.first().is_some_and(is_own) {
                    self.free_many_here(run);
                } else {
                    self.count_many(Stat::FreeRemote, run.len());
                    self.arrow(Arrow::FreeRemote);
                    self.flush_copied(run);
                }
            }
        }
    }

    /// Puts objects into this CPU's sheaves and the barn; what these do not take goes to the slabs.
    ///
    /// # Safety
    ///
    /// As for [`free_bulk`](Self::free_bulk).
    unsafe fn free_many_here(&self, objects: &[NonNull<u8>]) {
        let mut left = objects;
        if self.capacity() > 0 {
            // SAFETY: the lock is held, so main is this one's; as the caller promises.
            unsafe {
                if let Some((sheaves, _)) = self.lock_here() {
                    left = &left[Sheaf::put(sheaves.main, left)..];
                }
                while !left.is_empty()
                    && let Some(sheaves) = self.lock_with_room(false)
                {
                    left = &left[Sheaf::put(sheaves.main, left)..];
                }
            }
        }
        self.count_many(Stat::FreeFastpath, objects.len() - left.len());
        self.count_many(Stat::FreeSlowpath, left.len());
        // SAFETY: as the caller promises.
        unsafe { self.flush_copied(left) };
    }

    /// Frees objects to their slabs; the array stays as it is.
    ///
    /// # Safety
    ///
    /// As for [`free_bulk`](Self::free_bulk).
    unsafe fn flush_copied(&self, objects: &[NonNull<u8>]) {
        let mut copy = [NonNull::dangling(); CHUNK];
        for chunk in objects.chunks(CHUNK) {
            let copy = &mut copy[..chunk.len()];
            copy.copy_from_slice(chunk);
            // SAFETY: as the caller promises.
            unsafe { self.flush(copy, Mode::Spin) };
        }
    }
}
