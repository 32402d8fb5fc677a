//! What is left of a cache that is destroyed.

use core::sync::atomic::Ordering::Relaxed;

use super::super::{
    KmemCache, Machine, Mode, Place, Slab,
    list::SlabList,
    node::{Lists, Node},
    word::{Freelist, Link},
};
use super::{
    found::{Found, Then},
    info::State,
};
use crate::report::Kind;

impl<M: Machine> KmemCache<M> {
    /// Whether a slab, which was freed to, is to be given back. With the list lock.
    pub(super) fn is_to_go(&self, lists: &Lists, slab: Slab<M>) -> bool {
        let word = slab.freelist().load();
        if self.is_dying() {
            return word.in_use() == slab.isolated();
        }
        // Relaxed: a knob.
        word.is_empty() && lists.partial.len() > self.min_partial.load(Relaxed) as usize
    }

    /// Takes a slab of a debug cache off its list, for discarding. With the list lock.
    pub(super) fn take_off(&self, lists: &mut Lists, slab: Slab<M>) {
        let word = slab.freelist().load();
        if word.is_listed() {
            lists.partial.remove(slab);
        } else {
            lists.full.remove(slab);
        }
        slab.set_place(Place::Full);
        // Isolated objects go with it.
        slab.freelist()
            .set(Freelist::new(Link::NONE, 0, word.objects()));
    }

    /// Gives back slabs of a dying debug cache in which nothing is in use but isolated objects, which
    /// are nobody's. Nothing in a plain cache. Any context but NMI, no list lock held.
    pub(crate) fn debug_release(&self, node: &Node<M>) {
        if !self.is_debug() {
            return;
        }
        let Some(mut lists) = node.lock(Mode::Spin) else {
            return;
        };
        let mut gone = SlabList::default();
        let map = *self.slabs().mm().frames();
        let slabs = lists.partial.iter::<M>(map).chain(lists.full.iter(map));
        for slab in slabs {
            if self.is_to_go(&lists, slab) {
                self.take_off(&mut lists, slab);
                gone.push_back(slab);
            }
        }
        drop(lists);
        self.discard(node, gone, Mode::Spin);
    }

    /// Reports an object that is in use though its cache is destroyed. `false`: it is isolated, and
    /// nobody's.
    pub(crate) fn report_left(&self, slab: Slab<M>, index: usize) -> bool {
        let object = self.object_at(slab, index);
        // SAFETY: an object of a slab that lives.
        if self.is_debug() && unsafe { self.state_of(object) } == Ok(State::Isolated) {
            return false;
        }
        let what = format_args!("it is in use; the cache is {} from now on", self.title());
        Found {
            object: Some(object),
            place: Some((object, 1)),
            ..self.found(Kind::SlabLeak, slab, what, Then::Kept, None)
        }
        .tell();
        true
    }
}
