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

use super::spec::Flags;

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
    /// The order of slabs, and how many objects they have.
    pub order: u8,
    /// Objects of a slab of that order.
    pub objects: u16,
    /// The smallest order that holds an object, for when memory is short.
    pub min_order: u8,
    /// Objects of a slab of that order.
    pub min_objects: u16,
}

impl ObjectLayout {
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
