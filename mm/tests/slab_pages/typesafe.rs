//! TYPESAFE_BY_RCU: objects are used again at once, pages only after a grace period.

use std::{
    ptr::{NonNull, null_mut},
    sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use mm::{
    Gfp, Use,
    hosted::Memory,
    slab::{Flags, KmemCache, Place, Slab, Spec},
};
use platform::{
    CpuId, Mark, Platform,
    hosted::{Hosted, Machine},
};

use super::{
    arrows::count,
    contents::Random,
    quiet::slabs_of,
    world::{MIB, World, rounds},
};

/// What all objects have in all but their first words, free or not.
const KIND: u64 = 0x7e57_ab1e_0b1e_c700;
const SIZE: usize = 512;

fn construct(object: NonNull<u8>) {
    for word in 0..SIZE / 8 {
        // SAFETY: a fresh object of that size.
        unsafe { object.cast::<u64>().add(word).write(KIND) };
    }
}

fn spec() -> Spec<'static> {
    Spec::new("test", SIZE)
        .flags(Flags::TYPESAFE_BY_RCU)
        .sheaf_capacity(0)
        .constructor(construct)
}

fn waiting(cache: &KmemCache<Hosted>) -> u64 {
    let nodes = cache.slabs().mm().nodes();
    let counts = nodes.iter().filter_map(|node| cache.node_counts(node));
    counts.map(|counts| counts.waiting).sum()
}

/// Before there is an engine empty slabs wait for it; then for a grace period; then their pages are free.
#[test]
fn slabs_wait_for_an_engine() {
    let memory = Memory::builder().node(32 * MIB);
    let world = World::new(Machine::builder().cpus(2), memory);
    world.run(|slabs| {
        let cache = slabs.create(&spec()).unwrap();
        let held: Vec<_> = (0..400)
            .map(|_| cache.alloc(Gfp::KERNEL).unwrap())
            .collect();
        let made = slabs_of(slabs, cache).len();
        for object in held {
            // SAFETY: allocated above.
            unsafe { cache.free(object) };
        }
        let kept = 5;
        assert_eq!(waiting(cache), (made - kept) as u64);
        assert_eq!(count(slabs, "slab.waits_early"), waiting(cache));
        let waits = |place: Place| place == Place::WaitsForRcu;
        let found = slabs_of(slabs, cache)
            .iter()
            .filter(|slab| waits(slab.place()))
            .count();
        assert_eq!(found as u64, waiting(cache));
        cache.shrink();
        assert_eq!(waiting(cache), made as u64);
    });
    world.run_with_rcu(|slabs, rcu| {
        let cache = slabs.caches().find("test").map(NonNull::from).unwrap();
        // SAFETY: it lives until it is destroyed below.
        let cache = unsafe { cache.as_ref() };
        rcu.barrier();
        assert_eq!(waiting(cache), 0);
        assert!(slabs_of(slabs, cache).is_empty());
        assert_eq!(
            count(slabs, "slab.gone_by_rcu"),
            count(slabs, "slab.waits_early")
        );
        // SAFETY: nobody uses it.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}

/// What the threads of a test share.
struct Shared {
    cache: &'static KmemCache<Hosted>,
    slots: [AtomicPtr<u8>; 4],
    done: AtomicBool,
    looks: AtomicU64,
}

impl Shared {
    fn slot(&self, random: &mut Random) -> &AtomicPtr<u8> {
        &self.slots[random.below(4) as usize]
    }

    fn free(&self, old: *mut u8) {
        if let Some(old) = NonNull::new(old) {
            // SAFETY: it came out of its slot, so it is ours, and can be found no more.
            unsafe { self.cache.free(old) };
        }
    }

    /// Publishes objects and frees what was published before; more than are kept, so that slabs go.
    fn write(&self) {
        let mut random = Random(0);
        for _ in 0..rounds(3000, 40) {
            let held: Vec<_> = (0..100)
                .filter_map(|_| self.cache.alloc(Gfp::KERNEL | Gfp::NOWARN))
                .collect();
            for object in held {
                self.free(self.slot(&mut random).swap(object.as_ptr(), AcqRel));
            }
            for slot in &self.slots {
                self.free(slot.swap(null_mut(), AcqRel));
            }
            self.cache.shrink();
        }
        self.done.store(true, Relaxed);
    }

    /// Writes to all pages that it gets.
    fn spoil(&self) {
        let mut random = Random(1);
        let mm = self.cache.slabs().mm();
        while !self.done.load(Relaxed) {
            let order = random.below(4) as usize;
            if let Some(pages) = mm.alloc_pages(Gfp::NOWAIT, order, Use::Pages) {
                let memory = mm.frames().address_of(pages);
                // SAFETY: allocated just now, and given back.
                unsafe {
                    memory.write_bytes(0xff, 4096 << order);
                    mm.free_pages(pages, order, Use::Pages);
                }
            }
            Hosted::mark(Mark::Step);
        }
    }

    fn read(&self, seed: u64) {
        let mut random = Random(seed);
        while !self.done.load(Relaxed) {
            let section = rcu::hosted::read();
            if let Some(object) = NonNull::new(self.slot(&mut random).load(Acquire)) {
                for _ in 0..20 {
                    Hosted::mark(Mark::Step);
                    // The object may be free, or another one by now, but it is one.
                    let word = 1 + random.below(SIZE as u64 / 8 - 1) as usize;
                    // SAFETY: the slab is there until the section ends. No link lies there, and
                    // nobody writes to it but constructors, before the slab is known.
                    let word = unsafe { object.cast::<AtomicU64>().add(word).as_ref() };
                    assert_eq!(word.load(Relaxed), KIND);
                }
                self.looks.fetch_add(1, Relaxed);
            }
            drop(section);
            Hosted::mark(Mark::Step);
        }
    }
}

/// Readers look at objects that are freed and used again under their eyes, and at free ones: what they find is an
/// object of this kind, always, though slabs are discarded all the time and others write to all pages that they get.
#[test]
fn what_readers_find_is_an_object() {
    let memory = Memory::builder().node(8 * MIB);
    let world = World::new(Machine::builder().cpus(4), memory);
    world.run_with_rcu(|slabs, rcu| {
        // For ever: threads have it.
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            cache: slabs.create(&spec()).unwrap(),
            slots: std::array::from_fn(|_| AtomicPtr::new(null_mut())),
            done: AtomicBool::new(false),
            looks: AtomicU64::new(0),
        }));
        let others: Vec<_> = (1..4)
            .map(|number| {
                let cpu = CpuId::new(number).unwrap();
                let work = move || match number {
                    1 => shared.spoil(),
                    seed => shared.read(seed as u64),
                };
                world.machine.spawn_on(cpu, work)
            })
            .collect();
        shared.write();
        others.into_iter().for_each(|thread| thread.join());
        assert!(shared.looks.load(Relaxed) > 0);
        rcu.barrier();
        assert_eq!(waiting(shared.cache), 0);
        assert!(count(slabs, "slab.gone_by_rcu") > 0);
        // SAFETY: nobody uses it.
        unsafe { slabs.destroy(shared.cache) }.unwrap();
    });
}

