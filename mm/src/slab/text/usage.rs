//! How much of a cache is used.

use core::ops::AddAssign;

use platform::{NodeId, sync::Ordering::Relaxed};

use crate::slab::{KmemCache, Machine, Mode, node::Node};

/// Slabs of a list that are looked at, at most, while its lock is held; what the others have
/// is reckoned from these. As in Linux.
const MOST_SLABS: usize = 10_000;

/// How many slabs and objects there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Slabs.
    pub slabs: u64,
    /// Objects in them.
    pub objects: u64,
    /// Slabs with free objects.
    pub partial: u64,
    /// Objects in those.
    pub partial_objects: u64,
    /// Of these, free ones. (What is free in sheaves counts as used here, as in Linux.)
    pub free: u64,
    /// Slabs that wait for a grace period, and are no slabs of the cache any more.
    pub waiting: u64,
}

impl Usage {
    /// Objects in use, or in sheaves.
    pub const fn active(&self) -> u64 {
        self.objects.saturating_sub(self.free)
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.slabs += other.slabs;
        self.objects += other.objects;
        self.partial += other.partial;
        self.partial_objects += other.partial_objects;
        self.free += other.free;
        self.waiting += other.waiting;
    }
}

impl<M: Machine> KmemCache<M> {
    /// What the cache has on all nodes. Not in NMI.
    pub fn usage(&self) -> Usage {
        let mut sum = Usage::default();
        self.usage_by_node().for_each(|(_, usage)| sum += usage);
        sum
    }

    /// What the cache has on each node with memory. Not in NMI.
    pub fn usage_by_node(&self) -> impl Iterator<Item = (NodeId, Usage)> {
        self.all_nodes().map(|node| (node.id, self.usage_of(node)))
    }

    fn usage_of(&self, node: &Node<M>) -> Usage {
        let map = *self.slabs().mm().frames();
        let (mut looked, mut objects, mut free) = (0, 0, 0);
        let Some(lists) = node.lock(Mode::Spin) else {
            return Usage::default();
        };
        let partial = lists.partial.len() as u64;
        for slab in lists.partial.iter::<M>(map).take(MOST_SLABS) {
            let word = slab.freelist().load();
            looked += 1;
            objects += word.objects() as u64;
            free += word.free() as u64;
        }
        drop(lists);
        let of_all = |seen: u64| seen * partial.max(looked) / looked.max(1);
        // Relaxed: statistics.
        Usage {
            slabs: node.slabs.load(Relaxed),
            objects: node.objects.load(Relaxed),
            partial,
            partial_objects: of_all(objects),
            free: of_all(free),
            waiting: node.waiting.load(Relaxed),
        }
    }
}
