//! All caches that there are, and their names.
//!
//! The list is linked through the caches themselves. It is changed under a mutex, one link
//! at a time, with Release, so that it is whole at any moment: who cannot take the mutex (a
//! panic, a debugger) may walk it when nobody else runs.

use platform::{
    lock_class,
    sync::{AtomicPtr, AtomicU64, Ordering},
    wait::{Mutex, MutexGuard},
};

use super::{KmemCache, Machine, Slabs, name::Name};

lock_class! {
    /// The list of slab caches; held while one is created or listed.
    pub struct RegistryLock = ("slab registry", 4);
}

/// A further name of a cache that others were merged with.
#[derive(Debug)]
#[repr(C)]
pub struct Alias {
    /// The name.
    pub name: Name,
    /// The next older one.
    pub(crate) next: AtomicPtr<Alias>,
}

/// The list.
pub(crate) struct Registry<M: Machine> {
    pub(crate) lock: Mutex<(), M, RegistryLock>,
    /// The newest cache; each has the next older one.
    pub(crate) newest: AtomicPtr<KmemCache<M>>,
    /// The next cache's number.
    pub(crate) next_id: AtomicU64,
}

impl<M: Machine> Registry<M> {
    pub(crate) fn new() -> Self {
        Self {
            lock: Mutex::new(()),
            newest: AtomicPtr::new(core::ptr::null_mut()),
            next_id: AtomicU64::new(1),
        }
    }
}

/// The caches, with the list locked: none is created, none goes.
pub struct Caches<'a, M: Machine> {
    slabs: &'a Slabs<M>,
    _lock: MutexGuard<'a, (), M, RegistryLock>,
}

impl<M: Machine> Caches<'_, M> {
    /// All caches, the newest first; also those that were destroyed and have objects in use
    /// ([`KmemCache::is_dying`]).
    pub fn iter(&self) -> impl Iterator<Item = &KmemCache<M>> {
        // SAFETY: the list is locked.
        unsafe { self.slabs.caches_unlocked() }
    }

    /// The cache of a name: the one that it was created with, a further one (so merged), or
    /// `name~id` of one that was destroyed.
    pub fn find(&self, name: &str) -> Option<&KmemCache<M>> {
        let _ = name;
        panic!("not written yet")
    }
}

impl<M: Machine> Slabs<M> {
    /// The caches. May sleep; until the result is dropped none is created or destroyed.
    pub fn caches(&self) -> Caches<'_, M> {
        Caches {
            slabs: self,
            _lock: self.registry.lock.lock(),
        }
    }

    /// The caches, if nobody creates or lists any. Task context.
    pub fn try_caches(&self) -> Option<Caches<'_, M>> {
        Some(Caches {
            slabs: self,
            _lock: self.registry.lock.try_lock()?,
        })
    }

    /// [`Caches::iter`] without the lock. Any context.
    ///
    /// # Safety
    ///
    /// While the result is used no cache is taken apart: other CPUs are stopped, or the
    /// caller holds the lock.
    pub unsafe fn caches_unlocked(&self) -> impl Iterator<Item = &KmemCache<M>> {
        // Acquire pairs with the Release with which each is linked.
        let newest = self.registry.newest.load(Ordering::Acquire);
        // SAFETY: caches that are linked live, as the caller sees to.
        let first = unsafe { newest.as_ref() };
        core::iter::successors(first, |cache| {
            let older = cache.older.load(Ordering::Acquire);
            // SAFETY: as above.
            unsafe { older.as_ref() }
        })
    }
}

impl<M: Machine> KmemCache<M> {
    /// Its further names, the newest first. The caller holds the list's lock ([`Caches`]), or
    /// nobody else runs.
    pub fn aliases(&self) -> impl Iterator<Item = &Alias> {
        // Acquire pairs with the Release with which each is linked.
        // SAFETY: names that are linked are there.
        let first = unsafe { self.aliases.load(Ordering::Acquire).as_ref() };
        core::iter::successors(first, |alias| {
            // SAFETY: as above.
            unsafe { alias.next.load(Ordering::Acquire).as_ref() }
        })
    }
}
