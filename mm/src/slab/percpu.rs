//! What a cache has of each CPU: its sheaves, under a local try-lock.
//!
//! | slot | what is in it |
//! |---|---|
//! | *main* | a sheaf, with any number of objects; or the permanent empty one, until the CPU needs more |
//! | *spare* | nothing, or a sheaf: full or empty, or partly filled if a prefilled one came back so |
//! | *rcu_free* | nothing, or a sheaf in which objects gather that wait for a grace period |
//!
//! Whoever has the local lock owns the sheaves: it is tried, never waited for. Who finds it
//! taken has interrupted its holder on this CPU, and goes to the slabs instead. What moves
//! where is in `docs/slab.md`, section "Sheaves".

use core::{mem::offset_of, ptr::NonNull};

use platform::{
    NodeId, PerCpuAddr, Preempt,
    lock::{LocalGuard, LocalLock, StolenGuard},
    lock_class,
    sync::AtomicU64,
};

use super::{KmemCache, Machine, node::Node, sheaf::Sheaf};
use crate::kvfree_rcu::Part;

lock_class! {
    /// A CPU's sheaves of a cache: a local lock, so only ever tried.
    pub struct SheavesLock = ("slab sheaves", 81);
}

/// A CPU's sheaves.
#[derive(Debug)]
pub(crate) struct CpuSheaves {
    /// Never absent: the [permanent empty one](Sheaf::nothing) where the CPU has none.
    pub main: NonNull<Sheaf>,
    /// A real one, if there is one.
    pub spare: Option<NonNull<Sheaf>>,
    /// Objects that wait for a grace period gather here.
    pub rcu_free: Option<NonNull<Sheaf>>,
}

// SAFETY: sheaves have one owner, which is who has the lock.
unsafe impl Send for CpuSheaves {}

/// The sheaves of this CPU, locked.
pub(crate) type SheavesGuard<'a, M> = LocalGuard<'a, CpuSheaves, M, SheavesLock>;

/// The sheaves of a CPU that does not run, or of a cache that is not used any more.
pub(crate) type StolenSheaves<'a, M> = StolenGuard<'a, CpuSheaves, M, SheavesLock>;

impl CpuSheaves {
    /// Whether main is the permanent empty sheaf.
    pub fn has_no_main(&self) -> bool {
        // SAFETY: main is this one's.
        unsafe { Sheaf::capacity(self.main) == 0 }
    }

    /// Main and a spare that has objects change places.
    pub fn swap_for_objects(&mut self) -> bool {
        self.swap_if(|spare| {
            // SAFETY: the spare is this one's.
            unsafe { Sheaf::len(spare) > 0 }
        })
    }

    /// Main and a spare that has room change places.
    pub fn swap_for_room(&mut self) -> bool {
        self.swap_if(|spare| {
            // SAFETY: the spare is this one's.
            unsafe { Sheaf::has_room(spare) }
        })
    }

    fn swap_if(&mut self, good: impl Fn(NonNull<Sheaf>) -> bool) -> bool {
        let Some(spare) = self.spare.filter(|spare| good(*spare)) else {
            return false;
        };
        // A spare is a real sheaf: the permanent empty one is dropped.
        self.spare = (!self.has_no_main()).then_some(self.main);
        self.main = spare;
        true
    }

    /// Takes main and spare out, if they are real ones. (What waits for a grace period stays.)
    pub fn take(&mut self) -> [Option<NonNull<Sheaf>>; 2] {
        let main = (!self.has_no_main()).then_some(self.main);
        self.main = Sheaf::nothing();
        [main, self.spare.take()]
    }
}

/// What each CPU has. What fast paths use lies in one cache line, the lock at the beginning, from where its place needs no
/// arithmetic.
#[repr(C)]
#[cfg_attr(not(model), repr(align(32)))]
pub(crate) struct CpuSlab<M: Machine> {
    pub sheaves: LocalLock<CpuSheaves, M, SheavesLock>,
    /// The zones of the node whose memory is the CPU's own, as [`zone_pair`] of a frame says.
    pub home: u32,
    /// Sheaves that the cache keeps for itself: made, less freed, less those that are prefilled
    /// and somebody's. Right as the sum over all CPUs; changed by its CPU, in one instruction. So
    /// a [walk](super::walk) misses a sheaf that got lost.
    pub kept: AtomicU64,
    /// What waits for a grace period, but for what is in the open sheaf.
    pub part: Part<M>,
    /// The cache's objects in this CPU's [quarantine](super::quarantine), and those that are just leaving it. Changed by who has that
    /// one's lock, whatever CPU it runs on.
    pub quarantined: AtomicU64,
}

