//! The checks of a debug cache's slabs and objects, and what is done about what they find.
//!
//! All of it under the list lock of the slab's node, which is what makes states, links and
//! patterns of a slab agree with each other; or of a slab that nobody else knows.
//!
//! | damaged | what is done |
//! |---|---|
//! | a red zone, padding | the bytes are restored |
//! | a state word, a track | set to what the freelist says; forgotten |
//! | a free object, or its link | the object is *isolated*: it counts as in use and is never used again |
//! | the freelist's head, or the counts | made anew from the objects' states |

use core::{fmt, panic::Location, ptr::NonNull, sync::atomic::Ordering::Relaxed};

use super::super::{
    Flags, KmemCache, Machine, Slab,
    arrows::Arrow,
    freelist::Corrupt,
    word::{Freelist, Link},
};
use super::{
    found::{Found, Then, WrongBytes},
    info::{State, Which},
    parts::{Bytes, Part, at},
    pattern::{PADDING, Pattern},
};
use crate::report::Kind;

/// Who asked for what found a fault, if somebody did.
pub(super) type Asker = Option<&'static Location<'static>>;

/// Isolated objects, in the slab's word of debugging; above them, the round of validation.
const ISOLATED: u64 = 0xffff;
const ROUND: u32 = 32;

impl<M: Machine> Slab<M> {
    /// (Debug caches) objects that were found damaged while they were free: they count as in
    /// use for ever, and are nobody's. Exact under the list lock.
    pub fn isolated(&self) -> usize {
        // Relaxed: see the module.
        (self.frame().pair[1].load(Relaxed) & ISOLATED) as usize
    }

    fn count_isolated(&self) {
        let word = &self.frame().pair[1];
        word.store(word.load(Relaxed) + 1, Relaxed);
    }

    /// The round of validation that looked at it last.
    pub(super) fn round(&self) -> u32 {
        (self.frame().pair[1].load(Relaxed) >> ROUND) as u32
    }

    pub(super) fn set_round(&self, round: u32) {
        let word = &self.frame().pair[1];
        let isolated = word.load(Relaxed) & ISOLATED;
        word.store(isolated | u64::from(round) << ROUND, Relaxed);
    }

    /// Of a fresh slab.
    pub(super) fn begin_debug(&self, round: u32) {
        self.frame().pair[1].store(u64::from(round) << ROUND, Relaxed);
    }
}

/// What a look at an object found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// How many.
    pub count: usize,
    /// The object was written to while it was free.
    pub written: bool,
}

/// How a freelist is broken.
pub(super) enum Broken {
    /// A free object's link cannot be one.
    Link(Corrupt),
    /// The object of index `to`, which the link of `from` (`None`: the head) leads to, is not
    /// free (`None`: there is no such object).
    NotFree {
        from: Option<usize>,
        to: usize,
        state: Option<State>,
    },
    /// It has another length than the counts say; if a greater one, perhaps none at all.
    Length { counted: usize, length: usize },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(corrupt) => write!(f, "{corrupt}"),
            Self::NotFree { from, to, state } => {
                match from {
                    Some(from) => write!(f, "the link of free object #{from}")?,
                    None => f.write_str("the freelist's head")?,
                }
                write!(f, " leads to #{to}, which is ")?;
                f.write_str(state.map_or("no object", State::name))
            }
            Self::Length { counted, length } if length > counted => {
                write!(
                    f,
                    "more objects are linked than the {counted} that are free"
                )
            }
            Self::Length { counted, length } => {
                write!(f, "{length} objects are linked, {counted} are free")
            }
        }
    }
}

