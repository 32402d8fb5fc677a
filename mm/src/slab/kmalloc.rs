//! kmalloc: memory of any size.
//!
//! Small sizes come from caches of 8 to 8192 bytes ([`size`]), larger ones straight from pages. What was
//! allocated by any function here is freed by [`Slabs::kfree`] (and
//! [`Slabs::kfree_nolock`]), which finds out by the frame.
//!
//! | size | from | aligned to |
//! |---|---|---|
//! | 0 | nowhere: [`ZERO_SIZE`] | |
//! | up to [`MAX_CACHED`] | the smallest cache that does | what that is aligned to: the power of two that divides its size, up to a page |
//! | up to the largest block of pages | pages, rounded up to a power of two | the same |

mod free;
mod large;
mod nolock;
mod resize;
pub mod size;
mod virt;

use core::{cell::UnsafeCell, mem::MaybeUninit, panic::Location, ptr::NonNull};

use platform::NodeId;

use super::{Hooks, KmemCache, Machine, Mode, Slabs, alloc::Found, percpu::SheavesGuard};
use crate::Gfp;
pub(crate) use free::At;
pub use size::{MAX_CACHED, SIZES};

/// What an allocation of 0 bytes gives, as in Linux: not null, and no memory; may be freed.
pub const ZERO_SIZE: NonNull<u8> =
    NonNull::without_provenance(core::num::NonZero::new(16).unwrap());

/// The caches; they lie here, so that their addresses are constants where the allocator is a
/// static.
pub(crate) struct KmallocCaches<M: Machine>([UnsafeCell<MaybeUninit<KmemCache<M>>>; SIZES.len()]);

impl<M: Machine> KmallocCaches<M> {
    /// Where the cache of a class lies.
    #[inline(always)]
    pub fn at(&self, class: usize) -> NonNull<KmemCache<M>> {
        // SAFETY: the address of a part of this.
        unsafe { NonNull::new_unchecked(self.0[class].get().cast()) }
    }
}

impl<M: Machine> Slabs<M> {
    /// Memory of at least `size` bytes, aligned to 8, and to `size` if that is a power of two
    /// (up to a page; what is larger than [`MAX_CACHED`], to its own); [`ZERO_SIZE`] for 0. `None`: no memory (reported, unless `gfp` says not to). Any
    /// context that `gfp` is for, but NMI.
    #[inline(always)]
    #[track_caller]
    pub fn kmalloc(&self, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        let Some(cache) = self.kmalloc_cache(size) else {
            return self.kmalloc_odd(size, gfp, None);
        };
        let caller = Location::caller();
        // An object of a sheaf is of no debug cache, so nothing is to be noted of it.
        cache.alloc_or(gfp, caller, |sheaves| {
            cache.kmalloc_slowly(sheaves, size, gfp, caller)
        })
    }

    /// [`kmalloc`](Self::kmalloc), of `node` if that has some (only then, with `THISNODE`).
    #[track_caller]
    pub fn kmalloc_node(&self, size: usize, gfp: Gfp, node: NodeId) -> Option<NonNull<u8>> {
        let Some(cache) = self.kmalloc_cache(size) else {
            return self.kmalloc_odd(size, gfp, Some(node));
        };
        let object = cache.alloc_node(gfp, node)?;
        cache.note_size(object, size);
        Some(object)
    }

    /// [`kmalloc`](Self::kmalloc) of zeros.
    #[inline]
    #[track_caller]
    pub fn kzalloc(&self, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        self.kmalloc(size, gfp | Gfp::ZERO)
    }

    /// [`kmalloc`](Self::kmalloc) of `count * size` bytes; `None` also if that is no number.
    #[inline]
    #[track_caller]
    pub fn kmalloc_array(&self, count: usize, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        self.kmalloc(count.checked_mul(size)?, gfp)
    }

    /// [`kmalloc_array`](Self::kmalloc_array) of zeros.
    #[inline]
    #[track_caller]
    pub fn kcalloc(&self, count: usize, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        self.kmalloc_array(count, size, gfp | Gfp::ZERO)
    }

    /// The cache that kmalloc takes `size` bytes from: `None` for 0, and beyond [`MAX_CACHED`].
    #[inline(always)]
    pub fn kmalloc_cache(&self, size: usize) -> Option<&KmemCache<M>> {
        let class = size::class_of(size)?;
        // SAFETY: the caches live since `start`, before which nothing is called.
        Some(unsafe { self.kmalloc.at(class).as_ref() })
    }

    /// What no cache is for.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn kmalloc_odd(&self, size: usize, gfp: Gfp, node: Option<NodeId>) -> Option<NonNull<u8>> {
        if size == 0 {
            return Some(ZERO_SIZE);
        }
        self.kmalloc_large(size, gfp, node)
    }
}

impl<M: Machine> KmemCache<M> {
    /// An object, where the CPU's main sheaf has none.
    #[cold]
    #[inline(never)]
    fn kmalloc_slowly(
        &self,
        sheaves: Option<SheavesGuard<'_, M>>,
        size: usize,
        gfp: Gfp,
        caller: &'static Location<'static>,
    ) -> Option<NonNull<u8>> {
        let object = match sheaves {
            None => self.alloc_slowly(Found::Taken, gfp, caller),
            Some(sheaves) => self.alloc_from_empty(sheaves, gfp, caller),
        }?;
        self.note_size(object, size);
        Some(object)
    }

    /// Notes what was asked for, where that is kept.
    #[inline(always)]
    fn note_size(&self, object: NonNull<u8>, size: usize) {
        if self.hooks().contains(Hooks::DEBUG) {
            self.note_size_slow(object, size, Mode::Spin);
        }
    }

    #[cold]
    #[inline(never)]
    fn note_size_slow(&self, object: NonNull<u8>, size: usize, mode: Mode) {
        if self.keeps_requested() {
            // SAFETY: just allocated, from a cache whose objects are no smaller.
            unsafe { self.note_requested(object, size, mode) };
        }
    }
}

impl<M: Machine> Slabs<M> {
    /// Says that an address was given that is not kmalloc's.
    #[cold]
    #[inline(never)]
    pub(crate) fn bad_address(&self, memory: NonNull<u8>, caller: &'static Location<'static>) {
        let map = self.mm().frames();
        let pfn = map.pfn_of_address(memory.addr().get());
        let word = pfn.and_then(|pfn| Some(map.get(pfn)?.word()));
        match word {
            Some(word) => self.mm().report(
                crate::report::Kind::BadKmallocAddress,
                pfn,
                format_args!("{memory:?}: {word:?}"),
                caller,
            ),
            None => self.mm().report(
                crate::report::Kind::BadKmallocAddress,
                None,
                format_args!("{memory:?}: no address of memory"),
                caller,
            ),
        }
    }
}
