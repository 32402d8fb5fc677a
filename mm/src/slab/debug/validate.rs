//! Looking at a whole cache.
//!
//! A debug cache's slabs change only under their node's list lock, so under it everything in
//! them must agree; objects' contents are their users', and not looked at. Of a plain cache only what is
//! free can be looked at: a slab's free objects are *taken*, as a refill takes them, and are
//! nobody else's then; their links are followed, and they go back. Who allocates or frees meanwhile finds
//! a slab without free objects, as during a refill.
//!
//! The list lock is held for a few slabs at a time. Each slab keeps the number of the round
//! that looked at it last; slabs that are made meanwhile have the current round's, so a
//! round ends. It may be that a slab moves between lists behind the search's back, and is
//! found in the next pass: a round ends when a pass found nothing to look at.

use platform::Mark;

use super::super::{
    KmemCache, Machine, Mode, Slab,
    node::{Lists, Node},
    word::{Freelist, Link},
};
use super::info::State;

/// Slabs that are looked at in one hold of the list lock.
const BATCH: usize = 16;

impl<M: Machine> KmemCache<M> {
    /// Looks at every slab of the cache, and repairs or isolates what is damaged. How many
    /// faults were found (each is reported). Correct against allocations and frees meanwhile.
    /// Task context.
    ///
    /// In a plain cache only the freelists of partial slabs can be looked at.
    pub fn validate(&self) -> usize {
        let round = self.debug.next_round();
        let mut faults = 0;
        for node in self.all_nodes() {
            while self.validate_some(node, round, &mut faults) {}
        }
        faults
    }

    /// Looks at a batch of slabs of a node. Whether there was one.
    fn validate_some(&self, node: &Node<M>, round: u32, faults: &mut usize) -> bool {
        let Some(mut lists) = node.lock(Mode::Spin) else {
            return false;
        };
        let frames = *self.slabs().mm().frames();
        let mut batch = arrayvec::ArrayVec::<Slab<M>, BATCH>::new();
        let slabs = lists.partial.iter(frames).chain(lists.full.iter(frames));
        batch.extend(slabs.filter(|slab| slab.round() != round).take(BATCH));
        for slab in &batch {
            slab.set_round(round);
            *faults += if self.is_debug() {
                self.validate_slab(&mut lists, *slab)
            } else {
                self.validate_freelist(*slab)
            };
        }
        !batch.is_empty()
    }

    /// A slab of a debug cache. With its list lock.
    fn validate_slab(&self, lists: &mut Lists, slab: Slab<M>) -> usize {
        let mut faults = self.check_slab(slab, None);
        faults += self.check_freelist(slab, None);
        let mut free = 0;
        let mut isolated = 0;
        for index in 0..self.layout.objects_of(slab.order()) {
            M::mark(Mark::Step);
            let object = self.object_at(slab, index);
            // SAFETY: an object of the slab. All on the freelist are free, or have been put
            // right above; what has no state is not there.
            unsafe {
                let state = self.check_state(slab, object, State::Allocated, None);
                faults += usize::from(state.is_err());
                let state = state.unwrap_or_else(|put_right| put_right);
                free += usize::from(state == State::Free);
                let found = self.check_object(slab, object, state, None);
                faults += found.count;
                if found.written {
                    self.isolate(slab, object, None);
                    isolated += 1;
                }
            }
        }
        let counted = slab.freelist().load().free();
        if free != counted {
            faults += 1;
            let what = format_args!("{free} objects are free, {counted} of them on the freelist");
            self.tell_relinked(slab, what);
        }
        if free != counted || isolated > 0 {
            self.relink(slab);
        }
        self.settle(lists, slab);
        faults
    }

    /// The freelist of a partial slab of a plain cache. With its list lock.
    fn validate_freelist(&self, slab: Slab<M>) -> usize {
        let word = slab.freelist();
        let taken = word.take(Freelist::is_listed);
        let (mut tail, mut sound) = (None, 0);
        let mut next = taken.head();
        let mut faults = 0;
        while !next.is_none() && sound < taken.free() {
            // SAFETY: the object was taken off the freelist: it is nobody else's.
            match unsafe { self.read_link(slab, next.index()) } {
                Ok(link) => {
                    sound += 1;
                    tail = Some(next);
                    next = link;
                }
                Err(corrupt) => {
                    faults += 1;
                    self.report_corrupt(slab, corrupt, taken.free() - sound);
                    next = Link::NONE;
                }
            }
        }
        if faults == 0 && (sound != taken.free() || !next.is_none()) {
            faults += 1;
            self.tell_wrong_length(slab, taken.free(), sound + usize::from(!next.is_none()));
        }
        if let Some(tail) = tail {
            self.put_back(slab, taken.head(), tail, sound);
        }
        faults
    }

    /// Pushes the chain that was taken, or what of it is sound.
    fn put_back(&self, slab: Slab<M>, head: Link, tail: Link, count: usize) {
        let tail = self.object_at(slab, tail.index());
        let mut seen = slab.freelist().load();
        loop {
            // SAFETY: the objects are ours until the push.
            unsafe { self.write_link(tail, seen.head()) };
            // The list lock is held: the slab stays listed, or not, as it is.
            match slab.freelist().push(seen, head, count, seen.is_listed()) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
}
