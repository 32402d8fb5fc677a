//! What was found wrong, as a report. All have one form:
//!
//! ```text
//! slab object's red zone was overwritten: frame 0x1a2 at 0x1a2000, asked for at kernel/src/x.rs:10:5:
//!   cache files (id 31, RED_ZONE | STORE_USER), objects of 60 bytes
//!   slab: 3 of 21 in use, free from #4, partial, order 0
//!   object #2 at 0xffff8880001a2190, allocated
//!   right red zone (60..64): 1 byte is wrong, at 60: 0x12 instead of 0xcc
//!     +0030:  00  00  00  00  00  00  00  00  00  00  00  00 !12  cc  cc  cc
//!   allocated 1.204 ms ago on cpu1 by thread 12 at kernel/src/x.rs:8:20
//!   freed 7.000 ms ago on cpu0 by thread 9 at kernel/src/y.rs:70:9
//!   the bytes are restored
//! ```
//!
//! Then come the stacks of the allocation and the free.

use core::{fmt, panic::Location, ptr::NonNull, sync::atomic::Ordering::Relaxed};

use super::super::{KmemCache, Machine, Slab};
use super::{
    info::{Overwritten, Track, Which},
    parts::Bytes,
    pattern::Wrong,
};
use crate::report::{Kind, Report};

/// Bytes in a line of a dump.
const LINE: isize = 16;
/// Lines.
const LINES: isize = 4;

/// What was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// What was written over is as it should be.
    Restored,
    /// The object stays *in use* for ever.
    Isolated,
    /// The free is refused.
    Refused,
    /// The freelist was made anew.
    Relinked,
    /// Both.
    IsolatedAndRelinked,
    /// The objects behind the damage stay *in use* for ever.
    Cut,
    /// The slab and the cache stay until the object is freed.
    Kept,
    /// The object is free from now on, as it would be anyway.
    Freed,
}

impl fmt::Display for Then {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restored => "the bytes are restored",
            Self::Isolated => "the object is isolated: never used again",
            Self::Refused => "nothing is freed",
            Self::Relinked => "the freelist is made anew",
            Self::IsolatedAndRelinked => {
                "the object is isolated: never used again; the freelist is made anew without it"
            }
            Self::Freed => "the object is freed all the same",
            Self::Kept => "slab and cache stay until it is freed",
            Self::Cut => "the freelist is cut there: what hung behind is never used again",
        })
    }
}

/// A fault, for its report.
pub(crate) struct Found<'a, M: Machine> {
    pub kind: Kind,
    pub cache: &'a KmemCache<M>,
    /// The slab that it is in, if it is in one.
    pub slab: Option<Slab<M>>,
    /// The object that it is about, if it is about one: one of the slab's.
    pub object: Option<NonNull<u8>>,
    /// What is wrong: expected and found.
    pub what: fmt::Arguments<'a>,
    /// Where in the slab, and how many bytes.
    pub place: Option<(NonNull<u8>, usize)>,
    /// Who freed it, where that is not kept with the object.
    pub freed: Option<Track>,
    pub then: Then,
    /// Who made the call that found it.
    pub caller: Option<&'static Location<'static>>,
}

