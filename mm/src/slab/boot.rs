//! How the slab allocator comes up: [`Slabs::new`] and [`Slabs::start`]; and how one on a machine
//! of a test goes down: [`Slabs::stop`].

use core::{
    cell::UnsafeCell,
    fmt,
    mem::MaybeUninit,
    ptr::{NonNull, null_mut},
};

use platform::{
    MAX_NODES,
    sync::{AtomicPtr, Ordering},
};
use rcu::Rcu;

use super::{
    Flags, KmemCache, Machine, Slabs, Spec, arrows, create,
    create::Plan,
    debug, deferred, discard,
    kmalloc::size::{NAMES, SIZES, align_of},
    late::Gone,
    linger::Lingering,
    node::Node,
    quarantine,
    records::Records,
    registry::Registry,
};
use crate::{Gfp, Mm, kvfree_rcu::KvfreeRcu};

/// There was no memory for the caches that the allocator itself needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoStart;

impl fmt::Display for NoStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory for the first slab caches")
    }
}

impl core::error::Error for NoStart {}

/// A cache that others are made of, with its parts on nodes, which lie here since there is no
/// cache that they could come from.
struct BootCache<M: Machine> {
    cache: UnsafeCell<MaybeUninit<KmemCache<M>>>,
    nodes: [UnsafeCell<MaybeUninit<Node<M>>>; MAX_NODES],
}

impl<M: Machine> BootCache<M> {
    #[inline]
    fn at(&self) -> NonNull<KmemCache<M>> {
        // SAFETY: the address of a part of this.
        unsafe { NonNull::new_unchecked(self.cache.get().cast()) }
    }
}

/// The two caches that descriptors come from.
pub(crate) struct BootCaches<M: Machine> {
    /// `kmem_cache`: of [`KmemCache`]s.
    cache: BootCache<M>,
    /// `kmem_cache_node`: of [`Node`]s.
    node: BootCache<M>,
}

impl<M: Machine> Slabs<M> {
    /// An allocator without caches, until [`start`](Self::start).
    ///
    /// # Safety
    ///
    /// `mm` outlives this, and stays where it is. Nothing but [`start`](Self::start),
    /// [`set_merging`](Self::set_merging) and the switches of debugging is called before
    /// that has returned `Ok`.
    pub unsafe fn new(mm: &Mm<M>) -> Self {
        let mut place = MaybeUninit::uninit();
        // SAFETY: as the caller promises; all of it is written.
        unsafe {
            Self::new_in(&mut place, mm);
            place.assume_init()
        }
    }

