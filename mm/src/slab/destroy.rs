//! Destruction of caches. States and who holds a cache: [`late`](super::late).
//!
//! What is in the cache goes back in this order: deferred frees (to slabs, since nothing else takes
//! anything any more), what is in quarantine, the sheaves of all CPUs, taken from where the destroyer runs, the barns,
//! and at last the slabs, which are empty by then, unless objects are in use.

use core::{fmt, ptr::NonNull};

use platform::sync::Ordering;

use super::{
    Caches, Hooks, KmemCache, Machine, Slabs, Stage, name::Name, records::Ending,
    typed::quiesce::quiesce,
};
use crate::kvfree_rcu::{InFlight, Wait};

/// A cache was destroyed with objects in use. It stays, as `name~id`, until the last one
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
        let Self { name, id, objects } = self;
        write!(
            f,
            "cache {name} was destroyed with {objects} objects in use; it stays as {name}~{id}"
        )
    }
}

impl core::error::Error for Leaked {}

impl<M: Machine> Slabs<M> {
    /// Drops a reference to a cache, and destroys it with the last one: waits for what was given to `kfree_rcu`, for deferred frees
    /// of it, and, if it is TYPESAFE_BY_RCU, for its slabs' grace period. A merged cache loses
    /// the newest of its further names; nothing is waited for. May sleep. What it did is
    /// [kept](Self::last_destroy).
    ///
    /// # Errors
    ///
    /// [`Leaked`], with a report of each object in use.
    ///
    /// # Safety
    ///
    /// The cache is one of this allocator's, and the caller has a reference that it got from
    /// [`create`](Self::create). Nobody uses the cache by that reference any more but to free
    /// objects, which does not happen while this runs (and happens-before orders it).
    pub unsafe fn destroy(&self, cache: &KmemCache<M>) -> Result<(), Leaked> {
        // SAFETY: as the caller promises.
        unsafe { self.drop_reference(cache, None) }
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
        // SAFETY: as the caller promises.
        unsafe { self.drop_reference(cache, Some(name)) }
    }

    /// # Safety
    ///
    /// As [`destroy`](Self::destroy).
    unsafe fn drop_reference(
        &self,
        cache: &KmemCache<M>,
        name: Option<&str>,
    ) -> Result<(), Leaked> {
        let now = M::now_ns();
        if !self.unreference(cache, name) {
            return Ok(());
        }
        let mut ending = Ending::begin(cache, now);
        // SAFETY: as the caller promises, and the last reference is gone.
        unsafe { self.finish(NonNull::from(cache), &mut ending) }
    }

    /// Drops a reference; whether it was the last one: then the cache is dying.
    pub(super) fn unreference(&self, cache: &KmemCache<M>, name: Option<&str>) -> bool {
        let _locked = self.caches();
        self.remove_alias(cache, name);
        // Relaxed: under the lock.
        if cache.references.fetch_sub(1, Ordering::Relaxed) > 1 {
            return false;
        }
        while !cache.aliases.load(Ordering::Relaxed).is_null() {
            self.remove_alias(cache, None);
        }
        // First: who finds the cache dying leaves slabs to its destroyer.
        cache.kept.open();
        cache.die();
        true
    }

    /// Destroys a dying cache.
    ///
    /// # Safety
    ///
    /// The caller alone destroys it, and nobody else uses it but for frees that know that it is
    /// dying.
    pub(super) unsafe fn finish(
        &self,
        cache: NonNull<KmemCache<M>>,
        ending: &mut Ending,
    ) -> Result<(), Leaked> {
        {
            // SAFETY: held until the end of this.
            let cache = unsafe { cache.as_ref() };
            // Relaxed: written before the registry was locked.
            if cache.boxes.load(Ordering::Relaxed) {
                ending.did.calls += quiesce::<M>();
            }
            // SAFETY: as the caller promises.
            unsafe {
                self.end_objects(cache, Wait::default(), &mut ending.did);
                self.end_slabs(cache, Wait::default(), &mut ending.did);
            }
        }
        // SAFETY: the destroyer's own hold.
        unsafe { self.end(cache, ending) }
    }

