//! One cache in full: what every CPU and every node has of it.

use core::fmt;

use arrayvec::ArrayVec;
use platform::{CpuId, MAX_CPUS, MAX_NODES, NodeId, sync::Ordering::Relaxed};

use crate::{
    frame::Pfn,
    slab::{Caches, KmemCache, Machine, look::see, sheaf::Sheaf, word::Freelist},
};

/// Partial slabs of a node that are shown.
const SHOWN: usize = 8;

/// A sheaf's length and capacity.
type Filled = (u32, u32);

/// What a CPU has: main, spare, rcu_free; and objects that wait on its lane.
#[derive(Clone, Copy, Debug)]
struct OfCpu {
    cpu: CpuId,
    sheaves: [Option<Filled>; 3],
    waiting: u64,
}

/// What a node has.
#[derive(Clone, Debug)]
struct OfNode {
    node: NodeId,
    slabs: u64,
    objects: u64,
    waiting: u64,
    partial: usize,
    full: usize,
    full_sheaves: usize,
    empty_sheaves: usize,
    shown: ArrayVec<(Pfn, Freelist), SHOWN>,
}

/// What CPUs and nodes had at a moment. Takes no memory, so that it can be made while nobody else
/// runs, and shown later.
#[derive(Clone, Debug)]
pub struct Snapshot {
    cpus: ArrayVec<OfCpu, MAX_CPUS>,
    nodes: ArrayVec<OfNode, MAX_NODES>,
}

/// A cache, with what there was of it.
pub struct OneCache<'a, 'b, M: Machine>(
    pub &'a Caches<'b, M>,
    pub &'a KmemCache<M>,
    pub &'a Snapshot,
);

impl Snapshot {
    /// Of nothing.
    pub const fn new() -> Self {
        Self {
            cpus: ArrayVec::new_const(),
            nodes: ArrayVec::new_const(),
        }
    }

    /// Notes what CPUs and nodes have of a cache. (In place: it is too large for small stacks.)
    /// Any context.
    ///
    /// # Safety
    ///
    /// Nobody allocates or frees meanwhile: other CPUs are stopped, wherever they are.
    pub unsafe fn take<M: Machine>(&mut self, cache: &KmemCache<M>) {
        let map = cache.slabs().mm().frames();
        let filled = |sheaf| {
            let sheaf = see(map, sheaf).ok()?;
            // SAFETY: memory, and nobody changes it.
            let Sheaf { len, capacity, .. } = *unsafe { sheaf.as_ref() };
            Some((len, capacity))
        };
        let of_cpu = |(cpu, of_cpu): (CpuId, &crate::slab::percpu::CpuSlab<M>)| {
            // SAFETY: nobody changes it.
            let sheaves = unsafe { of_cpu.sheaves.peek() };
            let all = [Some(sheaves.main), sheaves.spare, sheaves.rcu_free];
            OfCpu {
                cpu,
                sheaves: all.map(|sheaf| sheaf.and_then(filled)),
                waiting: of_cpu.part.objects(),
            }
        };
        let of_node = |node: &crate::slab::node::Node<M>| {
            // SAFETY: nobody changes them.
            let (lists, barn) = unsafe { (node.lists.peek(), node.barn.sheaves.peek()) };
            let slabs = lists.partial.iter::<M>(*map).take(SHOWN);
            OfNode {
                node: node.id,
                slabs: node.slabs.load(Relaxed),
                objects: node.objects.load(Relaxed),
                waiting: node.waiting.load(Relaxed),
                partial: lists.partial.len(),
                full: lists.full.len(),
                full_sheaves: barn.full.len,
                empty_sheaves: barn.empty.len,
                shown: slabs
                    .map(|slab| (slab.pfn(), slab.freelist().load()))
                    .collect(),
            }
        };
        self.cpus.clear();
        self.cpus.extend(cache.cpus.iter().map(of_cpu));
        self.nodes.clear();
        self.nodes.extend(cache.all_nodes().map(of_node));
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> fmt::Display for OneCache<'_, '_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(caches, cache, now) = self;
        let layout = cache.layout();
        writeln!(
            f,
            "cache {}: objects of {} bytes, {} apart, aligned to {}",
            cache.title(),
            layout.object_size,
            layout.size,
            layout.align
        )?;
        writeln!(
            f,
            "slabs of order {} with {} objects, of order {} with {} when memory is short",
            layout.order, layout.objects, layout.min_order, layout.min_objects
        )?;
        writeln!(
            f,
            "sheaves of {} objects, {} empty slabs kept, {} frees deferred, {} quarantined, {}{}",
            cache.sheaf_capacity.load(Relaxed),
            cache.min_partial.load(Relaxed),
            cache.deferred.load(Relaxed),
            cache.quarantined(),
            if cache.flags().is_empty() {
                "no flags"
            } else {
                "flags "
            },
            cache.flags()
        )?;
        for alias in caches.aliases(cache) {
            writeln!(f, "also called {}", alias.name)?;
        }
        now.fmt(f)
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for of_cpu in &self.cpus {
            write!(f, "cpu{}:", of_cpu.cpu)?;
            for (name, sheaf) in ["main", "spare", "rcu_free"].iter().zip(of_cpu.sheaves) {
                match sheaf {
                    Some((len, capacity)) => write!(f, " {name} {len}/{capacity}")?,
                    None => write!(f, " {name} -")?,
                }
            }
            writeln!(f, " waiting {}", of_cpu.waiting)?;
        }
        for of_node in &self.nodes {
            writeln!(
                f,
                "node {}: {} slabs with {} objects, {} partial, {} full (debug), {} wait for RCU; \
                 barn: {} full, {} empty",
                of_node.node,
                of_node.slabs,
                of_node.objects,
                of_node.partial,
                of_node.full,
                of_node.waiting,
                of_node.full_sheaves,
                of_node.empty_sheaves
            )?;
            for (slab, word) in &of_node.shown {
                writeln!(
                    f,
                    "  slab {slab}: {} of {} in use",
                    word.in_use(),
                    word.objects()
                )?;
            }
            if of_node.partial > of_node.shown.len() {
                writeln!(f, "  and {} more", of_node.partial - of_node.shown.len())?;
            }
        }
        Ok(())
    }
}
