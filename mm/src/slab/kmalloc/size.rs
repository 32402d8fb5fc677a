//! Which cache is for which size.

use crate::frame::PAGE_SIZE;

/// The sizes of the caches, in ascending order: powers of two, and two between them where
/// rounding up wastes most for what is asked for most.
pub const SIZES: [usize; 13] = [
    8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192,
];

/// Their names.
pub const NAMES: [&str; SIZES.len()] = [
    "kmalloc-8",
    "kmalloc-16",
    "kmalloc-32",
    "kmalloc-64",
    "kmalloc-96",
    "kmalloc-128",
    "kmalloc-192",
    "kmalloc-256",
    "kmalloc-512",
    "kmalloc-1k",
    "kmalloc-2k",
    "kmalloc-4k",
    "kmalloc-8k",
];

/// The largest size that comes from a cache.
pub const MAX_CACHED: usize = SIZES[SIZES.len() - 1];

/// Up to this size there are others than powers of two.
const SMALL: usize = 192;

/// By the size in units of 8 bytes, rounded up, the class.
const CLASSES: [u8; SMALL / 8 + 1] = {
    let mut classes = [0; SMALL / 8 + 1];
    let mut units = 1;
    while units < classes.len() {
        let mut class = 0;
        while SIZES[class] < units * 8 {
            class += 1;
        }
        classes[units] = class as u8;
        units += 1;
    }
    classes
};

/// The number of the smallest cache for `size` bytes; `None` for 0, and beyond [`MAX_CACHED`].
/// A look into a table, or the number of bits; and nothing, where the compiler knows the size.
#[inline(always)]
pub const fn class_of(size: usize) -> Option<usize> {
    // One comparison: 0 wraps to the largest.
    if size.wrapping_sub(1) >= MAX_CACHED {
        return None;
    }
    Some(if size <= SMALL {
        CLASSES[(size + 7) >> 3] as usize
    } else {
        // 256 = 2^8 is class 7.
        (usize::BITS - (size - 1).leading_zeros()) as usize - 1
    })
}

/// What objects of a class are aligned to: the power of two that divides their size, up to a
/// page.
pub const fn align_of(class: usize) -> usize {
    let align = 1 << SIZES[class].trailing_zeros();
    if align < PAGE_SIZE { align } else { PAGE_SIZE }
}

/// Whether objects of a class are aligned to the power of two that divides `size`, up to a page: what
/// callers rely on who rounded the size up for that. That holds for the smallest class that is
/// large enough; for the next ones it may not (64 bytes, 96).
#[inline]
pub const fn aligned_like(class: usize, size: usize) -> bool {
    let wanted = 1 << size.trailing_zeros();
    align_of(class)
        >= if wanted < PAGE_SIZE {
            wanted
        } else {
            PAGE_SIZE
        }
}

const _: () = {
    // Every size finds the smallest class.
    let mut size = 1;
    while size <= MAX_CACHED {
        let Some(class) = class_of(size) else {
            panic!("a size without a class")
        };
        assert!(SIZES[class] >= size && (class == 0 || SIZES[class - 1] < size));
        assert!(aligned_like(class, size));
        size += if size < 2 * SMALL { 1 } else { 61 };
    }
    assert!(class_of(0).is_none() && class_of(MAX_CACHED + 1).is_none());
};

/// `size` rounded up so that what kmalloc gives is aligned to `align`, a power of two up to a page: a multiple of it, since
/// all classes are aligned to their largest power of two, and those between powers of two are
/// taken for no multiple that they are not aligned to. `None`: more than there is.
#[inline(always)]
pub const fn aligned(size: usize, align: usize) -> Option<usize> {
    match size.checked_add(align - 1) {
        Some(sum) => Some(sum & !(align - 1)),
        None => None,
    }
}

const _: () = {
    // What is said there is so.
    let mut align = 1;
    while align <= PAGE_SIZE {
        let mut size = 1;
        while size <= MAX_CACHED {
            if let Some(rounded) = aligned(size, align)
                && let Some(class) = class_of(rounded)
            {
                assert!(align_of(class) >= align);
            }
            size += if size < 2 * SMALL { 1 } else { 61 };
        }
        align *= 2;
    }
};
