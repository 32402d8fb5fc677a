//! Where objects come from when sheaves and barn have none: partial slabs, then fresh ones.
//!
//! In turn, until there is something:
//!
//! 1. partial slabs of the CPU's own node;
//! 2. (as `remote_node_defrag_ratio` says) partial slabs of other nodes, by distance;
//! 3. a fresh slab of the own node, if it has memory without reclaim;
//! 4. partial slabs of other nodes, unless the allocation says THISNODE;
//! 5. a fresh slab wherever the page allocator finds one, as the allocation's flags say.

use core::ptr::NonNull;

use platform::{NodeId, sync::Ordering};

use super::{KmemCache, Machine, Mode, arrows::Arrow, grow::NoMemory, percpu::node_of_pair};
use crate::Gfp;

/// Whose partial slabs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// The CPU's own node's.
    Own,
    /// Other nodes', by distance.
    Others,
    /// That node's.
    Node(NodeId),
}

impl<M: Machine> KmemCache<M> {
    /// Takes up to `want` objects from partial slabs: how many. Makes no slab. Context as
    /// [`refill_from`](Self::refill_from).
    ///
    /// # Safety
    ///
    /// `into` has room for `want` pointers, which are the caller's.
    pub(super) unsafe fn take_partial(
        &self,
        home: u32,
        from: From,
        into: *mut NonNull<u8>,
        want: usize,
        mode: Mode,
    ) -> usize {
        let own = node_of_pair(home);
        // SAFETY: as the caller promises.
        let refill = |node| unsafe { self.refill_from(node, into, want, mode) };
        match from {
            From::Own => self.node(own).map_or(0, refill),
            From::Node(node) => self.node(node).map_or(0, refill),
            From::Others => {
                let others = self.nodes_from(own).filter(|node| node.id != own);
                others.map(refill).find(|got| *got > 0).unwrap_or(0)
            }
        }
    }

    /// Steps 2 to 5 of the list, after the first found nothing. `again` looks in partial slabs.
    /// `Ok(Some)`: what that found; `Ok(None)`: the own node has a fresh slab. Context as `gfp` says,
    /// no lock of the slab allocator held.
    pub(super) fn supply<R>(
        &self,
        gfp: Gfp,
        mut again: impl FnMut(From) -> Option<R>,
    ) -> Result<Option<R>, NoMemory> {
        let home = self.home();
        let anywhere = !gfp.contains(Gfp::THISNODE);
        if anywhere
            && self.prefers_others()
            && let Some(found) = again(From::Others)
        {
            self.arrow(Arrow::SupplyDefrag);
            return Ok(Some(found));
        }
        let quick = gfp.difference(Gfp::RECLAIM | Gfp::HIGH) | Gfp::THISNODE | Gfp::NOWARN;
        if self.grow(Some(home), quick, Mode::Spin).is_ok() {
            self.arrow(Arrow::SupplyFreshOwn);
            return Ok(None);
        }
        if anywhere && let Some(found) = again(From::Others) {
            self.arrow(Arrow::SupplyOthers);
            return Ok(Some(found));
        }
        match self.grow(Some(home), gfp, Mode::Spin) {
            Ok(node) if node == home => {
                self.arrow(Arrow::SupplyFreshReclaimed);
                Ok(None)
            }
            Ok(node) => {
                self.arrow(Arrow::SupplyFreshElsewhere);
                Ok(again(From::Node(node)))
            }
            Err(error) => {
                self.arrow(Arrow::SupplyNone);
                // What others freed meanwhile.
                let found = again(From::Own);
                let found = found.or_else(|| anywhere.then(|| again(From::Others))?);
                found.map(Some).ok_or(error)
            }
        }
    }

    /// How readily an allocation takes a partial slab of another node before a fresh slab of its own: in so
    /// many of a hundred cases. More than 100 is as good.
    pub fn set_remote_node_defrag_ratio(&self, ratio: u32) {
        // Relaxed: it takes effect soon.
        let ratio = ratio.min(100);
        self.remote_node_defrag_ratio
            .store(ratio, Ordering::Relaxed);
    }

    /// Whether an allocation is to look at other nodes' slabs before it makes a fresh one: in
    /// so many of a hundred cases.
    pub(super) fn prefers_others(&self) -> bool {
        let ratio = self.remote_node_defrag_ratio.load(Ordering::Relaxed);
        // The clock's last digits are chance enough, as Linux has it.
        ratio > 0 && M::now_ns() % 100 < u64::from(ratio)
    }
}
