//! `kfree_rcu`: memory that is freed when no reader can hold it any more.
//!
//! What is given to it gathers in batches: *rcu sheaves*, of one cache and CPU; *pages of pointers*;
//! *chains* of heads that lie in the objects. All kinds go through one engine: a batch is closed with a cookie, waits on its CPU's
//! [`lane`], is taken off when the cookie is done, and its objects rest in a barn or in
//! their slabs. `docs/kfree_rcu.md` has the roads, the states, and why barriers are exact.
//!
//! | room | what is in it |
//! |---|---|
//! | [`queue`] | where an object goes |
//! | `slab/rcu_free` | a CPU's rcu_free sheaf |
//! | [`lane`], [`part`], [`loose`] | what waits on a CPU: of a cache, and by itself |
//! | [`hands`] | what was taken, and does not rest yet |
//! | [`drain`], [`drainer`] | freeing what is ripe, and the threads that do |
//! | [`barrier`] | waiting until all is free: of all caches, of one, of one that is destroyed |
//! | [`pressure`] | when too much waits, and when memory is short |
//! | [`nolock`] | any context |
//! | [`text`] | all of it, to be read |
//!
//! Lock order: a CPU's local lock (81), a lane's lock (85). Nothing is taken under the latter, and with
//! neither held: destructors, frees, grace periods.

mod barrier;
mod drain;
mod drainer;
pub mod hands;
mod head;
mod lane;
mod loose;
mod nolock;
mod part;
mod pressure;
mod queue;
mod text;

use core::ptr::{NonNull, null_mut};

use platform::{
    CpuId, MAX_CPUS,
    sync::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering},
    wait::WaitQueue,
};

pub use barrier::{InFlight, Wait};
pub use drainer::OPEN_NS;
pub use head::Head;
pub(crate) use lane::{Lane, Then};
pub(crate) use loose::{Batch, Kind};
pub(crate) use part::Part;
pub use text::{Awaited, Batches};

use crate::slab::{KmemCache, Machine, Slabs};
use barrier::BarrierMutex;
use hands::Ticket;

/// What is asked of who has memory of vmalloc.
#[derive(Clone, Copy, Debug)]
pub struct Vmalloc {
    /// Whether an address is one of it. Any context.
    pub is_vmalloc: fn(usize) -> bool,
    /// Frees it. A thread, with preemption on.
    pub vfree: unsafe fn(NonNull<u8>),
}

/// The engine: every CPU's lane.
pub struct KvfreeRcu<M: Machine> {
    lanes: [Lane<M>; MAX_CPUS],
    /// Those who wait for hands.
    pub(crate) rested: WaitQueue<M>,
    barrier: BarrierMutex<M>,
    soft_limit: AtomicU64,
    /// Threads that have not ended.
    drainers: AtomicUsize,
    stopping: AtomicBool,
    /// Calls from any context that are still to be made, for memory that is no cache's.
    pub(crate) deferred: AtomicU64,
    vmalloc: AtomicPtr<Vmalloc>,
}

impl<M: Machine> KvfreeRcu<M> {
    /// Every possible CPU's lane.
    pub(crate) fn lanes(&self) -> &[Lane<M>] {
        let last = M::possible_cpus().iter().map(CpuId::index).max();
        &self.lanes[..=last.unwrap_or(0)]
    }

    /// A CPU's lane.
    #[inline]
    pub(crate) fn lane(&self, cpu: CpuId) -> &Lane<M> {
        &self.lanes[cpu.index()]
    }

