//! The slab allocator: caches of objects of one size, with per-CPU sheaves and per-node barns.
//!
//! The design, with all states and who moves between them, is in `docs/slab.md`.

mod alloc;
pub mod arrows;
mod barn;
mod bulk;
mod cache;
pub mod debug;
mod deferred;
mod free;
mod hooks;
pub mod layout;
mod machine;
pub mod name;
mod node;
mod nolock;
mod offline;
mod page;
mod percpu;
mod prefill;
pub mod sheaf;
mod shrink;
pub mod spec;
pub mod stats;
pub mod word;

use core::ptr::NonNull;

use platform::sync::{AtomicPtr, Ordering};
use rcu::Rcu;

pub use cache::{Hooks, KmemCache};
pub use machine::{Machine, Mode};
pub use page::{Place, Slab};
pub use prefill::Prefilled;
pub use spec::{Constructor, Flags, Spec};

use crate::Mm;

/// The slab allocator of a machine: all its caches.
pub struct Slabs<M: Machine> {
    mm: NonNull<Mm<M>>,
    /// Null until the machine has an engine.
    rcu: AtomicPtr<Rcu<M>>,
    pub(crate) arrows: arrows::Arrows,
    /// `deferred::Deferred::new(*mm.frames())`.
    pub(crate) deferred: deferred::Deferred<M>,
    /// `debug::Switches::new()`.
    pub(crate) debug: debug::Switches<M>,
}

// SAFETY: all of it is shared between CPUs by the protocols of its parts.
unsafe impl<M: Machine> Send for Slabs<M> {}
// SAFETY: as above.
unsafe impl<M: Machine> Sync for Slabs<M> {}

impl<M: Machine> Slabs<M> {
    /// The page allocator below.
    #[inline(always)]
    pub fn mm(&self) -> &Mm<M> {
        // SAFETY: `new` was promised that it outlives this.
        unsafe { self.mm.as_ref() }
    }

    /// The engine of RCU, once there is one.
    pub(crate) fn rcu(&self) -> Option<&Rcu<M>> {
        // Acquire pairs with the Release in `set_rcu`. SAFETY: it outlives this, as promised.
        unsafe { self.rcu.load(Ordering::Acquire).as_ref() }
    }
}
