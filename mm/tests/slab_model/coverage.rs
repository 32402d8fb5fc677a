//! Every arrow of the state tables in `docs/slab.md` is taken by some test run here. (Those of `kfree_rcu` are by
//! the suite of that name.)

use std::{
    collections::BTreeMap,
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

use mm::{
    Gfp,
    hosted::{Memory, Reports},
    report::Kind,
    slab::{Flags, KmemCache, Spec},
};
use platform::{
    CpuId, NodeId, Platform,
    hosted::{Hosted, Machine},
};

use super::{
    storm::{Storm, storm_in},
    world::{MIB, Random, World, run},
};

/// Rounds before an arrow counts as never taken. All are, after a few.
const ROUNDS: u64 = 60;

/// A storm on a machine by chance; what was taken.
fn round(seed: u64, seen: &mut Seen) {
    let mut random = Random(seed);
    let cpus = 2 + random.below(3) as usize;
    let nodes = 1 + (seed + 1) as usize % 3;
    let little = seed.is_multiple_of(3);
    let mut memory = Memory::builder();
    for node in 0..nodes {
        let node = NodeId::from_index(node).unwrap();
        let mib = if little { 2 } else { 16 };
        if node.index() == 0 || !random.one_in(3) {
            memory = memory.piece(node, mib * MIB);
        }
    }
    let machine = Machine::builder().cpus(cpus).nodes(nodes).seed(seed);
    run(machine, memory, |world| {
        let hotplug = seed.is_multiple_of(2) && Hosted::online_cpus().count() > 1;
        storm_in(
            world,
            Storm {
                seed,
                ops: 3_000,
                hotplug,
            },
        );
        note(world, seen);
    });
}

type Seen = BTreeMap<&'static str, u64>;

/// Prefixes of arrows that other suites take: `kfree_rcu`'s, which nothing here calls, all of them; and in `slab_caches` those of
/// caches that linger, and of slabs that a destroyer keeps for its own grace period.
const OTHERS: [&str; 5] = ["rcu.", "lane.", "hands.", "linger.", "slab.kept"];

fn note(world: &World<'_>, seen: &mut Seen) {
    let own = |arrow: &str| !OTHERS.iter().any(|other| arrow.starts_with(other));
    for (arrow, count) in world.slabs.arrows().filter(|(arrow, _)| own(arrow)) {
        *seen.entry(arrow).or_default() += count;
    }
}

fn alloc(cache: &KmemCache<Hosted>) -> NonNull<u8> {
    cache.alloc(Gfp::KERNEL).expect("memory")
}

/// Frees an object.
fn free(cache: &KmemCache<Hosted>, object: NonNull<u8>) {
    // SAFETY: of this cache, and the caller's.
    unsafe { cache.free(object) };
}

fn create(world: &World<'_>, spec: &Spec<'_>) -> &'static KmemCache<Hosted> {
    world.slabs.create(spec).expect("a cache")
}

/// What is done wrong, and what comes only by intent.
fn on_purpose(seen: &mut Seen) {
    let memory = Memory::builder().node(8 * MIB);
    run(Machine::builder(), memory, |world| {
        let plain = Spec::new("plain", 64).flags(Flags::NO_MERGE);
        // A free after the end of the cache.
        let cache = create(world, &plain);
        let object = alloc(cache);
        // SAFETY: one object is left on purpose, and freed below.
        let leaked = unsafe { world.slabs.destroy(cache) };
        assert_eq!(leaked.map_err(|leaked| leaked.objects), Err(1));
        assert_eq!(Reports::here().expect(Kind::SlabLeak).kind, Kind::SlabLeak);
        free(cache, object);
        // A prefilled sheaf comes back to a CPU that has two.
        let cache = create(world, &plain.sheaf_capacity(8));
        let held: Vec<_> = (0..16).map(|_| alloc(cache)).collect();
        let sheaf = cache.prefill(Gfp::KERNEL, 8);
        held.into_iter().for_each(|object| free(cache, object));
        drop(sheaf);
        // SAFETY: nothing is left.
        unsafe { world.slabs.destroy(cache) }.expect("nothing is left");
        // A write behind the end of an object, onto the link of a free one.
        let cache = create(world, &plain.sheaf_capacity(0));
        let held: Vec<_> = (0..20).map(|_| alloc(cache)).collect();
        held.iter().for_each(|object| free(cache, *object));
        let link = cache.layout().link as usize;
        for object in &held {
            // SAFETY: memory of the machine. A wrong use, on purpose.
            unsafe { object.add(link).cast::<u64>().write(u64::MAX / 3) };
        }
        let again = alloc(cache);
        assert_eq!(
            Reports::here().expect(Kind::SlabFreelist).kind,
            Kind::SlabFreelist
        );
        free(cache, again);
        // What was behind the damage is lost: in use for ever, as far as the cache knows.
        // SAFETY: nobody has an object.
        let leaked = unsafe { world.slabs.destroy(cache) };
        let places = u64::from(cache.layout().objects);
        assert_eq!(leaked.map_err(|leaked| leaked.objects), Err(places - 1));
        let said = Reports::here().take();
        assert!(said.iter().all(|said| said.kind == Kind::SlabLeak));
        // Unless somebody finds it all again.
        let in_page = again.addr().get() % 4096;
        for place in (0..4096).step_by(64).filter(|place| *place != in_page) {
            // SAFETY: in the slab, which is one page.
            free(cache, unsafe { again.byte_sub(in_page).byte_add(place) });
        }
        note(world, seen);
    });
}

