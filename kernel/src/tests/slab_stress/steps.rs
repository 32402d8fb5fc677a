//! What a thread of the stress does.

use alloc::{format, vec::Vec};
use core::{
    mem::MaybeUninit,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use kernel_base::rng::Rng;
use mm::{
    Gfp,
    slab::{Flags, Spec},
};
use platform::NodeId;

use super::objects::{From, Held, Kind, Pool};
use crate::{
    memory::{mm, slab::slabs},
    smp,
    sweep::sweep,
    timer::RawKind,
};

/// Objects of a bulk at most.
const BULK: u64 = 80;
/// Instructions after which an interrupt comes at most.
const LATER: u64 = 6_000;

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub allocated: u64,
    pub none: u64,
    pub damaged: u64,
    pub wrong_node: u64,
    pub bulk: u64,
    pub prefilled: u64,
    pub caches: u64,
    pub interrupts: u64,
    pub nmis: u64,
}

impl Seen {
    pub fn add(&mut self, more: &Self) {
        self.allocated += more.allocated;
        self.none += more.none;
        self.damaged += more.damaged;
        self.wrong_node += more.wrong_node;
        self.bulk += more.bulk;
        self.prefilled += more.prefilled;
        self.caches += more.caches;
        self.interrupts += more.interrupts;
        self.nmis += more.nmis;
    }
}

/// A thread's part.
pub struct Worker<'a> {
    pool: &'a Pool,
    rng: Rng,
    nodes: Vec<NodeId>,
    seen: Seen,
    names: u64,
}

impl<'a> Worker<'a> {
    pub fn new(pool: &'a Pool, mut rng: Rng) -> Self {
        Self {
            pool,
            nodes: mm().nodes().iter().collect(),
            seen: Seen::default(),
            names: rng.next_u64() >> 32,
            rng,
        }
    }

    pub fn end(self) -> Seen {
        self.seen
    }

    /// One operation by chance.
    pub fn step(&mut self) {
        match self.rng.below(1000) {
            0..800 => self.exchange(From::Thread),
            800..880 => self.bulk(),
            880..930 => self.prefill(),
            930..985 => self.interrupted(),
            985..992 => self.shrink(),
            _ => self.own_cache(),
        }
    }

    fn gfp(&mut self, from: From) -> Gfp {
        match self.rng.below(5) {
            0 => Gfp::NOLOCK,
            1 => Gfp::NOWAIT,
            2 | 3 if from == From::Thread => Gfp::KERNEL | Gfp::NOWARN,
            _ => Gfp::ATOMIC | Gfp::NOWARN,
        }
    }

    /// One more object that somebody else may free, or none of it.
    fn took(&mut self, held: Option<Held>) {
        match held {
            Some(held) => {
                self.seen.allocated += 1;
                self.seen.damaged += u64::from(!held.fill());
            }
            None => self.seen.none += 1,
        }
        self.post(held);
    }

    /// Leaves it to others, and frees what it finds in its place.
    fn post(&mut self, held: Option<Held>) {
        if let Some(old) = self.pool.swap(&mut self.rng, held) {
            let nolock = self.rng.below(5) == 0;
            self.seen.damaged += u64::from(!self.pool.free(old, nolock));
        }
    }

    /// Allocates one object, and frees another one.
    fn exchange(&mut self, from: From) {
        let kind = Kind::random(&mut self.rng);
        let mut gfp = self.gfp(from);
        let node = (self.rng.below(4) == 0)
            .then(|| self.nodes[self.rng.below(self.nodes.len() as u64) as usize]);
        if node.is_some() && self.rng.below(2) == 0 {
            gfp |= Gfp::THISNODE;
        }
        let held = self.pool.alloc(kind, gfp, node, from);
        if let (Some(held), Some(node)) = (held, node)
            && gfp.contains(Gfp::THISNODE)
            && !gfp.contains(Gfp::NOLOCK)
        {
            let found = node_at(held.object());
            self.seen.wrong_node += u64::from(found != Some(node));
        }
        self.took(held);
    }

