//! How objects of debug caches are allocated and freed: one at a time, under the list lock of
//! their node, with all checks. Nothing else changes the freelist word of their slabs.

use core::{panic::Location, ptr::NonNull};

use super::super::{KmemCache, Machine, Mode, node::Node};

impl<M: Machine> KmemCache<M> {
    /// Takes an object off the partial slabs of `node`. `None`: there is none, or (`NoLock`)
    /// the list lock is taken. Slabs that are found damaged are reported and isolated.
    pub(crate) fn debug_take(
        &self,
        node: &Node<M>,
        mode: Mode,
        caller: &'static Location<'static>,
    ) -> Option<NonNull<u8>> {
        let _ = (node, mode, caller);
        panic!("not written yet")
    }

    /// Frees whatever `object` is: a wrong free is reported, and changes nothing. `false`
    /// (`NoLock` only): the list lock is taken, and nothing was done.
    pub(crate) fn debug_free(
        &self,
        object: NonNull<u8>,
        mode: Mode,
        caller: &'static Location<'static>,
    ) -> bool {
        let _ = (object, mode, caller);
        panic!("not written yet")
    }

    /// Looks at every slab of the cache, and repairs or isolates what is damaged. How many
    /// faults were found (each is reported). Correct against allocations and frees meanwhile. Task context.
    ///
    /// In a plain cache only the freelists of partial slabs can be looked at.
    pub fn validate(&self) -> usize {
        panic!("not written yet")
    }

    /// Faults that were found in the cache so far.
    pub fn faults_found(&self) -> u64 {
        self.debug.found()
    }
}
