//! Allocation of one object.
//!
//! | what there is | what is done |
//! |---|---|
//! | an object in main | it is popped: the fast path |
//! | main is empty, the spare is not | they change places |
//! | neither has objects, the barn has a full sheaf | exchanged for main |
//! | nor has the barn | main is refilled from partial slabs of the CPU's own node, with the local lock held |
//! | nor has the node | the lock is given back; [`supply`](super::supply) gets a slab, and all begins again |
//! | the local lock is taken | one object from a slab |
//! | the CPU has no main | it is given one, if there is memory for it; else one object from a slab |

use core::{panic::Location, ptr::NonNull};

use platform::NodeId;

use super::{
    KmemCache, Machine, Mode,
    arrows::Arrow,
    barn::Stack,
    percpu::{CpuSheaves, SheavesGuard, pair_of},
    sheaf::Sheaf,
    stats::Stat,
    supply::From,
};
use crate::Gfp;

/// How often an allocation tries to find its own fresh slab's objects again, before it takes
/// one by itself.
pub(super) const TRIES: usize = 4;

/// What this CPU's sheaves had.
pub(super) enum Found {
    /// An object.
    Object(NonNull<u8>),
    /// None, neither in the sheaves nor where else was looked.
    Nothing,
    /// The CPU has no main sheaf.
    NoMain,
    /// The sheaves are in use by what this has interrupted.
    Taken,
}

impl<M: Machine> KmemCache<M> {
    /// An object. `None`: no memory (reported, unless `gfp` says not to). Any context that
    /// `gfp` is for; not in NMI (see [`alloc_nolock`](Self::alloc_nolock)).
    #[inline(always)]
    #[track_caller]
    pub fn alloc(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        let caller = Location::caller();
        self.alloc_or(gfp, caller, |sheaves| match sheaves {
            None => self.alloc_slowly(Found::Taken, gfp, caller),
            Some(sheaves) => self.alloc_from_empty(sheaves, gfp, caller),
        })
    }

    /// The latest object of this CPU's main sheaf, handed out. If it has none, or the sheaves are
    /// in use (`None`), what `slowly` gives, which is given the lock along. Any context.
    #[inline(always)]
    pub(super) fn alloc_or(
        &self,
        gfp: Gfp,
        caller: &'static Location<'static>,
        slowly: impl FnOnce(Option<SheavesGuard<'_, M>>) -> Option<NonNull<u8>>,
    ) -> Option<NonNull<u8>> {
        let Some(sheaves) = self.cpus.try_lock_in(|cpu| &cpu.sheaves) else {
            return slowly(None);
        };
        // SAFETY: the lock is held.
        let Some(object) = (unsafe { Sheaf::pop(sheaves.main) }) else {
            return slowly(Some(sheaves));
        };
        drop(sheaves);
        self.count(Stat::AllocFastpath);
        self.hand_out(gfp, object, caller)
    }

    /// An allocation that has found main empty. (Going on with the lock held also keeps the
    /// fast path from looking twice whether there was an object.)
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_from_empty(
        &self,
        mut sheaves: SheavesGuard<'_, M>,
        gfp: Gfp,
        caller: &'static Location<'static>,
    ) -> Option<NonNull<u8>> {
        let mut surplus = Stack::default();
        let found = if gfp.contains(Gfp::NOLOCK) {
            Found::Nothing
        } else {
            let home = pair_of(self.home());
            self.take_from(&mut sheaves, home, From::Own, &mut surplus)
        };
        drop(sheaves);
        if surplus.top.is_some() {
            // SAFETY: they are nobody else's, and empty.
            unsafe { self.free_sheaves(surplus) };
        }
        let Found::Object(object) = found else {
            return self.alloc_slowly(found, gfp, caller);
        };
        self.count(Stat::AllocSlowpath);
        self.hand_out(gfp, object, caller)
    }

    /// An allocation that has `found` no object in this CPU's sheaves, nor in slabs of its own node.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slowly(
        &self,
        found: Found,
        gfp: Gfp,
        caller: &'static Location<'static>,
    ) -> Option<NonNull<u8>> {
        if gfp.contains(Gfp::NOLOCK) {
            return self.alloc_nolock_for(None, gfp, caller);
        }
        self.count(Stat::AllocSlowpath);
        let object = self.take_one(found, gfp, caller)?;
        self.hand_out(gfp, object, caller)
    }

