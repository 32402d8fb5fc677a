//! Taking objects from slabs: many, or one.

use core::{mem::MaybeUninit, ptr::NonNull};

use platform::Mark;

use super::{
    KmemCache, Machine, Mode, Slab,
    arrows::Arrow,
    node::{ListGuard, Node},
    word::{Freelist, Link},
};
use crate::frame::Frame;

/// Slabs that are taken from in one hold of the list lock.
const AT_ONCE: usize = 16;

/// A slab whose free objects were taken, by its frame, with what its word said before.
type Taken = (NonNull<Frame>, Freelist);

impl<M: Machine> KmemCache<M> {
    /// Takes up to `want` free objects from the partial slabs of a node: how many; they are in
    /// `into`. Makes no slab. Not for debug caches. Context: any but NMI, locks up to the barn's held; `NoLock`: any.
    ///
    /// One hold of the list lock takes all free objects of as many slabs as are needed, by one
    /// exchange each; the links are followed without it. What the last slab had too much goes back by one
    /// more exchange. `NoLock`, and for one object, all of it is done in the one hold.
    ///
    /// # Safety
    ///
    /// `into` has room for `want` pointers, which are the caller's.
    pub(crate) unsafe fn refill_from(
        &self,
        node: &Node<M>,
        into: *mut NonNull<u8>,
        want: usize,
        mode: Mode,
    ) -> usize {
        let map = *self.slabs().mm().frames();
        let mut got = 0;
        while got < want && node.has_partial() {
            let Some(mut lists) = node.lock(mode) else {
                self.arrow(Arrow::SlabBusy);
                break;
            };
            let mut taken = [const { MaybeUninit::uninit() }; AT_ONCE];
            let slabs = self.take_slabs(&mut lists, want - got, &mut taken);
            node.publish(&lists);
            let held = (mode == Mode::NoLock || want == 1).then_some(lists);
            if slabs == 0 {
                break;
            }
            for taken in &taken[..slabs] {
                // SAFETY: so many were written.
                let (frame, chain): Taken = unsafe { taken.assume_init() };
                // SAFETY: we own objects of the slab.
                let slab = unsafe { Slab::<M>::of_frame(map, frame) };
                // At least one: those before had fewer than wanted.
                let count = chain.free().min(want - got);
                // SAFETY: the chain was taken just now; there is room.
                let (walked, next) = unsafe { self.walk(slab, chain, into.add(got), count) };
                got += walked;
                if !next.is_none() {
                    let mut rest = (next, chain.free() - walked);
                    self.give_rest_back(slab, node, &mut rest, held.is_some());
                }
            }
            if slabs < AT_ONCE {
                // That was all there is, or enough.
                break;
            }
        }
        got
    }

    /// Takes one object from the partial slabs of a node. Makes no slab. Not for debug caches. Context as for
    /// [`refill_from`](Self::refill_from).
    pub(crate) fn take_one_from(&self, node: &Node<M>, mode: Mode) -> Option<NonNull<u8>> {
        let mut object = MaybeUninit::uninit();
        // SAFETY: room for one.
        let got = unsafe { self.refill_from(node, object.as_mut_ptr(), 1, mode) };
        // SAFETY: it was written.
        (got == 1).then(|| unsafe { object.assume_init() })
    }

    /// Takes the free objects of slabs from the front of the list, until there are as many as wanted: how many
    /// slabs.
    #[inline]
    fn take_slabs(
        &self,
        lists: &mut ListGuard<'_, M>,
        want: usize,
        taken: &mut [MaybeUninit<Taken>; AT_ONCE],
    ) -> usize {
        let map = *self.slabs().mm().frames();
        let mut places = taken.iter_mut();
        let mut left = want;
        for slab in lists.partial.iter::<M>(map) {
            let word = slab.freelist();
            if word.load().is_full() {
                self.arrow(Arrow::SlabSkip);
                continue;
            }
            let chain = word.take_for(left);
            if chain.is_full() {
                // Who refills from it was faster with what others freed.
                self.arrow(Arrow::SlabSkip);
                continue;
            }
            let free = chain.free();
            if free <= left {
                lists.partial.remove(slab);
                self.arrow(Arrow::SlabTakeAll);
            } else {
                self.arrow(Arrow::SlabTakePart);
            }
            if let Some(place) = places.next() {
                place.write((NonNull::from(slab.frame()), chain));
            }
            left = left.saturating_sub(free);
            if left == 0 || places.len() == 0 {
                break;
            }
        }
        AT_ONCE - places.len()
    }

    /// Pushes back what was taken too much: a chain that ends in an object without a next one.
    fn give_rest_back(
        &self,
        slab: Slab<M>,
        node: &Node<M>,
        rest: &mut (Link, usize),
        locked: bool,
    ) {
        let join = |theirs: Freelist, first: Link| {
            self.arrow(Arrow::SlabRestJoin);
            // SAFETY: taken just now, and not empty.
            let (tail, count) = unsafe { self.tail_of(slab, theirs) };
            // SAFETY: the last object of that chain.
            unsafe { self.write_link(tail, first) };
            count
        };
        M::mark(Mark::Step);
        let word = slab.freelist();
        if word.push_rest(rest, locked, join).is_ok() {
            self.arrow(Arrow::SlabRest);
            return;
        }
        // Not locked, so waiting is allowed.
        let Some(mut lists) = node.lock(Mode::Spin) else {
            return;
        };
        if word.push_rest(rest, true, join) == Ok(false) {
            lists.partial.push_back(slab);
            node.publish(&lists);
        }
        self.arrow(Arrow::SlabRestList);
    }
}