    fn bulk(&mut self) {
        let kind = Kind::of_cache(&mut self.rng);
        let Some(cache) = self.pool.cache(kind) else {
            return;
        };
        let count = self.rng.below(BULK) as usize;
        let mut into = [MaybeUninit::<NonNull<u8>>::uninit(); BULK as usize];
        let gfp = self.gfp(From::Thread) - Gfp::NOLOCK;
        let got = cache.alloc_bulk(gfp, &mut into[..count]);
        // SAFETY: so many were filled.
        let objects = unsafe { into[..got].assume_init_ref() };
        self.seen.bulk += got as u64;
        let held = |object: &NonNull<u8>| Held::of(*object, kind);
        for object in objects {
            self.seen.damaged += u64::from(!held(object).fill());
        }
        // Some go one by one, the others together.
        let single = self.rng.below(got as u64 + 1) as usize;
        for object in &objects[..single] {
            self.post(Some(held(object)));
        }
        let rest = &objects[single..];
        for object in rest {
            self.seen.damaged += u64::from(!held(object).is_whole());
        }
        // SAFETY: allocated above, and not posted.
        unsafe { cache.free_bulk(rest) };
    }

    fn prefill(&mut self) {
        let kind = Kind::of_cache(&mut self.rng);
        let Some(cache) = self.pool.cache(kind) else {
            return;
        };
        let count = self.rng.below(BULK) as usize;
        let gfp = Gfp::KERNEL | Gfp::NOWARN;
        let Some(mut sheaf) = cache.prefill(gfp, count) else {
            self.seen.none += 1;
            return;
        };
        for _ in 0..self.rng.below(count as u64 + 1) {
            let object = sheaf.alloc(Gfp::empty());
            self.seen.prefilled += u64::from(object.is_some());
            self.took(object.map(|object| Held::of(object, kind)));
        }
        if self.rng.below(3) == 0 && sheaf.refill(gfp, count) {
            let short = sheaf.len() < count;
            self.seen.damaged += u64::from(short);
        }
    }

    fn shrink(&mut self) {
        let kind = Kind::of_cache(&mut self.rng);
        if let Some(cache) = self.pool.cache(kind) {
            cache.shrink();
        }
    }

    /// A few exchanges, interrupted after some instructions by code that does the same.
    fn interrupted(&mut self) {
        let (kind, from) = match self.rng.below(2) {
            0 => (RawKind::Irq, From::Irq),
            _ => (RawKind::Nmi, From::Nmi),
        };
        let later = 1 + self.rng.below(LATER) as u32;
        let seed = self.rng.next_u64();
        let (got, damaged) = (AtomicU64::new(0), AtomicU64::new(0));
        let pool = self.pool;
        let handler = || {
            let seen = pool.interrupt(&mut Rng::new(seed), from);
            got.fetch_add(seen.0, Ordering::Relaxed);
            damaged.fetch_add(seen.1, Ordering::Relaxed);
        };
        sweep(kind, later, later + 1, &handler, || {
            for _ in 0..3 {
                self.exchange(From::Pinned);
            }
        });
        let count = match from {
            From::Nmi => &mut self.seen.nmis,
            _ => &mut self.seen.interrupts,
        };
        *count += got.load(Ordering::Relaxed);
        self.seen.damaged += damaged.load(Ordering::Relaxed);
    }

    /// A cache that comes and goes.
    fn own_cache(&mut self) {
        let name = format!("stress-{}-{}", smp::this_cpu(), self.names);
        self.names += 1;
        let size = 8 + self.rng.below(1_000) as usize;
        let mut flags = Flags::empty();
        for flag in [
            Flags::NO_MERGE,
            Flags::TYPESAFE_BY_RCU,
            Flags::HWCACHE_ALIGN,
        ] {
            flags.set(flag, self.rng.below(3) == 0);
        }
        let created = slabs().create(&Spec::new(&name, size).flags(flags));
        let Ok(cache) = created else {
            self.seen.none += 1;
            return;
        };
        self.seen.caches += 1;
        let mut held = Vec::new();
        for _ in 0..self.rng.below(300) {
            held.extend(cache.alloc(Gfp::KERNEL | Gfp::NOWARN));
        }
        for object in held {
            // SAFETY: allocated above.
            unsafe {
                if self.rng.below(4) == 0 {
                    cache.free_nolock(object);
                } else {
                    cache.free(object);
                }
            }
        }
        // SAFETY: all objects were freed, and nobody else knows it.
        let destroyed = unsafe { slabs().destroy_named(cache, &name) };
        self.seen.damaged += u64::from(destroyed.is_err());
    }
}

/// The node of the memory at `object`.
fn node_at(object: NonNull<u8>) -> Option<NodeId> {
    let frames = mm().frames();
    let word = frames
        .get(frames.pfn_of_address(object.addr().get())?)?
        .word();
    mm().zone(word.zone()).map(|zone| zone.node())
}
