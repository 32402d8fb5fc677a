//! A debug cache does what a plain one does, but for the checks: the same calls succeed, objects
//! keep what is in them, zeros are zeros; and what is found in plain caches.

use std::{mem::MaybeUninit, ptr::NonNull};

use mm::{
    Gfp,
    report::Kind,
    slab::{Flags, Slabs, Spec},
};
use platform::{NodeId, hosted::Hosted};

use crate::{
    flags::{Cache, all, alloc, bytes, destroy, fill, free, nothing_said, said, spoil},
    silent::Random,
    world::{World, rounds},
};

/// What a script did: how much each call gave, and what was in the objects.
#[derive(Debug, Default, PartialEq, Eq)]
struct Trace(Vec<(u8, usize, u64)>);

/// Calls of all kinds, by the numbers of a seed.
fn script(slabs: &'static Slabs<Hosted>, flags: Flags, size: usize, seed: u64) -> Trace {
    let spec = Spec::new("model", size).flags(flags | Flags::NO_MERGE);
    let cache = slabs.create(&spec).expect("a cache");
    let mut random = Random(seed);
    let mut held: Vec<(NonNull<u8>, u8)> = Vec::new();
    let mut trace = Trace::default();
    let fill = |object: NonNull<u8>, byte: u8| {
        fill(object, size, byte);
        (object, byte)
    };
    let sum = |object| {
        bytes(object, size)
            .iter()
            .map(|byte| u64::from(*byte))
            .sum()
    };
    for round in 0..300 {
        let (byte, call) = (round as u8, random.below(9) as u8);
        let got = match call {
            0 | 1 => {
                held.push(fill(alloc(cache), byte));
                (1, 0)
            }
            2 => {
                let object = cache.alloc(Gfp::KERNEL | Gfp::ZERO).unwrap();
                let found = sum(object);
                held.push(fill(object, byte));
                (1, found)
            }
            3 => {
                let node = NodeId::from_index(random.below(2) as usize).unwrap();
                let object = cache.alloc_node(Gfp::KERNEL, node).unwrap();
                held.push(fill(object, byte));
                (1, 0)
            }
            4 => {
                let mut room = [MaybeUninit::uninit(); 20];
                let want = random.below(20) as usize;
                let got = cache.alloc_bulk(Gfp::KERNEL, &mut room[..want]);
                for object in &room[..got] {
                    // SAFETY: filled.
                    held.push(fill(unsafe { object.assume_init() }, byte));
                }
                (got, 0)
            }
            5 => {
                let want = random.below(20) as usize;
                let mut prefilled = cache.prefill(Gfp::KERNEL, want).unwrap();
                let take = random.below(want as u64 + 1);
                for _ in 0..take {
                    held.push(fill(prefilled.alloc(Gfp::NOWAIT).unwrap(), byte));
                }
                (take as usize, 0)
            }
            6 if held.len() > 30 => {
                let some: Vec<_> = held.drain(..20).collect();
                let found = some.iter().map(|(object, _)| sum(*object)).sum();
                let objects: Vec<_> = some.iter().map(|(object, _)| *object).collect();
                // SAFETY: the script's.
                unsafe { cache.free_bulk(&objects) };
                (20, found)
            }
            7 if !held.is_empty() => {
                let index = random.below(held.len() as u64) as usize;
                let (object, byte) = held.swap_remove(index);
                let found = sum(object);
                assert_eq!(found, u64::from(byte) * size as u64);
                // SAFETY: the script's.
                unsafe { cache.free_nolock(object) };
                (1, found)
            }
            _ if !held.is_empty() => {
                let index = random.below(held.len() as u64) as usize;
                let (object, _) = held.swap_remove(index);
                let found = sum(object);
                free(cache, object);
                (1, found)
            }
            _ => (0, 0),
        };
        trace.0.push((call, got.0, got.1));
    }
    for (object, byte) in held {
        assert_eq!(sum(object), u64::from(byte) * size as u64);
        free(cache, object);
    }
    assert_eq!(cache.validate(), 0);
    destroy(cache);
    nothing_said();
    trace
}

#[test]
fn a_debug_cache_behaves_as_a_plain_one() {
    let world = World::small();
    world.run(|slabs| {
        for seed in 0..rounds(50, 2) {
            for size in [8, 100] {
                let plain = script(slabs, Flags::empty(), size, seed);
                for flags in all() {
                    assert_eq!(script(slabs, flags, size, seed), plain, "{flags}");
                }
            }
        }
    });
}

/// Objects of a plain cache, the first of which are on the freelist of a slab that has others in use.
fn on_a_freelist(cache: &Cache) -> (Vec<NonNull<u8>>, Vec<NonNull<u8>>) {
    let count = usize::from(cache.layout().objects);
    let objects: Vec<_> = (0..count * 3).map(|_| alloc(cache)).collect();
    let slab_of = |object: &NonNull<u8>| object.addr().get() >> (12 + cache.layout().order);
    let slab = slab_of(&objects[count]);
    let (mine, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(|o| slab_of(o) == slab);
    assert!(mine.len() > 8);
    let (free_ones, kept) = mine.split_at(5);
    free_ones.iter().for_each(|object| free(cache, *object));
    cache.shrink();
    let kept = kept.iter().copied().chain(others).collect();
    (free_ones.to_vec(), kept)
}

#[test]
fn links_of_plain_caches_are_followed() {
    let world = World::small();
    world.run(|slabs| {
        for hardened in [false, true] {
            slabs.debug().set_hardened(hardened);
            let spec = Spec::new("followed", 64).flags(Flags::NO_MERGE);
            let cache = slabs.create(&spec).unwrap();
            let (free_ones, kept) = on_a_freelist(cache);
            assert_eq!((cache.validate(), cache.faults_found()), (0, 0));
            let at = cache.layout().link as isize;
            spoil(free_ones[2], at, 8);
            assert_eq!(cache.validate(), 1);
            said(
                Kind::SlabFreelist,
                &["cache followed", "was overwritten", "the freelist is cut"],
            );
            assert_eq!((cache.validate(), cache.faults_found()), (0, 1));
            kept.into_iter().for_each(|object| free(cache, object));
            // What hung behind the cut is in use for ever.
            // SAFETY: created above.
            let leaked = unsafe { slabs.destroy(cache) }.unwrap_err();
            let left = mm::hosted::Reports::here().take();
            assert_eq!(left.len() as u64, leaked.objects);
            assert!(left.iter().all(|said| said.kind == Kind::SlabLeak));
            world.leaked.set(world.leaked.get() + 1);
        }
        slabs.debug().set_hardened(false);
    });
}