#[cfg(not(model))]
const _: () = assert!(size_of::<CpuSheaves>() + 2 * size_of::<u32>() == 32);

impl<M: Machine> CpuSlab<M> {
    /// That of a CPU whose own memory is that of `home` ([`Mm::nearest_memory`](crate::Mm::nearest_memory)
    /// of its node): without sheaves.
    pub fn new(cache: NonNull<KmemCache<M>>, home: NodeId) -> Self {
        let sheaves = CpuSheaves {
            main: Sheaf::nothing(),
            spare: None,
            rcu_free: None,
        };
        Self {
            sheaves: LocalLock::new(sheaves),
            home: pair_of(home),
            kept: AtomicU64::new(0),
            part: Part::new(cache),
            quarantined: AtomicU64::new(0),
        }
    }
}

/// Which node a frame is of, for comparison with [`CpuSlab::home`].
#[inline(always)]
pub(crate) fn zone_pair(frame: &crate::Frame) -> u32 {
    // Each node has two zones, with adjacent numbers.
    frame.word().bits() >> 17
}

/// The [`zone_pair`] of a node's frames.
#[inline(always)]
pub(crate) const fn pair_of(node: NodeId) -> u32 {
    node.index() as u32
}

impl<M: Machine> KmemCache<M> {
    /// The cache keeps a sheaf more. Any context.
    #[inline]
    pub(crate) fn keeps_sheaf(&self) {
        self.add_kept(1);
    }

    /// The cache keeps a sheaf less: it is freed, or somebody's. Any context.
    #[inline]
    pub(crate) fn parts_with_sheaf(&self) {
        self.add_kept(1_u64.wrapping_neg());
    }

    #[inline]
    fn add_kept(&self, by: u64) {
        let addr = self.cpus.addr().0 + offset_of!(CpuSlab<M>, kept);
        // SAFETY: a word of this cache's, which other CPUs only read.
        unsafe { M::percpu_add(PerCpuAddr(addr), by) };
    }

    /// The sheaves of the CPU that runs this, unless they are in use by what this has
    /// interrupted; and whose memory is that CPU's own. Any context.
    #[inline(always)]
    pub(crate) fn lock_here(&self) -> Option<(SheavesGuard<'_, M>, u32)> {
        let mut home = 0;
        let guard = self.cpus.try_lock_in(|cpu| {
            home = cpu.home;
            &cpu.sheaves
        })?;
        Some((guard, home))
    }

    /// The node whose memory is this CPU's own, at the moment. Any context.
    pub(crate) fn home(&self) -> NodeId {
        let preempt = Preempt::disable();
        node_of_pair(self.cpus.here(&preempt).home)
    }

    /// The part of the node that `home` is of. It has memory, so there is one.
    #[inline]
    pub(crate) fn home_node(&self, home: u32) -> Option<&Node<M>> {
        self.node(node_of_pair(home))
    }

    /// Which node an object is of, as [`zone_pair`].
    ///
    /// # Safety
    ///
    /// It is an object of a slab that lives.
    #[inline(always)]
    pub(crate) unsafe fn pair_of_object(&self, object: NonNull<u8>) -> u32 {
        let map = self.slabs().mm().frames();
        let offset = object.addr().get() - layout_start(map);
        let pfn = crate::Pfn((offset >> crate::frame::PAGE_SHIFT) as u32);
        // SAFETY: memory of the direct map has a descriptor; all frames of a block name its zone.
        zone_pair(unsafe { map.at(pfn) })
    }
}

#[inline(always)]
fn layout_start<L: crate::Layout>(map: &crate::frame::FrameMap<L>) -> usize {
    map.layout().direct_map()
}

/// The opposite of [`pair_of`].
#[inline(always)]
pub(crate) fn node_of_pair(pair: u32) -> NodeId {
    NodeId::from_index(pair as usize).unwrap_or(NodeId::FIRST)
}
