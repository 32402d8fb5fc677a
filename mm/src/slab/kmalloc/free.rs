//! kfree: whose an address is follows from its frame.

use core::{panic::Location, ptr::NonNull};

use super::{
    super::{Machine, Mode, Slab, Slabs},
    ZERO_SIZE,
};
use crate::{
    Layout,
    frame::{PAGE_SHIFT, PAGE_SIZE, Pfn, State, Use},
};

/// What is at an address of kmalloc.
pub(crate) enum At<M: Machine> {
    /// An object, or a place inside one.
    Slab(Slab<M>),
    /// A block of pages.
    Large(Pfn, usize),
    /// [`ZERO_SIZE`].
    Nothing,
    /// Something else.
    Wrong,
}

impl<M: Machine> Slabs<M> {
    /// The slab that an object lies in; `None`: it lies in none.
    #[inline(always)]
    pub(crate) fn slab_of(&self, memory: NonNull<u8>) -> Option<Slab<M>> {
        let map = self.frames;
        let offset = memory.addr().get().wrapping_sub(map.layout().direct_map());
        let number = offset >> PAGE_SHIFT;
        // Also for what lies below the direct map, such as `ZERO_SIZE`.
        if number >= map.end().index() {
            return None;
        }
        let pfn = Pfn(number as u32);
        // SAFETY: below the end.
        let word = unsafe { map.at(pfn) }.word();
        // Head and tails of a block that is used name its order; others name orders, too.
        let head = pfn.align_down(word.order());
        // SAFETY: not above `pfn`; and if it is the head of a slab, that lives as long as the
        // object, which is the caller's.
        unsafe {
            let is_slab = map.at(head).word().is(State::Used(Use::Slab));
            is_slab.then(|| Slab::at(map, head))
        }
    }

    /// What is at `memory`.
    pub(crate) fn at(&self, memory: NonNull<u8>) -> At<M> {
        if let Some(slab) = self.slab_of(memory) {
            return At::Slab(slab);
        }
        if memory == ZERO_SIZE {
            return At::Nothing;
        }
        let (address, map) = (memory.addr().get(), self.mm().frames());
        let word = map
            .pfn_of_address(address)
            .and_then(|pfn| Some((pfn, map.get(pfn)?.word())));
        match word {
            Some((pfn, word))
                if word.is(State::Used(Use::Kmalloc)) && address.is_multiple_of(PAGE_SIZE) =>
            {
                At::Large(pfn, word.order())
            }
            _ => At::Wrong,
        }
    }

    /// Frees what a function of the kmalloc family gave, or an object of any cache. Nothing, for
    /// [`ZERO_SIZE`]. A wrong address is reported. Any context but NMI.
    ///
    /// # Safety
    ///
    /// It is the caller's, and not used any more.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn kfree(&self, memory: NonNull<u8>) {
        match self.slab_of(memory) {
            // SAFETY: as the caller promises; the object keeps its slab, and that its cache.
            Some(slab) => unsafe { slab.cache().as_ref().free(memory) },
            None => self.kfree_odd(memory, Mode::Spin, Location::caller()),
        }
    }

    /// [`kfree`](Self::kfree) for any context, NMI too, with any lock held: now or soon.
    ///
    /// # Safety
    ///
    /// As [`kfree`](Self::kfree).
    #[inline]
    #[track_caller]
    pub unsafe fn kfree_nolock(&self, memory: NonNull<u8>) {
        match self.slab_of(memory) {
            // SAFETY: as above.
            Some(slab) => unsafe { slab.cache().as_ref().free_nolock(memory) },
            None => self.kfree_odd(memory, Mode::NoLock, Location::caller()),
        }
    }

    /// Frees what is no object of a slab.
    #[cold]
    #[inline(never)]
    fn kfree_odd(&self, memory: NonNull<u8>, mode: Mode, caller: &'static Location<'static>) {
        match self.at(memory) {
            // SAFETY: the caller's to free, and of this order and use by its own word.
            At::Large(pfn, order) => unsafe {
                match mode {
                    Mode::Spin => self.mm().free_pages(pfn, order, Use::Kmalloc),
                    Mode::NoLock => self.mm().free_pages_nolock(pfn, order, Use::Kmalloc),
                }
            },
            At::Nothing => {}
            At::Slab(_) | At::Wrong => self.bad_address(memory, caller),
        }
    }
}