    /// Gives back all that is free of a dying cache, after it has waited for what is in flight; of slabs as far
    /// as they need not wait for a grace period. May sleep.
    ///
    /// # Safety
    ///
    /// As for [`finish`](Self::finish), by whom drops of boxes have been waited for.
    pub(super) unsafe fn end_objects(&self, cache: &KmemCache<M>, wait: Wait, did: &mut InFlight) {
        // SAFETY: as the caller promises. First what waits for a grace period, or is deferred, as that comes by all that follows.
        unsafe {
            self.end_in_flight(cache, wait, did);
            // After all that frees objects later, which may have put some there before the cache was dying.
            cache.quarantine_flush();
            cache.empty();
        }
    }

    /// The rest of the end of a cache: what is in use is reported, and the destroyer lets it go. The record of its end
    /// is kept.
    ///
    /// # Safety
    ///
    /// The caller is the destroyer, and does not use the cache any more.
    pub(super) unsafe fn end(
        &self,
        cache: NonNull<KmemCache<M>>,
        ending: &Ending,
    ) -> Result<(), Leaked> {
        // SAFETY: the destroyer holds it.
        let (leaked, record) = unsafe {
            let cache = cache.as_ref();
            let leaked = self.report_leak(cache);
            let objects = leaked.map_or(0, |leaked| leaked.objects);
            cache.set_stage(Stage::Zombie);
            (leaked, ending.record(cache, objects))
        };
        // SAFETY: the destroyer's own hold.
        if unsafe { KmemCache::release_last(cache) } {
            let _locked = self.caches();
            // SAFETY: nobody holds it, so it is ours.
            unsafe { self.take_apart(cache) };
        }
        self.note_destroy(record, ending);
        leaked.map_or(Ok(()), Err)
    }

    /// Unlinks a cache, and gives its descriptor back. With the registry locked.
    ///
    /// # Safety
    ///
    /// Nobody holds it: it is the caller's.
    pub(super) unsafe fn take_apart(&self, cache: NonNull<KmemCache<M>>) {
        // SAFETY: the caller's.
        let this = unsafe { cache.as_ref() };
        self.registry.unlink(this);
        // SAFETY: the cache had them; nobody uses them any more. The descriptor came from its
        // cache, and nothing uses it after this.
        unsafe {
            self.free_nodes(&this.nodes);
            cache.drop_in_place();
            self.cache_cache().free(cache.cast());
        }
    }
}

impl<M: Machine> KmemCache<M> {
    /// From now on nothing stays in it.
    pub(super) fn die(&self) {
        self.set_stage(Stage::Dying);
        // Relaxed: who is to see it is told by a call (`quiesce`), or comes after `destroy`.
        self.min_partial.store(0, Ordering::Relaxed);
        self.hooks.fetch_or(Hooks::DYING.bits(), Ordering::Relaxed);
    }

    /// Gives back all that is in sheaves and barns, and empty slabs.
    ///
    /// # Safety
    ///
    /// Nobody takes anything out of the sheaves of any CPU, or puts it in.
    pub(super) unsafe fn empty(&self) {
        for cpu in M::possible_cpus().iter() {
            // SAFETY: as the caller promises.
            unsafe { self.flush_cpu_dead(cpu) };
        }
        self.empty_barns();
        for node in self.all_nodes() {
            self.shrink_node(node);
            self.debug_release(node);
        }
    }
}

impl<M: Machine> Slabs<M> {
    /// Gives back what is in the quarantine of a CPU that has gone, and its sheaves of all caches. May sleep.
    ///
    /// # Safety
    ///
    /// The CPU does not run, will not while this does, and what it did came before this.
    pub unsafe fn flush_offline(&self, cpu: platform::CpuId) {
        self.quarantine_drain(cpu, 0);
        let caches: Caches<'_, M> = self.caches();
        // The destroyer empties those that are dying: it may be at it.
        for cache in caches.iter().filter(|cache| !cache.is_dying()) {
            // SAFETY: as the caller promises.
            unsafe { cache.flush_cpu_dead(cpu) };
        }
        drop(caches);
        // A barrier may be waiting for what was open there.
        self.kvfree_rcu.rested.wake_all();
    }
}
