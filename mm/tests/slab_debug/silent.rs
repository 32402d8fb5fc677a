//! Caches that are used well say nothing, whatever their flags.

use std::{collections::BTreeMap, ptr::NonNull};

use mm::slab::{Flags, Spec};

use crate::{
    flags::{all, alloc, bytes, destroy, fill, free, nothing_said, peek, poke, with_rcu},
    world::World,
};

const SIZES: [usize; 9] = [1, 8, 13, 64, 100, 256, 1000, 4096, 9000];

/// A generator of numbers: SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Objects of a user, each filled with a byte of its own.
struct User {
    size: usize,
    held: BTreeMap<usize, (NonNull<u8>, u8)>,
}

impl User {
    fn take(&mut self, object: NonNull<u8>, byte: u8) {
        let start = object.addr().get();
        let before = self.held.range(..=start).next_back();
        let behind = self.held.range(start..).next();
        let apart = |one: usize, other: usize| one.abs_diff(other) >= self.size;
        assert!(before.is_none_or(|(other, _)| apart(*other, start)));
        assert!(behind.is_none_or(|(other, _)| apart(*other, start)));
        fill(object, self.size, byte);
        self.held.insert(start, (object, byte));
    }

    fn give(&mut self, number: u64) -> Option<NonNull<u8>> {
        let key = *self.held.keys().nth(number as usize)?;
        let (object, byte) = self.held.remove(&key)?;
        let sound = bytes(object, self.size).iter().all(|found| *found == byte);
        assert!(sound, "overwritten");
        Some(object)
    }
}

fn storm(world: &World, spec: Spec<'_>, seed: u64) {
    world.run(|slabs| {
        let cache = slabs.create(&spec).expect("a cache");
        let mut random = Random(seed);
        let mut user = User {
            size: spec.size,
            held: BTreeMap::new(),
        };
        for round in 0..300 {
            let len = user.held.len() as u64;
            if random.below(60) >= len {
                let object = alloc(cache);
                assert!(
                    object
                        .addr()
                        .get()
                        .is_multiple_of(cache.layout().align as usize)
                );
                user.take(object, round as u8);
            } else if let Some(object) = user.give(random.below(len)) {
                free(cache, object);
            }
            if random.below(40) == 0 {
                assert_eq!(cache.validate(), 0);
            }
            if random.below(100) == 0 {
                cache.shrink();
            }
        }
        while let Some(object) = user.give(0) {
            free(cache, object);
        }
        assert_eq!((cache.validate(), cache.faults_found()), (0, 0));
        destroy(cache);
        nothing_said();
    });
}

#[test]
fn every_set_of_flags_is_silent() {
    let world = World::small();
    for (seed, flags) in (1..).zip(all()) {
        for size in SIZES {
            storm(&world, Spec::new("silent", size).flags(flags), seed);
        }
    }
}

#[test]
fn whatever_the_alignment() {
    let world = World::small();
    for flags in [Flags::DEBUG, Flags::RED_ZONE, Flags::POISON] {
        for (size, align) in [(24, 16), (100, 64), (20, 128), (600, 512), (10, 4096)] {
            let spec = Spec::new("aligned", size).flags(flags).align(align);
            storm(&world, spec, align as u64);
        }
        storm(
            &world,
            Spec::new("line", 40).flags(flags | Flags::HWCACHE_ALIGN),
            5,
        );
    }
}

fn construct(object: NonNull<u8>) {
    for offset in 0..48 {
        poke(object, offset, 0x77);
    }
}

/// An object of a cache with a constructor, or read under RCU, stays as it is while it is free.
#[test]
fn what_the_constructor_made_stays() {
    let world = World::small();
    world.run(|slabs| {
        for flags in all() {
            let spec = Spec::new("made", 48).flags(flags).constructor(construct);
            let cache = slabs.create(&spec).expect("a cache");
            let mut objects = Vec::new();
            for _ in 0..3 {
                objects.extend((0..40).map(|_| alloc(cache)));
                for object in &objects {
                    assert!((0..48).all(|at| peek(*object, at) == 0x77), "{flags}");
                }
                objects.drain(..).for_each(|object| free(cache, object));
                assert_eq!(cache.validate(), 0);
            }
            destroy(cache);
        }
        nothing_said();
    });
}

#[test]
fn what_is_read_under_rcu_stays() {
    with_rcu(|slabs| {
        for flags in all() {
            let flags = flags | Flags::TYPESAFE_BY_RCU;
            let cache = slabs
                .create(&Spec::new("read", 48).flags(flags))
                .expect("a cache");
            let object = alloc(cache);
            construct(object);
            let keeper = alloc(cache);
            free(cache, object);
            assert!((0..48).all(|at| peek(object, at) == 0x77), "{flags}");
            assert_eq!(cache.validate(), 0);
            free(cache, keeper);
            destroy(cache);
        }
        nothing_said();
    });
}
