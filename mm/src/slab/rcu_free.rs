//! A CPU's rcu_free sheaf: where objects gather that wait for a grace period.
//!
//! | arrow | there is | then |
//! |---|---|---|
//! | (fast path) | room | the object is in it |
//! | `rcu.open` | no such sheaf; an empty one of the barn, or a fresh one | it is opened |
//! | `rcu.exchange` | a full one, and an empty one of the barn | the full one is closed, the empty one opened |
//! | `rcu.close_full` | a full one, and no empty one at hand | it is closed; a fresh one is allocated without the lock |
//! | `rcu.no_sheaf` | no memory for one, or the cache has none | a page of pointers |
//! | `rcu.remote` | the object is of another node than the CPU's own | the same |
//! | `rcu.lock_taken` | the local lock is taken by what this has interrupted | the same |
//!
//! An open sheaf is the CPU's, under its local lock; a closed one its [lane's](crate::kvfree_rcu). Closing
//! is one step under both locks, so nobody who looks at both misses it. A sheaf that is open
//! has at least one object, but for the moment in which it is opened.

use core::ptr::NonNull;

use platform::Preempt;

use super::{
    KmemCache, Machine, Mode, StolenSheaves,
    alloc::TRIES,
    arrows::Arrow,
    percpu::{CpuSheaves, SheavesGuard, pair_of},
    sheaf::Sheaf,
    stats::Stat,
};
use crate::kvfree_rcu::{Head, Lane, Part, Then};

impl<M: Machine> KmemCache<M> {
    /// An object goes into this CPU's rcu_free sheaf; if it may be of another node (`numa`), and is,
    /// elsewhere.
    ///
    /// # Safety
    ///
    /// As for [`free_rcu`](Self::free_rcu).
    #[inline(always)]
    pub(crate) unsafe fn free_rcu_here(
        &self,
        numa: bool,
        object: NonNull<u8>,
        head: Option<NonNull<Head>>,
    ) -> bool {
        // SAFETY: as the caller promises. The lock is held.
        unsafe {
            let Some((sheaves, home)) = self.lock_here() else {
                return self.free_rcu_slowly(object, head, Arrow::RcuLockTaken);
            };
            if numa && home != self.pair_of_object(object) {
                drop(sheaves);
                return self.free_rcu_slowly(object, head, Arrow::RcuRemote);
            }
            if let Some(open) = sheaves.rcu_free
                && Sheaf::push_rcu(open, object)
            {
                drop(sheaves);
                self.count(Stat::FreeRcuSheaf);
                return true;
            }
            self.free_rcu_to_full(sheaves, home, object, head)
        }
    }

    /// The rcu_free sheaf is full, or there is none.
    ///
    /// # Safety
    ///
    /// As for [`free_rcu`](Self::free_rcu).
    #[cold]
    #[inline(never)]
    unsafe fn free_rcu_to_full(
        &self,
        sheaves: SheavesGuard<'_, M>,
        home: u32,
        object: NonNull<u8>,
        head: Option<NonNull<Head>>,
    ) -> bool {
        // All of it is on one CPU: its lane is looked after before anything else happens there.
        let pinned = Preempt::<M>::disable();
        let lane = self.slabs().kvfree_rcu.lane(pinned.cpu());
        let mut fresh = None;
        let mut pushed = false;
        let mut held = Some(sheaves);
        for _ in 0..TRIES {
            let Some(mut sheaves) = held.take().or_else(|| Some(self.lock_here()?.0)) else {
                break;
            };
            // SAFETY: the lock is held; what is closed and opened is the CPU's; as the caller promises.
            let (in_it, then) = unsafe {
                let then = self.change_rcu_free(lane, &mut sheaves, home, &mut fresh);
                let in_it = sheaves
                    .rcu_free
                    .is_some_and(|open| Sheaf::push_rcu(open, object));
                (in_it, then)
            };
            drop(sheaves);
            lane.follow(then);
            if in_it {
                pushed = true;
                break;
            }
            if fresh.is_none() {
                fresh = (self.capacity() > 1).then(|| self.new_sheaf()).flatten();
            }
            if fresh.is_none() {
                break;
            }
        }
        if let Some(empty) = fresh {
            // SAFETY: this one's, and empty.
            unsafe { self.keep_empty(empty, pair_of(self.home())) };
        }
        drop(pinned);
        if pushed {
            self.count(Stat::FreeRcuSheaf);
            self.slabs().kvfree_rcu.help(lane);
            return true;
        }
        // SAFETY: as the caller promises.
        unsafe { self.free_rcu_slowly(object, head, Arrow::RcuNoSheaf) }
    }

