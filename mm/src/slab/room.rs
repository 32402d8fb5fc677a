//! Room in a CPU's main sheaf: the arrows of the table in [`free`](super::free) from the second
//! line on.

use core::ptr::NonNull;

use super::{
    KmemCache, Machine, Mode,
    alloc::TRIES,
    arrows::Arrow,
    barn::Refused,
    percpu::{CpuSheaves, SheavesGuard, pair_of},
    sheaf::Sheaf,
    stats::Stat,
};

/// What was found with the local lock held.
enum Room {
    /// There is room in main.
    There,
    /// Another empty sheaf is needed.
    NoEmpty,
    /// Main and spare are full, and so is the barn.
    BarnFull,
}

impl<M: Machine> KmemCache<M> {
    /// The sheaves of this CPU, with room in main; else as [`make_room_in`](Self::make_room_in).
    pub(super) fn lock_with_room(&self, flush: bool) -> Option<SheavesGuard<'_, M>> {
        let sheaves = self.lock_to_free()?;
        self.make_room_in(sheaves, flush)
    }

    /// The sheaves of this CPU. `None`: they are in use by what this has interrupted.
    fn lock_to_free(&self) -> Option<SheavesGuard<'_, M>> {
        let sheaves = self.cpus.try_lock_in(|cpu| &cpu.sheaves);
        if sheaves.is_none() {
            self.count(Stat::FreeLockTaken);
            self.arrow(Arrow::FreeLockTaken);
        }
        sheaves
    }

    /// Makes room in main of the CPU that runs this: its sheaves, or another CPU's if it runs on another by then. `None`: they
    /// are in use by what this has interrupted, or there is no memory for a sheaf, or (not `flush`) the barn is full, or the
    /// cache has no sheaves. Any context but NMI, no lock of the slab allocator held but this.
    pub(super) fn make_room_in<'a>(
        &'a self,
        sheaves: SheavesGuard<'a, M>,
        flush: bool,
    ) -> Option<SheavesGuard<'a, M>> {
        if self.capacity() == 0 {
            return None;
        }
        // An empty sheaf in hand.
        let mut fresh: Option<NonNull<Sheaf>> = None;
        let mut may_allocate = true;
        let mut held = Some(sheaves);
        for _ in 0..TRIES {
            let Some(mut sheaves) = held.take().or_else(|| self.lock_to_free()) else {
                break;
            };
            let home = pair_of(self.home());
            match self.make_room(&mut sheaves, home, &mut fresh, Mode::Spin) {
                Room::There => {
                    let Some(empty) = fresh else {
                        return Some(sheaves);
                    };
                    // Room was made by others meanwhile.
                    self.arrow(Arrow::FreeFreshUnused);
                    if sheaves.spare.is_none() {
                        sheaves.spare = fresh.take();
                        return Some(sheaves);
                    }
                    drop(sheaves);
                    fresh = None;
                    // SAFETY: this one's, and empty.
                    unsafe { self.keep_empty(empty, home) };
                }
                Room::NoEmpty if may_allocate => {
                    drop(sheaves);
                    fresh = self.new_sheaf();
                    may_allocate = fresh.is_some();
                    if may_allocate {
                        self.arrow(Arrow::FreeAllocate);
                    }
                }
                Room::NoEmpty | Room::BarnFull if !flush => break,
                Room::NoEmpty => {
                    self.arrow(Arrow::FreeFlushNoMemory);
                    let main = core::mem::replace(&mut sheaves.main, Sheaf::nothing());
                    let flushed = match sheaves.spare.take() {
                        Some(spare) => {
                            sheaves.main = main;
                            spare
                        }
                        None => main,
                    };
                    drop(sheaves);
                    // SAFETY: taken out, so this one's; `capacity` is no matter, as there is
                    // nothing in the permanent empty sheaf, and that is not kept.
                    unsafe {
                        if Sheaf::capacity(flushed) == 0 {
                            break;
                        }
                        self.flush_sheaf(flushed);
                    }
                    fresh = Some(flushed);
                }
                Room::BarnFull => {
                    self.count(Stat::BarnPutFail);
                    self.arrow(Arrow::FreeFlushBarnFull);
                    let spare = sheaves.spare.take();
                    drop(sheaves);
                    // SAFETY: taken out, so this one's; empty, once it is flushed.
                    unsafe {
                        if let Some(spare) = spare {
                            self.flush_sheaf(spare);
                            match fresh {
                                None => fresh = Some(spare),
                                Some(_) => self.keep_empty(spare, home),
                            }
                        }
                    }
                }
            }
        }
        if let Some(empty) = fresh {
            // SAFETY: this one's, and empty.
            unsafe { self.keep_empty(empty, pair_of(self.home())) };
        }
        None
    }

    /// Makes room in main with what is at hand: the spare, `fresh`, the barn. The local lock is
    /// held.
    fn make_room(
        &self,
        sheaves: &mut CpuSheaves,
        home: u32,
        fresh: &mut Option<NonNull<Sheaf>>,
        mode: Mode,
    ) -> Room {
        // SAFETY: the lock is held, so main and spare are this one's.
        if unsafe { Sheaf::has_room(sheaves.main) } {
            return Room::There;
        }
        if sheaves.swap_for_room() {
            self.arrow(Arrow::FreeSwap);
            return Room::There;
        }
        let Some(barn) = self.home_node(home).map(|node| &node.barn) else {
            return Room::NoEmpty;
        };
        if sheaves.has_no_main() || sheaves.spare.is_none() {
            let empty = match fresh.take() {
                Some(fresh) => fresh,
                None => match barn.get_empty(mode) {
                    Some(empty) => {
                        self.arrow(Arrow::FreeGetEmpty);
                        empty
                    }
                    None => return Room::NoEmpty,
                },
            };
            let main = core::mem::replace(&mut sheaves.main, empty);
            // SAFETY: main is this one's.
            if unsafe { Sheaf::capacity(main) } > 0 {
                self.arrow(Arrow::FreeMainToSpare);
                sheaves.spare = Some(main);
            } else {
                self.arrow(Arrow::FreeFirstMain);
            }
            return Room::There;
        }
        // SAFETY: main is a real sheaf, full, and this one's; the barn's, if it takes it.
        let empty = unsafe {
            match *fresh {
                Some(empty) => barn.put_full(sheaves.main, mode).map(|()| {
                    self.arrow(Arrow::BarnPutFull);
                    *fresh = None;
                    empty
                }),
                None => barn.exchange_full(sheaves.main, mode).inspect(|_| {
                    self.arrow(Arrow::FreeExchange);
                }),
            }
        };
        match empty {
            Ok(empty) => {
                self.count(Stat::BarnPut);
                sheaves.main = empty;
                Room::There
            }
            Err(Refused::TooMany) => Room::BarnFull,
            Err(Refused::NoOther | Refused::Busy) => Room::NoEmpty,
        }
    }

    /// Makes room in main without waiting, allocating or flushing. The local lock is held. Any
    /// context, NMI too.
    pub(super) fn make_room_nolock(&self, sheaves: &mut CpuSheaves, home: u32) -> bool {
        let room = self.make_room(sheaves, home, &mut None, Mode::NoLock);
        matches!(room, Room::There)
    }
}
