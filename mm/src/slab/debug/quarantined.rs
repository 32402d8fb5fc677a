//! What is found wrong with objects in [quarantine](super::super::quarantine): reports.

use core::{panic::Location, ptr::NonNull};

use platform::CpuId;

use super::super::{
    KmemCache, Machine, Slab,
    quarantine::{Entry, POISON_QUARANTINE},
};
use super::{
    found::{Found, Then, WrongBytes},
    info::Track,
    parts::{Bytes, Part},
    pattern::{Pattern, Wrong},
};
use crate::{owner::Event, report::Kind};

impl<M: Machine> KmemCache<M> {
    /// An object was written to in the quarantine of `cpu`. Any context but NMI, the queue's lock is held.
    #[cold]
    #[inline(never)]
    pub(crate) fn report_written(&self, slab: Slab<M>, cpu: CpuId, entry: &Entry, wrong: Wrong) {
        let bytes = Bytes {
            part: Part::Quarantined,
            start: 0,
            len: self.layout.usable as usize,
            pattern: Pattern::of(POISON_QUARANTINE),
        };
        let what = WrongBytes(bytes, wrong);
        Found {
            object: Some(entry.object),
            // SAFETY: one of the object's bytes.
            place: Some(unsafe {
                let first = entry.object.add(wrong.first);
                (first, wrong.last - wrong.first + 1)
            }),
            freed: Some(Track {
                caller: entry.caller,
                event: Event {
                    at_ns: entry.at_ns,
                    thread: entry.thread,
                    cpu: cpu.number(),
                    ..Event::default()
                },
            }),
            ..self.found(
                Kind::SlabQuarantine,
                slab,
                format_args!("{what}"),
                Then::Freed,
                None,
            )
        }
        .tell();
    }

    /// An object is freed that is in quarantine. Any context but NMI.
    #[cold]
    #[inline(never)]
    pub(crate) fn report_freed_twice(
        &self,
        slab: Slab<M>,
        object: NonNull<u8>,
        caller: &'static Location<'static>,
    ) {
        let address = object.addr();
        let what = format_args!("{address:#x} is free already, and in quarantine");
        Found {
            object: Some(object),
            place: Some((object, 8)),
            ..self.found(
                Kind::SlabDoubleFree,
                slab,
                what,
                Then::Refused,
                Some(caller),
            )
        }
        .tell();
    }
}
