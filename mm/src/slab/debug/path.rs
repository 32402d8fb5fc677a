//! How objects of debug caches are allocated and freed: one at a time, under the list lock of
//! their node, with all checks. Nothing else changes the freelist word of their slabs.
//!
//! | slab | its list | `listed` in the word |
//! |---|---|---|
//! | has free objects | partial | yes |
//! | has none | full | no |
//!
//! That holds whenever the lock is not held ([`settle`](KmemCache::settle) sees to it).

use core::{panic::Location, ptr::NonNull, sync::atomic::Ordering::Relaxed};

use platform::Mark;

use super::super::{
    Flags, Hooks, KmemCache, Machine, Mode, Place, Slab,
    arrows::Arrow,
    list::SlabList,
    node::{Lists, Node},
    word::{Freelist, Link},
};
use super::{
    check::{Asker, Broken},
    found::{Found, Then},
    info::{State, Track, Which},
};
use crate::report::Kind;

impl<M: Machine> KmemCache<M> {
    /// Takes an object off the partial slabs of `node`. `None`: there is none, or (`NoLock`)
    /// the list lock is taken. What is found damaged is reported, and repaired or isolated.
    /// Context: any but NMI, locks up to the barn's held; `NoLock`: any.
    pub(crate) fn debug_take(
        &self,
        node: &Node<M>,
        mode: Mode,
        caller: &'static Location<'static>,
    ) -> Option<NonNull<u8>> {
        // Before the lock: a backtrace takes its time.
        let track = self.track_now(caller);
        let mut lists = node.lock(mode)?;
        loop {
            let slab = lists
                .partial
                .iter::<M>(*self.slabs().mm().frames())
                .next()?;
            let taken = self.take_checked(slab, track.as_ref(), Some(caller));
            self.settle(&mut lists, slab);
            if taken.is_some() {
                return taken;
            }
        }
    }

    fn track_now(&self, caller: &'static Location<'static>) -> Option<Track> {
        let tracked = self.flags.contains(Flags::STORE_USER);
        tracked.then(|| Track::now::<M>(caller))
    }

    /// Takes the first free object of a slab that is not damaged. `None`: it has none any more.
    fn take_checked(
        &self,
        slab: Slab<M>,
        track: Option<&Track>,
        caller: Asker,
    ) -> Option<NonNull<u8>> {
        if self.flags.contains(Flags::CONSISTENCY_CHECKS) {
            self.check_slab(slab, caller);
        }
        loop {
            let word = slab.freelist().load();
            if word.is_full() {
                return None;
            }
            let index = word.head().index();
            if let Err(broken) = self.look_at_free(slab, None, index, caller) {
                self.mend(slab, broken, caller);
                continue;
            }
            let object = self.object_at(slab, index);
            // SAFETY: an object of the slab, which is free; its link is the allocator's.
            let next = match unsafe { self.read_link(slab, index) } {
                Ok(next) => next,
                Err(corrupt) => {
                    self.mend(slab, Broken::Link(corrupt), caller);
                    continue;
                }
            };
            if !next.is_none()
                && let Err(broken) = self.look_at_free(slab, Some(index), next.index(), caller)
            {
                self.mend(slab, broken, caller);
                continue;
            }
            // Counts that do not agree with the list are a matter for `check_freelist`.
            let in_use = (word.in_use() + 1).min(word.objects());
            let left = Freelist::new(next, in_use, word.objects());
            slab.freelist().set(left.with_listed(word.is_listed()));
            // SAFETY: as above; it is on no list any more.
            unsafe {
                if self.check_object(slab, object, State::Free, caller).written {
                    self.isolate(slab, object, caller);
                    continue;
                }
                self.set_state(object, State::Allocated);
                self.arrow(Arrow::DebugAlloc);
                let all = self.layout.object_size as usize;
                self.set_requested(object, all);
                self.fill_patterns(object, State::Allocated, all);
                if let Some(track) = track {
                    self.set_track(object, Which::Allocation, track);
                }
            }
            return Some(object);
        }
    }