/// While a section lasts the pages of a discarded slab are not free.
#[test]
fn pages_wait_for_readers() {
    let memory = Memory::builder().node(8 * MIB);
    let world = World::new(Machine::builder().cpus(2), memory);
    world.run_with_rcu(|slabs, rcu| {
        let cache = slabs.create(&spec()).unwrap();
        let object = cache.alloc(Gfp::KERNEL).unwrap();
        let section = rcu::hosted::read();
        // SAFETY: allocated above.
        unsafe { cache.free(object) };
        cache.shrink();
        assert_eq!(waiting(cache), 1);
        let slabs_there = slabs_of(slabs, cache);
        assert_eq!(slabs_there.len(), 1);
        assert_eq!(slabs_there[0].place(), Place::WaitsForRcu);
        for _ in 0..1000 {
            Hosted::mark(Mark::Step);
        }
        assert_eq!(waiting(cache), 1);
        drop(section);
        rcu.barrier();
        assert_eq!(waiting(cache), 0);
        // SAFETY: nobody uses it.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}

/// A free that may not wait never asks for a grace period: that takes locks. What it empties stays listed.
#[test]
fn frees_that_may_not_wait_keep_slabs() {
    let memory = Memory::builder().node(8 * MIB);
    let world = World::new(Machine::builder().cpus(2), memory);
    world.run_with_rcu(|slabs, rcu| {
        let cache = slabs.create(&spec()).unwrap();
        let held: Vec<_> = (0..200)
            .map(|_| cache.alloc(Gfp::KERNEL).unwrap())
            .collect();
        let made = slabs_of(slabs, cache).len();
        assert!(made > 10);
        for object in held {
            // SAFETY: allocated above.
            unsafe { cache.free_nolock(object) };
        }
        assert_eq!(waiting(cache), 0);
        let empty = |slab: &Slab<Hosted>| slab.freelist().load().is_empty();
        assert_eq!(
            slabs_of(slabs, cache)
                .iter()
                .filter(|slab| empty(slab))
                .count(),
            made
        );
        let section = rcu::hosted::read();
        cache.shrink();
        assert_eq!(waiting(cache), made as u64);
        drop(section);
        rcu.barrier();
        assert!(slabs_of(slabs, cache).is_empty());
        // SAFETY: nobody uses it.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}
