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
//! | what debugging keeps | with any debug flag ([`bytes_behind`]): a state word; with STORE_USER who allocated and who freed |
//! | padding | up to the alignment |

use core::{fmt, ptr::NonNull};

use super::{
    create::default_capacity,
    debug::info::bytes_behind,
    spec::{Flags, Spec},
};
use crate::frame::{MAX_ORDER, PAGE_SIZE};

/// Bytes of a line of the processor's caches.
const CACHE_LINE: usize = 64;

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

/// Empty slabs that a node keeps at most, by the size of objects: a few more for larger ones, whose slabs
/// are dear to make. As Linux (`MIN_PARTIAL`, `MAX_PARTIAL`).
pub const fn default_min_partial(size: usize) -> u32 {
    match if size > 1 { size.ilog2() / 2 } else { 0 } {
        0..5 => 5,
        by_size @ 5..10 => by_size,
        _ => 10,
    }
}

/// Bytes of a link.
const WORD: usize = size_of::<u64>();
/// The bytes of the largest slab.
const LARGEST: usize = PAGE_SIZE << MAX_ORDER;
/// A slab has no higher order, but for objects that need it: higher ones are hard to get.
const EASY_ORDER: usize = 3;

impl ObjectLayout {
    /// The layout for what `spec` asks, with `flags` (the caller's, and those of debugging) on a machine with so many
    /// CPUs: with them slabs get larger, since more wait at their locks.
    ///
    /// # Errors
    ///
    /// [`BadSpec`].
    pub fn new(spec: &Spec<'_>, flags: Flags, cpus: usize) -> Result<Self, BadSpec> {
        if spec.size == 0 {
            return Err(BadSpec::NoBytes);
        }
        let too_large = BadSpec::TooLarge(spec.size);
        if spec.size > LARGEST {
            return Err(too_large);
        }
        let align = align_for(spec, flags)?;
        let red = flags.contains(Flags::RED_ZONE);
        let mut size = spec.size.next_multiple_of(WORD);
        if red && size == spec.size {
            // Room for the right red zone.
            size += WORD;
        }
        let user_end = size;
        let link = match link_within(spec, flags)? {
            Some(link) => link,
            None => {
                size += WORD;
                size - WORD
            }
        };
        let behind = bytes_behind(flags);
        let tracks = if behind > 0 { size } else { 0 };
        size += behind;
        let red_left = if red { align } else { 0 };
        size = (size + red_left).next_multiple_of(align);
        if size > LARGEST {
            return Err(too_large);
        }
        let usable = if flags.intersects(Flags::RED_ZONE | Flags::POISON) {
            spec.size
        } else if link >= user_end || behind > 0 {
            user_end
        } else {
            size
        };
        let sheaf = if flags.intersects(Flags::DEBUG | Flags::NO_SHEAVES) {
            0
        } else {
            spec.sheaf_capacity.unwrap_or(default_capacity(size))
        };
        let (order, min_order) = (order_for(size, cpus, sheaf as usize), order_of(size));
        let shift = size.trailing_zeros();
        Ok(Self {
            object_size: spec.size as u32,
            usable: usable as u32,
            size: size as u32,
            align: align as u32,
            link: link as u32,
            red_left: red_left as u32,
            tracks: tracks as u32,
            inverse: inverse_of((size >> shift) as u64),
            shift: shift as u8,
            order: order as u8,
            objects: objects_in(order, size) as u16,
            min_order: min_order as u8,
            min_objects: objects_in(min_order, size) as u16,
        })
    }

    /// The index of `object` in the slab whose first object is `first`; a huge number if no object can
    /// begin there.
    #[inline(always)]
    pub fn index_at(&self, first: NonNull<u8>, object: NonNull<u8>) -> usize {
        let distance = object.addr().get().wrapping_sub(first.addr().get());
        // T. Granlund and P. L. Montgomery, "Division by Invariant Integers using
        // Multiplication", PLDI 1994, section 9: the rotated product is the quotient if there is no remainder,
        // else it is above all quotients.
        (distance as u64)
            .wrapping_mul(self.inverse)
            .rotate_right(self.shift.into()) as usize
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

/// What objects are aligned to.
fn align_for(spec: &Spec<'_>, flags: Flags) -> Result<usize, BadSpec> {
    if spec.align != 0 && !spec.align.is_power_of_two() || spec.align > PAGE_SIZE {
        return Err(BadSpec::Align(spec.align));
    }
    let mut align = spec.align.max(WORD);
    if flags.contains(Flags::HWCACHE_ALIGN) {
        // Several small objects share a line, but none lies in two.
        let mut line = CACHE_LINE;
        while spec.size <= line / 2 {
            line /= 2;
        }
        align = align.max(line);
    }
    Ok(align)
}

/// Where in a free object the link lies; `None`: behind it.
fn link_within(spec: &Spec<'_>, flags: Flags) -> Result<Option<usize>, BadSpec> {
    let keeps_contents = spec.constructor.is_some() || flags.contains(Flags::TYPESAFE_BY_RCU);
    if let Some(at) = spec.free_pointer {
        if !keeps_contents {
            return Err(BadSpec::NeedlessFreePointer);
        }
        let fits = at.checked_add(WORD).is_some_and(|end| end <= spec.size);
        if !fits || !at.is_multiple_of(WORD) {
            return Err(BadSpec::FreePointer(at));
        }
        return Ok(Some(at));
    }
    // What lies behind the bytes that were asked for may be red, in kmalloc objects.
    let red =
        flags.contains(Flags::RED_ZONE) && (spec.size < WORD || flags.contains(Flags::KMALLOC));
    if keeps_contents || flags.contains(Flags::POISON) || red {
        return Ok(None);
    }
    // In the middle, away from both neighbours, as in Linux.
    Ok(Some(spec.size / 2 / WORD * WORD))
}

/// The lowest order of a slab that holds `bytes` bytes.
fn order_of(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_SIZE).next_power_of_two().ilog2() as usize
}

fn objects_in(order: usize, size: usize) -> usize {
    (PAGE_SIZE << order) / size
}

/// The order of slabs with objects of `size` bytes. Enough objects that a node's lock is not taken for
/// each few: as Linux has it by the number of CPUs, and as many as a sheaf has, so that a refill or a flush has
/// to do with one slab or two. Then the lowest order that wastes at most a 16th of the slab, else an 8th, a quarter, a
/// half, as in Linux.
fn order_for(size: usize, cpus: usize, sheaf: usize) -> usize {
    let enough = sheaf.max(4 * (cpus.max(1).ilog2() as usize + 2));
    let enough = enough.min(objects_in(EASY_ORDER, size)).max(1);
    let least = order_of(enough * size);
    let wastes_at_most = |order: usize, part: usize| {
        let bytes = PAGE_SIZE << order;
        bytes % size <= bytes / part
    };
    [16, 8, 4, 2]
        .into_iter()
        .find_map(|part| (least..=EASY_ORDER).find(|order| wastes_at_most(*order, part)))
        // Above, the lowest that holds one: more than half of it is the object's.
        .unwrap_or_else(|| order_of(size))
}

/// The number that times `odd` is 1, modulo 2^64.
const fn inverse_of(odd: u64) -> u64 {
    // Newton's iteration doubles the bits that are right: 5 of the first guess, 10, 20, 40, 80.
    let mut inverse = odd.wrapping_mul(3) ^ 2;
    let mut round = 0;
    while round < 4 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
}
