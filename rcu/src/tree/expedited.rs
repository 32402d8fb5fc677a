//! Expedited grace periods on the tree.

use platform::{Platform, sync::Ordering};

use super::{Kind, REPORTED, Tree};

impl<P: Platform> Tree<P> {
    /// Begins an expedited grace period, for who makes it: all have to report, but for those
    /// of which `quiescent` says, for a leaf's first CPU and a mask, that they need not.
    /// Which CPUs remain is given to `remain`, leaf by leaf. `true`: none does.
    pub fn begin_expedited(
        &self,
        quiescent: impl Fn(usize, u64) -> u64,
        mut remain: impl FnMut(usize, u64),
    ) -> bool {
        let kind = Kind::Expedited as usize;
        // Relaxed: the locks of the nodes order it before any report.
        self.reported[kind].store(0, Ordering::Relaxed);
        for node in &self.nodes[..self.geometry.first_leaf()] {
            node.lock().mask[kind] = node.place.children;
        }
        let mut done = false;
        for leaf in self.leaves() {
            let first = self.nodes[leaf].place.first;
            let mut state = self.nodes[leaf].lock();
            let online = state.online;
            let mask = online & !quiescent(first, online);
            state.mask[kind] = mask;
            state.blocked.begin(Kind::Expedited);
            let empty = state.is_empty(Kind::Expedited);
            drop(state);
            if empty {
                done |= self.up(leaf, Kind::Expedited);
            } else if mask != 0 {
                remain(first, mask);
            }
        }
        done
    }

    /// Whether all CPUs have reported to the expedited grace period. What their sections
    /// did is seen then.
    pub fn expedited_reported(&self) -> bool {
        // Acquire pairs with the Release in `up`.
        self.reported[Kind::Expedited as usize].load(Ordering::Acquire) == REPORTED
    }
}
