//! All caches that there are, and their names.
//!
//! The list is linked through the caches themselves. It is changed under a mutex, one link
//! at a time, with Release, so that it is whole at any moment: who cannot take the mutex (a
//! panic, a debugger) may walk it when nobody else runs.
//!
//! A cache is linked from its creation until it is taken apart. One that is being destroyed, or
//! was destroyed with objects in use, is there as `name~id`; its name is free.

use core::fmt;

use platform::{
    lock_class,
    sync::{AtomicBool, AtomicPtr, AtomicU64, Ordering},
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
    lock: Mutex<(), M, RegistryLock>,
    /// The newest cache; each has the next older one.
    newest: AtomicPtr<KmemCache<M>>,
    /// The next cache's number.
    next_id: AtomicU64,
    merging: AtomicBool,
}

impl<M: Machine> Registry<M> {
    pub fn new() -> Self {
        Self {
            lock: Mutex::new(()),
            newest: AtomicPtr::new(core::ptr::null_mut()),
            next_id: AtomicU64::new(1),
            merging: AtomicBool::new(true),
        }
    }

    // Relaxed in the following three: nothing is concluded from the values about other memory.

    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub fn merging(&self) -> bool {
        self.merging.load(Ordering::Relaxed)
    }

    pub fn set_merging(&self, on: bool) {
        self.merging.store(on, Ordering::Relaxed);
    }

    /// The newest cache, to be looked at.
    pub fn newest(&self) -> *mut KmemCache<M> {
        // Acquire pairs with the Release in `link`.
        self.newest.load(Ordering::Acquire)
    }

    /// Adds a cache. With the lock, or alone.
    pub fn link(&self, cache: &KmemCache<M>) {
        // Relaxed: under the lock.
        let newest = self.newest.load(Ordering::Relaxed);
        cache.older.store(newest, Ordering::Relaxed);
        // Release pairs with the Acquire of walkers.
        let cache = core::ptr::from_ref(cache).cast_mut();
        self.newest.store(cache, Ordering::Release);
    }

    /// Takes a cache out. With the lock, or alone.
    pub fn unlink(&self, cache: &KmemCache<M>) {
        let mut link = &self.newest;
        loop {
            // Relaxed: under the lock.
            let linked = link.load(Ordering::Relaxed);
            if core::ptr::eq(linked, cache) {
                // Release: as in `link`.
                link.store(cache.older.load(Ordering::Relaxed), Ordering::Release);
                return;
            }
            // SAFETY: caches that are linked live; nobody takes one apart without the lock.
            let Some(newer) = (unsafe { linked.as_ref() }) else {
                return;
            };
            link = &newer.older;
        }
    }
}

/// The caches, with the list locked: none is created, none goes.
pub struct Caches<'a, M: Machine> {
    slabs: &'a Slabs<M>,
    _lock: MutexGuard<'a, (), M, RegistryLock>,
}

impl<'a, M: Machine> Caches<'a, M> {
    /// All caches, the newest first; also those that were destroyed and have objects in use
    /// ([`KmemCache::is_dying`]).
    pub fn iter(&self) -> impl Iterator<Item = &KmemCache<M>> {
        // SAFETY: the list is locked while this is borrowed.
        unsafe { self.slabs.caches_unlocked() }
    }

    /// The further names of a cache, the newest first.
    pub fn aliases(&self, cache: &KmemCache<M>) -> impl Iterator<Item = &Alias> {
        // SAFETY: the list is locked while this is borrowed.
        unsafe { cache.aliases_unlocked() }
    }

    /// The cache of a name: the one that it was created with, a further one (so merged), or
    /// `name~id` of one that was destroyed.
    pub fn find(&self, name: &str) -> Option<&KmemCache<M>> {
        self.find_live(name).or_else(|| {
            let (name, id) = name.rsplit_once('~')?;
            let id = id.parse().ok()?;
            let is = |cache: &&KmemCache<M>| {
                cache.is_dying() && cache.id == id && cache.name.as_str() == name
            };
            self.iter().find(is)
        })
    }

    /// [`find`](Self::find) among those that are not destroyed.
    pub(crate) fn find_live(&self, name: &str) -> Option<&KmemCache<M>> {
        let is = |own: &Name| own.as_str() == name;
        self.iter().find(|cache| {
            let mut aliases = self.aliases(cache);
            !cache.is_dying() && (is(&cache.name) || aliases.any(|alias| is(&alias.name)))
        })
    }

    /// The allocator.
    pub fn slabs(&self) -> &'a Slabs<M> {
        self.slabs
    }
}

impl<M: Machine> Slabs<M> {
    /// The caches. May sleep; until the result is dropped none is created or destroyed.
    #[track_caller]
    pub fn caches(&self) -> Caches<'_, M> {
        let caches = Caches {
            slabs: self,
            _lock: self.registry.lock.lock(),
        };
        self.take_gone_apart(&caches);
        caches
    }

    /// The caches, if nobody creates or lists any. A thread that may sleep.
    pub fn try_caches(&self) -> Option<Caches<'_, M>> {
        let caches = Caches {
            slabs: self,
            _lock: self.registry.lock.try_lock()?,
        };
        self.take_gone_apart(&caches);
        Some(caches)
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
    /// [`Caches::aliases`] without the lock. Any context.
    ///
    /// # Safety
    ///
    /// While the result is used no name goes: other CPUs are stopped, or the caller holds the
    /// lock.
    pub unsafe fn aliases_unlocked<'a>(&self) -> impl Iterator<Item = &'a Alias> + use<'a, M> {
        // Acquire pairs with the Release with which each is linked.
        // SAFETY: names that are linked are there, as the caller sees to.
        let first = unsafe { self.aliases.load(Ordering::Acquire).as_ref() };
        core::iter::successors(first, |alias| {
            // SAFETY: as above.
            unsafe { alias.next.load(Ordering::Acquire).as_ref() }
        })
    }

    /// How often it was created and not destroyed: 1, and 1 for each further name; 0 for one that
    /// was destroyed.
    pub fn references(&self) -> u32 {
        // Relaxed: a glance, unless the list is locked.
        self.references.load(Ordering::Relaxed)
    }

    /// What tells it apart from others of its name.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What it is listed as: its name; or, once it is destroyed, `name~id`.
    pub fn title(&self) -> impl fmt::Display + '_ {
        Title(self)
    }
}

struct Title<'a, M: Machine>(&'a KmemCache<M>);

impl<M: Machine> fmt::Display for Title<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = self.0;
        if !cache.is_dying() {
            return f.pad(cache.name.as_str());
        }
        // The longest name, the sign, and the longest number.
        let mut title = arrayvec::ArrayString::<{ Name::MAX + 1 + 20 }>::new();
        fmt::write(&mut title, format_args!("{}~{}", cache.name, cache.id))?;
        f.pad(&title)
    }
}
