//! One object, from and to its slab.

use core::{panic::Location, ptr::NonNull};

use platform::NodeId;

use super::{
    KmemCache, Machine, Mode, Slab, debug::WrongFree, flush::Chain, node::Node, word::Link,
};
use crate::Gfp;

/// A lock was taken, and may not be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl<M: Machine> KmemCache<M> {
    /// One object, without sheaves and barns: from partial slabs of `node` (`None`: of this CPU's), then of a fresh one
    /// there, then of other nodes by distance, then of a fresh one anywhere, as `gfp` allows (THISNODE: only of
    /// `node`). Debug caches' objects are checked and prepared. No hooks but those. Context: as `gfp` says, no lock of the slab
    /// allocator held; `NoLock`: any.
    pub(crate) fn alloc_single(
        &self,
        node: Option<NodeId>,
        gfp: Gfp,
        mode: Mode,
        caller: &'static Location<'static>,
    ) -> Option<NonNull<u8>> {
        let wanted = node.unwrap_or_else(M::node_here);
        let only_there = gfp.contains(Gfp::THISNODE);
        let take = |node: &Node<M>| self.take_single(node, mode, caller);
        loop {
            let mut nodes = self
                .nodes_from(wanted)
                .take_while(|node| !only_there || node.id == wanted);
            let nearest = nodes.next()?;
            if let Some(object) = take(nearest) {
                return Some(object);
            }
            if !only_there {
                if self.prefers_others()
                    && let Some(object) = nodes.find_map(take)
                {
                    return Some(object);
                }
                // Without reclaim: other nodes have free objects, perhaps.
                let there = gfp.difference(Gfp::RECLAIM | Gfp::HIGH) | Gfp::THISNODE | Gfp::NOWARN;
                if self.grow(Some(nearest.id), there, mode).is_ok() {
                    if let Some(object) = take(nearest) {
                        return Some(object);
                    }
                    if mode == Mode::NoLock {
                        return None;
                    }
                    continue;
                }
                if let Some(object) = self.nodes_from(wanted).skip(1).find_map(take) {
                    return Some(object);
                }
            }
            let grown = self.grow(Some(wanted), gfp, mode).ok()?;
            if let Some(object) = self.node(grown).and_then(take) {
                return Some(object);
            }
            // Others took them all: again. In the long run they have what they want.
            if mode == Mode::NoLock {
                return None;
            }
        }
    }

    fn take_single(
        &self,
        node: &Node<M>,
        mode: Mode,
        caller: &'static Location<'static>,
    ) -> Option<NonNull<u8>> {
        if self.is_debug() {
            self.debug_take(node, mode, caller)
        } else {
            self.take_one_from(node, mode)
        }
    }

    /// Whether debugging has the objects: by the flags, which never change.
    #[inline(always)]
    pub fn is_debug(&self) -> bool {
        self.flags.intersects(super::Flags::DEBUG)
    }

    /// Frees one object to its slab, without sheaves and barns. A debug cache checks it, and may refuse it
    /// with a report (which is no error here). No hooks but that. Context as for [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// [`Busy`] (in `NoLock` only): nothing has happened.
    ///
    /// # Safety
    ///
    /// `object` is an object of this cache in `slab` that the caller owns and gives up.
    pub(crate) unsafe fn free_single(
        &self,
        slab: Slab<M>,
        object: NonNull<u8>,
        mode: Mode,
        caller: &'static Location<'static>,
    ) -> Result<(), Busy> {
        if self.is_debug() {
            return if self.debug_free(object, mode, caller) {
                Ok(())
            } else {
                Err(Busy)
            };
        }
        let Some(index) = self.index_of(slab, object) else {
            self.report_wrong_free(slab, object, WrongFree::NoObject);
            return Ok(());
        };
        let chain = Chain {
            slab,
            head: Link::of_index(index),
            tail: object,
            count: 1,
        };
        // SAFETY: the caller's object, by itself.
        unsafe { self.free_chain(&chain, mode) }
    }
}
