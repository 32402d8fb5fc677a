//! Giving objects back to slabs: many, or a chain of one slab.

use core::ptr::NonNull;

use platform::Mark;

use super::{
    Flags, KmemCache, Machine, Mode, Slab,
    arrows::Arrow,
    debug::WrongFree,
    list::SlabList,
    moves::{Pushed, TooMany},
    node::Node,
    single::Busy,
    stats::Stat,
    word::Link,
};

/// Objects of other slabs that the search for those of one slab looks past.
const LOOK_PAST: usize = 3;

/// Free objects of one slab, linked; the last one is not yet.
pub(crate) struct Chain<M: Machine> {
    pub slab: Slab<M>,
    pub head: Link,
    pub tail: NonNull<u8>,
    pub count: usize,
}

impl<M: Machine> KmemCache<M> {
    /// Frees objects to their slabs, those of one slab by one exchange where they lie near each other in
    /// `objects`. How many are left, in `objects[..left]`, because a lock was taken: none in
    /// `Spin` mode. The order in `objects` is lost. Not for debug caches. Context: any but NMI, locks up to the
    /// barn's held; `NoLock`: any.
    ///
    /// What is no object is reported, and left alone.
    ///
    /// # Safety
    ///
    /// All are objects of this cache (or of one merged with it) that the caller owns and gives up, but for those that are left.
    pub(crate) unsafe fn flush(&self, objects: &mut [NonNull<u8>], mode: Mode) -> usize {
        let mut left = objects.len();
        while let Some(&last) = objects[..left].last() {
            // SAFETY: in a slab of the cache, that lives while it has an object in use.
            let slab = unsafe { Slab::of_object(*self.slabs().mm().frames(), last) };
            let Some(index) = self.index_of(slab, last) else {
                self.report_wrong_free(slab, last, WrongFree::NoObject);
                left -= 1;
                continue;
            };
            let before = left;
            // SAFETY: the caller's objects.
            let head = unsafe {
                if self.secret == 0 {
                    self.gather::<false>(slab, index, objects.as_mut_ptr(), &mut left)
                } else {
                    self.gather::<true>(slab, index, objects.as_mut_ptr(), &mut left)
                }
            };
            let chain = Chain {
                slab,
                head,
                tail: last,
                count: before - left,
            };
            // SAFETY: the caller's objects, linked just now.
            if unsafe { self.free_chain(&chain, mode) }.is_err() {
                // SAFETY: the chain is still ours, and ends with `tail`.
                unsafe { self.unlink(&chain, &mut objects[left..before]) };
                return before;
            }
        }
        0
    }

    /// Links the objects of one slab at the end of `objects[..left]`: the last one, of index `last`, is the
    /// chain's last. Objects of other slabs between them move to the end instead. The chain's first one; `left` is
    /// then the number of objects that are not in the chain.
    ///
    /// # Safety
    ///
    /// `objects[..left]` are the caller's objects, with one at least.
    #[inline(always)]
    unsafe fn gather<const MIXED: bool>(
        &self,
        slab: Slab<M>,
        last: usize,
        objects: *mut NonNull<u8>,
        left: &mut usize,
    ) -> Link {
        let first = self.first_object(slab);
        let count = slab.freelist().load().objects();
        // A copy: writes to objects might be to the cache, for all that the compiler knows.
        let layout = self.layout;
        let link = layout.link as usize;
        // The word that links to what is the chain's first one now.
        let mut word = !(last as u64);
        let index_of = |object| layout.index_at(first, object);
        let mut push = |object: NonNull<u8>, index: usize| {
            // SAFETY: an object of the slab, and the caller's.
            unsafe { self.write_word::<MIXED>(object, link, word) };
            word = !(index as u64);
        };
        let mut end = *left - 1;
        // Those in a row.
        while end > 0 {
            // SAFETY: below `left`.
            let object = unsafe { objects.add(end - 1).read() };
            let index = index_of(object);
            if index >= count {
                break;
            }
            push(object, index);
            end -= 1;
        }
        // Further ones behind a few others, the first of which is known.
        let mut at = end.saturating_sub(1);
        let mut others = 1;
        while at > 0 && others < LOOK_PAST {
            at -= 1;
            // SAFETY: below `left`.
            let object = unsafe { objects.add(at).read() };
            let index = index_of(object);
            if index < count {
                push(object, index);
                end -= 1;
                // SAFETY: both below `left`.
                unsafe { objects.add(at).write(objects.add(end).read()) };
            } else {
                others += 1;
            }
        }
        *left = end;
        Link::of_index(!word as usize)
    }