    /// Sees to it that there is an rcu_free sheaf with room, as far as that needs no memory. The lock is held.
    ///
    /// # Safety
    ///
    /// `fresh` is the caller's, and empty; the lane is that of this CPU.
    unsafe fn change_rcu_free(
        &self,
        lane: &Lane<M>,
        sheaves: &mut CpuSheaves,
        home: u32,
        fresh: &mut Option<NonNull<Sheaf>>,
    ) -> Then {
        let full = match sheaves.rcu_free {
            // SAFETY: the lock is held.
            Some(open) if !unsafe { Sheaf::is_full_rcu(open) } => return Then::Nothing,
            full => full,
        };
        let empty = if self.capacity() > 1 {
            let of_barn = || self.home_node(home)?.barn.get_empty(Mode::Spin);
            fresh.take().or_else(of_barn)
        } else {
            None
        };
        if full.is_none() && empty.is_none() {
            return Then::Nothing;
        }
        self.arrow(match (full, empty) {
            (None, _) => Arrow::RcuOpen,
            (Some(_), Some(_)) => Arrow::RcuExchange,
            (Some(_), None) => Arrow::RcuCloseFull,
        });
        sheaves.rcu_free = empty;
        // SAFETY: the CPU's, and taken out; it is full.
        unsafe { lane.exchange(self.part(lane.cpu), full, empty.is_some()) }
    }

    /// Closes the rcu_free sheaf of the CPU that runs this. `None`: it is in use by what this has interrupted.
    pub(crate) fn close_rcu_free(&self, lane: &Lane<M>, why: Arrow) -> Option<Then> {
        let (mut sheaves, _) = self.lock_here()?;
        let Some(open) = sheaves.rcu_free.take() else {
            return Some(Then::Nothing);
        };
        self.arrow(why);
        // SAFETY: the CPU's, and taken out.
        let then = unsafe { self.close_taken(lane, open) };
        drop(sheaves);
        Some(then)
    }

    /// Closes the rcu_free sheaf of a CPU that does not run, or of a cache that is not used any more.
    pub(crate) fn close_stolen(
        &self,
        lane: &Lane<M>,
        sheaves: &mut StolenSheaves<'_, M>,
        why: Arrow,
    ) -> Then {
        let Some(open) = sheaves.rcu_free.take() else {
            return Then::Nothing;
        };
        self.arrow(why);
        // SAFETY: the lock is held.
        unsafe { self.close_taken(lane, open) }
    }

    /// # Safety
    ///
    /// The sheaf was the rcu_free one of the lane's CPU, whose local lock is held.
    unsafe fn close_taken(&self, lane: &Lane<M>, open: NonNull<Sheaf>) -> Then {
        // SAFETY: as the caller promises. One that was opened has got an object by the time that the lock is free.
        unsafe {
            debug_assert!(Sheaf::len(open) > 0, "what is open has an object");
            lane.exchange(self.part(lane.cpu), Some(open), false)
        }
    }

    /// What it has on the lane of a CPU.
    #[inline]
    pub(crate) fn part(&self, cpu: platform::CpuId) -> &Part<M> {
        &self.cpus.on(cpu).part
    }
}
