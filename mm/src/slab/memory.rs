//! The memory of sheaves. It comes from kmalloc, whose caches have sheaves, too: so that
//! nothing recurses, neither function here makes or frees a further sheaf.

use core::ptr::NonNull;

use super::{
    KmemCache, Machine, Mode, Slab, barn::Stack, kmalloc::MAX_CACHED, sheaf::Sheaf, stats::Stat,
};
use crate::Gfp;

impl<M: Machine> KmemCache<M> {
    /// Objects of the cache's sheaves; 0: it has none (yet).
    #[inline(always)]
    pub(crate) fn capacity(&self) -> u32 {
        // Relaxed: it changes once, and a sheaf knows its own.
        self.sheaf_capacity.load(platform::sync::Ordering::Relaxed)
    }

    /// An empty sheaf for the cache's CPUs and barns, if there is memory at hand. Any context
    /// but NMI, no lock of the slab allocator held.
    pub(crate) fn new_sheaf(&self) -> Option<NonNull<Sheaf>> {
        match self.capacity() {
            0 => None,
            capacity => self.new_sheaf_of(capacity, Gfp::NOWAIT),
        }
    }

    /// An empty sheaf with room for `capacity` objects. Context as `gfp` says, no lock of the
    /// slab allocator held.
    pub(crate) fn new_sheaf_of(&self, capacity: u32, gfp: Gfp) -> Option<NonNull<Sheaf>> {
        let gfp = gfp.difference(Gfp::ZERO | Gfp::THISNODE | Gfp::DMA32);
        let gfp = gfp | Gfp::NO_SHEAF | Gfp::NOWARN;
        let memory = self.slabs().kmalloc(Sheaf::bytes(capacity), gfp)?;
        self.count(Stat::SheafAlloc);
        self.keeps_sheaf();
        // SAFETY: just allocated, of that size; kmalloc aligns to 8 at least.
        Some(unsafe { Sheaf::init(memory, capacity) })
    }

    /// Frees a sheaf's memory. Any context but NMI, no lock of the slab allocator held.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf: a real one, without objects.
    pub(crate) unsafe fn free_sheaf(&self, sheaf: NonNull<Sheaf>) {
        self.count(Stat::SheafFree);
        self.parts_with_sheaf();
        let memory = sheaf.cast::<u8>();
        // SAFETY: the caller's, of kmalloc. What is not from a cache is from pages.
        unsafe {
            if Sheaf::bytes(Sheaf::capacity(sheaf)) > MAX_CACHED {
                return self.slabs().kfree(memory);
            }
            let slab = Slab::<M>::of_object(*self.slabs().mm().frames(), memory);
            slab.cache().as_ref().free_plainly(slab, memory);
        }
    }

    /// Frees all sheaves of a stack, which are empty.
    ///
    /// # Safety
    ///
    /// As for [`free_sheaf`](Self::free_sheaf), for each of them.
    pub(crate) unsafe fn free_sheaves(&self, mut sheaves: Stack) {
        while let Some(sheaf) = sheaves.pop() {
            // SAFETY: the stack owned it.
            unsafe { self.free_sheaf(sheaf) };
        }
    }

    /// Frees the objects of a sheaf, which is empty then. Any context but NMI, no lock of the slab
    /// allocator held.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf.
    pub(crate) unsafe fn flush_sheaf(&self, sheaf: NonNull<Sheaf>) {
        // SAFETY: the caller's, with the objects in it.
        unsafe {
            let objects = Sheaf::filled_mut(sheaf);
            if objects.is_empty() {
                return;
            }
            self.count_many(Stat::SheafFlush, objects.len());
            self.flush(objects, Mode::Spin);
            Sheaf::set_len(sheaf, 0);
        }
    }

    /// Keeps an empty sheaf in the barn of `home`, or frees it. Any context but NMI, no lock of
    /// the slab allocator held.
    ///
    /// # Safety
    ///
    /// As for [`free_sheaf`](Self::free_sheaf).
    pub(crate) unsafe fn keep_empty(&self, sheaf: NonNull<Sheaf>, home: u32) {
        let barn = self.home_node(home).map(|node| &node.barn);
        // SAFETY: the caller's; still, if the barn refuses it.
        unsafe {
            if barn.is_none_or(|barn| barn.put_empty(sheaf, Mode::Spin).is_err()) {
                self.free_sheaf(sheaf);
            }
        }
    }
}
