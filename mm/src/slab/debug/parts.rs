//! Where the parts of an object of a debug cache lie.

use core::{fmt, ptr::NonNull};

use super::super::{Flags, KmemCache, Machine};
use super::{
    info::{State, bytes_behind},
    pattern::{PADDING, POISON_END, POISON_FREE, Pattern, RED_ACTIVE, RED_INACTIVE},
};

/// A part that has a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Before the object.
    RedLeft,
    /// Behind it.
    RedRight,
    /// The object, while it is free.
    Poison,
    /// The object, while it is in quarantine.
    Quarantined,
    /// Between the object and what is kept behind it, without red zones.
    Alignment,
    /// Behind all that is kept of the object.
    Padding,
    /// Behind the slab's last object.
    SlabPadding,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RedLeft => "left red zone",
            Self::RedRight => "right red zone",
            Self::Poison => "free object",
            Self::Quarantined => "object in quarantine",
            Self::Alignment => "padding behind the object",
            Self::Padding => "padding between objects",
            Self::SlabPadding => "padding behind the last object",
        })
    }
}

/// Bytes that must all be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub part: Part,
    /// Where they begin, from the object's beginning.
    pub start: isize,
    pub len: usize,
    pub pattern: Pattern,
}

/// As many as an object can have at a time.
const PARTS: usize = 4;

/// What a slot's bytes must be.
pub(crate) type Patterns = arrayvec::ArrayVec<Bytes, PARTS>;

impl<M: Machine> KmemCache<M> {
    /// Whether free objects are filled with a pattern. Not where a free object is still
    /// somebody's to look at: with a constructor, or read under RCU.
    pub(crate) fn poisons_objects(&self) -> bool {
        self.flags.contains(Flags::POISON)
            && !self.flags.contains(Flags::TYPESAFE_BY_RCU)
            && self.constructor.is_none()
    }

    /// Where what follows the object ends: its link, what is kept of it, or the next slot.
    fn end_of_right(&self) -> usize {
        let layout = &self.layout;
        let link = layout.link as usize;
        let outside = link >= layout.object_size as usize;
        let slot = (layout.size - layout.red_left) as usize;
        let tracks = layout.tracks as usize;
        let ends = [(outside, link), (tracks != 0, tracks)];
        let ends = ends.into_iter().filter_map(|(is, end)| is.then_some(end));
        ends.min().unwrap_or(slot)
    }

    /// Where nothing more is kept of the object.
    fn end_of_info(&self) -> usize {
        let layout = &self.layout;
        let link = layout.link as usize;
        let link_end = if link >= layout.object_size as usize {
            link + 8
        } else {
            0
        };
        let info_end = layout.tracks as usize + bytes_behind(self.flags);
        link_end.max(info_end).max(self.end_of_right())
    }

    /// What the bytes of an object's slot must be in `state`; `requested` of the object's bytes are
    /// its user's if it is allocated. Of an isolated object only that nobody uses it is known: nothing.
    pub(crate) fn patterns(&self, state: State, requested: usize) -> Patterns {
        let mut patterns = Patterns::new();
        let mut add = |part, start: isize, end: usize, pattern| {
            let len = end as isize - start;
            if len > 0 {
                patterns.push(Bytes {
                    part,
                    start,
                    len: len as usize,
                    pattern,
                });
            }
        };
        let layout = &self.layout;
        let size = layout.object_size as usize;
        let (red, users) = match state {
            State::Isolated => return patterns,
            State::Free => (Pattern::of(RED_INACTIVE), size),
            State::Allocated => (Pattern::of(RED_ACTIVE), requested.min(size)),
        };
        let poison = self.flags.contains(Flags::POISON);
        if self.flags.contains(Flags::RED_ZONE) {
            add(Part::RedLeft, -(layout.red_left as isize), 0, red);
        }
        if state == State::Free && self.poisons_objects() {
            let poison = Pattern {
                byte: POISON_FREE,
                end: POISON_END,
            };
            add(Part::Poison, 0, size, poison);
        }
        if self.flags.contains(Flags::RED_ZONE) {
            add(Part::RedRight, users as isize, self.end_of_right(), red);
        } else if poison {
            add(
                Part::Alignment,
                size as isize,
                self.end_of_right(),
                Pattern::of(PADDING),
            );
        }
        if poison {
            let slot = (layout.size - layout.red_left) as usize;
            add(
                Part::Padding,
                self.end_of_info() as isize,
                slot,
                Pattern::of(PADDING),
            );
        }
        patterns
    }
}

/// The address `offset` bytes from the beginning of an object.
///
/// # Safety
///
/// It lies in the object's slab.
pub(crate) unsafe fn at(object: NonNull<u8>, offset: isize) -> NonNull<u8> {
    // SAFETY: as the caller promises.
    unsafe { object.offset(offset) }
}
