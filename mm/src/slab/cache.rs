//! A cache: [`KmemCache`].

use core::ptr::NonNull;

use platform::{
    MAX_NODES, NodeId, NodeMask,
    percpu::PerCpu,
    sync::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Cell, Ordering},
};

use super::{
    Alias, Machine, Slabs,
    kept::Kept,
    layout::ObjectLayout,
    name::Name,
    node::{Node, NodeCounts},
    percpu::CpuSlab,
    records::Ending,
    spec::{Constructor, Destructor, Flags},
};
use crate::kvfree_rcu::hands::Hands;

bitflags::bitflags! {
    /// What an allocation or free has to do beyond a push or a pop: bits of [`KmemCache::hooks`]. One
    /// look at the word finds that there is nothing, which is the fast path.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Hooks: u32 {
        /// Objects of other nodes may come: frees look whose the object is. On all caches of machines with
        /// several nodes.
        const NUMA = 1 << 0;
        /// Objects are zeroed when they are freed.
        const ZERO_ON_FREE = 1 << 1;
        /// Objects are zeroed when they are allocated.
        const ZERO_ON_ALLOC = 1 << 2;
        /// Allocations may be made to fail.
        const FAULTS = 1 << 3;
        /// Allocations are accounted to their call sites.
        const PROFILE = 1 << 4;
        /// A debug cache: it has no sheaves, so this only shows in slow paths.
        const DEBUG = 1 << 5;
        /// The cache is going, or gone: nothing goes into sheaves any more.
        const DYING = 1 << 6;
        /// Objects that are freed wait in quarantine before they are reused.
        const QUARANTINE = 1 << 7;
    }
}

/// A cache of objects of one kind: Linux's `struct kmem_cache`. Its functions are in the files of
/// what they do ([`alloc`](super), `free`, `bulk`, `prefill`, `nolock`, `refill`, `flush`, `grow`,
/// `shrink`).
#[repr(C)]
pub struct KmemCache<M: Machine> {
    // What the fast path reads; nothing here changes often.
    pub(crate) cpus: PerCpu<CpuSlab<M>, M>,
    /// [`Hooks`]. Relaxed: a switch takes effect soon.
    pub(crate) hooks: AtomicU32,
    /// Objects of a sheaf; 0: the cache has no sheaves (yet).
    pub(crate) sheaf_capacity: AtomicU32,
    pub(crate) layout: ObjectLayout,
    pub(crate) flags: Flags,
    pub(crate) constructor: Option<Constructor>,
    pub(crate) destructor: Option<Destructor>,
    pub(crate) slabs: NonNull<Slabs<M>>,
    /// By the node's number; null: the machine has no such node, or the node no memory.
    pub(crate) nodes: [AtomicPtr<Node<M>>; MAX_NODES],
    /// Empty slabs that each node keeps; more go back to the page allocator.
    pub(crate) min_partial: AtomicU32,
    /// In per cent: how readily an allocation takes a partial slab of another node before a fresh slab.
    pub(crate) remote_node_defrag_ratio: AtomicU32,
    /// What links are mixed with, with hardening; else 0.
    pub(crate) secret: u64,
    /// Tells caches of one name apart, and is never used again.
    pub(crate) id: u64,
    /// The name it was created with; merged caches have further ones (the registry has them).
    pub(crate) name: Name,
    pub(crate) usercopy: (u32, u32),
    /// The next older cache of the [registry](super::registry).
    pub(crate) older: AtomicPtr<Self>,
    /// Its further names, the newest.
    pub(crate) aliases: AtomicPtr<Alias>,
    /// How often it was created and not destroyed. Changed under the registry's lock.
    pub(crate) references: AtomicU32,
    /// There may be boxes ([`typed`](super::typed)) of it, which are dropped at any time.
    pub(crate) boxes: AtomicBool,
    /// Those who keep the descriptor; see [`late`](super::late).
    pub(crate) holders: AtomicU64,
    /// The next one of those that have gone; see [`late`](super::late).
    pub(crate) next_gone: AtomicPtr<Self>,
    /// Frees that wait to be made, by [`nolock`](super) frees: also queued ones that are being made.
    pub(crate) deferred: AtomicU64,
    /// Objects that were taken to be freed after their grace period, and do not rest yet.
    pub(crate) hands: Hands,
    /// Slabs that wait for the destroyer.
    pub(crate) kept: Kept<M>,
    /// How far its end is: a [`Stage`](super::Stage).
    pub(crate) stage: AtomicU8,
    /// What its end did so far, if it lingers; the destroyer's.
    pub(crate) ending: Cell<Ending>,
    /// `CacheDebug::new()`.
    pub(crate) debug: super::debug::CacheDebug,
    #[cfg(feature = "slab_stats")]
    pub(crate) stats: PerCpu<[AtomicU64; super::stats::STATS], M>,
}

// SAFETY: all of it is shared between CPUs by the protocols of its parts.
unsafe impl<M: Machine> Send for KmemCache<M> {}
// SAFETY: as above.
unsafe impl<M: Machine> Sync for KmemCache<M> {}

impl<M: Machine> KmemCache<M> {
    /// The allocator that it belongs to.
    #[inline(always)]
    pub fn slabs(&self) -> &Slabs<M> {
        // SAFETY: caches live no longer than their allocator.
        unsafe { self.slabs.as_ref() }
    }

    /// Its part on a node; `None`: no memory there.
    #[inline(always)]
    pub(crate) fn node(&self, node: NodeId) -> Option<&Node<M>> {
        // Acquire pairs with the Release with which creation published it.
        let node = self.nodes[node.index()].load(Ordering::Acquire);
        // SAFETY: it lives as long as the cache.
        unsafe { node.as_ref() }
    }

    /// Its parts on all nodes with memory.
    pub(crate) fn all_nodes(&self) -> impl Iterator<Item = &Node<M>> {
        (0..MAX_NODES).filter_map(|index| self.node(NodeId::from_index(index)?))
    }

    /// Its parts on nodes with memory, by distance from `node`, itself first.
    pub(crate) fn nodes_from(&self, node: NodeId) -> impl Iterator<Item = &Node<M>> {
        // Two zones a node follow each other there, with another node's between them at times.
        let mut seen = NodeMask::EMPTY;
        let zones = self.slabs().mm().fallback(node).iter();
        zones.filter_map(move |zone| {
            let node = zone.node();
            if seen.contains(node) {
                return None;
            }
            seen = seen.with(node);
            self.node(node)
        })
    }

    /// What it has on a node; `None`: the node has no memory. Any context but NMI.
    pub fn node_counts(&self, node: NodeId) -> Option<NodeCounts> {
        self.node(node).map(Node::counts)
    }

    /// Empty slabs that each node keeps.
    #[inline]
    pub(crate) fn min_partial(&self) -> usize {
        // Relaxed: a switch.
        self.min_partial.load(Ordering::Relaxed) as usize
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// How its objects lie.
    pub fn layout(&self) -> &ObjectLayout {
        &self.layout
    }

    /// How it is.
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// What makes its objects.
    pub fn constructor(&self) -> Option<Constructor> {
        self.constructor
    }

    /// What must be done beyond a push or a pop.
    #[inline(always)]
    pub(crate) fn hooks(&self) -> Hooks {
        Hooks::from_bits_retain(self.hooks.load(Ordering::Relaxed))
    }
}
