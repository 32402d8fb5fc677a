//! A tree that loses reports, to see that tests find it.

use platform::{Platform, sync::Ordering};

use super::{Kind, Tree};

impl<P: Platform> Tree<P> {
    /// A fault: from now on reports of leaves are lost, or are again not; then those that
    /// were are made up for. `true`: that was the last one.
    #[cfg(debug_assertions)]
    pub(crate) fn lose_reports(&self, lose: bool) -> [bool; 2] {
        self.lossy.store(lose, Ordering::Relaxed);
        let kinds = [Kind::Normal, Kind::Expedited];
        kinds.map(|kind| {
            let lost = |leaf: &usize| {
                let empty = self.nodes[*leaf].lock().is_empty(kind);
                empty && !lose && self.awaits(*leaf, kind)
            };
            let lost = self.leaves().filter(lost);
            lost.filter(|leaf| self.up(*leaf, kind)).count() > 0
        })
    }

    /// Whether a grace period waits for the report of a leaf that waits for nothing.
    #[cfg(debug_assertions)]
    fn awaits(&self, leaf: usize, kind: Kind) -> bool {
        match (self.nodes[leaf].place.parent, kind) {
            (Some((parent, bit)), _) => self.nodes[parent].lock().mask[kind as usize] & bit != 0,
            (None, Kind::Normal) => self.seq().is_running() && !self.is_reported(),
            (None, Kind::Expedited) => !self.expedited_reported(),
        }
    }
}
