//! Holding a cache's locks on purpose, so that tests can look what others do meanwhile.

use super::{KmemCache, Machine, Mode, node::Node};

/// A lock of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheLock {
    /// The sheaves of the CPU that runs this.
    Sheaves,
    /// The barns of all nodes.
    Barns,
    /// The lists of all nodes.
    Lists,
}

impl CacheLock {
    /// All of them, in the order in which they may be taken.
    pub const ALL: [Self; 3] = [Self::Sheaves, Self::Barns, Self::Lists];
}

impl<M: Machine> KmemCache<M> {
    /// Runs `f` while the caller has one of the cache's locks (of a class with a lock for each
    /// node, one after the other): how often. For tests of what an interrupt or an NMI
    /// that comes then may do. `f` may not wait for the cache. Task context.
    pub fn while_locked(&self, lock: CacheLock, mut f: impl FnMut()) -> usize {
        let each = |mut held: &mut dyn FnMut(&Node<M>)| self.all_nodes().map(&mut held).count();
        match lock {
            CacheLock::Sheaves => {
                let held = self.cpus.try_lock_in(|cpu| &cpu.sheaves);
                f();
                usize::from(held.is_some())
            }
            CacheLock::Barns => each(&mut |node| {
                let _held = node.barn.sheaves.lock();
                f();
            }),
            CacheLock::Lists => each(&mut |node| {
                let _held = node.lock(Mode::Spin);
                f();
            }),
        }
    }
}
