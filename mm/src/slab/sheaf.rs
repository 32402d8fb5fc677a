//! A sheaf: an array of free objects of one cache, with one owner.
//!
//! | the sheaf is | its owner |
//! |---|---|
//! | a CPU's *main* or *spare* sheaf | who has that CPU's [local lock](super::percpu) |
//! | in a *barn*, full or empty | who has the barn's lock |
//! | *prefilled*, or being moved | the code that holds it |
//! | the *permanent empty* one, of capacity 0 | nobody: it is only read, and is what a CPU has that has no sheaf |
//!
//! Only the owner reads or writes a sheaf, so its fields are plain memory; who watches (a walk of
//! the heap) stops the machine or takes the locks.

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

// SAFETY: plain memory with one owner; the permanent empty one is only read.
unsafe impl Sync for Sheaf {}

static NOTHING: Sheaf = Sheaf::NOTHING;

impl Sheaf {
    /// A sheaf without room: [`capacity`](Self::capacity) 0, so it is empty and full.
    pub const NOTHING: Self = Self {
        len: 0,
        capacity: 0,
        next: None,
    };

    /// The permanent empty one. Nothing is ever written to it; it is told by its capacity, 0, and
    /// by its address: there is one.
    #[inline(always)]
    pub const fn nothing() -> NonNull<Self> {
        NonNull::from_ref(&NOTHING)
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

    /// Objects in it.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf.
    #[inline(always)]
    pub unsafe fn len(this: NonNull<Self>) -> u32 {
        // SAFETY: the caller's.
        unsafe { (*this.as_ptr()).len }
    }

    /// Objects that it has room for, all in all.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf.
    #[inline(always)]
    pub unsafe fn capacity(this: NonNull<Self>) -> u32 {
        // SAFETY: the caller's.
        unsafe { (*this.as_ptr()).capacity }
    }

    /// Whether another object fits.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf.
    #[inline(always)]
    pub unsafe fn has_room(this: NonNull<Self>) -> bool {
        // SAFETY: the caller's.
        unsafe { Self::len(this) < Self::capacity(this) }
    }

    /// Says how many objects are in it.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf; the first `len` places are filled, and their objects are the
    /// sheaf's.
    #[inline(always)]
    pub unsafe fn set_len(this: NonNull<Self>, len: u32) {
        // SAFETY: the caller's. Not of the permanent empty sheaf, which is not written.
        unsafe {
            debug_assert!(len <= (*this.as_ptr()).capacity);
            (*this.as_ptr()).len = len;
        }
    }

    /// Takes the object that was put in last.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf.
    #[inline(always)]
    pub unsafe fn pop(this: NonNull<Self>) -> Option<NonNull<u8>> {
        // SAFETY: the caller's; one of the filled places is read.
        unsafe {
            let (len, is_empty) = Self::len(this).overflowing_sub(1);
            if is_empty {
                return None;
            }
            (*this.as_ptr()).len = len;
            Some(Self::objects(this).add(len as usize).read())
        }
    }

    /// Puts an object in; `false`: there is no room.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf and the object, which is one of the cache's.
    #[inline(always)]
    pub unsafe fn push(this: NonNull<Self>, object: NonNull<u8>) -> bool {
        // SAFETY: the caller's; the place is below the capacity.
        unsafe {
            let len = Self::len(this);
            if len >= Self::capacity(this) {
                return false;
            }
            Self::objects(this).add(len as usize).write(object);
            (*this.as_ptr()).len = len + 1;
            true
        }
    }

    /// [`push`](Self::push) into a sheaf whose objects wait for a grace period: its last place is for
    /// the cookie.
    ///
    /// # Safety
    ///
    /// As for [`push`](Self::push).
    #[inline(always)]
    pub unsafe fn push_rcu(this: NonNull<Self>, object: NonNull<u8>) -> bool {
        // SAFETY: the caller's; the place is below the capacity.
        unsafe {
            let len = Self::len(this);
            if len + 1 >= Self::capacity(this) {
                return false;
            }
            Self::objects(this).add(len as usize).write(object);
            (*this.as_ptr()).len = len + 1;
            true
        }
    }

    /// Whether it has as many objects as [`push_rcu`](Self::push_rcu) puts in.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf.
    pub unsafe fn is_full_rcu(this: NonNull<Self>) -> bool {
        // SAFETY: the caller's.
        unsafe { Self::len(this) + 1 >= Self::capacity(this) }
    }

    /// The place of the cookie of a sheaf whose objects wait for a grace period.
    unsafe fn cookie_place(this: NonNull<Self>) -> NonNull<u64> {
        // SAFETY: as the callers promise: below the capacity, and not filled.
        unsafe {
            debug_assert!(Self::has_room(this), "the cookie has the last place");
            let last = Self::capacity(this) as usize - 1;
            Self::objects(this).add(last).cast()
        }
    }

    /// Notes what its objects wait for.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf, whose objects were [put in for that](Self::push_rcu).
    pub unsafe fn set_cookie(this: NonNull<Self>, cookie: u64) {
        // SAFETY: as the caller promises.
        unsafe { Self::cookie_place(this).write(cookie) };
    }

    /// What its objects wait for.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf, and [`set_cookie`](Self::set_cookie) was called for it.
    pub unsafe fn cookie(this: NonNull<Self>) -> u64 {
        // SAFETY: as the caller promises.
        unsafe { Self::cookie_place(this).read() }
    }

    /// Moves the latest objects, at most `want`, to `into`: how many.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf, and `into` has room for `want` pointers.
    pub unsafe fn take(this: NonNull<Self>, into: *mut NonNull<u8>, want: usize) -> usize {
        // SAFETY: filled places are read; the array is the caller's, so they do not overlap.
        unsafe {
            let len = Self::len(this) as usize;
            let count = want.min(len);
            if count > 0 {
                let from = Self::objects(this).as_ptr().add(len - count);
                into.copy_from_nonoverlapping(from, count);
                (*this.as_ptr()).len = (len - count) as u32;
            }
            count
        }
    }

    /// Puts the first of some objects in, as many as there is room for: how many.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf and the objects, which are the cache's.
    pub unsafe fn put(this: NonNull<Self>, objects: &[NonNull<u8>]) -> usize {
        // SAFETY: places below the capacity are written; the objects do not lie in the sheaf.
        unsafe {
            let len = Self::len(this) as usize;
            let count = objects.len().min(Self::capacity(this) as usize - len);
            if count > 0 {
                let to = Self::objects(this).as_ptr().add(len);
                to.copy_from_nonoverlapping(objects.as_ptr(), count);
                (*this.as_ptr()).len = (len + count) as u32;
            }
            count
        }
    }

    /// The objects in it.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf for as long as it uses the result.
    pub unsafe fn filled<'a>(this: NonNull<Self>) -> &'a [NonNull<u8>] {
        // SAFETY: the first `len` places are filled.
        unsafe {
            core::slice::from_raw_parts(Self::objects(this).as_ptr(), Self::len(this) as usize)
        }
    }

    /// [`filled`](Self::filled), to be put in another order.
    ///
    /// # Safety
    ///
    /// As for [`filled`](Self::filled), and nothing else uses the sheaf meanwhile.
    pub unsafe fn filled_mut<'a>(this: NonNull<Self>) -> &'a mut [NonNull<u8>] {
        // SAFETY: as above. The permanent empty sheaf has no places: an empty slice.
        unsafe {
            let len = Self::len(this) as usize;
            core::slice::from_raw_parts_mut(Self::objects(this).as_ptr(), len)
        }
    }
}
