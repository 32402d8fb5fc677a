//! What is found wrong in plain caches, without looking for it: reports.

use core::ptr::NonNull;

use super::super::{KmemCache, Machine, Slab, arrows::Arrow, freelist::Corrupt};
use super::found::{Found, Then};
use crate::report::Kind;

/// What is wrong with a free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WrongFree {
    /// No object begins there.
    NoObject,
    /// The slab is on a node that the cache has no slabs of.
    NoNode,
    /// More is freed than is in use.
    Free,
}

impl<M: Machine> KmemCache<M> {
    /// A chain is cut at a link that cannot be one: `lost` objects behind it stay *in use* for
    /// ever. Any context, the list lock may be held.
    #[cold]
    #[inline(never)]
    pub(crate) fn report_corrupt(&self, slab: Slab<M>, corrupt: Corrupt, lost: usize) {
        self.arrow(Arrow::SlabCut);
        let object = self.object_at(slab, corrupt.index);
        let what = format_args!("{corrupt}; {lost} objects are lost");
        Found {
            object: Some(object),
            // SAFETY: the object's link.
            place: Some((unsafe { object.add(self.layout.link as usize) }, 8)),
            ..self.found(Kind::SlabFreelist, slab, what, Then::Cut, None)
        }
        .tell();
    }

    /// An object that is freed is none, or free: it is left alone. Context: as
    /// [`report_corrupt`](Self::report_corrupt).
    #[cold]
    #[inline(never)]
    pub(crate) fn report_wrong_free(&self, slab: Slab<M>, object: NonNull<u8>, wrong: WrongFree) {
        let (kind, why) = match wrong {
            WrongFree::NoObject => (Kind::SlabWrongFree, "is no object's beginning"),
            WrongFree::NoNode => (
                Kind::SlabWrongFree,
                "is on a node that the cache has no slabs of",
            ),
            WrongFree::Free => (Kind::SlabDoubleFree, "is free already, or another one is"),
        };
        let address = object.addr();
        let what = format_args!("{address:#x} {why}");
        Found {
            object: self.index_of(slab, object).map(|_| object),
            place: Some((object, 8)),
            ..self.found(kind, slab, what, Then::Refused, None)
        }
        .tell();
    }
}
