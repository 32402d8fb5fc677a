//! The slab allocator: caches of objects of one size, with per-CPU sheaves and per-node barns.
//!
//! The design, with all states and who moves between them, is in `docs/slab.md`.

mod alloc;
pub mod arrows;
pub mod barn;
mod boot;
mod bulk;
mod cache;
pub mod create;
pub mod debug;
pub mod deferred;
mod destroy;
mod discard;
mod flush;
mod free;
pub mod freelist;
pub mod global;
mod grow;
mod hold_locks;
mod hooks;
mod kept;
pub mod kmalloc;
mod late;
pub mod layout;
mod leak;
mod linger;
mod list;
pub(crate) mod look;
mod machine;
mod memory;
mod merge;
pub mod moves;
pub mod name;
mod node;
mod nolock;
mod offline;
mod page;
mod percpu;
mod prefill;
pub mod quarantine;
mod rcu_free;
pub mod records;
mod refill;
mod registry;
mod room;
pub mod sheaf;
mod shrink;
mod single;
pub mod spec;
pub mod stats;
mod supply;
pub mod text;
pub mod typed;
pub mod walk;
pub mod whatis;
pub mod word;

use core::ptr::NonNull;

use platform::sync::{AtomicPtr, Ordering};
use rcu::Rcu;

pub use boot::NoStart;
pub use cache::{Hooks, KmemCache};
pub use create::CreateError;
pub use destroy::Leaked;
pub use hold_locks::CacheLock;
pub use kmalloc::ZERO_SIZE;
pub use late::Stage;
pub use machine::{Machine, Mode};
pub use node::NodeCounts;
pub use page::{Place, Slab};
pub(crate) use percpu::StolenSheaves;
pub use prefill::Prefilled;
pub use records::DestroyRecord;
pub use registry::{Alias, Caches};
pub use spec::{Constructor, Destructor, Flags, Spec};
pub use typed::{Cache, SlabBox};

use self::{boot::BootCaches, kmalloc::KmallocCaches, registry::Registry};
use crate::{Mm, frame::FrameMap, kvfree_rcu::KvfreeRcu};

/// The slab allocator of a machine: all its caches.
///
/// # Invariants
///
/// From [`start`](Self::start) on it stays where it is, and the caches of descriptors and those
/// of kmalloc live.
pub struct Slabs<M: Machine> {
    mm: NonNull<Mm<M>>,
    /// The page allocator's: here, so that the way from an object to its slab does not go through
    /// another structure.
    pub(crate) frames: FrameMap<M::Layout>,
    /// Null until the machine has an engine.
    rcu: AtomicPtr<Rcu<M>>,
    /// Slabs that wait for a grace period, before there is an engine: `Default::default()`.
    pub(crate) early_discards: discard::EarlyDiscards<M>,
    pub(crate) arrows: arrows::Arrows,
    /// `deferred::Deferred::new(*mm.frames())`.
    pub(crate) deferred: deferred::Deferred<M>,
    /// What waits for grace periods: written in its place.
    pub(crate) kvfree_rcu: KvfreeRcu<M>,
    /// `debug::Switches::new()`.
    pub(crate) debug: debug::Switches<M>,
    /// `quarantine::Quarantine::new()`.
    pub(crate) quarantine: quarantine::Quarantine<M>,
    /// All caches there are.
    registry: Registry<M>,
    /// Those that are to be taken apart.
    gone: late::Gone<M>,
    /// Those whose end is left to the background.
    lingering: linger::Lingering<M>,
    /// Those that were destroyed.
    records: records::Records<M>,
    /// The caches that caches are made of.
    boot: BootCaches<M>,
    /// The kmalloc caches.
    kmalloc: KmallocCaches<M>,
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