/// The own node has no memory left, another one has.
fn elsewhere(seen: &mut Seen) {
    let memory = Memory::builder().node(2 * MIB).node(16 * MIB);
    run(Machine::builder().nodes(2), memory, |world| {
        let cache = create(world, &Spec::new("large", 2000).flags(Flags::NO_MERGE));
        let held: Vec<_> = (0..2000).map(|_| alloc(cache)).collect();
        held.into_iter().for_each(|object| free(cache, object));
        // SAFETY: nothing is left.
        unsafe { world.slabs.destroy(cache) }.expect("nothing is left");
        // Where that is wanted its partial slabs come before fresh ones of the own node.
        let cache = create(world, &Spec::new("there", 200).flags(Flags::NO_MERGE));
        let there = NodeId::from_index(1).expect("a node");
        let object = cache.alloc_node(Gfp::KERNEL, there).expect("memory");
        free(cache, object);
        cache.set_remote_node_defrag_ratio(100);
        free(cache, alloc(cache));
        // SAFETY: nothing is left.
        unsafe { world.slabs.destroy(cache) }.expect("nothing is left");
        note(world, seen);
    });
}

/// Objects of a debug cache that are written to while they are free, and one whose state is lost.
fn damaged(seen: &mut Seen) {
    let memory = Memory::builder().node(8 * MIB);
    run(Machine::builder(), memory, |world| {
        let cache = create(world, &Spec::new("damaged", 64).flags(Flags::POISON));
        let reported = |kind| assert_eq!(Reports::here().expect(kind).kind, kind);
        // The object that was freed last is the next one.
        let damage = |object: NonNull<u8>| {
            free(cache, object);
            // SAFETY: memory of the machine. A wrong use, on purpose.
            unsafe { object.add(20).write(1) };
        };
        damage(alloc(cache));
        let object = alloc(cache);
        reported(Kind::SlabPoison);
        damage(object);
        assert_eq!(cache.validate(), 1);
        reported(Kind::SlabPoison);
        // All places of a slab, so that it is full for a while.
        let left = cache.layout().objects as usize - 2;
        let held: Vec<_> = (0..left).map(|_| alloc(cache)).collect();
        let state = cache.layout().tracks as usize;
        // SAFETY: behind the object, in its slot. A wrong use, on purpose.
        unsafe { held[0].add(state).cast::<u64>().write(0) };
        held.into_iter().for_each(|object| free(cache, object));
        reported(Kind::SlabInfo);
        // SAFETY: nothing is left but what is damaged.
        unsafe { world.slabs.destroy(cache) }.expect("nothing is left");
        note(world, seen);
    });
}

