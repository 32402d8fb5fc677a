//! What the areas lock protects: the tree of ranges, their descriptors, the lazy list, the
//! counts. Nothing here maps, allocates frames or waits.

use core::ops::Range as Addresses;

use super::{
    frames::Frames,
    node::{Info, Link, NodeRef, Range},
    pool::Pool,
    tree::Tree,
};
use crate::frame::PAGE_SIZE;

/// Why a range could not be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Short {
    /// Of descriptors.
    Descriptors,
    /// Of addresses.
    Space,
}

/// Counts; pages, but for the first and the third.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) areas: usize,
    /// Mapped in busy areas.
    pub(super) mapped: usize,
    pub(super) flushes: u64,
    /// Of areas (without guards) that flushes were made for.
    pub(super) flushed: u64,
    /// Lazy or being purged, with their guards.
    pub(super) lazy: usize,
    /// Frames that lazy ranges hold.
    pub(super) held: usize,
}

/// Lazy ranges that one flush is for.
pub(super) struct Batch {
    first: Link,
    /// From the first mapped page to the last.
    pub(super) span: Addresses<usize>,
}

/// The address space. See [`vmalloc`](super).
pub(super) struct Space {
    pub(super) tree: Tree,
    pub(super) pool: Pool,
    lazy: Link,
    pub(super) counts: Counts,
}

// SAFETY: what the nodes' pointers lead to belongs to the space, or to the thread that moves a
// node, as `node` says.
unsafe impl Send for Space {}

impl Space {
    pub(super) fn new() -> Self {
        Self {
            tree: Tree::new(),
            pool: Pool::new(),
            lazy: None,
            counts: Counts::default(),
        }
    }

    /// Gives it its addresses. `None`: no descriptor.
    pub(super) fn begin(&mut self, range: Addresses<usize>) -> Option<()> {
        let node = self.pool.take(range.start, range.end, Range::Free)?;
        self.tree.insert(node, None);
        Some(())
    }

    /// Takes the addresses away, if nobody uses any.
    pub(super) fn end(&mut self) {
        if let Some(root) = self.tree.only()
            && root.state.get() == Range::Free
        {
            self.tree.remove(root);
            self.pool.give(root);
            self.pool.retire_empty();
        }
    }

    /// Cuts a claimed range out of the lowest free one that has room for it.
    pub(super) fn claim(
        &mut self,
        size: usize,
        align: usize,
        info: Info,
    ) -> Result<NodeRef, Short> {
        if self.pool.spare() < 2 {
            return Err(Short::Descriptors);
        }
        let (free, start) = self.tree.lowest(size, align).ok_or(Short::Space)?;
        let end = start + size;
        let (below, above) = (free.start.get() < start, end < free.end.get());
        let node = if !below && !above {
            free.state.set(Range::Claimed);
            self.tree.changed(free);
            free
        } else {
            let node = self.pool.take(start, end, Range::Claimed);
            let node = node.ok_or(Short::Descriptors)?;
            if below {
                let rest = above.then(|| self.pool.take(end, free.end.get(), Range::Free));
                if rest == Some(None) {
                    self.pool.give(node);
                    return Err(Short::Descriptors);
                }
                free.end.set(start);
                self.tree.changed(free);
                self.tree.insert(node, Some(free));
                if let Some(rest) = rest.flatten() {
                    self.tree.insert(rest, Some(node));
                }
            } else {
                // It moves up, but not past its neighbour.
                free.start.set(end);
                self.tree.changed(free);
                self.tree.insert(node, free.below.get());
            }
            node
        };
        node.info.set(Some(info));
        node.frames.set(Frames::NONE);
        Ok(node)
    }

    /// A claimed range is mapped.
    pub(super) fn busy(&mut self, node: NodeRef) {
        debug_assert_eq!(node.state.get(), Range::Claimed);
        node.state.set(Range::Busy);
        self.counts.areas += 1;
        self.counts.mapped += node.memory().len() / PAGE_SIZE;
    }

    /// The area whose memory begins at `address` is to be freed by who calls. Else what is
    /// there.
    pub(super) fn leave(&mut self, address: usize) -> Result<NodeRef, Option<Range>> {
        let node = self.tree.at(address).ok_or(None)?;
        if node.state.get() != Range::Busy || node.memory().start != address {
            return Err(Some(node.state.get()));
        }
        node.state.set(Range::Leaving);
        self.counts.areas -= 1;
        self.counts.mapped -= node.memory().len() / PAGE_SIZE;
        Ok(node)
    }

    /// A range is unmapped now. How many pages are lazy.
    pub(super) fn lazy(&mut self, node: NodeRef) -> usize {
        debug_assert!(matches!(node.state.get(), Range::Leaving | Range::Claimed));
        node.state.set(Range::Lazy);
        node.chain.set(self.lazy.replace(node));
        self.counts.held += node.frames.get().count as usize;
        self.counts.lazy += node.size() / PAGE_SIZE;
        self.counts.lazy
    }

    /// Takes all lazy ranges, to be flushed. `None`: there are none.
    pub(super) fn take_lazy(&mut self) -> Option<Batch> {
        let first = self.lazy.take()?;
        let mut span = first.memory();
        let mut next = Some(first);
        while let Some(node) = next {
            node.state.set(Range::Purging);
            let memory = node.memory();
            span = span.start.min(memory.start)..span.end.max(memory.end);
            self.counts.flushed += (memory.len() / PAGE_SIZE) as u64;
            next = node.chain.get();
        }
        self.counts.flushes += 1;
        Some(Batch {
            first: Some(first),
            span,
        })
    }

    /// Frees up to `most` ranges of a batch; whether there are more.
    pub(super) fn release_some(&mut self, batch: &mut Batch, most: usize) -> bool {
        for _ in 0..most {
            let Some(node) = batch.first else {
                return false;
            };
            batch.first = node.chain.take();
            self.counts.lazy -= node.size() / PAGE_SIZE;
            self.counts.held -= node.frames.get().count as usize;
            self.release(node);
        }
        batch.first.is_some()
    }

    /// A range is free, and merges with free neighbours. No CPU has translations of it.
    pub(super) fn release(&mut self, mut node: NodeRef) {
        debug_assert!(matches!(node.state.get(), Range::Purging | Range::Claimed));
        node.state.set(Range::Free);
        node.info.set(None);
        node.frames.set(Frames::NONE);
        let free = |link: &NodeRef| link.state.get() == Range::Free;
        if let Some(below) = node.below.get().filter(free) {
            self.join(below, node);
            node = below;
        }
        if let Some(above) = node.above.get().filter(free) {
            self.join(node, above);
        }
        self.tree.changed(node);
    }

    /// Adds a range to the one below it.
    fn join(&mut self, below: NodeRef, node: NodeRef) {
        self.tree.remove(node);
        below.end.set(node.end.get());
        self.pool.give(node);
    }
}

impl Batch {
    /// The ranges.
    pub(super) fn iter(&self) -> impl Iterator<Item = NodeRef> {
        core::iter::successors(self.first, |node| node.chain.get())
    }
}
