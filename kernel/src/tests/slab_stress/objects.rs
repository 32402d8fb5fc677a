//! The objects of the stress: whose they are, what is in them, and where they lie between the
//! CPUs.

use alloc::{string::String, vec::Vec};
use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use kernel_base::rng::Rng;
use mm::{
    Gfp,
    slab::{CreateError, Flags, KmemCache, Spec},
};
use platform::NodeId;

use crate::{
    machine::Kernel,
    memory::{mm, slab::slabs},
};

/// Places between the CPUs.
const SLOTS: usize = 1024;
/// Caches of everybody: names, sizes, flags. The first one has a constructor.
const CACHES: [(&str, usize, Flags); 7] = [
    ("stress-made", 120, Flags::NO_MERGE),
    ("stress-24", 24, Flags::NO_MERGE),
    ("stress-64", 64, Flags::empty()),
    ("stress-200", 200, Flags::HWCACHE_ALIGN),
    ("stress-700", 700, Flags::RECLAIM_ACCOUNT),
    ("stress-2048", 2048, Flags::NO_MERGE),
    ("stress-typesafe", 320, Flags::TYPESAFE_BY_RCU),
];
/// Sizes of kmalloc; the last ones are larger than any cache's.
const SIZES: [usize; 8] = [8, 40, 96, 200, 1000, 8192, 9000, 20_000];
/// What the constructor writes.
const MADE: u64 = 0x6d61_6465_2d62_7921;
/// A word's upper bits that an address in the direct map always has.
const HIGH: u64 = 0xffff << 48;

/// What kind an object is: a number below `CACHES.len() + SIZES.len()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(u64);

/// Where somebody allocates and frees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Thread,
    /// A thread that may not sleep: the timer is lent out.
    Pinned,
    Irq,
    Nmi,
}

/// An object that is held: its address with its kind in place of the upper bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held(u64);

/// The caches and the objects between the CPUs.
pub struct Pool {
    caches: Vec<&'static KmemCache<Kernel>>,
    slots: Vec<AtomicU64>,
}

impl Kind {
    pub fn random(rng: &mut Rng) -> Self {
        Self(rng.below((CACHES.len() + SIZES.len()) as u64))
    }

    /// One of a cache of its own.
    pub fn of_cache(rng: &mut Rng) -> Self {
        Self(rng.below(CACHES.len() as u64))
    }

    fn size(self) -> usize {
        let index = self.0 as usize;
        match CACHES.get(index) {
            Some((_, size, _)) => *size,
            None => SIZES[index - CACHES.len()],
        }
    }

    fn is_constructed(self) -> bool {
        self.0 == 0
    }
}

impl Held {
    /// An object of `kind`, which the caller holds.
    pub fn of(object: NonNull<u8>, kind: Kind) -> Self {
        Self(object.as_ptr().expose_provenance() as u64 & !HIGH | kind.0 << 48)
    }

    pub fn kind(self) -> Kind {
        Kind(self.0 >> 48)
    }

    pub fn object(self) -> NonNull<u8> {
        let pointer = core::ptr::with_exposed_provenance_mut((self.0 | HIGH) as usize);
        // SAFETY: an address of the upper half.
        unsafe { NonNull::new_unchecked(pointer) }
    }

    /// The words that are written: the first after the constructor's, and the last. Objects of
    /// eight bytes have one.
    fn words(self) -> [NonNull<u64>; 2] {
        let words = self.kind().size() / 8;
        let first = usize::from(self.kind().is_constructed());
        // SAFETY: inside the object.
        [first, words - 1].map(|word| unsafe { self.object().cast::<u64>().add(word) })
    }

    /// Fills it; whether it was as the constructor leaves one.
    pub fn fill(self) -> bool {
        // SAFETY: the caller's, and of eight bytes at least.
        let first = unsafe { self.object().cast::<u64>().read_volatile() };
        for word in self.words() {
            // SAFETY: the caller's.
            unsafe { word.write_volatile(word.addr().get() as u64 ^ self.0) };
        }
        !self.kind().is_constructed() || first == MADE
    }

    /// Whether it is as [`fill`](Self::fill) left it.
    pub fn is_whole(self) -> bool {
        self.words().into_iter().all(|word| {
            // SAFETY: the caller's.
            let found = unsafe { word.read_volatile() };
            found == word.addr().get() as u64 ^ self.0
        })
    }
}

fn construct(object: NonNull<u8>) {
    // SAFETY: a fresh object.
    unsafe { object.cast::<u64>().write(MADE) };
}

