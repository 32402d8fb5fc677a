//! How objects lie in slabs: sizes, the place of the link, what debugging puts around, and the
//! order of slabs.
//!
//! An object, from its slab's beginning plus a multiple of [`size`](ObjectLayout::size):
//!
//! | part | there is |
//! |---|---|
//! | left red zone | with RED_ZONE; a multiple of the alignment |
//! | the object | what callers have |
//! | right red zone | with RED_ZONE: at least a word |
//! | link | behind the object where it may not lie in it (constructor, TYPESAFE_BY_RCU, POISON, RED_ZONE of a small object) |
//! | what debugging keeps | with any debug flag ([`bytes_behind`](super::debug::info::bytes_behind)): a state word; with STORE_USER who allocated and who freed |
//! | padding | up to the alignment |

use core::fmt;

use super::spec::{Flags, Spec};

/// The layout of a cache's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectLayout {
    /// Bytes that callers asked for.
    pub object_size: u32,
    /// Bytes that callers may use: the object's, with what rounding added (not past a red zone).
    pub usable: u32,
    /// From one object to the next one.
    pub size: u32,
    /// What addresses of objects are multiples of.
    pub align: u32,
    /// Where the link of a free object lies, from the object's beginning.
    pub link: u32,
    /// Bytes of the left red zone; the object's beginning is so far from its place's.
    pub red_left: u32,
    /// Where what debugging keeps of an object lies, from the object's beginning, a multiple of 8; 0:
    /// nothing is kept.
    pub tracks: u32,
    /// From a distance to a number of objects without a division: times this, rotated right by
    /// `shift`, is the quotient if [`size`](Self::size) divides it, and a huge number if not.
    pub inverse: u64,
    /// See [`inverse`](Self::inverse).
    pub shift: u8,
    /// The order of slabs, and how many objects they have.
    pub order: u8,
    /// Objects of a slab of that order.
    pub objects: u16,
    /// The smallest order that holds an object, for when memory is short.
    pub min_order: u8,
    /// Objects of a slab of that order.
    pub min_objects: u16,
}

/// Why objects cannot lie as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSpec {
    /// Objects of no bytes.
    NoBytes,
    /// No slab holds an object of so many bytes.
    TooLarge(usize),
    /// Not a power of two, or more than a page.
    Align(usize),
    /// The link does not fit there: beyond the object, or at no multiple of 8.
    FreePointer(usize),
    /// A place for the link, but the link may lie anywhere in a free object.
    NeedlessFreePointer,
}

impl fmt::Display for BadSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBytes => f.write_str("objects of no bytes"),
            Self::TooLarge(size) => write!(f, "objects of {size} bytes fit into no slab"),
            Self::Align(align) => write!(f, "{align} is no alignment of objects"),
            Self::FreePointer(at) => write!(f, "a free object's link cannot lie at {at}"),
            Self::NeedlessFreePointer => {
                f.write_str("a place for the link without constructor or TYPESAFE_BY_RCU")
            }
        }
    }
}

impl core::error::Error for BadSpec {}

/// Empty slabs that a node keeps at most, by the size of objects: more for larger ones, whose slabs
/// are dear to make.
pub const fn default_min_partial(size: usize) -> u32 {
    let _ = size;
    panic!("not written yet")
}

impl ObjectLayout {
    /// The layout for what `spec` asks, with `flags` (the caller's, and those of debugging) on a machine with so many
    /// CPUs, which slabs get larger with.
    ///
    /// # Errors
    ///
    /// [`BadSpec`].
    pub fn new(spec: &Spec<'_>, flags: Flags, cpus: usize) -> Result<Self, BadSpec> {
        let _ = (spec, flags, cpus);
        panic!("not written yet")
    }

    /// Objects of a slab of this order.
    pub const fn objects_of(&self, order: usize) -> usize {
        if order == self.order as usize {
            self.objects as usize
        } else {
            self.min_objects as usize
        }
    }
}

/// Flags that make objects larger than asked for.
pub const GROWING: Flags = Flags::DEBUG.union(Flags::TYPESAFE_BY_RCU);