impl<M: Machine> KmemCache<M> {
    pub(super) fn found<'a>(
        &'a self,
        kind: Kind,
        slab: Slab<M>,
        what: fmt::Arguments<'a>,
        then: Then,
        caller: Asker,
    ) -> Found<'a, M> {
        Found {
            kind,
            cache: self,
            slab: Some(slab),
            object: None,
            what,
            place: None,
            freed: None,
            then,
            caller,
        }
    }

    /// Fills the patterns of an object's slot.
    ///
    /// # Safety
    ///
    /// `object` is an object of a slab of this debug cache; see the module.
    pub(super) unsafe fn fill_patterns(&self, object: NonNull<u8>, state: State, requested: usize) {
        for bytes in self.patterns(state, requested) {
            // SAFETY: a part of the object's slot that is the allocator's.
            unsafe { bytes.pattern.fill(at(object, bytes.start), bytes.len) };
        }
    }

    /// Compares bytes with their pattern; if they are wrong reports and restores them. `origin` is the object,
    /// or, for what is behind the last one, the slab's beginning. Whether they were wrong.
    ///
    /// # Safety
    ///
    /// The bytes are of the slab, and the allocator's; see the module.
    unsafe fn check_bytes(
        &self,
        slab: Slab<M>,
        origin: NonNull<u8>,
        bytes: &Bytes,
        caller: Asker,
    ) -> bool {
        // SAFETY: as the caller promises.
        let start = unsafe { at(origin, bytes.start) };
        // SAFETY: as the caller promises.
        let Some(wrong) = (unsafe { bytes.pattern.compare(start, bytes.len) }) else {
            return false;
        };
        let (kind, then) = match bytes.part {
            Part::RedLeft | Part::RedRight => (Kind::SlabRedZone, Then::Restored),
            Part::Poison => (Kind::SlabPoison, Then::Isolated),
            Part::Quarantined => (Kind::SlabQuarantine, Then::Freed),
            Part::Alignment | Part::Padding | Part::SlabPadding => {
                (Kind::SlabPadding, Then::Restored)
            }
        };
        // SAFETY: one of the bytes.
        let place = unsafe { start.add(wrong.first) };
        let what = WrongBytes(*bytes, wrong);
        Found {
            object: (bytes.part != Part::SlabPadding).then_some(origin),
            place: Some((place, wrong.last - wrong.first + 1)),
            ..self.found(kind, slab, format_args!("{what}"), then, caller)
        }
        .tell();
        // SAFETY: as the caller promises.
        unsafe { bytes.pattern.fill(start, bytes.len) };
        true
    }

    /// Compares the patterns of an object's slot and looks at its tracks; reports what is wrong, and restores it.
    ///
    /// # Safety
    ///
    /// As for [`fill_patterns`](Self::fill_patterns).
    pub(super) unsafe fn check_object(
        &self,
        slab: Slab<M>,
        object: NonNull<u8>,
        state: State,
        caller: Asker,
    ) -> Faults {
        let mut faults = Faults::default();
        // SAFETY: as the caller promises.
        let requested = unsafe { self.requested(object) };
        for bytes in self.patterns(state, requested) {
            // SAFETY: as the caller promises.
            if unsafe { self.check_bytes(slab, object, &bytes, caller) } {
                faults.count += 1;
                faults.written |= bytes.part == Part::Poison;
            }
        }
        for which in [Which::Allocation, Which::Free] {
            // SAFETY: as the caller promises.
            if unsafe { self.track_of(object, which) }.is_err() {
                faults.count += 1;
                let what = format_args!("a track is not as it was written: it is forgotten");
                Found {
                    object: Some(object),
                    ..self.found(Kind::SlabInfo, slab, what, Then::Restored, caller)
                }
                .tell();
                // SAFETY: as above; there are tracks, for one is wrong.
                unsafe { self.clear_track(object, which) };
            }
        }
        faults
    }

    /// What an object is. A state word that was overwritten is reported, and set to `otherwise`.
    ///
    /// # Safety
    ///
    /// As for [`fill_patterns`](Self::fill_patterns).
    pub(super) unsafe fn check_state(
        &self,
        slab: Slab<M>,
        object: NonNull<u8>,
        otherwise: State,
        caller: Asker,
    ) -> Result<State, State> {
        // SAFETY: as the caller promises.
        let found = match unsafe { self.state_of(object) } {
            Ok(state) => return Ok(state),
            Err(found) => found,
        };
        let offset = self.layout.tracks as usize;
        let what = format_args!(
            "the state word, at {offset}, is {found:#018x}, which is no state; it is taken for {}",
            otherwise.name()
        );
        Found {
            object: Some(object),
            // SAFETY: behind the object, in its slot.
            place: Some((unsafe { object.add(offset) }, 8)),
            ..self.found(Kind::SlabInfo, slab, what, Then::Restored, caller)
        }
        .tell();
        // SAFETY: as the caller promises.
        unsafe { self.set_state(object, otherwise) };
        self.arrow(Arrow::DebugPutRight);
        Err(otherwise)
    }

    /// Looks at what belongs to no object of a slab: its counts, and the bytes behind the last one. Faults.
    pub(super) fn check_slab(&self, slab: Slab<M>, caller: Asker) -> usize {
        let mut faults = 0;
        let word = slab.freelist().load();
        let objects = self.layout.objects_of(slab.order());
        if word.objects() != objects || word.in_use() > objects {
            faults += 1;
            let what = format_args!("the slab has {objects} objects, which its counts contradict");
            self.found(Kind::SlabFreelist, slab, what, Then::Relinked, caller)
                .tell();
            self.relink(slab);
        }
        if self.flags.contains(Flags::POISON) {
            let start = objects * self.layout.size as usize;
            let bytes = Bytes {
                part: Part::SlabPadding,
                start: start as isize,
                len: slab.bytes() - start,
                pattern: Pattern::of(PADDING),
            };
            // SAFETY: nobody's bytes.
            faults += usize::from(unsafe { self.check_bytes(slab, slab.base(), &bytes, caller) });
        }
        faults
    }

    /// Follows the freelist of a slab; what is broken is reported, and the freelist made anew.
    /// Faults.
    pub(super) fn check_freelist(&self, slab: Slab<M>, caller: Asker) -> usize {
        let mut faults = 0;
        // Each round with a fault isolates an object or makes counts agree.
        while let Err(broken) = self.follow(slab, caller, &mut faults) {
            faults += 1;
            self.mend(slab, broken, caller);
        }
        faults
    }

    /// Reports how a freelist is broken, and makes it anew.
    pub(super) fn mend(&self, slab: Slab<M>, broken: Broken, caller: Asker) {
        let at = match broken {
            Broken::Link(corrupt) => Some(corrupt.index),
            Broken::NotFree { from, .. } => from,
            Broken::Length { .. } => None,
        };
        let object = at.map(|index| self.object_at(slab, index));
        let what = format_args!("{broken}");
        let then = if at.is_some() {
            Then::IsolatedAndRelinked
        } else {
            Then::Relinked
        };
        Found {
            object,
            // SAFETY: the object's link.
            place: object.map(|object| (unsafe { object.add(self.layout.link as usize) }, 8)),
            ..self.found(Kind::SlabFreelist, slab, what, then, caller)
        }
        .tell();
        if let Some(object) = object {
            // SAFETY: a free object of the slab.
            unsafe { self.isolate(slab, object, caller) };
        }
        self.relink(slab);
    }

    /// Follows the freelist, and compares its length with the counts. State words on the way that were
    /// overwritten are faults, and put right.
    fn follow(&self, slab: Slab<M>, caller: Asker, faults: &mut usize) -> Result<(), Broken> {
        let word = slab.freelist().load();
        let counted = word.free();
        let (mut from, mut next) = (None, word.head());
        for length in 0.. {
            if next.is_none() {
                return if length == counted {
                    Ok(())
                } else {
                    Err(Broken::Length { counted, length })
                };
            }
            if length == counted {
                return Err(Broken::Length {
                    counted,
                    length: length + 1,
                });
            }
            let index = next.index();
            if self.look_at_free(slab, from, index, caller)? {
                *faults += 1;
            }
            // SAFETY: an object of the slab, whose freelist nobody else changes.
            next = unsafe { self.read_link(slab, index) }.map_err(Broken::Link)?;
            from = Some(index);
        }
        Ok(())
    }

    /// The freelist leads to this object from that one (`None`: the head): it must be free. Whether its state
    /// word had to be put right.
    pub(super) fn look_at_free(
        &self,
        slab: Slab<M>,
        from: Option<usize>,
        index: usize,
        caller: Asker,
    ) -> Result<bool, Broken> {
        if index >= self.layout.objects_of(slab.order()) {
            // Only the head: links are checked when they are read.
            let state = None;
            return Err(Broken::NotFree {
                from,
                to: index,
                state,
            });
        }
        let object = self.object_at(slab, index);
        // SAFETY: an object of the slab.
        match unsafe { self.check_state(slab, object, State::Free, caller) } {
            Ok(State::Free) => Ok(false),
            Err(_) => Ok(true),
            Ok(state) => Err(Broken::NotFree {
                from,
                to: index,
                state: Some(state),
            }),
        }
    }

    /// Keeps a free object, which is on no freelist or is about to be left out of a new one, from being
    /// used again. `caller`: who asked for the allocation or the free that found it damaged.
    ///
    /// # Safety
    ///
    /// As for [`fill_patterns`](Self::fill_patterns).
    pub(super) unsafe fn isolate(&self, slab: Slab<M>, object: NonNull<u8>, caller: Asker) {
        // SAFETY: as the caller promises.
        unsafe { self.set_state(object, State::Isolated) };
        slab.count_isolated();
        self.arrow(match caller {
            Some(_) => Arrow::DebugIsolated,
            None => Arrow::DebugIsolatedByValidate,
        });
    }

    /// Makes the freelist anew, of all objects whose state is free, and the counts with it.
    pub(super) fn relink(&self, slab: Slab<M>) {
        let word = slab.freelist();
        let objects = self.layout.objects_of(slab.order());
        let (mut head, mut free) = (Link::NONE, 0);
        for index in (0..objects).rev() {
            let object = self.object_at(slab, index);
            // SAFETY: an object of the slab; if it is free its link is the allocator's.
            unsafe {
                if self.state_of(object) == Ok(State::Free) {
                    self.write_link(object, head);
                    head = Link::of_index(index);
                    free += 1;
                }
            }
        }
        let listed = word.load().is_listed();
        word.set(Freelist::new(head, objects - free, objects).with_listed(listed));
    }

    /// Reports that counts and freelist of a slab contradict each other.
    pub(super) fn tell_relinked(&self, slab: Slab<M>, what: fmt::Arguments<'_>) {
        self.found(Kind::SlabFreelist, slab, what, Then::Relinked, None)
            .tell();
    }

    /// Reports that the freelist of a plain cache's slab has not as many objects as are free.
    pub(super) fn tell_wrong_length(&self, slab: Slab<M>, counted: usize, length: usize) {
        let what = format_args!("{}", Broken::Length { counted, length });
        self.found(Kind::SlabFreelist, slab, what, Then::Cut, None)
            .tell();
    }
}
