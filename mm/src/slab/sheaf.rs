//! A sheaf: an array of free objects of one cache, with one owner.
//!
//! | the sheaf is | its owner |
//! |---|---|
//! | a CPU's *main* or *spare* sheaf | who has that CPU's [local lock](super::percpu) |
//! | in a *barn*, full or empty | who has the barn's lock |
//! | *prefilled*, or being moved | the code that holds it |
//! | the *permanent empty* one, of capacity 0 | nobody: it is only read, and is what a CPU has that has no sheaf |

use core::ptr::NonNull;

/// What stands before the objects.
#[repr(C)]
#[derive(Debug)]
pub struct Sheaf {
    /// Objects in it.
    pub len: u32,
    /// Objects that it has room for.
    pub capacity: u32,
    /// The next one of a list in a barn.
    pub next: Option<NonNull<Self>>,
}

impl Sheaf {
    /// A sheaf without room: [`capacity`](Self::capacity) 0, so it is empty and full.
    pub const NOTHING: Self = Self {
        len: 0,
        capacity: 0,
        next: None,
    };

    /// The permanent empty one. Nothing is ever written to it; it is told by its capacity, 0.
    #[inline(always)]
    pub const fn nothing() -> NonNull<Self> {
        const { NonNull::from_ref(&Self::NOTHING) }
    }

    /// Bytes of one for `capacity` objects.
    pub const fn bytes(capacity: u32) -> usize {
        size_of::<Self>() + capacity as usize * size_of::<NonNull<u8>>()
    }

    /// Makes a sheaf.
    ///
    /// # Safety
    ///
    /// The memory is the caller's, of [`bytes`](Self::bytes) bytes, aligned to 8.
    pub unsafe fn init(memory: NonNull<u8>, capacity: u32) -> NonNull<Self> {
        let sheaf = memory.cast::<Self>();
        // SAFETY: as the caller promises.
        unsafe {
            sheaf.write(Self {
                len: 0,
                capacity,
                next: None,
            });
        }
        sheaf
    }

    /// The places of its objects; the first `len` are filled.
    ///
    /// # Safety
    ///
    /// `this` is a sheaf.
    #[inline(always)]
    pub unsafe fn objects(this: NonNull<Self>) -> NonNull<NonNull<u8>> {
        // SAFETY: they follow the header.
        unsafe { this.add(1).cast() }
    }

    /// Takes the object that was put in last.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf.
    #[inline(always)]
    pub unsafe fn pop(mut this: NonNull<Self>) -> Option<NonNull<u8>> {
        // SAFETY: the caller's.
        let sheaf = unsafe { this.as_mut() };
        let len = sheaf.len.checked_sub(1)?;
        sheaf.len = len;
        // SAFETY: one of the filled places.
        Some(unsafe { Self::objects(this).add(len as usize).read() })
    }

    /// Puts an object in; `false`: there is no room.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf and the object, which is one of the cache's.
    #[inline(always)]
    pub unsafe fn push(mut this: NonNull<Self>, object: NonNull<u8>) -> bool {
        // SAFETY: the caller's.
        let sheaf = unsafe { this.as_mut() };
        let len = sheaf.len;
        if len >= sheaf.capacity {
            return false;
        }
        sheaf.len = len + 1;
        // SAFETY: below the capacity.
        unsafe { Self::objects(this).add(len as usize).write(object) };
        true
    }

    /// The objects in it.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf for as long as it uses the result.
    pub unsafe fn filled<'a>(this: NonNull<Self>) -> &'a [NonNull<u8>] {
        // SAFETY: the first `len` places are filled.
        unsafe {
            core::slice::from_raw_parts(Self::objects(this).as_ptr(), this.as_ref().len as usize)
        }
    }
}

/// Objects of a sheaf of a cache whose objects have this size.
pub const fn capacity_for(size: usize) -> u32 {
    if size >= 4096 { 4 } else { 28 }
}