impl Pool {
    pub fn new() -> Result<Self, CreateError> {
        let mut caches = Vec::new();
        let mut made = Ok(());
        for (index, (name, size, flags)) in CACHES.into_iter().enumerate() {
            let mut spec = Spec::new(name, size).flags(flags);
            if index == 0 {
                spec = spec.constructor(construct);
            }
            match slabs().create(&spec) {
                Ok(cache) => caches.push(cache),
                Err(error) => {
                    made = Err(error);
                    break;
                }
            }
        }
        let pool = Self {
            caches,
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
        };
        match made {
            Ok(()) => Ok(pool),
            Err(error) => {
                // Nothing was allocated, so nothing can be left.
                let _ = pool.end();
                Err(error)
            }
        }
    }

    /// Its cache, if it is of one of these.
    pub fn cache(&self, kind: Kind) -> Option<&'static KmemCache<Kernel>> {
        self.caches.get(kind.0 as usize).copied()
    }

    /// Allocates.
    pub fn alloc(&self, kind: Kind, gfp: Gfp, node: Option<NodeId>, from: From) -> Option<Held> {
        let nolock = from == From::Nmi || gfp.contains(Gfp::NOLOCK);
        let object = match (self.cache(kind), node) {
            (Some(cache), _) if nolock => cache.alloc_nolock(node),
            (Some(cache), None) => cache.alloc(gfp),
            (Some(cache), Some(node)) => cache.alloc_node(gfp, node),
            (None, _) if nolock => slabs().kmalloc_nolock(kind.size(), Gfp::empty(), node),
            (None, None) => slabs().kmalloc(kind.size(), gfp),
            (None, Some(node)) => slabs().kmalloc_node(kind.size(), gfp, node),
        };
        object.map(|object| Held::of(object, kind))
    }

    /// Frees; whether it was as it was left.
    pub fn free(&self, held: Held, nolock: bool) -> bool {
        let whole = held.is_whole();
        // SAFETY: allocated by `alloc` or a relative, and the caller's.
        unsafe {
            match self.cache(held.kind()) {
                Some(cache) if nolock => cache.free_nolock(held.object()),
                Some(cache) => cache.free(held.object()),
                None if nolock => slabs().kfree_nolock(held.object()),
                None => slabs().kfree(held.object()),
            }
        }
        whole
    }

    /// Puts an object where other CPUs find it, or nothing, and takes what was there.
    pub fn swap(&self, rng: &mut Rng, held: Option<Held>) -> Option<Held> {
        let slot = &self.slots[rng.below(SLOTS as u64) as usize];
        // AcqRel: what is written to the object goes with it.
        let found = slot.swap(held.map_or(0, |held| held.0), Ordering::AcqRel);
        (found != 0).then_some(Held(found))
    }

    /// What an interrupt or NMI does: allocates one, and frees one. Objects that it got, and how
    /// many were damaged.
    pub fn interrupt(&self, rng: &mut Rng, from: From) -> (u64, u64) {
        let nolock = from == From::Nmi || rng.below(2) == 0;
        let gfp = if nolock {
            Gfp::NOLOCK
        } else {
            Gfp::ATOMIC | Gfp::NOWARN
        };
        let mut damaged = 0;
        let held = self.alloc(Kind::random(rng), gfp, None, from);
        if let Some(held) = held {
            damaged += u64::from(!held.fill());
        }
        if let Some(old) = self.swap(rng, held) {
            damaged += u64::from(!self.free(old, nolock));
        }
        (u64::from(held.is_some()), damaged)
    }

    /// Frees what lies between the CPUs; how many objects were damaged.
    pub fn empty(&self) -> u64 {
        let mut damaged = 0;
        for slot in &self.slots {
            let found = slot.swap(0, Ordering::AcqRel);
            if found != 0 {
                damaged += u64::from(!self.free(Held(found), false));
            }
        }
        damaged
    }

    /// Destroys the caches, whose objects are all freed.
    ///
    /// # Errors
    ///
    /// What they have left.
    pub fn end(self) -> Result<(), String> {
        for cache in &self.caches {
            if !cache.flags().contains(Flags::NO_MERGE) {
                // Others may have objects of it.
                continue;
            }
            cache.shrink();
            for node in mm().nodes() {
                let counts = cache.node_counts(node).unwrap_or_default();
                // Those that wait for a grace period are destroyed with the cache.
                if counts.slabs > 0 {
                    return Err(alloc::format!("{}: {counts:?}", cache.name()));
                }
            }
        }
        for ((name, ..), cache) in CACHES.iter().zip(self.caches) {
            // SAFETY: created by `new`; the objects were freed, nobody uses it.
            let destroyed = unsafe { slabs().destroy_named(cache, name) };
            destroyed.map_err(|leaked| alloc::format!("{leaked}"))?;
        }
        Ok(())
    }
}