    /// Puts a slab on the list that it belongs to, after its freelist was changed.
    pub(super) fn settle(&self, lists: &mut Lists, slab: Slab<M>) {
        let word = slab.freelist().load();
        if word.is_listed() && word.is_full() {
            lists.partial.remove(slab);
            slab.freelist().set(word.with_listed(false));
            slab.set_place(Place::DebugFull);
            lists.full.push_back(slab);
            self.arrow(Arrow::DebugSlabFull);
        } else if !word.is_listed() && !word.is_full() {
            lists.full.remove(slab);
            slab.set_place(Place::Partial);
            slab.freelist().set(word.with_listed(true));
            lists.partial.push_back(slab);
            self.arrow(Arrow::DebugSlabPartial);
        }
    }

    /// Frees whatever `object` is: a wrong free is reported, and changes nothing. `false`
    /// (`NoLock` only): the list lock is taken, and nothing was done. Context: as
    /// [`debug_take`](Self::debug_take), no list lock held.
    pub(crate) fn debug_free(
        &self,
        object: NonNull<u8>,
        mode: Mode,
        caller: &'static Location<'static>,
    ) -> bool {
        let frames = *self.slabs().mm().frames();
        let Some(slab) = Slab::of_address(frames, object.addr().get()) else {
            self.refuse_outside(object, caller);
            return true;
        };
        if !self.is_of(slab) {
            self.refuse_foreign(slab, object, caller);
            return true;
        }
        let Some(node) = self.node(slab.frame().word().zone().node()) else {
            self.refuse_outside(object, caller);
            return true;
        };
        let track = self.track_now(caller);
        let Some(mut lists) = node.lock(mode) else {
            return false;
        };
        let mut gone = SlabList::default();
        if self.free_checked(slab, object, track.as_ref(), caller) {
            self.settle(&mut lists, slab);
            // A grace period cannot be asked for from everywhere.
            let may_go = mode == Mode::Spin || !self.flags.contains(Flags::TYPESAFE_BY_RCU);
            if may_go && self.is_to_go(&lists, slab) {
                self.take_off(&mut lists, slab);
                gone.push_back(slab);
            }
        }
        drop(lists);
        if !gone.is_empty() {
            self.discard(node, gone, mode);
        }
        true
    }

    /// Whether this is the cache of a slab; true if the slab cannot go.
    fn is_of(&self, slab: Slab<M>) -> bool {
        // Relaxed: written before the slab was published.
        slab.frame().owner.load(Relaxed) == core::ptr::from_ref(self).addr()
    }

    /// Whether a slab is on a list of its node. With the list lock: it cannot go then.
    fn is_settled(&self, slab: Slab<M>) -> bool {
        self.is_of(slab) && matches!(slab.place(), Place::Partial | Place::DebugFull)
    }