    /// [`new`](Self::new) in its place: it is too large to be moved about on a stack of the
    /// kernel's.
    ///
    /// # Safety
    ///
    /// As for [`new`](Self::new).
    #[inline(never)]
    pub unsafe fn new_in<'a>(place: &'a mut MaybeUninit<Self>, mm: &Mm<M>) -> &'a Self {
        // A field that is added has to be written below: this does not compile without it.
        let _ = |all: &Self| {
            let Self {
                mm: _,
                frames: _,
                rcu: _,
                early_discards: _,
                arrows: _,
                deferred: _,
                kvfree_rcu: _,
                debug: _,
                quarantine: _,
                registry: _,
                gone: _,
                lingering: _,
                records: _,
                boot: _,
                kmalloc: _,
            } = all;
        };
        let this = place.as_mut_ptr();
        // SAFETY: parts of `place`, each written once. What is left out, memory for the first
        // caches, may be anything.
        unsafe {
            (&raw mut (*this).mm).write(NonNull::from(mm));
            (&raw mut (*this).frames).write(*mm.frames());
            (&raw mut (*this).rcu).write(AtomicPtr::new(null_mut()));
            (&raw mut (*this).early_discards).write(discard::EarlyDiscards::default());
            (&raw mut (*this).arrows).write(arrows::Arrows::new());
            (&raw mut (*this).deferred).write(deferred::Deferred::new());
            KvfreeRcu::new_in(&raw mut (*this).kvfree_rcu);
            (&raw mut (*this).debug).write(debug::Switches::new());
            (&raw mut (*this).quarantine).write(quarantine::Quarantine::new());
            (&raw mut (*this).registry).write(Registry::new());
            (&raw mut (*this).gone).write(Gone::new());
            (&raw mut (*this).lingering).write(Lingering::new());
            (&raw mut (*this).records).write(Records::new());
            place.assume_init_ref()
        }
    }

    /// Makes the caches that there always are. There is dynamic per-CPU memory; the CPU that
    /// runs this is alone. Does not sleep.
    ///
    /// # Errors
    ///
    /// [`NoStart`]; nothing is left of it.
    ///
    /// # Safety
    ///
    /// Called once, or again after an error. From now on the allocator stays where it is, for as long as anything of
    /// it is used.
    pub unsafe fn start(&self) -> Result<(), NoStart> {
        self.deferred.settle_in(self);
        self.kvfree_rcu.settle_in(self);
        // SAFETY: in this order: what follows is made of what came before; nobody else is there.
        let started = unsafe {
            self.make_boot_cache(&self.boot.node, "kmem_cache_node", size_of::<Node<M>>())
                && self.make_boot_cache(&self.boot.cache, "kmem_cache", size_of::<KmemCache<M>>())
                && self.make_kmalloc_caches()
        };
        if !started {
            // SAFETY: nobody has used it.
            unsafe { self.stop() };
            return Err(NoStart);
        }
        self.start_sheaves();
        Ok(())
    }

    /// One of the caches of descriptors. `false`: no memory.
    ///
    /// # Safety
    ///
    /// Nobody else uses the allocator, and the cache is not there.
    unsafe fn make_boot_cache(&self, boot: &BootCache<M>, name: &str, size: usize) -> bool {
        let flags = Flags::NO_SHEAVES | Flags::HWCACHE_ALIGN | Flags::PANIC;
        let plan = Plan::new(self, &Spec::new(name, size).flags(flags));
        let plan = plan.expect("descriptors are sound objects");
        let at = boot.at();
        let node_of = |id: platform::NodeId| NonNull::new(boot.nodes[id.index()].get().cast());
        // SAFETY: memory that is there for this; only the caller uses it.
        unsafe {
            if !self.make_at(at, &plan, node_of) {
                return false;
            }
            self.registry.link(at.as_ref());
        }
        true
    }

    /// The caches of kmalloc, without sheaves: these come from them. `false`: no memory.
    ///
    /// # Safety
    ///
    /// Nobody else uses the allocator; the caches of descriptors are there, and these are not.
    unsafe fn make_kmalloc_caches(&self) -> bool {
        for (class, (name, size)) in NAMES.iter().zip(SIZES).enumerate() {
            let spec = Spec::new(name, size)
                .align(align_of(class))
                .flags(Flags::KMALLOC)
                .sheaf_capacity(0);
            let plan = Plan::new(self, &spec).expect("the sizes of kmalloc are sound");
            let at = self.kmalloc.at(class);
            let node_of = |id| {
                let node = self.node_cache().alloc_node(Gfp::NOWAIT, id)?;
                Some(node.cast())
            };
            // SAFETY: memory that is there for this; only the caller uses it.
            unsafe {
                if !self.make_at(at, &plan, node_of) {
                    return false;
                }
                self.registry.link(at.as_ref());
            }
        }
        true
    }

    /// Sheaves for all caches that are to have some.
    fn start_sheaves(&self) {
        // SAFETY: nobody takes a cache apart: there is nobody else.
        for cache in unsafe { self.caches_unlocked() } {
            if !cache.flags.intersects(Flags::NO_SHEAVES | Flags::DEBUG) {
                let capacity = create::default_capacity(cache.layout.size as usize);
                // Relaxed: no other CPU runs, or those that do are given this later.
                cache.sheaf_capacity.store(capacity, Ordering::Relaxed);
            }
        }
    }

    /// From now on there are grace periods to wait for. Until then, slabs that are to wait for one wait for this. May sleep.
    ///
    /// # Safety
    ///
    /// The engine outlives this, and so do its callbacks. No cache is being destroyed meanwhile: that it is not waited for,
    /// or is, is decided once.
    pub unsafe fn set_rcu(&self, rcu: &Rcu<M>) {
        // Release pairs with the Acquire of `rcu`.
        let engine = core::ptr::from_ref(rcu).cast_mut();
        self.rcu.store(engine, Ordering::Release);
        self.call_early_discards();
        self.begin_kvfree_rcu();
    }

    /// The cache of descriptors of caches.
    #[inline]
    pub(crate) fn cache_cache(&self) -> &KmemCache<M> {
        // SAFETY: it lives since `start`.
        unsafe { self.boot.cache.at().as_ref() }
    }

    /// The cache of their parts on nodes.
    #[inline]
    pub(crate) fn node_cache(&self) -> &KmemCache<M> {
        // SAFETY: it lives since `start`.
        unsafe { self.boot.node.at().as_ref() }
    }

    /// Takes everything apart, as far as it was started: sheaves, barns, all slabs that have no objects in use, and per-CPU
    /// memory. For machines of tests; that of a kernel is there for ever. May sleep if it was
    /// started. How many caches had objects in use: those of descriptors not counted.
    ///
    /// # Safety
    ///
    /// Nobody uses the allocator, or anything of it, any more; nothing but `start` is called after this. What
    /// waited for a grace period has gone.
    pub unsafe fn stop(&self) -> usize {
        self.sync_lingering();
        for cpu in M::possible_cpus().iter() {
            self.quarantine_drain(cpu, 0);
        }
        // SAFETY: nobody takes a cache apart but this.
        let all = || unsafe { self.caches_unlocked() };
        all().for_each(KmemCache::die);
        // Sheaves are of kmalloc, so their memory goes before the slabs that it is in.
        for cache in all() {
            // SAFETY: nobody uses the allocator.
            unsafe { cache.empty() };
        }
        let mut left = 0;
        // Newest first, so those that others are made of come last.
        while let Some(cache) = all().next() {
            for node in cache.all_nodes() {
                cache.shrink_node(node);
            }
            self.registry.unlink(cache);
            // Relaxed: nobody else is there.
            let in_use = cache
                .all_nodes()
                .any(|node| node.slabs.load(Ordering::Relaxed) > 0);
            let at = NonNull::from(cache);
            let is_boot = at == self.boot.cache.at() || at == self.boot.node.at();
            if in_use && !is_boot {
                left += 1;
            }
            // SAFETY: nobody uses it any more. Nodes of the first two lie in this; descriptors of those and kmalloc's, too.
            unsafe {
                if !is_boot {
                    self.free_nodes(&cache.nodes);
                }
                let inside = is_boot || (0..SIZES.len()).any(|class| at == self.kmalloc.at(class));
                at.drop_in_place();
                if !inside {
                    self.cache_cache().free(at.cast());
                }
            }
        }
        left
    }
}