    /// An object by way of this CPU's sheaves, if they can be used; without hooks.
    fn take_one(
        &self,
        mut found: Found,
        gfp: Gfp,
        caller: &'static Location<'static>,
    ) -> Option<NonNull<u8>> {
        if self.capacity() > 0 {
            for _ in 0..TRIES {
                match found {
                    Found::Object(object) => return Some(object),
                    Found::Taken => {
                        self.count(Stat::AllocLockTaken);
                        self.arrow(Arrow::AllocLockTaken);
                        break;
                    }
                    Found::NoMain if gfp.contains(Gfp::NO_SHEAF) => {
                        self.arrow(Arrow::AllocForSheaf);
                        break;
                    }
                    Found::NoMain if self.give_main() => self.arrow(Arrow::AllocFirstMain),
                    Found::NoMain => {
                        self.arrow(Arrow::AllocNoMain);
                        break;
                    }
                    Found::Nothing => {
                        let more = |from| match self.take_here(from) {
                            Found::Object(object) => Some(object),
                            _ => None,
                        };
                        match self.supply(gfp, more) {
                            Ok(Some(object)) => return Some(object),
                            Ok(None) => {}
                            Err(_) => return None,
                        }
                    }
                }
                found = self.take_here(From::Own);
            }
            if let Found::Object(object) = found {
                return Some(object);
            }
        }
        self.alloc_single(None, gfp, Mode::Spin, caller)
    }

    /// An object of this CPU's sheaves, into which others are brought if they have none.
    pub(super) fn take_here(&self, from: From) -> Found {
        let mut surplus = Stack::default();
        let found = match self.lock_here() {
            Some((mut sheaves, home)) => self.take_from(&mut sheaves, home, from, &mut surplus),
            None => return Found::Taken,
        };
        // SAFETY: they are nobody else's, and empty.
        unsafe { self.free_sheaves(surplus) };
        found
    }

    /// The same with the local lock held; sheaves that are one too many go to `surplus`.
    fn take_from(
        &self,
        sheaves: &mut CpuSheaves,
        home: u32,
        from: From,
        surplus: &mut Stack,
    ) -> Found {
        // SAFETY: the lock is held, so main is this one's.
        if let Some(object) = unsafe { Sheaf::pop(sheaves.main) } {
            return Found::Object(object);
        }
        if sheaves.swap_for_objects() {
            self.arrow(Arrow::AllocSwap);
        } else if !self.exchange_empty_main(sheaves, home, Mode::Spin, surplus) {
            if sheaves.has_no_main() {
                return Found::NoMain;
            }
            self.refill_main(sheaves, home, from);
        }
        // SAFETY: as above.
        unsafe { Sheaf::pop(sheaves.main) }.map_or(Found::Nothing, Found::Object)
    }

    /// A full sheaf of the barn for main, which is empty. The local lock is held. `false`: the barn has none,
    /// or (`NoLock`) it cannot be had.
    pub(super) fn exchange_empty_main(
        &self,
        sheaves: &mut CpuSheaves,
        home: u32,
        mode: Mode,
        surplus: &mut Stack,
    ) -> bool {
        let full = self.home_node(home).and_then(|node| {
            if sheaves.has_no_main() {
                return node.barn.get_full(mode);
            }
            // SAFETY: the lock is held; main is a real sheaf, and empty.
            let (full, too_many) = unsafe { node.barn.exchange_empty(sheaves.main, mode) }.ok()?;
            if let Some(empty) = too_many {
                self.arrow(Arrow::BarnTooManyEmpty);
                match sheaves.spare {
                    None => sheaves.spare = Some(empty),
                    // SAFETY: the barn did not take it.
                    Some(_) => unsafe { surplus.push(empty) },
                }
            }
            Some(full)
        });
        let Some(full) = full else {
            self.count(Stat::BarnGetFail);
            return false;
        };
        sheaves.main = full;
        self.count(Stat::BarnGet);
        self.arrow(Arrow::AllocExchange);
        true
    }

