//! One slab: a block of pages cut into objects, as its head's frame descriptor says.
//!
//! | field of [`Frame`] | what is in it |
//! |---|---|
//! | `owner` | the cache ([`KmemCache`]); written before the slab is published, for its whole life |
//! | `pair[0]` | the [freelist word](super::word) |
//! | `pair[1]` | what debugging keeps with the slab (0: nothing) |
//! | `tag` | where the slab is, if the word does not say it ([`Place`]); changes under its node's list lock |
//! | `links` | its neighbours on the node's list, under that lock; later the first two words of the RCU head of a slab that waits for a grace period |
//! | `extra` | the third word of that head, in builds that have one; the records of allocation profiling otherwise |

use core::{fmt, ptr::NonNull};

use platform::sync::Ordering;

use super::{KmemCache, Machine, word::FreelistWord};
use crate::{
    Layout,
    frame::{Frame, FrameMap, PAGE_SHIFT, PAGE_SIZE, Pfn, State, Use},
};

/// Where a slab is. The [word](super::word) says whether it is on the list of partial slabs; `tag`
/// says the rest, and is written under the list lock, or while nobody else knows the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Place {
    /// On no list, without free objects; or in the hands of who makes it.
    Full = 0,
    /// On its node's list of partial slabs: with free objects, but for moments in which
    /// somebody refills from it.
    Partial = 1,
    /// (Debug caches) on its node's list of full slabs.
    DebugFull = 2,
    /// Empty, and waiting for a grace period.
    WaitsForRcu = 3,
}

impl Place {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::DebugFull => "full (debug)",
            Self::WaitsForRcu => "waiting for RCU",
        }
    }
}

/// A slab. A plain name for its head's descriptor: whoever has one knows that the slab lives.
pub struct Slab<M: Machine> {
    frame: NonNull<Frame>,
    map: FrameMap<M::Layout>,
}

impl<M: Machine> Clone for Slab<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Machine> Copy for Slab<M> {}

// SAFETY: a name; what it leads to is shared between CPUs by the protocols of the fields.
unsafe impl<M: Machine> Send for Slab<M> {}
// SAFETY: as above.
unsafe impl<M: Machine> Sync for Slab<M> {}

impl<M: Machine> Slab<M> {
    /// The slab whose head is `pfn`.
    ///
    /// # Safety
    ///
    /// `pfn` is the head of a block that is used for a slab, for as long as this is used.
    #[inline(always)]
    pub unsafe fn at(map: FrameMap<M::Layout>, pfn: Pfn) -> Self {
        // SAFETY: a frame of the machine's memory.
        let frame = NonNull::from(unsafe { map.at(pfn) });
        Self { frame, map }
    }

    /// The slab whose head has this descriptor.
    ///
    /// # Safety
    ///
    /// As for [`at`](Self::at).
    #[inline(always)]
    pub(crate) unsafe fn of_frame(map: FrameMap<M::Layout>, frame: NonNull<Frame>) -> Self {
        Self { frame, map }
    }

    /// The slab that an object of a slab lies in.
    ///
    /// # Safety
    ///
    /// `object` is an address in a slab that lives as long as this is used.
    #[inline(always)]
    pub unsafe fn of_object(map: FrameMap<M::Layout>, object: NonNull<u8>) -> Self {
        let number = (object.addr().get() - map.layout().direct_map()) >> PAGE_SHIFT;
        let pfn = Pfn(number as u32);
        // SAFETY: of the direct map. Heads and tails of a used block both name its order.
        let order = unsafe { map.at(pfn) }.word().order();
        // SAFETY: as the caller promises.
        unsafe { Self::at(map, pfn.align_down(order)) }
    }

    /// The slab that an address lies in, if it does. May be out of date at once, unless the
    /// caller owns something in it.
    pub fn of_address(map: FrameMap<M::Layout>, address: usize) -> Option<Self> {
        let (head, word) = map.head_of(map.pfn_of_address(address)?)?;
        // SAFETY: the head of a slab.
        (word.state() == State::Used(Use::Slab)).then(|| unsafe { Self::at(map, head) })
    }

    /// The descriptor of its head.
    #[inline(always)]
    pub fn frame(&self) -> &Frame {
        // SAFETY: descriptors are there for ever.
        unsafe { self.frame.as_ref() }
    }

    /// The number of its head.
    #[inline(always)]
    pub fn pfn(&self) -> Pfn {
        self.map.pfn_of(self.frame())
    }

    /// Its first byte.
    #[inline(always)]
    pub fn base(&self) -> NonNull<u8> {
        // SAFETY: the direct map does not begin at address 0.
        unsafe { NonNull::new_unchecked(self.map.address_of(self.pfn())) }
    }

    /// It has `2^order` pages.
    #[inline(always)]
    pub fn order(&self) -> usize {
        self.frame().word().order()
    }

    /// Its bytes.
    #[inline(always)]
    pub fn bytes(&self) -> usize {
        PAGE_SIZE << self.order()
    }

    /// Its cache.
    #[inline(always)]
    pub fn cache(&self) -> NonNull<KmemCache<M>> {
        // Relaxed: written before the slab was published.
        let cache = self.frame().owner.load(Ordering::Relaxed);
        let cache = core::ptr::with_exposed_provenance_mut(cache);
        // SAFETY: a slab's owner is its cache.
        unsafe { NonNull::new_unchecked(cache) }
    }

    /// What its descriptor has as its cache, for who looks without knowing whether it lives: a
    /// slab that is just made or gives its pages back has none.
    pub fn owner(&self) -> Option<NonNull<KmemCache<M>>> {
        // Relaxed: whoever needs to know looks whether there is such a cache.
        let owner = self.frame().owner.load(Ordering::Relaxed);
        NonNull::new(core::ptr::with_exposed_provenance_mut(owner))
    }

    /// Its freelist word.
    #[inline(always)]
    pub fn freelist(&self) -> &FreelistWord {
        FreelistWord::in_frame(&self.frame().pair[0])
    }

    /// Where it is. True under its node's list lock.
    pub fn place(&self) -> Place {
        // Relaxed: under the list lock, or a glance.
        match self.frame().tag.load(Ordering::Relaxed) {
            tag if tag == Place::DebugFull as u32 => Place::DebugFull,
            tag if tag == Place::WaitsForRcu as u32 => Place::WaitsForRcu,
            _ if self.freelist().load().is_listed() => Place::Partial,
            _ => Place::Full,
        }
    }

    /// Notes that it is, or is not, where the word does not say; under its node's list lock.
    pub(crate) fn set_place(&self, place: Place) {
        self.frame().tag.store(place as u32, Ordering::Relaxed);
    }

    /// Where `address` lies in it, in bytes.
    #[inline(always)]
    pub fn offset_of(&self, address: NonNull<u8>) -> usize {
        address.addr().get() - self.base().addr().get()
    }
}

impl<M: Machine> PartialEq for Slab<M> {
    fn eq(&self, other: &Self) -> bool {
        self.frame == other.frame
    }
}

impl<M: Machine> Eq for Slab<M> {}

impl<M: Machine> fmt::Debug for Slab<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "slab {} of order {}: {:?}, {}",
            self.pfn(),
            self.order(),
            self.freelist().load(),
            self.place().name()
        )
    }
}
