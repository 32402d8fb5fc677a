//! Who does operations: one by one, as they are drawn.

use std::{
    mem::MaybeUninit,
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

use mm::{Gfp, Mm, slab::Slabs};
use platform::{NodeId, Preempt, hosted::Hosted};
use rcu::Rcu;

use super::{
    caches::Made,
    model::{Held, Model, Whose},
    world::{Random, World, node_of, walk},
};

/// Memory that a thread or a CPU's interrupts hold at most.
const HELD: usize = 200;
/// Caches that a thread has of its own at most.
const CACHES: usize = 4;
/// The most objects of one bulk.
const BULK: u64 = 70;

/// What is done. Numbers choose, modulo what there is.
#[derive(Clone, Debug)]
pub enum Op {
    Alloc {
        cache: u64,
        gfp: Gfp,
    },
    AllocNode {
        cache: u64,
        gfp: Gfp,
        node: u64,
    },
    AllocNolock {
        cache: u64,
        node: Option<u64>,
    },
    AllocBulk {
        cache: u64,
        gfp: Gfp,
        count: usize,
    },
    /// Fill, take some, fill up, take the rest or give it back.
    Prefill {
        cache: u64,
        gfp: Gfp,
        counts: [usize; 3],
    },
    Kmalloc {
        size: usize,
        gfp: Gfp,
    },
    KmallocNode {
        size: usize,
        gfp: Gfp,
        node: u64,
    },
    Kcalloc {
        count: usize,
        size: usize,
        gfp: Gfp,
    },
    KmallocNolock {
        size: usize,
        zero: bool,
    },
    Krealloc {
        which: u64,
        size: usize,
        gfp: Gfp,
    },
    Free {
        which: u64,
        nolock: bool,
    },
    /// All that is held of a cache.
    FreeBulk {
        cache: u64,
    },
    /// To whoever takes it.
    Post {
        which: u64,
    },
    FreePosted {
        which: u64,
        nolock: bool,
    },
    Shrink {
        cache: u64,
    },
    Create,
    Destroy {
        which: u64,
    },
}

/// Flags by chance; without those that let an allocation sleep, if it may not.
pub fn gfp(random: &mut Random, may_sleep: bool) -> Gfp {
    let base = match random.below(4) {
        0 => Gfp::ATOMIC,
        1 => Gfp::NOWAIT,
        _ if may_sleep => Gfp::KERNEL,
        _ => Gfp::ATOMIC,
    };
    let mut gfp = base | Gfp::NOWARN;
    for (flag, one_in) in [(Gfp::ZERO, 5), (Gfp::THISNODE, 8)] {
        if random.one_in(one_in) {
            gfp |= flag;
        }
    }
    gfp
}

/// Sizes of kmalloc: mostly small, sometimes larger than any cache.
fn kmalloc_size(random: &mut Random) -> usize {
    let below = match random.below(20) {
        0..12 => 200,
        12..17 => 3_000,
        17..19 => 9_000,
        _ => 40_000,
    };
    random.below(below) as usize
}

impl Op {
    /// One by chance.
    pub fn random(random: &mut Random) -> Self {
        let gfp = gfp(random, true);
        let (cache, which, node) = (random.next(), random.next(), random.next());
        match random.below(1000) {
            0..230 => Self::Alloc { cache, gfp },
            230..290 => Self::AllocNode { cache, gfp, node },
            290..320 => Self::AllocNolock {
                cache,
                node: random.one_in(3).then_some(node),
            },
            320..350 => Self::AllocBulk {
                cache,
                gfp,
                count: random.below(BULK) as usize,
            },
            350..370 => Self::Prefill {
                cache,
                gfp,
                counts: [0; 3].map(|_| random.below(BULK) as usize),
            },
            370..440 => Self::Kmalloc {
                size: kmalloc_size(random),
                gfp,
            },
            440..460 => Self::KmallocNode {
                size: kmalloc_size(random),
                gfp,
                node,
            },
            460..475 => Self::Kcalloc {
                count: random.below(20) as usize,
                size: random.below(200) as usize,
                gfp,
            },
            475..500 => Self::KmallocNolock {
                size: kmalloc_size(random),
                zero: random.one_in(2),
            },
            500..530 => Self::Krealloc {
                which,
                size: kmalloc_size(random),
                gfp,
            },
            530..800 => Self::Free {
                which,
                nolock: random.one_in(4),
            },
            800..840 => Self::FreeBulk { cache },
            840..900 => Self::Post { which },
            900..980 => Self::FreePosted {
                which,
                nolock: random.one_in(4),
            },
            980..990 => Self::Shrink { cache },
            990..996 => Self::Create,
            _ => Self::Destroy { which },
        }
    }
}

/// A list that threads and handlers take turns with; nothing in `f` is a point.
#[derive(Default)]
pub struct Pile(Mutex<Vec<Held>>);

impl Pile {
    pub fn with<R>(&self, f: impl FnOnce(&mut Vec<Held>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes one of them.
    fn take(&self, which: u64) -> Option<Held> {
        self.with(|held| {
            let index = which.checked_rem(held.len() as u64)?;
            Some(held.swap_remove(index as usize))
        })
    }
}

/// What all share.
pub struct Shared {
    pub mm: &'static Mm<Hosted>,
    pub slabs: &'static Slabs<Hosted>,
    rcu: Arc<Rcu<Hosted>>,
    pub model: Model,
    /// Caches of everybody.
    pub caches: Vec<Arc<Made>>,
    /// From anyone to anyone.
    pub posted: Pile,
    /// Of interrupts, and of NMIs.
    pub interrupts: [Pile; 2],
    pub randoms: [Mutex<Random>; 2],
}

impl Shared {
    /// With so many caches for everybody.
    pub fn new(world: &World<'_>, caches: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let made = |_| Made::new(world.slabs, &mut random).map(Arc::new);
        Self {
            mm: world.mm,
            slabs: world.slabs,
            rcu: Arc::clone(&world.rcu),
            model: Model::new(world.mm),
            caches: (0..caches).filter_map(made).collect(),
            posted: Pile::default(),
            interrupts: Default::default(),
            randoms: [1, 2].map(|number| Mutex::new(Random(seed ^ number << 40))),
        }
    }

    /// Walks the heap. No other thread uses it, nor does an interrupt.
    #[track_caller]
    pub fn walk(&self) {
        walk(self.slabs, &self.rcu);
    }

    /// Frees all that is in piles, and the caches; nobody holds anything else, and no other thread, nor an interrupt, uses
    /// the heap. It is sound before.
    pub fn end(self) {
        self.walk();
        let piles = self.interrupts.iter().chain([&self.posted]);
        for pile in piles {
            while let Some(held) = pile.with(Vec::pop) {
                self.free(held, false);
            }
        }
        self.model.assert_empty();
        for made in self.caches {
            let made = Arc::into_inner(made).expect("nobody has it");
            made.destroy(self.slabs);
        }
    }

    fn node(&self, number: u64) -> NodeId {
        let nodes: Vec<NodeId> = self.mm.nodes().iter().collect();
        nodes[(number % nodes.len() as u64) as usize]
    }

    /// It was allocated with these flags, from `node` if that was asked for.
    #[track_caller]
    fn took(
        &self,
        at: NonNull<u8>,
        (size, align): (usize, usize),
        whose: Whose,
        gfp: Gfp,
        node: Option<NodeId>,
        seed: u64,
    ) -> Held {
        if gfp.contains(Gfp::THISNODE)
            && let Some(node) = node
        {
            assert_eq!(node_of(self.mm, at.addr().get()), node, "of another node");
        }
        if gfp.contains(Gfp::ZERO) {
            // SAFETY: allocated, and nobody else's.
            let bytes = unsafe { core::slice::from_raw_parts(at.as_ptr(), size) };
            assert!(bytes.iter().all(|byte| *byte == 0), "not zeroed");
        }
        if let Whose::Cache(made) = &whose {
            made.check_fresh(at);
        }
        self.model.take(at, size, align, whose, seed)
    }

    #[track_caller]
    fn took_of(&self, made: &Arc<Made>, at: NonNull<u8>, gfp: Gfp, seed: u64) -> Held {
        let whose = Whose::Cache(Arc::clone(made));
        self.took(at, (made.size, made.align), whose, gfp, None, seed)
    }

    /// Frees it.
    pub fn free(&self, held: Held, nolock: bool) {
        self.model.give(&held);
        // SAFETY: it was allocated so, and is given away here.
        unsafe {
            match (&held.whose, nolock) {
                (Whose::Cache(made), false) => made.cache.free(held.at),
                (Whose::Cache(made), true) => made.cache.free_nolock(held.at),
                (Whose::Kmalloc, false) => self.slabs.kfree(held.at),
                (Whose::Kmalloc, true) => self.slabs.kfree_nolock(held.at),
            }
        }
    }

    /// What an interrupt (0) or NMI (1) does: it allocates or frees a little.
    pub fn interrupt(&self, kind: usize) {
        // Drawn at once: no point while the lock is held.
        let mut random = {
            let random = &self.randoms[kind];
            let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
            Random(random.next())
        };
        let random = &mut random;
        let pile = &self.interrupts[kind];
        let nolock = kind == 1 || random.one_in(3);
        if pile.with(|held| held.len()) < HELD && random.one_in(2) {
            if let Some(held) = self.interrupt_alloc(random, nolock) {
                pile.with(|list| list.push(held));
            }
        } else if let Some(held) = pile.take(random.next()) {
            self.free(held, nolock);
        } else if let Some(held) = self.posted.take(random.next()) {
            self.free(held, nolock);
        }
    }

    fn interrupt_alloc(&self, random: &mut Random, nolock: bool) -> Option<Held> {
        let seed = random.next();
        if random.one_in(3) || self.caches.is_empty() {
            let size = 1 + random.below(4_000) as usize;
            let gfp = gfp(random, false);
            let at = if nolock {
                self.slabs.kmalloc_nolock(size, gfp & Gfp::ZERO, None)?
            } else {
                self.slabs.kmalloc(size, gfp)?
            };
            return Some(self.took(at, (size, 8), Whose::Kmalloc, gfp & Gfp::ZERO, None, seed));
        }
        let made = random.of(&self.caches);
        let at = if nolock {
            made.cache.alloc_nolock(None)?
        } else {
            made.cache.alloc(Gfp::ATOMIC | Gfp::NOWARN)?
        };
        Some(self.took_of(made, at, Gfp::empty(), seed))
    }
}

/// One thread's part.
pub struct Actor<'a> {
    shared: &'a Shared,
    own: Vec<Held>,
    caches: Vec<Arc<Made>>,
    random: Random,
}

impl<'a> Actor<'a> {
    pub fn new(shared: &'a Shared, seed: u64) -> Self {
        Self {
            shared,
            own: Vec::new(),
            caches: Vec::new(),
            random: Random(seed),
        }
    }

    /// A cache: of everybody or its own.
    fn cache(&self, number: u64) -> Option<Arc<Made>> {
        let mut all = self.shared.caches.iter().chain(&self.caches);
        let count = self.shared.caches.len() + self.caches.len();
        let index = number.checked_rem(count as u64)?;
        all.nth(index as usize).cloned()
    }

    fn take(&mut self, which: u64) -> Option<Held> {
        let index = which.checked_rem(self.own.len() as u64)?;
        Some(self.own.swap_remove(index as usize))
    }

    /// Flags for objects of this cache.
    fn fit(made: &Made, gfp: Gfp) -> Gfp {
        if made.may_zero { gfp } else { gfp - Gfp::ZERO }
    }

    /// One operation by chance.
    pub fn step(&mut self) {
        let op = Op::random(&mut self.random);
        if self.random.one_in(10) {
            // Where it may not sleep.
            let _pinned = Preempt::<Hosted>::disable();
            if let Some(op) = op.without_sleep() {
                self.run(&op);
            }
        } else {
            self.run(&op);
        }
    }

    /// One operation.
    pub fn run(&mut self, op: &Op) {
        let full = self.own.len() >= HELD;
        let shared = self.shared;
        let seed = self.random.next();
        match *op {
            Op::Alloc { .. }
            | Op::AllocNode { .. }
            | Op::AllocNolock { .. }
            | Op::AllocBulk { .. }
            | Op::Prefill { .. }
                if full => {}
            Op::Alloc { cache, gfp } => {
                let Some(made) = self.cache(cache) else {
                    return;
                };
                let gfp = Self::fit(&made, gfp);
                if let Some(at) = made.cache.alloc(gfp) {
                    self.own.push(shared.took_of(&made, at, gfp, seed));
                }
            }
            Op::AllocNode { cache, gfp, node } => {
                let Some(made) = self.cache(cache) else {
                    return;
                };
                let (gfp, node) = (Self::fit(&made, gfp), shared.node(node));
                if let Some(at) = made.cache.alloc_node(gfp, node) {
                    let whose = Whose::Cache(Arc::clone(&made));
                    let shape = (made.size, made.align);
                    self.own
                        .push(shared.took(at, shape, whose, gfp, Some(node), seed));
                }
            }
            Op::AllocNolock { cache, node } => {
                let Some(made) = self.cache(cache) else {
                    return;
                };
                let node = node.map(|node| shared.node(node));
                if let Some(at) = made.cache.alloc_nolock(node) {
                    self.own.push(shared.took_of(&made, at, Gfp::empty(), seed));
                }
            }
            Op::AllocBulk { cache, gfp, count } => {
                let Some(made) = self.cache(cache) else {
                    return;
                };
                let gfp = Self::fit(&made, gfp);
                let mut into = vec![MaybeUninit::uninit(); count];
                let got = made.cache.alloc_bulk(gfp, &mut into);
                assert!(got == count || got == 0, "{got} of {count}");
                for at in &into[..got] {
                    // SAFETY: the first `got` are filled.
                    let at = unsafe { at.assume_init() };
                    self.own.push(shared.took_of(&made, at, gfp, seed));
                }
            }
            Op::Prefill { cache, gfp, counts } => {
                if let Some(made) = self.cache(cache) {
                    self.prefill(&made, Self::fit(&made, gfp), counts, seed);
                }
            }
            Op::Free { which, nolock } => {
                if let Some(held) = self.take(which) {
                    shared.free(held, nolock);
                }
            }
            Op::FreeBulk { cache } => {
                if let Some(made) = self.cache(cache) {
                    self.free_all_of(&made);
                }
            }
            Op::Post { which } => {
                // Objects of own caches stay: their users must be known.
                if let Some(held) = self.take(which) {
                    if self.is_everybodys(&held) {
                        shared.posted.with(|posted| posted.push(held));
                    } else {
                        self.own.push(held);
                    }
                }
            }
            Op::FreePosted { which, nolock } => {
                if let Some(held) = shared.posted.take(which) {
                    shared.free(held, nolock);
                }
            }
            Op::Shrink { cache } => {
                if let Some(made) = self.cache(cache) {
                    made.cache.shrink();
                }
            }
            Op::Create => {
                if self.caches.len() < CACHES {
                    let made = Made::new(shared.slabs, &mut self.random);
                    self.caches.extend(made.map(Arc::new));
                }
            }
            Op::Destroy { which } => {
                if let Some(index) = which.checked_rem(self.caches.len() as u64) {
                    let made = self.caches.swap_remove(index as usize);
                    self.destroy(made);
                }
            }
            _ => self.kmalloc(op, seed),
        }
    }

    fn kmalloc(&mut self, op: &Op, seed: u64) {
        let (shared, full) = (self.shared, self.own.len() >= HELD);
        let slabs = shared.slabs;
        let (at, size, gfp, node) = match *op {
            Op::Krealloc { which, size, gfp } => return self.krealloc(which, size, gfp, seed),
            _ if full => return,
            Op::Kmalloc { size, gfp } => (slabs.kmalloc(size, gfp), size, gfp, None),
            Op::KmallocNode { size, gfp, node } => {
                let node = shared.node(node);
                (slabs.kmalloc_node(size, gfp, node), size, gfp, Some(node))
            }
            Op::Kcalloc { count, size, gfp } => {
                assert!(slabs.kcalloc(usize::MAX / 2, 3, gfp).is_none());
                let gfp = gfp | Gfp::ZERO;
                (slabs.kcalloc(count, size, gfp), count * size, gfp, None)
            }
            Op::KmallocNolock { size, zero } => {
                let gfp = if zero { Gfp::ZERO } else { Gfp::empty() };
                (slabs.kmalloc_nolock(size, gfp, None), size, gfp, None)
            }
            _ => unreachable!("the others are done"),
        };
        let Some(at) = at else { return };
        if size == 0 {
            assert_eq!(at, mm::slab::ZERO_SIZE);
            // SAFETY: of kmalloc.
            unsafe { slabs.kfree(at) };
            return;
        }
        // SAFETY: allocated just now.
        assert!(unsafe { slabs.ksize(at) } >= size);
        // Powers of two are aligned to themselves.
        let align = if size.is_power_of_two() {
            size.min(4096)
        } else {
            8
        };
        let shape = (size, align);
        self.own
            .push(shared.took(at, shape, Whose::Kmalloc, gfp, node, seed));
    }

    fn krealloc(&mut self, which: u64, size: usize, gfp: Gfp, seed: u64) {
        let (shared, size) = (self.shared, size.max(1));
        let Some(held) = self.take(which) else { return };
        if !matches!(held.whose, Whose::Kmalloc) {
            self.own.push(held);
            return;
        }
        let gfp = gfp - Gfp::ZERO - Gfp::THISNODE;
        shared.model.give(&held);
        // SAFETY: of kmalloc, and this thread's; the old address is not used if there is a
        // new one.
        let at = unsafe { shared.slabs.krealloc(Some(held.at), size, gfp) };
        match at {
            Some(at) => {
                held.check_moved(at, size);
                let taken = shared.model.take(at, size, 8, Whose::Kmalloc, seed);
                self.own.push(taken);
            }
            None => {
                held.check();
                let (at, size) = (held.at, held.size);
                self.own
                    .push(shared.model.take(at, size, 8, Whose::Kmalloc, seed));
            }
        }
    }

    fn prefill(&mut self, made: &Arc<Made>, gfp: Gfp, counts: [usize; 3], seed: u64) {
        let shared = self.shared;
        let Some(mut sheaf) = made.cache.prefill(gfp, counts[0]) else {
            return;
        };
        assert!(sheaf.len() >= counts[0]);
        let zero = gfp & Gfp::ZERO;
        let own = &mut self.own;
        let mut take = |sheaf: &mut mm::slab::Prefilled<'_, Hosted>| {
            // What it has cannot fail.
            let at = sheaf.alloc(zero).expect("the sheaf has objects");
            own.push(shared.took_of(made, at, zero, seed));
        };
        for _ in 0..counts[1].min(counts[0]) {
            take(&mut sheaf);
        }
        let before = sheaf.len();
        if sheaf.refill(gfp, counts[2]) {
            assert!(sheaf.len() >= counts[2]);
            (0..counts[2]).for_each(|_| take(&mut sheaf));
        } else {
            assert!(sheaf.len() >= before, "a refill that failed took something");
        }
        if counts[1].is_multiple_of(2) {
            while !sheaf.is_empty() {
                take(&mut sheaf);
            }
            assert!(sheaf.alloc(zero).is_none());
        }
    }

    fn is_everybodys(&self, held: &Held) -> bool {
        match &held.whose {
            Whose::Cache(made) => !self.caches.iter().any(|own| Arc::ptr_eq(own, made)),
            Whose::Kmalloc => true,
        }
    }

    fn free_all_of(&mut self, made: &Arc<Made>) {
        let of = |held: &mut Held| match &held.whose {
            Whose::Cache(other) => Arc::ptr_eq(made, other),
            Whose::Kmalloc => false,
        };
        let freed: Vec<Held> = self.own.extract_if(.., of).collect();
        let objects: Vec<NonNull<u8>> = freed.iter().map(|held| held.at).collect();
        freed.iter().for_each(|held| self.shared.model.give(held));
        // SAFETY: of this cache, and given away here.
        unsafe { made.cache.free_bulk(&objects) };
    }

    fn destroy(&mut self, made: Arc<Made>) {
        self.free_all_of(&made);
        let made = Arc::into_inner(made).expect("nobody else knows it");
        made.destroy(self.shared.slabs);
    }

    /// Frees all that it holds, and its caches.
    pub fn end(mut self) {
        while let Some(held) = self.own.pop() {
            self.shared.free(held, false);
        }
        while let Some(made) = self.caches.pop() {
            self.destroy(made);
        }
    }

    /// Leaves what it holds to whoever takes it, but for its own caches.
    pub fn leave(mut self) {
        for index in (0..self.own.len()).rev() {
            if self.is_everybodys(&self.own[index]) {
                let held = self.own.swap_remove(index);
                self.shared.posted.with(|posted| posted.push(held));
            }
        }
        self.end();
    }
}

impl Op {
    /// The same for code that may not sleep; `None`: it is only for code that may.
    fn without_sleep(&self) -> Option<Self> {
        let mut op = self.clone();
        match &mut op {
            Self::Alloc { gfp, .. }
            | Self::AllocNode { gfp, .. }
            | Self::AllocBulk { gfp, .. }
            | Self::Prefill { gfp, .. }
            | Self::Kmalloc { gfp, .. }
            | Self::KmallocNode { gfp, .. }
            | Self::Kcalloc { gfp, .. }
            | Self::Krealloc { gfp, .. } => gfp.remove(Gfp::RECLAIM),
            Self::Shrink { .. } | Self::Create | Self::Destroy { .. } => return None,
            _ => {}
        }
        Some(op)
    }
}
