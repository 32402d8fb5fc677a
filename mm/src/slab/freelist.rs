//! Links between the free objects of a slab.

use core::{fmt, ptr::NonNull};

use super::{KmemCache, Machine, Slab, word::Link};

/// A link that cannot be one: the free object was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// The object that the link lies in, by its index.
    pub index: usize,
    /// What was found there.
    pub found: u64,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the link of free object #{} was overwritten: {:#018x}",
            self.index, self.found
        )
    }
}

impl<M: Machine> KmemCache<M> {
    /// The object of an index in a slab.
    #[inline(always)]
    pub(crate) fn object_at(&self, slab: Slab<M>, index: usize) -> NonNull<u8> {
        let _ = (slab, index);
        panic!("not written yet")
    }

    /// The index of an object in its slab; `None`: no object begins at `object` (which may be any
    /// address). No division.
    #[inline(always)]
    pub(crate) fn index_of(&self, slab: Slab<M>, object: NonNull<u8>) -> Option<usize> {
        let _ = (slab, object);
        panic!("not written yet")
    }

    /// The link in the free object of an index, decoded and checked. `NONE`: the last one.
    ///
    /// # Safety
    ///
    /// The slab is this cache's and lives. (Whether what is read is a link is found out, and may be wrong if
    /// somebody allocates or frees meanwhile.)
    pub(crate) unsafe fn read_link(&self, slab: Slab<M>, index: usize) -> Result<Link, Corrupt> {
        let _ = (slab, index);
        panic!("not written yet")
    }

    /// Writes the link of a free object.
    ///
    /// # Safety
    ///
    /// The object is the caller's, and nobody's.
    pub(crate) unsafe fn write_link(&self, object: NonNull<u8>, link: Link) {
        let _ = (object, link);
        panic!("not written yet")
    }
}
