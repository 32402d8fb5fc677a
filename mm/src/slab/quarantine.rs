//! The quarantine: freed objects that wait, filled with poison, before they may be reused, so
//! that a use after free meets poison instead of the next owner's data, and a write is found.
//!
//! Each CPU has a queue. A free of a cache with [`Hooks::QUARANTINE`] fills the object and puts it at the end; what is
//! then more than the limit leaves at the front: its poison is compared, and it is freed to its slab. (Not into
//! sheaves, from which it would be reused at once. Nor could a sheaf be made while the queue is locked.)
//!
//! - `fifo`: the queue
//! - `enter`: frees that go there
//! - `leave`: how objects leave: the oldest, those of a cache, those of a CPU
//!
//! # The lock
//!
//! A queue's lock covers an object from when it enters until it rests in its slab and is no longer counted: who has had the
//! lock of each queue since a cache began to die, or read 0 in the cache's count for that CPU, knows that nobody is about
//! to free an object of it from there. Frees only try the lock, so they wait for nothing, and one that finds it taken
//! (it interrupts the holder, or the queue is being emptied) goes on as without quarantine.
//!
//! # Who takes part
//!
//! | cache | |
//! |---|---|
//! | plain ones, kmalloc's too | yes |
//! | debug caches | no: what they check of an object with each free would be checked late, and P does the same |
//! | with a constructor, TYPESAFE_BY_RCU | no: a free object keeps its contents |
//! | those of descriptors | no: the allocator's own |
//! | dying | no: its objects go to their slabs, which then go |
//!
//! The memory of sheaves does not take part either, nor do frees that wait for nothing (`free_nolock`), deferred ones
//! too, and objects that nobody has had.
//!
//! What a switch has set is a bit of each cache's hooks, as with the [switches of debugging](super::debug).

mod enter;
mod fifo;
mod leave;

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use platform::{CpuId, MAX_CPUS, lock::SpinLock, lock_class};

pub(crate) use fifo::{Entry, Fifo};

use super::{Flags, Hooks, KmemCache, Machine, Slabs, debug::pattern::Pattern};
use crate::frame::PAGE_SIZE;

lock_class! {
    /// A CPU's quarantine. Frees only try it; with it held objects go to their slabs.
    pub struct QuarantineLock = ("slab quarantine", 82);
}

/// What objects are filled with: an address made of it leads nowhere.
pub const POISON_QUARANTINE: u8 = 0x6d;

const POISON: Pattern = Pattern::of(POISON_QUARANTINE);

/// A CPU's queue. Not on one line with another's.
#[repr(C, align(64))]
pub(crate) struct Here<M: Machine> {
    pub fifo: SpinLock<Fifo, M, QuarantineLock>,
}

/// All queues.
pub(crate) struct Quarantine<M: Machine> {
    /// Bytes that a CPU keeps at most; 0: it is off. Relaxed: frees read it with their queue's lock, which whoever lowers it
    /// takes afterwards; all else is a glance.
    limit: AtomicUsize,
    pub cpus: [Here<M>; MAX_CPUS],
}

/// What is in a CPU's quarantine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quarantined {
    /// Objects.
    pub objects: usize,
    /// Bytes of them.
    pub bytes: usize,
}

impl<M: Machine> Quarantine<M> {
    /// Empty, and off.
    pub fn new() -> Self {
        Self {
            limit: AtomicUsize::new(0),
            cpus: core::array::from_fn(|_| Here {
                fifo: SpinLock::new(Fifo::new()),
            }),
        }
    }

    /// The hook of a cache: whether its frees come here. With the registry locked.
    pub fn hooks_for(&self, flags: Flags, has_constructor: bool) -> Hooks {
        let never = Flags::DEBUG | Flags::TYPESAFE_BY_RCU | Flags::NO_SHEAVES;
        if self.limit.load(Relaxed) == 0 || has_constructor || flags.intersects(never) {
            Hooks::empty()
        } else {
            Hooks::QUARANTINE
        }
    }
}

impl<M: Machine> Slabs<M> {
    /// Keeps up to `bytes` bytes of freed objects for each CPU from reuse; 0: none, and all that is there
    /// leaves. May sleep.
    pub fn set_quarantine(&self, bytes: usize) {
        self.quarantine.limit.store(bytes, Relaxed);
        for cache in self.caches().iter() {
            let quarantine = &self.quarantine;
            let wanted = quarantine.hooks_for(cache.flags, cache.constructor.is_some());
            // Relaxed: a free that does not see it yet goes on as before, or finds the limit. The registry's lock keeps
            // others from the bit.
            if wanted.is_empty() {
                let others = !Hooks::QUARANTINE;
                cache.hooks.fetch_and(others.bits(), Relaxed);
            } else {
                cache.hooks.fetch_or(wanted.bits(), Relaxed);
            }
        }
        for cpu in M::possible_cpus().iter() {
            self.quarantine_drain(cpu, bytes);
        }
    }

    /// Bytes of freed objects that each CPU keeps at most; 0: the quarantine is off. Any context.
    pub fn quarantine_limit(&self) -> usize {
        self.quarantine.limit.load(Relaxed)
    }

    /// What is in a CPU's quarantine just now. A thread.
    pub fn quarantined(&self, cpu: CpuId) -> Quarantined {
        let fifo = self.quarantine.cpus[cpu.index()].fifo.lock();
        Quarantined {
            objects: fifo.len(),
            bytes: fifo.bytes(),
        }
    }

    /// Calls `each` with every object in quarantine, and the CPU.
    ///
    /// # Safety
    ///
    /// Nobody frees meanwhile: other CPUs are stopped, wherever they are.
    pub(super) unsafe fn for_each_quarantined(&self, mut each: impl FnMut(CpuId, &Entry)) {
        let map = *self.mm().frames();
        for cpu in M::possible_cpus().iter() {
            // SAFETY: as the caller promises.
            let fifo = unsafe { self.quarantine.cpus[cpu.index()].fifo.peek() };
            let is_page = |address| super::look::is_memory(&map, address, PAGE_SIZE);
            fifo.for_each(is_page, |entry| each(cpu, entry));
        }
    }
}

impl<M: Machine> KmemCache<M> {
    /// Its objects in a CPU's quarantine. Exact for who knows that none is freed, else a glance. Any context.
    pub fn quarantined_on(&self, cpu: CpuId) -> u64 {
        // Acquire pairs with the Release in `leave`: who reads 0 sees them at rest.
        let count = &self.cpus.on(cpu).quarantined;
        count.load(platform::sync::Ordering::Acquire)
    }

    /// Its objects in all CPUs' quarantines, likewise.
    pub fn quarantined(&self) -> u64 {
        let cpus = M::possible_cpus();
        cpus.iter().map(|cpu| self.quarantined_on(cpu)).sum()
    }
}