    /// Fills main, which is empty, from partial slabs. The local lock is held.
    fn refill_main(&self, sheaves: &mut CpuSheaves, home: u32, from: From) {
        let main = sheaves.main;
        // SAFETY: the lock is held; main is a real sheaf, with room for so many.
        unsafe {
            let room = Sheaf::capacity(main) as usize;
            let got =
                self.take_partial(home, from, Sheaf::objects(main).as_ptr(), room, Mode::Spin);
            Sheaf::set_len(main, got as u32);
            if got > 0 {
                self.count_many(Stat::SheafRefill, got);
                self.arrow(Arrow::AllocRefill);
            }
        }
    }

    /// Gives this CPU a main sheaf, which had none when it was looked at. `false`: there is no memory.
    pub(super) fn give_main(&self) -> bool {
        let Some(sheaf) = self.new_sheaf() else {
            return false;
        };
        if let Some((mut sheaves, _)) = self.lock_here()
            && sheaves.has_no_main()
        {
            sheaves.main = sheaf;
            return true;
        }
        // It has one by now, or this is another CPU.
        let home = self.home();
        // SAFETY: just made.
        unsafe { self.keep_empty(sheaf, pair_of(home)) };
        true
    }

    /// An object of `node`, or, if there is none (without `THISNODE`), of another. A node
    /// without memory stands for the nearest that has some. Context as for [`alloc`](Self::alloc).
    #[track_caller]
    pub fn alloc_node(&self, gfp: Gfp, node: NodeId) -> Option<NonNull<u8>> {
        let caller = Location::caller();
        let node = self.slabs().mm().nearest_memory(node)?;
        if gfp.contains(Gfp::NOLOCK) {
            return self.alloc_nolock_for(Some(node), gfp, caller);
        }
        let mut found = self.take_of_node(node);
        if let Found::NoMain = found
            && !gfp.contains(Gfp::NO_SHEAF)
            && self.give_main()
        {
            self.arrow(Arrow::AllocFirstMain);
            found = self.take_of_node(node);
        }
        let object = if let Found::Object(object) = found {
            self.count(Stat::AllocFastpath);
            object
        } else {
            self.count(Stat::AllocSlowpath);
            self.alloc_single(Some(node), gfp, Mode::Spin, caller)?
        };
        self.hand_out(gfp, object, caller)
    }

    /// An object of `node` from this CPU's sheaves, which are refilled if they are empty and the
    /// node is the CPU's own. As in Linux the latest object alone is looked at.
    fn take_of_node(&self, node: NodeId) -> Found {
        let mut surplus = Stack::default();
        let Some((mut sheaves, home)) = self.lock_here() else {
            self.count(Stat::AllocLockTaken);
            return Found::Taken;
        };
        // SAFETY: the lock is held, so main is this one's. The object is of a slab, and goes
        // back where it was.
        unsafe {
            if Sheaf::len(sheaves.main) == 0 && home != pair_of(node) {
                return Found::Nothing;
            }
            let mut found = self.take_from(&mut sheaves, home, From::Own, &mut surplus);
            if let Found::Object(object) = found
                && self.pair_of_object(object) != pair_of(node)
            {
                self.count(Stat::AllocNodeMismatch);
                self.arrow(Arrow::AllocMismatch);
                Sheaf::push(sheaves.main, object);
                found = Found::Nothing;
            }
            drop(sheaves);
            // They are nobody else's, and empty.
            self.free_sheaves(surplus);
            found
        }
    }
}
