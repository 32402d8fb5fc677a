//! The functions by address, as Linux has them.

use core::{panic::Location, ptr::NonNull};

use super::{Kind, Request, Source, Vmalloc, later::Later};
use crate::{
    frame::{MAX_ORDER, PAGE_SIZE, Pfn, Use},
    gfp::Gfp,
    machine::{Access, Machine},
};

impl<M: Machine, S: Source> Vmalloc<M, S> {
    /// `size` bytes, rounded up to pages, with a guard page behind. A thread that may sleep.
    /// `None`: see [`Error`](super::Error); reported, unless the flags say not to.
    #[track_caller]
    pub fn vmalloc(&self, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        let area = self.alloc(&Request::new(size, gfp)).ok()?;
        Some(area.into_raw())
    }

    /// [`vmalloc`](Self::vmalloc), zeroed.
    #[track_caller]
    pub fn vzalloc(&self, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        self.vmalloc(size, gfp | Gfp::ZERO)
    }

    /// Frees what [`vmalloc`](Self::vmalloc) gave. An address that is not that of an area is
    /// reported. Any context; where it may not sleep, the first bytes of the memory are
    /// overwritten, and it is freed by the next thread that comes by (and what is wrong is
    /// found only then).
    ///
    /// # Safety
    ///
    /// Nobody uses the memory any more.
    #[track_caller]
    pub unsafe fn vfree(&self, address: NonNull<u8>) {
        let caller = Location::caller();
        let number = address.addr().get();
        if M::may_sleep() {
            self.free_now(number, Some(Kind::Vmalloc), caller);
        } else if !self.is_vmalloc(number) || !number.is_multiple_of(PAGE_SIZE) {
            self.bad_free(number, "not the beginning of an area", caller);
        } else {
            let entry = address.cast::<Later>();
            // SAFETY: a writable page that nobody uses any more, and large enough.
            unsafe {
                entry.write(Later::new());
                self.free_later(entry, number, caller);
            }
        }
    }

    /// Shows `frames` at adjacent addresses. See [`map`](Self::map).
    ///
    /// # Safety
    ///
    /// As for [`map`](Self::map).
    #[track_caller]
    pub unsafe fn vmap(&self, frames: &[Pfn], access: Access) -> Option<NonNull<u8>> {
        // SAFETY: as the caller promises.
        let area = unsafe { self.map(frames, access) }.ok()?;
        Some(area.into_raw())
    }

    /// Ends that. When it returns no CPU can reach the frames this way any more. A thread
    /// that may sleep.
    ///
    /// # Safety
    ///
    /// Nobody uses the addresses any more.
    #[track_caller]
    pub unsafe fn vunmap(&self, address: NonNull<u8>) {
        let caller = Location::caller();
        if M::CHECK_LOCKS {
            M::might_sleep(caller);
        }
        self.free_now(address.addr().get(), Some(Kind::Vmap), caller);
    }

    /// `size` bytes: one block of adjacent frames if there is one to be had without effort,
    /// else as [`vmalloc`](Self::vmalloc), if the context allows that.
    #[track_caller]
    pub fn kvmalloc(&self, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        let order = order_for(size)?;
        if order <= MAX_ORDER {
            // Blocks are worth no reclaim: pages will do.
            let easily = if order == 0 {
                gfp
            } else {
                gfp.difference(Gfp::RECLAIM) | Gfp::NOWARN
            };
            let block = self.source.alloc(None, easily, order, Use::Kmalloc);
            if let Some(pfn) = block {
                return NonNull::new(self.source.address_of(pfn));
            }
        }
        if order == 0 || !gfp.contains(Gfp::RECLAIM) || gfp.contains(Gfp::NOLOCK) {
            return None;
        }
        self.vmalloc(size, gfp)
    }

    /// Frees what [`kvmalloc`](Self::kvmalloc) gave. Any context but NMI.
    ///
    /// # Safety
    ///
    /// As for [`vfree`](Self::vfree).
    #[track_caller]
    pub unsafe fn kvfree(&self, address: NonNull<u8>) {
        let number = address.addr().get();
        if self.is_vmalloc(number) {
            // SAFETY: as the caller promises.
            return unsafe { self.vfree(address) };
        }
        match self.source.block_at(number) {
            // SAFETY: as the caller promises; the order is the block's own.
            Some((pfn, order, Use::Kmalloc)) => unsafe {
                self.source.free(pfn, order, Use::Kmalloc);
            },
            _ => self.bad_free(number, "nothing that kvmalloc gave", Location::caller()),
        }
    }
}

/// The order of the smallest block for `size` bytes; `None` for no bytes.
fn order_for(size: usize) -> Option<usize> {
    let last = size.checked_sub(1)? / PAGE_SIZE;
    Some((usize::BITS - last.leading_zeros()) as usize)
}
