//! Read-side sections.

use core::{fmt, marker::PhantomData};

use crate::Machine;

/// Evidence that the thread (or interrupt) that holds it is in a read-side section: what was
/// reachable when the section began is not reclaimed before it ends.
///
/// A section may begin in any context, NMI too, nests, and costs no memory traffic but that of the
/// machine's own count. In the non-preemptible flavour preemption is off in it. A section
/// must not sleep, in either flavour.
#[must_use = "the section ends when the guard is dropped"]
pub struct Guard<M: Machine> {
    machine: PhantomData<fn(M)>,
    /// The section belongs to this thread.
    not_send: PhantomData<*mut ()>,
}

impl<M: Machine> Guard<M> {
    /// Begins a section.
    #[inline(always)]
    pub fn new() -> Self {
        M::read_enter();
        Self {
            machine: PhantomData,
            not_send: PhantomData,
        }
    }
}

impl<M: Machine> Default for Guard<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> Drop for Guard<M> {
    #[inline(always)]
    fn drop(&mut self) {
        M::read_exit();
    }
}

impl<M: Machine> fmt::Debug for Guard<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

/// [`Guard::new`].
#[inline(always)]
pub fn read<M: Machine>() -> Guard<M> {
    Guard::new()
}
