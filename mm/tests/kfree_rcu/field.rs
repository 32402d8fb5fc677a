//! What a [storm](super::storm) goes over: caches, slots with objects, and everything that can be done there.

use std::{
    ptr::{NonNull, null_mut},
    sync::atomic::{
        AtomicPtr, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use mm::{
    Gfp,
    kvfree_rcu::Head,
    reclaim::{Shrink, Wanted},
    slab::Flags,
};
use platform::{Mark, Platform, hosted::Hosted};

use crate::common::{
    Allocator, Cache, OF_SHEAF, Object, Shared, create, destroy, free_rcu, look, make_for, spec,
};

const QUIET: Gfp = Gfp::KERNEL.union(Gfp::NOWARN);
const SLOTS: usize = 24;
pub const THREADS: usize = 4;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Where something is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum How {
    Thread,
    Interrupt,
    Nmi,
}

type Slots<const N: usize> = [AtomicPtr<Object>; N];

/// What all have.
pub struct Field {
    slabs: &'static Allocator,
    pub caches: [&'static Cache; 3],
    /// Where anybody puts in, and takes out.
    pub slots: Slots<SLOTS>,
    /// Where one thread does, and all look.
    own: [Slots<4>; THREADS],
    pub shared: &'static Shared,
    /// Objects of [`shared`](Self::shared) that were given to `kfree_rcu`.
    pub queued: AtomicU64,
    pub turns: AtomicU64,
}

impl Field {
    pub fn new(slabs: &'static Allocator) -> Self {
        let checked = Flags::POISON | Flags::CONSISTENCY_CHECKS;
        let no_slot = || AtomicPtr::new(null_mut());
        Self {
            slabs,
            caches: [
                create(slabs, "sheaves"),
                slabs.create(&spec("none").sheaf_capacity(0)).unwrap(),
                slabs.create(&spec("checked").flags(checked)).unwrap(),
            ],
            slots: core::array::from_fn(|_| no_slot()),
            own: core::array::from_fn(|_| core::array::from_fn(|_| no_slot())),
            shared: Shared::new(),
            queued: AtomicU64::new(0),
            turns: AtomicU64::new(0),
        }
    }

    /// A section, with something found in a slot.
    pub fn read(&self, random: &mut Random) {
        let _section = rcu::hosted::read();
        let slot = match random.below(2) {
            0 => &self.slots[random.below(SLOTS as u64) as usize],
            _ => &self.own[random.below(THREADS as u64) as usize][random.below(4) as usize],
        };
        let Some(object) = NonNull::new(slot.load(Acquire)) else {
            return;
        };
        // SAFETY: objects in slots are `Object`s, and in a section they stay.
        let which = unsafe { look(object) };
        for _ in 0..random.below(20) {
            Hosted::mark(Mark::Step);
            // SAFETY: the same.
            assert_eq!(unsafe { look(object) }, which, "it is another one");
        }
    }

    /// A new object of some kind of memory goes into a slot; what was there goes by some road.
    pub fn turn(&self, random: &mut Random, how: How) {
        let cache = self.caches[random.below(3) as usize];
        let road = random.below(10);
        let (memory, shared) = match (how, road) {
            (How::Nmi, _) => (cache.alloc_nolock(None), Some(self.shared)),
            (How::Interrupt, _) => (cache.alloc(QUIET_THERE), Some(self.shared)),
            (How::Thread, 0) => (self.slabs.kmalloc(10_000, QUIET), None),
            (How::Thread, 1) => (self.slabs.kmalloc(100, QUIET), None),
            (How::Thread, _) => (cache.alloc(QUIET), Some(self.shared)),
        };
        let new = memory.map_or(null_mut(), |memory| make_for(memory, shared).as_ptr());
        let slot = &self.slots[random.below(SLOTS as u64) as usize];
        if let Some(was) = NonNull::new(slot.swap(new.cast(), AcqRel)) {
            self.free(was, random, how);
        }
    }

    pub fn free(&self, object: NonNull<Object>, random: &mut Random, how: How) {
        // SAFETY: taken out of its slot by this one alone; the head lies in front.
        unsafe {
            if (*object.as_ptr()).shared.is_some() {
                self.queued.fetch_add(1, Relaxed);
            }
            let (memory, head) = (object.cast::<u8>(), object.cast::<Head>());
            match (how, random.below(8)) {
                (How::Nmi, _) | (_, 0) => self.slabs.kfree_rcu_nolock(memory, head),
                (How::Thread, 1) => self.slabs.kfree_rcu_mightsleep(memory),
                _ => self.slabs.kfree_rcu(memory, head),
            }
        }
    }

    /// A cache, by a name that it has had before, whose objects readers find until they are on their way; then something that
    /// waits for them.
    pub fn short_life(&self, random: &mut Random, thread: usize) {
        let shared = Shared::new();
        let flags = [Flags::empty(), Flags::POISON][random.below(2) as usize];
        let name = format!("again{thread}");
        let cache = self.slabs.create(&spec(&name).flags(flags));
        let Ok(cache) = cache else { return };
        let mut queued = 0;
        let mut put = |slot: &AtomicPtr<Object>, new: *mut u8| {
            if let Some(was) = NonNull::new(slot.swap(new.cast(), AcqRel)) {
                free_rcu(self.slabs, was.cast());
                queued += 1;
            }
        };
        let own = &self.own[thread];
        for _ in 0..random.below(4 * OF_SHEAF) {
            if let Some(memory) = cache.alloc(QUIET) {
                let slot = &own[random.below(4) as usize];
                put(slot, make_for(memory, Some(shared)).as_ptr());
            }
        }
        own.iter().for_each(|slot| put(slot, null_mut()));
        match random.below(4) {
            0 => self.slabs.kvfree_rcu_barrier(),
            1 => self.slabs.kvfree_rcu_barrier_on_cache(cache),
            _ => destroy(self.slabs, cache),
        }
        assert_eq!(shared.ended(), queued, "of {name} when all were waited for");
        if cache_is_there(self.slabs, &name) {
            destroy(self.slabs, cache);
        }
    }

    /// What a thread does.
    pub fn act(&self, random: &mut Random, thread: usize) {
        match random.below(40) {
            0..14 => self.read(random),
            14..36 => self.turn(random, How::Thread),
            36 | 37 => self.short_life(random, thread),
            38 => match random.below(6) {
                0 => self.slabs.kvfree_rcu_barrier(),
                1 => _ = self.slabs.kvfree_rcu().scan(WANTED),
                2 => self.slabs.kvfree_rcu_barrier_on_cache(self.caches[2]),
                _ => self.slabs.kvfree_rcu_barrier_on_cache(self.caches[0]),
            },
            _ => _ = self.caches[0].shrink(),
        }
    }
}

const WANTED: Wanted = Wanted {
    frames: 1,
    gfp: Gfp::KERNEL,
};
const QUIET_THERE: Gfp = Gfp::ATOMIC.union(Gfp::NOWARN);

fn cache_is_there(slabs: &Allocator, name: &str) -> bool {
    let caches = slabs.caches();
    caches
        .iter()
        .any(|cache| !cache.is_dying() && cache.name().to_string() == name)
}
