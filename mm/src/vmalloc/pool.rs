//! Where descriptors of ranges come from: single pages, cut up.
//!
//! Pages are put in by who needs descriptors, with no lock held (getting one may sleep). A
//! page whose descriptors are all back is *retired*, to be freed by who comes by, but for one
//! that is kept: else a range taken and given back would cost a page each time.
//!
//! # Invariants
//!
//! A slot of a page is in its free list or handed out. Pages with free slots, and only they,
//! are in the list of open pages. A page begins with its [`Head`], so a slot's page is found
//! by rounding its address down.

use core::{
    mem::{align_of, size_of},
    ptr::NonNull,
};

use super::node::{Node, NodeRef, Range};
use crate::frame::{PAGE_SIZE, Pfn};

type Page = NonNull<Head>;

/// The beginning of a page of descriptors.
struct Head {
    next: Option<Page>,
    prev: Option<Page>,
    free: Option<NonNull<Slot>>,
    used: usize,
    pfn: Pfn,
}

/// A descriptor that nobody uses.
struct Slot {
    next: Option<NonNull<Slot>>,
}

const FIRST: usize = size_of::<Head>().next_multiple_of(align_of::<Node>());
/// Descriptors in a page.
pub(super) const SLOTS: usize = (PAGE_SIZE - FIRST) / size_of::<Node>();

const _: () = assert!(SLOTS >= 8 && size_of::<Node>() >= size_of::<Slot>());
const _: () = assert!(align_of::<Node>() >= align_of::<Slot>());

/// The pool.
pub(super) struct Pool {
    open: Option<Page>,
    /// Slots in free lists.
    spare: usize,
    /// Open pages of which no slot is in use: 0 or 1.
    empty: usize,
    retired: Option<Page>,
    /// Pages that the pool has, retired ones not counted.
    pub(super) pages: usize,
}

impl Pool {
    pub(super) const fn new() -> Self {
        Self {
            open: None,
            spare: 0,
            empty: 0,
            retired: None,
            pages: 0,
        }
    }

    /// Descriptors that can be taken now.
    pub(super) fn spare(&self) -> usize {
        self.spare
    }

    /// Adds a page.
    ///
    /// # Safety
    ///
    /// `memory` is a whole page, aligned, the caller's until now and the pool's until
    /// [`retired`](Self::retired) names `pfn`.
    pub(super) unsafe fn add(&mut self, memory: NonNull<u8>, pfn: Pfn) {
        let page = memory.cast::<Head>();
        let mut free = None;
        for index in (0..SLOTS).rev() {
            // SAFETY: within the page: see `SLOTS`.
            let slot = unsafe { memory.add(FIRST + index * size_of::<Node>()) }.cast::<Slot>();
            // SAFETY: the page is the pool's, and slots are aligned (asserted above).
            unsafe { slot.write(Slot { next: free }) };
            free = Some(slot);
        }
        let head = Head {
            next: None,
            prev: None,
            free,
            used: 0,
            pfn,
        };
        // SAFETY: as above.
        unsafe { page.write(head) };
        self.link(page);
        self.spare += SLOTS;
        self.pages += 1;
        self.empty += 1;
        // Two threads may have added one each.
        self.retire_surplus(page);
    }

    /// Takes a descriptor.
    pub(super) fn take(&mut self, start: usize, end: usize, state: Range) -> Option<NodeRef> {
        let mut page = self.open?;
        // SAFETY: open pages are the pool's; the borrow ends before any other.
        let head = unsafe { page.as_mut() };
        let slot = head.free?;
        // SAFETY: a slot in a free list is a valid `Slot`.
        head.free = unsafe { slot.as_ref() }.next;
        if head.used == 0 {
            self.empty -= 1;
        }
        head.used += 1;
        self.spare -= 1;
        if head.free.is_none() {
            self.unlink(page);
        }
        let node = slot.cast::<Node>();
        // SAFETY: the slot is nobody else's now, large and aligned enough.
        unsafe { node.write(Node::new(start, end, state)) };
        // SAFETY: it lives until it is given back.
        Some(unsafe { NodeRef::new(node) })
    }

    /// Takes a descriptor back. Nobody has a reference to it any more.
    pub(super) fn give(&mut self, node: NodeRef) {
        let node = node.as_ptr();
        let offset = node.addr().get() % PAGE_SIZE;
        // SAFETY: descriptors lie in pages that begin with a head.
        let mut page: Page = unsafe { node.byte_sub(offset) }.cast();
        let slot = node.cast::<Slot>();
        // SAFETY: the page is the pool's while one of its slots is handed out.
        let head = unsafe { page.as_mut() };
        let was_full = head.free.is_none();
        // SAFETY: the slot is back; a `Node` has nothing to drop.
        unsafe { slot.write(Slot { next: head.free }) };
        head.free = Some(slot);
        head.used -= 1;
        let is_empty = head.used == 0;
        self.spare += 1;
        if was_full {
            self.link(page);
        }
        if is_empty {
            self.empty += 1;
            self.retire_surplus(page);
        }
    }

    /// A page to be freed, if there is one.
    pub(super) fn retired(&mut self) -> Option<Pfn> {
        let page = self.retired?;
        // SAFETY: retired pages are the pool's until this hands them out.
        let head = unsafe { page.as_ref() };
        self.retired = head.next;
        Some(head.pfn)
    }

    /// Retires the empty page that was kept, at the end, when no slot is in use.
    pub(super) fn retire_empty(&mut self) {
        if let Some(page) = self.open
            && self.empty == 1
            && self.pages == 1
        {
            self.retire(page);
        }
    }

    /// Retires an open page without used slots if there is another.
    fn retire_surplus(&mut self, page: Page) {
        if self.empty > 1 {
            self.retire(page);
        }
    }

    fn retire(&mut self, mut page: Page) {
        self.unlink(page);
        self.empty -= 1;
        self.spare -= SLOTS;
        self.pages -= 1;
        // SAFETY: the pool's, and on no list.
        unsafe { page.as_mut() }.next = self.retired;
        self.retired = Some(page);
    }

    fn link(&mut self, mut page: Page) {
        let next = self.open.replace(page);
        // SAFETY: pages of the pool, one borrow at a time.
        unsafe {
            page.as_mut().prev = None;
            page.as_mut().next = next;
            if let Some(mut next) = next {
                next.as_mut().prev = Some(page);
            }
        }
    }

    fn unlink(&mut self, mut page: Page) {
        // SAFETY: pages of the pool, one borrow at a time.
        unsafe {
            let (prev, next) = (page.as_mut().prev.take(), page.as_mut().next.take());
            match prev {
                Some(mut prev) => prev.as_mut().next = next,
                None => self.open = next,
            }
            if let Some(mut next) = next {
                next.as_mut().prev = prev;
            }
        }
    }
}
