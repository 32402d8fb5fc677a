//! Descriptors of ranges of addresses.
//!
//! # Invariants
//!
//! A [`NodeRef`] points to a live [`Node`] from when the pool hands it out until the pool has
//! it back. All fields but `later` are used only with the areas lock held, but for those of
//! `info` and `frames`, which belong to the thread that moves the node while its state says
//! so (`Claimed`, `Leaving`, `Purging`), and are handed over under the lock.

use core::{cell::Cell, ops::Deref, panic::Location, ptr::NonNull};

use super::{frames::Frames, later::Later};
use crate::{frame::Use, machine::Access};

/// What a range of addresses is. The table of moves is in [`vmalloc`](super).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Nobody's; no CPU has translations of it.
    Free,
    /// Being filled by who asked for it.
    Claimed,
    /// An area.
    Busy,
    /// An area that is being unmapped by who freed it.
    Leaving,
    /// Unmapped; CPUs may still have translations.
    Lazy,
    /// Unmapped, and on the way to be free: the purger has it.
    Purging,
}

/// Whose the frames of an area are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The area's: allocated and freed with it.
    Vmalloc,
    /// Given to [`vmap`](super::Vmalloc::vmap): they stay whose they were.
    Vmap,
}

/// What an area is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    pub(super) kind: Kind,
    pub(super) usage: Use,
    pub(super) access: Access,
    /// Pages below and above that are never mapped.
    pub(super) guard_below: u32,
    pub(super) guard_above: u32,
    /// Bytes that were asked for.
    pub(super) size: usize,
    pub(super) caller: &'static Location<'static>,
}

/// A range of addresses: a node of the tree, an element of the list by address, and of the
/// list of lazy ranges.
pub(super) struct Node {
    pub(super) start: Cell<usize>,
    pub(super) end: Cell<usize>,
    pub(super) state: Cell<Range>,
    /// Of the subtree.
    pub(super) height: Cell<u8>,
    pub(super) left: Cell<Link>,
    pub(super) right: Cell<Link>,
    /// The size of the largest free range in the subtree.
    pub(super) largest: Cell<usize>,
    /// Neighbours by address.
    pub(super) below: Cell<Link>,
    pub(super) above: Cell<Link>,
    /// The next in the lazy list, or in the purger's.
    pub(super) chain: Cell<Link>,
    pub(super) frames: Cell<Frames>,
    /// Meaningful from `Claimed` to `Purging`.
    pub(super) info: Cell<Option<Info>>,
    /// For a free from where nothing may be locked.
    pub(super) later: Later,
}

/// A node, or none.
pub(super) type Link = Option<NodeRef>;

/// A pointer to a node. See the module for what it promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeRef(NonNull<Node>);

impl NodeRef {
    /// # Safety
    ///
    /// As the module says.
    pub(super) unsafe fn new(node: NonNull<Node>) -> Self {
        Self(node)
    }

    pub(super) fn as_ptr(self) -> NonNull<Node> {
        self.0
    }
}

impl Deref for NodeRef {
    type Target = Node;

    fn deref(&self) -> &Node {
        // SAFETY: invariant of the type: the node lives.
        unsafe { self.0.as_ref() }
    }
}

impl Node {
    /// A node of nothing yet.
    pub(super) fn new(start: usize, end: usize, state: Range) -> Self {
        Self {
            start: Cell::new(start),
            end: Cell::new(end),
            state: Cell::new(state),
            height: Cell::new(1),
            left: Cell::new(None),
            right: Cell::new(None),
            largest: Cell::new(0),
            below: Cell::new(None),
            above: Cell::new(None),
            chain: Cell::new(None),
            frames: Cell::new(Frames::NONE),
            info: Cell::new(None),
            later: Later::new(),
        }
    }

    /// Bytes of the range.
    pub(super) fn size(&self) -> usize {
        self.end.get() - self.start.get()
    }

    /// Bytes that count for the tree's search.
    pub(super) fn free_size(&self) -> usize {
        match self.state.get() {
            Range::Free => self.size(),
            _ => 0,
        }
    }

    /// The addresses of an area that are mapped: the range without its guards.
    pub(super) fn memory(&self) -> core::ops::Range<usize> {
        let (below, above) = self
            .info
            .get()
            .map_or((0, 0), |info| (info.guard_below, info.guard_above));
        let page = crate::frame::PAGE_SIZE;
        self.start.get() + below as usize * page..self.end.get() - above as usize * page
    }
}
