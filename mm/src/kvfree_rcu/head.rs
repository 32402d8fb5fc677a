//! What an object has in it to wait for a grace period by itself.

use core::ptr::NonNull;

use platform::sync::{AtomicPtr, Ordering};

/// Two words in an object that may be given to `kfree_rcu`: the lowest road, for when there
/// is no memory to note the object in. Readers must not look at them.
#[derive(Debug)]
#[repr(C)]
pub struct Head {
    /// The next one of a chain. First: a stack of objects links through it.
    pub(crate) next: AtomicPtr<Head>,
    /// What is to be freed, as `loose::Item` keeps it.
    pub(crate) item: AtomicPtr<u8>,
}

impl Head {
    /// One that is not in use.
    pub fn new() -> Self {
        Self {
            next: AtomicPtr::new(core::ptr::null_mut()),
            item: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// Writes a head that is queued.
    ///
    /// # Safety
    ///
    /// Its memory is the caller's to write.
    pub(crate) unsafe fn fill(this: NonNull<Self>, next: Option<NonNull<Self>>, item: *mut u8) {
        let next = next.map_or(core::ptr::null_mut(), NonNull::as_ptr);
        // SAFETY: as the caller promises.
        unsafe {
            this.write(Self {
                next: AtomicPtr::new(next),
                item: AtomicPtr::new(item),
            });
        }
    }

    /// The next one, and what is to be freed.
    ///
    /// # Safety
    ///
    /// It was [filled](Self::fill), and is the caller's.
    pub(crate) unsafe fn read(this: NonNull<Self>) -> (Option<NonNull<Self>>, *mut u8) {
        // SAFETY: as the caller promises. Relaxed: who handed it over orders it.
        let this = unsafe { this.as_ref() };
        (
            NonNull::new(this.next.load(Ordering::Relaxed)),
            this.item.load(Ordering::Relaxed),
        )
    }
}

impl Default for Head {
    fn default() -> Self {
        Self::new()
    }
}
