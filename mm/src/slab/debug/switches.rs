//! What can be switched on for all caches of an allocator, and what a cache keeps of it.

use core::{
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::super::{Flags, Hooks, Machine};

/// What debugging keeps with a cache.
#[derive(Debug, Default)]
pub struct CacheDebug {
    /// Faults found.
    found: AtomicU64,
}

impl CacheDebug {
    /// Of a fresh cache.
    pub const fn new() -> Self {
        Self {
            found: AtomicU64::new(0),
        }
    }

    /// Faults found so far.
    pub fn found(&self) -> u64 {
        self.found.load(Relaxed)
    }
}

/// The switches: nothing is on at first.
pub struct Switches<M: Machine> {
    machine: PhantomData<fn(M)>,
}

impl<M: Machine> Switches<M> {
    /// All off.
    pub const fn new() -> Self {
        Self {
            machine: PhantomData,
        }
    }

    /// The flags of a cache that is created with `flags`: with the debug flags that
    /// `slub_debug=` has for its name. To be asked first of all at creation.
    pub(crate) fn flags_for(&self, name: &str, flags: Flags) -> Flags {
        let _ = name;
        flags
    }

    /// The hooks that a fresh cache with these (final) flags begins with, as to zeroing,
    /// faults and DEBUG.
    pub(crate) fn hooks_for(&self, flags: Flags, has_constructor: bool) -> Hooks {
        let _ = (flags, has_constructor);
        panic!("not written yet")
    }

    /// What links of a fresh cache are mixed with: random with hardening, else 0.
    pub(crate) fn secret(&self) -> u64 {
        panic!("not written yet")
    }

    /// Whether the freelists of fresh slabs are to be shuffled: then a random number to begin with.
    pub(crate) fn shuffle(&self) -> Option<u64> {
        panic!("not written yet")
    }
}

impl<M: Machine> Default for Switches<M> {
    fn default() -> Self {
        Self::new()
    }
}