impl<M: Machine> Found<'_, M> {
    /// Makes the report, and counts it. Any context, the list lock may be held. To be called before anything
    /// is put right: it shows what was found.
    pub(crate) fn tell(&self) {
        if self.kind != Kind::SlabLeak {
            self.cache.debug.count();
        }
        let owner = self.object.and_then(|object| {
            // SAFETY: an object of the cache in a slab that lives.
            unsafe { self.cache.record_of(object) }
        });
        M::memory_report(&Report {
            kind: self.kind,
            frame: self.slab.map(|slab| slab.pfn()),
            details: format_args!("{self}"),
            caller: self.caller,
            owner,
        });
    }

    fn object_line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(slab), Some(object)) = (self.slab, self.object) else {
            return Ok(());
        };
        write!(f, "\n  object")?;
        if let Some(index) = self.cache.index_of(slab, object) {
            write!(f, " #{index}")?;
        }
        write!(f, " at {:#x}", object.addr())?;
        if !self.cache.is_debug() {
            return Ok(());
        }
        // SAFETY: an object of a debug cache.
        match unsafe { self.cache.state_of(object) } {
            Ok(state) => write!(f, ", {}", state.name()),
            Err(_) => write!(f, ", of unknown state"),
        }
    }

    fn dump(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(slab), Some((place, len))) = (self.slab, self.place) else {
            return Ok(());
        };
        // Offsets are the object's, or the slab's where it is about none.
        let origin = self.object.unwrap_or(slab.base()).addr().get() as isize;
        let base = slab.base().addr().get() as isize;
        let (slab_from, slab_to) = (base - origin, base - origin + slab.bytes() as isize);
        let first = place.addr().get() as isize - origin;
        let from = (first.div_euclid(LINE) - 1) * LINE;
        for line in (0..LINES).map(|line| from + line * LINE) {
            if line + LINE <= slab_from || line >= slab_to {
                continue;
            }
            let sign = if line < 0 { '-' } else { '+' };
            write!(f, "\n    {sign}{:04x}:", line.unsigned_abs())?;
            for offset in line..line + LINE {
                if offset < slab_from || offset >= slab_to {
                    write!(f, "    ")?;
                    continue;
                }
                // SAFETY: in the slab, which lives. Atomic and Relaxed: others may write there.
                let byte = unsafe {
                    let address = slab.base().offset(offset - slab_from);
                    core::sync::atomic::AtomicU8::from_ptr(address.as_ptr()).load(Relaxed)
                };
                let marked = (first..first + len as isize).contains(&offset);
                write!(f, " {}{byte:02x}", if marked { '!' } else { ' ' })?;
            }
        }
        Ok(())
    }

    fn tracks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(freed) = &self.freed {
            write!(f, "\n  freed {}", Ago(freed, M::now_ns()))?;
        }
        let Some(object) = self.object.filter(|_| self.cache.is_debug()) else {
            return Ok(());
        };
        let now = M::now_ns();
        for (which, name) in [(Which::Allocation, "allocated"), (Which::Free, "freed")] {
            // SAFETY: an object of a debug cache.
            match unsafe { self.cache.track_of(object, which) } {
                Ok(None) => {}
                Ok(Some(track)) => write!(f, "\n  {name} {}", Ago(&track, now))?,
                Err(Overwritten) => write!(f, "\n  {name}: the track was overwritten")?,
            }
        }
        Ok(())
    }
}

impl<M: Machine> fmt::Display for Found<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = self.cache;
        write!(f, "\n  cache {} (id {}", cache.name, cache.id)?;
        if !cache.flags.is_empty() {
            write!(f, ", {}", cache.flags)?;
        }
        write!(f, "), objects of {} bytes", cache.layout.object_size)?;
        if let Some(slab) = self.slab {
            let (word, place) = (slab.freelist().load(), slab.place().name());
            write!(f, "\n  slab: {word:?}, {place}, order {}", slab.order())?;
        }
        self.object_line(f)?;
        write!(f, "\n  {}", self.what)?;
        self.dump(f)?;
        self.tracks(f)?;
        write!(f, "\n  {}", self.then)
    }
}

/// A track by its age.
pub(crate) struct Ago<'a>(pub &'a Track, pub u64);

impl fmt::Display for Ago<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(track, now) = self;
        let event = &track.event;
        let us = now.saturating_sub(event.at_ns) / 1000;
        write!(
            f,
            "{}.{:03} ms ago on cpu{} by thread {} at {}",
            us / 1000,
            us % 1000,
            event.cpu,
            event.thread,
            track.caller
        )
    }
}

/// Bytes of a pattern that are wrong, in words.
pub(crate) struct WrongBytes(pub Bytes, pub Wrong);

impl fmt::Display for WrongBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes, wrong) = self;
        let (start, end) = (bytes.start, bytes.start + bytes.len as isize);
        write!(f, "{} ({start}..{end}): ", bytes.part)?;
        let first = start + wrong.first as isize;
        match wrong.count {
            1 => write!(f, "1 byte is wrong, at {first}")?,
            count => {
                let last = start + wrong.last as isize;
                write!(
                    f,
                    "{count} bytes are wrong, from {first} to {last}, the first"
                )?;
            }
        }
        let expected = bytes.pattern.at(wrong.first, bytes.len);
        write!(f, ": {:#04x} instead of {expected:#04x}", wrong.found)?;
        let flipped = wrong.found ^ expected;
        if wrong.count == 1 && flipped.is_power_of_two() {
            write!(
                f,
                "; a single bit, {}, is flipped",
                flipped.trailing_zeros()
            )?;
        }
        Ok(())
    }
}