    /// Writes the objects of a chain that was not freed to `into`, which has room for just these.
    ///
    /// # Safety
    ///
    /// The chain is the caller's; but for the last one its objects are linked.
    #[cold]
    unsafe fn unlink(&self, chain: &Chain<M>, into: &mut [NonNull<u8>]) {
        let mut object = self.object_at(chain.slab, chain.head.index());
        let places = into.len();
        for (number, place) in into.iter_mut().enumerate() {
            *place = object;
            if number + 1 < places {
                let index = self.layout.index_at(self.first_object(chain.slab), object);
                // SAFETY: of the chain, and not its last. It was linked just now by this CPU.
                match unsafe { self.read_link(chain.slab, index) } {
                    Ok(next) => object = self.object_at(chain.slab, next.index()),
                    Err(corrupt) => self.report_corrupt(chain.slab, corrupt, places - number - 1),
                }
            }
        }
    }

    /// Frees a chain of objects of one slab. No hooks, no debug caches. Context as for [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// [`Busy`] (`NoLock` only): the objects are still the caller's.
    ///
    /// # Safety
    ///
    /// The objects are the caller's, which gives them up, and linked, but for the last one.
    #[inline]
    pub(crate) unsafe fn free_chain(&self, chain: &Chain<M>, mode: Mode) -> Result<(), Busy> {
        let Chain {
            slab,
            head,
            tail,
            count,
        } = *chain;
        let link_tail = |next| {
            // Between the look and the exchange.
            M::mark(Mark::Step);
            // SAFETY: the tail is the caller's until the push succeeds.
            unsafe { self.write_link(tail, next) };
        };
        if slab
            .freelist()
            .push_unlocked(head, count, link_tail)
            .is_ok()
        {
            self.arrow(Arrow::SlabPush);
            return Ok(());
        }
        self.free_chain_locked(chain, mode)
    }

    /// The part on the node of a slab.
    #[inline(always)]
    pub(crate) fn node_of(&self, slab: Slab<M>) -> Option<&Node<M>> {
        self.node(slab.frame().word().zone().node())
    }

    /// Frees a chain that lists its slab, or leaves it empty.
    #[inline(never)]
    fn free_chain_locked(&self, chain: &Chain<M>, mode: Mode) -> Result<(), Busy> {
        let Chain {
            slab,
            head,
            tail,
            count,
        } = *chain;
        let Some(node) = self.node_of(slab) else {
            self.report_wrong_free(slab, tail, WrongFree::NoNode);
            return Ok(());
        };
        let Some(mut lists) = node.lock(mode) else {
            self.arrow(Arrow::SlabBusy);
            return Err(Busy);
        };
        let min_partial = self.min_partial();
        // A grace period cannot be asked for from everywhere.
        let never_discard = mode == Mode::NoLock && self.flags.contains(Flags::TYPESAFE_BY_RCU);
        let partial = lists.partial.len();
        let keep_empty =
            |was_listed: bool| never_discard || partial - usize::from(was_listed) < min_partial;
        // SAFETY: the tail is the caller's until the push succeeds.
        let link_tail = |next| unsafe { self.write_link(tail, next) };
        let pushed = match slab
            .freelist()
            .push_locked(head, count, keep_empty, link_tail)
        {
            Ok(pushed) => pushed,
            Err(TooMany) => {
                drop(lists);
                self.report_wrong_free(slab, tail, WrongFree::Free);
                return Ok(());
            }
        };
        self.pushed_arrow(pushed);
        match (pushed.was_listed, pushed.listed) {
            (false, true) => {
                lists.partial.push_back(slab);
                self.count(Stat::FreeAddPartial);
            }
            (true, false) => {
                lists.partial.remove(slab);
                self.count(Stat::FreeRemovePartial);
            }
            _ => {}
        }
        node.publish(&lists);
        drop(lists);
        if !pushed.listed {
            let mut empty = SlabList::default();
            empty.push_back(slab);
            self.discard(node, empty, mode);
        }
        Ok(())
    }

    fn pushed_arrow(&self, pushed: Pushed) {
        self.arrow(match (pushed.was_listed, pushed.listed, pushed.empty) {
            (false, true, false) => Arrow::SlabList,
            (false, true, true) => Arrow::SlabListEmpty,
            (false, false, _) => Arrow::SlabEmptyAtOnce,
            // Another free or a refill came between the look and the lock.
            (true, true, false) => Arrow::SlabPushLocked,
            (true, true, true) => Arrow::SlabKeepEmpty,
            (true, false, _) => Arrow::SlabEmpty,
        });
    }
}
