//! Giving empty slabs back.

use platform::{lock::IrqSpinLock, lock_class};

use super::{KmemCache, Machine, Mode, Slabs, list::SlabList, node::Node};

lock_class! {
    /// Slabs that wait for an engine.
    pub struct EarlyLock = ("slab early discards", 83);
}

/// Slabs that wait for a grace period, before there is an engine.
pub(crate) struct EarlyDiscards<M: Machine>(IrqSpinLock<SlabList, M, EarlyLock>);

impl<M: Machine> Default for EarlyDiscards<M> {
    fn default() -> Self {
        Self(IrqSpinLock::new(SlabList::default()))
    }
}

impl<M: Machine> KmemCache<M> {
    /// Gives slabs back that are empty and on no list, and were taken off the counts of `node`. Context: as
    /// [`flush`](Self::flush), no list lock held.
    pub(crate) fn discard(&self, node: &Node<M>, slabs: SlabList, mode: Mode) {
        let _ = (node, slabs, mode);
        panic!("not written yet")
    }

    /// Gives back a node's empty slabs, and sorts the others so that the fullest are used first: how many
    /// frames were freed (or wait for a grace period). Context: any but NMI, no lock of the slab allocator held.
    pub(crate) fn shrink_node(&self, node: &Node<M>) -> usize {
        let _ = node;
        panic!("not written yet")
    }
}

impl<M: Machine> Slabs<M> {
    /// Slabs that were to wait for a grace period before there was an engine begin to. Called by `set_rcu`,
    /// after the engine is set. Task context.
    pub(crate) fn call_early_discards(&self) {
        panic!("not written yet")
    }
}