    /// Makes it in its place: it is too large to be moved about.
    ///
    /// # Safety
    ///
    /// `this` is the caller's to write.
    pub(crate) unsafe fn new_in(this: *mut Self) {
        let _ = |all: &Self| {
            // A field that is added has to be written below: this does not compile without it.
            let Self {
                lanes: _,
                rested: _,
                barrier: _,
                soft_limit: _,
                drainers: _,
                stopping: _,
                deferred: _,
                vmalloc: _,
            } = all;
        };
        // SAFETY: parts of what the caller gives, each written once.
        unsafe {
            let lanes = (&raw mut (*this).lanes).cast::<Lane<M>>();
            for index in 0..MAX_CPUS {
                let cpu = CpuId::from_index(index).unwrap_or(CpuId::BOOT);
                lanes.add(index).write(Lane::new(cpu));
            }
            (&raw mut (*this).rested).write(WaitQueue::new());
            (&raw mut (*this).barrier).write(BarrierMutex::new(()));
            (&raw mut (*this).soft_limit).write(AtomicU64::new(u64::MAX));
            (&raw mut (*this).drainers).write(AtomicUsize::new(0));
            (&raw mut (*this).stopping).write(AtomicBool::new(false));
            (&raw mut (*this).deferred).write(AtomicU64::new(0));
            (&raw mut (*this).vmalloc).write(AtomicPtr::new(null_mut()));
        }
    }

    /// The allocator is where it will stay; nothing has been used.
    pub(crate) fn settle_in(&self, slabs: &Slabs<M>) {
        self.lanes.iter().for_each(|lane| lane.settle_in(slabs));
    }

    /// There is memory of vmalloc, which may be given to `kfree_rcu` from now on.
    pub fn set_vmalloc(&self, vmalloc: &'static Vmalloc) {
        let vmalloc = core::ptr::from_ref(vmalloc).cast_mut();
        // Release pairs with the Acquire in `vmalloc`.
        self.vmalloc.store(vmalloc, Ordering::Release);
    }

    fn vmalloc(&self) -> Option<&'static Vmalloc> {
        // SAFETY: set by `set_vmalloc` alone.
        unsafe { self.vmalloc.load(Ordering::Acquire).as_ref() }
    }

    pub(crate) fn is_vmalloc(&self, memory: NonNull<u8>) -> bool {
        self.vmalloc()
            .is_some_and(|vmalloc| (vmalloc.is_vmalloc)(memory.addr().get()))
    }

    /// Frees memory of vmalloc.
    ///
    /// # Safety
    ///
    /// It is the caller's, and not used any more.
    pub(crate) unsafe fn vfree(&self, memory: NonNull<u8>) {
        if let Some(vmalloc) = self.vmalloc() {
            // SAFETY: as the caller promises.
            unsafe { (vmalloc.vfree)(memory) };
        }
    }

    /// Begins a phase on every lane: the phases that ended.
    fn flip_lanes(&self) -> [Ticket; MAX_CPUS] {
        core::array::from_fn(|index| self.lanes[index].hands.flip())
    }
}

impl<M: Machine> Slabs<M> {
    /// The engine of `kfree_rcu`.
    pub fn kvfree_rcu(&self) -> &KvfreeRcu<M> {
        &self.kvfree_rcu
    }

    /// There is an engine of RCU: what was queued before is given names, and the limits are set.
    pub(crate) fn begin_kvfree_rcu(&self) {
        let frames = self.mm().zones().map(|zone| zone.managed()).sum::<u64>();
        let bytes = frames * crate::PAGE_SIZE;
        let limit = pressure::soft_limit(bytes, M::possible_cpus().count());
        self.kvfree_rcu.set_soft_limit(limit);
        for lane in self.kvfree_rcu.lanes() {
            lane.begin();
        }
    }
}

impl<M: Machine> KmemCache<M> {
    /// What it has on every possible CPU's lane.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (CpuId, &Part<M>)> {
        self.cpus.iter().map(|(cpu, own)| (cpu, &own.part))
    }

    /// Whether some of its objects wait for a grace period, or are being freed after it. Exact for who knows that
    /// `kfree_rcu` is not called for it meanwhile (see [`barrier`]). Any context; writes nothing.
    pub fn has_in_flight(&self) -> bool {
        // In this order: from the lanes objects go to the hands.
        self.parts()
            .any(|(_, part)| part.open_since() != 0 || part.objects() > 0)
            || self.hands.any()
    }

    /// Objects that wait for a grace period on a CPU's lane, about, but for those in its open sheaf. Any context.
    pub fn in_flight_on(&self, cpu: CpuId) -> u64 {
        self.part(cpu).objects()
    }

    /// The same on all lanes.
    pub fn in_flight(&self) -> u64 {
        self.parts().map(|(_, part)| part.objects()).sum()
    }
}
