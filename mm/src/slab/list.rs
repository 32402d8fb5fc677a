//! Lists of slabs, linked through the descriptors of their heads.

use core::{marker::PhantomData, ptr::NonNull};

use platform::sync::Ordering;

use super::{Machine, Slab};
use crate::frame::{Frame, FrameMap};

/// A doubly linked list of slabs, through [`Frame::links`]: the address of the frame before, and of that
/// behind; 0: the end. The links of listed slabs belong to who owns the list.
#[derive(Debug, Default)]
pub(crate) struct SlabList {
    first: Option<NonNull<Frame>>,
    last: Option<NonNull<Frame>>,
    len: usize,
}

// SAFETY: the links of listed slabs belong to who owns the list.
unsafe impl Send for SlabList {}

#[inline(always)]
fn frame_at(address: usize) -> Option<NonNull<Frame>> {
    NonNull::new(core::ptr::with_exposed_provenance_mut(address))
}

#[inline(always)]
fn address_of(frame: Option<NonNull<Frame>>) -> usize {
    frame.map_or(0, |frame| frame.as_ptr().expose_provenance())
}

/// The places in [`Frame::links`].
pub(super) const BEFORE: usize = 0;
pub(super) const BEHIND: usize = 1;

#[inline(always)]
fn link(frame: NonNull<Frame>, which: usize) -> Option<NonNull<Frame>> {
    // SAFETY: descriptors are there for ever. Relaxed: the list has one owner at a time.
    frame_at(unsafe { frame.as_ref() }.links[which].load(Ordering::Relaxed))
}

#[inline(always)]
fn set_link(frame: NonNull<Frame>, which: usize, to: Option<NonNull<Frame>>) {
    // SAFETY: as above. Relaxed: as above.
    unsafe { frame.as_ref() }.links[which].store(address_of(to), Ordering::Relaxed);
}

impl SlabList {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            first: None,
            last: None,
            len: 0,
        }
    }

    /// Slabs in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Its first and its last frame, for who checks it.
    pub(super) fn ends(&self) -> [Option<NonNull<Frame>>; 2] {
        [self.first, self.last]
    }

    /// Puts a slab, which is on no list, at the front.
    #[inline]
    pub fn push_front<M: Machine>(&mut self, slab: Slab<M>) {
        let frame = NonNull::from(slab.frame());
        set_link(frame, BEFORE, None);
        set_link(frame, BEHIND, self.first);
        match self.first {
            Some(first) => set_link(first, BEFORE, Some(frame)),
            None => self.last = Some(frame),
        }
        self.first = Some(frame);
        self.len += 1;
    }

    /// Puts a slab, which is on no list, at the end.
    #[inline]
    pub fn push_back<M: Machine>(&mut self, slab: Slab<M>) {
        let frame = NonNull::from(slab.frame());
        set_link(frame, BEFORE, self.last);
        set_link(frame, BEHIND, None);
        match self.last {
            Some(last) => set_link(last, BEHIND, Some(frame)),
            None => self.first = Some(frame),
        }
        self.last = Some(frame);
        self.len += 1;
    }

    /// Takes out a slab, which is on this list.
    #[inline]
    pub fn remove<M: Machine>(&mut self, slab: Slab<M>) {
        let frame = NonNull::from(slab.frame());
        let (before, behind) = (link(frame, BEFORE), link(frame, BEHIND));
        match before {
            Some(before) => set_link(before, BEHIND, behind),
            None => self.first = behind,
        }
        match behind {
            Some(behind) => set_link(behind, BEFORE, before),
            None => self.last = before,
        }
        self.len -= 1;
    }

    /// Takes out the first one.
    #[inline]
    pub fn pop_front<M: Machine>(&mut self, map: FrameMap<M::Layout>) -> Option<Slab<M>> {
        let slab = self.iter(map).next()?;
        self.remove(slab);
        Some(slab)
    }

    /// Puts all of `other`, which is then empty, at the front, in their order.
    pub fn prepend(&mut self, other: &mut Self) {
        let Self { first, last, len } = core::mem::take(other);
        let (Some(first), Some(last)) = (first, last) else {
            return;
        };
        set_link(last, BEHIND, self.first);
        match self.first {
            Some(behind) => set_link(behind, BEFORE, Some(last)),
            None => self.last = Some(last),
        }
        self.first = Some(first);
        self.len += len;
    }

    /// The slabs, from the front; the current one may be removed meanwhile.
    #[inline]
    pub fn iter<M: Machine>(&self, map: FrameMap<M::Layout>) -> Slabs<M> {
        Slabs {
            next: self.first,
            map,
            machine: PhantomData,
        }
    }
}

/// What [`SlabList::iter`] gives.
pub(crate) struct Slabs<M: Machine> {
    next: Option<NonNull<Frame>>,
    map: FrameMap<M::Layout>,
    machine: PhantomData<M>,
}

impl<M: Machine> Iterator for Slabs<M> {
    type Item = Slab<M>;

    #[inline]
    fn next(&mut self) -> Option<Slab<M>> {
        let frame = self.next?;
        self.next = link(frame, BEHIND);
        // SAFETY: what is on a list is the head of a slab that lives.
        Some(unsafe { Slab::of_frame(self.map, frame) })
    }
}