/// What is written to in quarantine, freed twice, too large, or without a page for it.
fn quarantined(seen: &mut Seen) {
    let memory = Memory::builder().node(8 * MIB);
    run(Machine::builder(), memory, |world| {
        let plain = |name, size| Spec::new(name, size).flags(Flags::NO_MERGE);
        let cache = create(world, &plain("quarantined", 64));
        let large = create(world, &plain("large", 300));
        let held: Vec<_> = (0..4).map(|_| alloc(cache)).collect();
        let one_large = alloc(large);
        world.slabs.set_quarantine(200);
        world.mm.debug().faults(|faults| faults.fail_nth(1));
        for object in &held {
            free(cache, *object);
        }
        assert!(!world.mm.debug().faults(|faults| faults.pending()));
        free(large, one_large);
        let reported = |kind| assert_eq!(Reports::here().expect(kind).kind, kind);
        // The first one, without a page, is in a sheaf.
        free(cache, held[3]);
        reported(Kind::SlabDoubleFree);
        // SAFETY: memory of the machine. A wrong use, on purpose.
        unsafe { held[1].write(1) };
        cache.shrink();
        reported(Kind::SlabQuarantine);
        let held: Vec<_> = (0..4).map(|_| alloc(cache)).collect();
        held.iter().for_each(|object| free(cache, *object));
        world.slabs.set_quarantine(0);
        for cache in [cache, large] {
            // SAFETY: nothing is left.
            unsafe { world.slabs.destroy(cache) }.expect("nothing is left");
        }
        note(world, seen);
    });
}

/// CPUs that get in each other's way: small sheaves, few objects in a slab, NMIs all the time.
fn in_the_way(seed: u64, seen: &mut Seen) {
    let machine = Machine::builder().cpus(3).seed(seed);
    run(machine, Memory::builder().node(16 * MIB), |world| {
        let spec = Spec::new("in-the-way", 900).flags(Flags::NO_MERGE);
        let cache = create(world, &spec.sheaf_capacity(2));
        let posted: Arc<Mutex<Vec<usize>>> = Arc::default();
        // Nothing in here is a point.
        let post = |posted: &Mutex<Vec<usize>>, object: Option<NonNull<u8>>, take: bool| {
            let mut posted = posted.lock().unwrap_or_else(PoisonError::into_inner);
            posted.extend(object.map(|object| object.as_ptr().expose_provenance()));
            let taken = if take { posted.pop() } else { None };
            taken.and_then(|at| NonNull::new(core::ptr::with_exposed_provenance_mut(at)))
        };
        let nmi = {
            let posted = Arc::clone(&posted);
            world.machine.on_nmi(6, move || {
                let got = cache.alloc_nolock(None);
                if let Some(object) = post(&posted, got, true) {
                    // SAFETY: taken out of the list, so nobody else's.
                    unsafe { cache.free_nolock(object) };
                }
            })
        };
        let workers: Vec<_> = (0..3)
            .map(|number| {
                let posted = Arc::clone(&posted);
                let cpu = CpuId::from_index(number).expect("a CPU");
                world.machine.spawn_on(cpu, move || {
                    let mut random = Random(seed ^ (number as u64) << 32);
                    for _ in 0..150 {
                        let count = random.below(14);
                        (0..count).for_each(|_| {
                            let _ = post(&posted, cache.alloc(Gfp::KERNEL), false);
                        });
                        for _ in 0..random.below(16) {
                            if let Some(object) = post(&posted, None, true) {
                                free(cache, object);
                            }
                        }
                        if random.one_in(20) {
                            cache.shrink();
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join());
        drop(nmi);
        while let Some(object) = post(&posted, None, true) {
            free(cache, object);
        }
        // SAFETY: nothing is left.
        unsafe { world.slabs.destroy(cache) }.expect("nothing is left");
        note(world, seen);
    });
}

#[test]
fn every_arrow_is_taken() {
    let mut seen = Seen::new();
    on_purpose(&mut seen);
    elsewhere(&mut seen);
    damaged(&mut seen);
    quarantined(&mut seen);
    let missing = |seen: &Seen| -> Vec<&'static str> {
        let never = seen.iter().filter(|(_, count)| **count == 0);
        never.map(|(arrow, _)| *arrow).collect()
    };
    for seed in 0..ROUNDS {
        round(seed, &mut seen);
        in_the_way(seed, &mut seen);
        if missing(&seen).is_empty() {
            println!("after {} rounds: {seen:?}", seed + 1);
            return;
        }
    }
    panic!("arrows never taken: {:?}; {seen:?}", missing(&seen));
}