    /// Puts an object back on its slab's freelist, if that is what it is. With the list lock. Whether
    /// anything has changed.
    fn free_checked(
        &self,
        slab: Slab<M>,
        object: NonNull<u8>,
        track: Option<&Track>,
        caller: &'static Location<'static>,
    ) -> bool {
        let asker = Some(caller);
        if !self.is_settled(slab) {
            let what = format_args!("its slab has just been given back: it was free");
            self.found(Kind::SlabDoubleFree, slab, what, Then::Refused, asker)
                .tell();
            return false;
        }
        let mut changed = false;
        if self.flags.contains(Flags::CONSISTENCY_CHECKS) {
            changed |= self.check_slab(slab, asker) > 0;
            changed |= self.check_freelist(slab, asker) > 0;
        }
        let Some(index) = self.index_of(slab, object) else {
            self.refuse_inside(slab, object, caller);
            return changed;
        };
        // SAFETY: an object of the slab. If it is not free it is not on the freelist.
        let state = unsafe { self.check_state(slab, object, State::Allocated, asker) };
        let state = state.unwrap_or_else(|put_right| put_right);
        if state != State::Allocated {
            let what = format_args!("the object is {} already", state.name());
            Found {
                object: Some(object),
                ..self.found(Kind::SlabDoubleFree, slab, what, Then::Refused, asker)
            }
            .tell();
            return changed;
        }
        // SAFETY: as above; it was its user's, who has given it up.
        unsafe {
            self.check_object(slab, object, State::Allocated, asker);
            if self.hooks().contains(Hooks::ZERO_ON_FREE) {
                self.zero(object);
            }
            self.set_state(object, State::Free);
            self.arrow(Arrow::DebugFree);
            M::mark(Mark::Step);
            self.fill_patterns(object, State::Free, 0);
            if let Some(track) = track {
                self.set_track(object, Which::Free, track);
            }
            let word = slab.freelist().load();
            self.write_link(object, word.head());
            let in_use = word.in_use().saturating_sub(1);
            let more = Freelist::new(Link::of_index(index), in_use, word.objects());
            slab.freelist().set(more.with_listed(word.is_listed()));
        }
        true
    }

    /// A free of an address that is in no slab of this cache's nodes.
    #[cold]
    fn refuse_outside(&self, object: NonNull<u8>, caller: &'static Location<'static>) {
        let frames = *self.slabs().mm().frames();
        let address = object.addr();
        let pfn = frames.pfn_of_address(address.get());
        let state = pfn.and_then(|pfn| frames.head_of(pfn));
        let refused = |what| Found {
            kind: Kind::SlabWrongFree,
            cache: self,
            slab: None,
            object: None,
            what,
            place: None,
            freed: None,
            then: Then::Refused,
            caller: Some(caller),
        };
        match state {
            Some((_, word)) => {
                let state = word.state();
                refused(format_args!("{address:#x} is in no slab: {state}")).tell();
            }
            None => refused(format_args!("{address:#x} is no memory")).tell(),
        }
    }

    /// A free of an object of another cache.
    #[cold]
    fn refuse_foreign(
        &self,
        slab: Slab<M>,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) {
        // Relaxed: as in `is_of`.
        if slab.frame().owner.load(Relaxed) == 0 {
            // It is being made, or given back.
            return self.refuse_outside(object, caller);
        }
        // SAFETY: a slab's owner is its cache, which lives as long as it has slabs.
        let other = unsafe { slab.cache().as_ref() };
        let address = object.addr();
        let what = format_args!(
            "{address:#x} is freed to cache {}, but is not of it",
            self.name
        );
        Found {
            cache: other,
            object: other.index_of(slab, object).map(|_| object),
            ..other.found(
                Kind::SlabWrongCache,
                slab,
                what,
                Then::Refused,
                Some(caller),
            )
        }
        .tell();
        // It was counted for the other; the fault is this one's user's.
        self.debug.count();
    }

    /// A free of an address in a slab where no object begins.
    #[cold]
    fn refuse_inside(
        &self,
        slab: Slab<M>,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) {
        let layout = &self.layout;
        let offset = slab.offset_of(object);
        let (index, within) = (offset / layout.size as usize, offset % layout.size as usize);
        let exists = index < layout.objects_of(slab.order());
        let within = within as isize - layout.red_left as isize;
        let near = exists.then(|| self.object_at(slab, index));
        let address = object.addr();
        let tell = |what| {
            Found {
                object: near,
                place: Some((object, 1)),
                ..self.found(Kind::SlabWrongFree, slab, what, Then::Refused, Some(caller))
            }
            .tell();
        };
        if exists {
            tell(format_args!(
                "{address:#x} is no object's beginning: {within} bytes from that of #{index}"
            ));
        } else {
            tell(format_args!(
                "{address:#x} is behind the slab's last object"
            ));
        }
    }

    /// Faults that were found in the cache so far.
    pub fn faults_found(&self) -> u64 {
        self.debug.found()
    }
}
