//! Destruction of caches.

use core::fmt;

use super::{KmemCache, Machine, Slabs, name::Name};

/// A cache was destroyed with objects in use. It lives on, as `name~id`, until the last one
/// is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaked {
    /// The cache's name.
    pub name: Name,
    /// Its number.
    pub id: u64,
    /// Objects in use.
    pub objects: u64,
}

impl fmt::Display for Leaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cache {} was destroyed with {} objects in use; it stays as {}~{}",
            self.name, self.objects, self.name, self.id
        )
    }
}

impl core::error::Error for Leaked {}

impl<M: Machine> Slabs<M> {
    /// Drops a reference to a cache, and destroys it with the last one: waits for deferred frees
    /// of it, and, if it is TYPESAFE_BY_RCU, for its slabs' grace period. A merged cache loses
    /// the newest of its further names; nothing is waited for. May sleep.
    ///
    /// # Errors
    ///
    /// [`Leaked`], with a report of each object in use.
    ///
    /// # Safety
    ///
    /// The cache is one of this allocator's, and the caller has a reference that it got from
    /// [`create`](Self::create). Nobody uses the cache by that reference any more but to free
    /// objects, which does not happen while this runs.
    pub unsafe fn destroy(&self, cache: &KmemCache<M>) -> Result<(), Leaked> {
        let _ = cache;
        panic!("not written yet")
    }

    /// [`destroy`](Self::destroy) by the name that the cache was created with, which it loses
    /// if it is one of its further ones.
    ///
    /// # Errors
    ///
    /// As [`destroy`](Self::destroy).
    ///
    /// # Safety
    ///
    /// As [`destroy`](Self::destroy).
    pub unsafe fn destroy_named(&self, cache: &KmemCache<M>, name: &str) -> Result<(), Leaked> {
        let _ = (cache, name);
        panic!("not written yet")
    }
}
