//! What can be switched on for all caches.

use std::ptr::NonNull;

use mm::{
    Gfp,
    hosted::Memory,
    slab::{Flags, Slabs, Spec},
};
use platform::hosted::{Hosted, Machine};

use crate::{
    flags::{Cache, F, P, U, Z, all, alloc, destroy, free, nothing_said, peek, poke, with_rcu},
    world::World,
};

fn dirty(object: NonNull<u8>, size: isize) {
    (0..size).for_each(|at| poke(object, at, 0xee));
}

fn is_zero(object: NonNull<u8>, size: isize) -> bool {
    (0..size).all(|at| peek(object, at) == 0)
}

/// Allocates until an object comes that was dirtied before; whether it is clean.
fn reused_is_zero(cache: &Cache) -> bool {
    let object = alloc(cache);
    dirty(object, 64);
    free(cache, object);
    let again = alloc(cache);
    assert_eq!(again, object);
    let zero = is_zero(again, 64);
    free(cache, again);
    zero
}

fn nothing(_: NonNull<u8>) {}

#[test]
fn zero_on_alloc() {
    let world = World::small();
    world.run(|slabs| {
        let sets = || all().chain([Flags::empty(), Flags::NO_MERGE]);
        for flags in sets() {
            let cache = slabs.create(&Spec::new("zeroed", 64).flags(flags)).unwrap();
            let made = Spec::new("made", 64).flags(flags).constructor(nothing);
            let made = slabs.create(&made).unwrap();
            assert!(!reused_is_zero(cache), "{flags}");
            slabs.set_zero_on_alloc(true);
            // Poison is as on Linux: what is allocated is still full of it.
            assert_eq!(reused_is_zero(cache), !flags.contains(P), "{flags}");
            assert!(!reused_is_zero(made), "{flags}");
            // And of caches that come later.
            let later = slabs.create(&Spec::new("later", 64).flags(flags)).unwrap();
            assert_eq!(reused_is_zero(later), !flags.contains(P), "{flags}");
            slabs.set_zero_on_alloc(false);
            assert!(!reused_is_zero(later), "{flags}");
            [cache, made, later].into_iter().for_each(destroy);
        }
        nothing_said();
    });
}

#[test]
fn zero_on_free() {
    let world = World::small();
    world.run(|slabs| {
        for flags in all().chain([Flags::NO_MERGE]) {
            let cache = slabs.create(&Spec::new("zeroed", 64).flags(flags)).unwrap();
            let freed_is_zero = || {
                let (object, keeper) = (alloc(cache), alloc(cache));
                dirty(object, 64);
                free(cache, object);
                // But for the link, if it lies within.
                let link = cache.layout().link as isize;
                let zero = (0..64)
                    .filter(|at| !(link..link + 8).contains(at))
                    .all(|at| peek(object, at) == 0);
                free(cache, keeper);
                zero
            };
            assert!(!freed_is_zero());
            slabs.set_zero_on_free(true);
            assert_eq!(freed_is_zero(), !flags.contains(P), "{flags}");
            slabs.set_zero_on_free(false);
            assert!(!freed_is_zero());
            destroy(cache);
        }
        nothing_said();
    });
}

/// What readers may still look at is never zeroed.
#[test]
fn what_is_read_under_rcu_is_not_zeroed() {
    with_rcu(|slabs| {
        slabs.set_zero_on_free(true);
        slabs.set_zero_on_alloc(true);
        for flags in [Flags::TYPESAFE_BY_RCU, Flags::TYPESAFE_BY_RCU | F | Z | U] {
            let cache = slabs.create(&Spec::new("read", 64).flags(flags)).unwrap();
            let object = alloc(cache);
            dirty(object, 64);
            free(cache, object);
            assert_eq!(peek(object, 0), 0xee, "{flags}");
            let again = alloc(cache);
            assert_eq!(peek(object, 0), 0xee, "{flags}");
            free(cache, again);
            destroy(cache);
        }
        nothing_said();
    });
}

/// The order in which fresh slabs give their objects.
fn order(slabs: &'static Slabs<Hosted>) -> Vec<isize> {
    // Without sheaves, which have their own order.
    let spec = Spec::new("ordered", 64).flags(F);
    let cache = slabs.create(&spec).unwrap();
    let count = usize::from(cache.layout().objects);
    let objects: Vec<_> = (0..count).map(|_| alloc(cache)).collect();
    let steps = objects
        .windows(2)
        .map(|pair| pair[1].addr().get() as isize - pair[0].addr().get() as isize)
        .collect();
    objects.into_iter().for_each(|object| free(cache, object));
    assert_eq!(cache.validate(), 0);
    destroy(cache);
    steps
}

#[test]
fn fresh_slabs_are_shuffled() {
    let world = World::small();
    world.run(|slabs| {
        slabs.debug().set_seed(1);
        let regular = order(slabs);
        let same = regular.iter().filter(|step| **step == regular[0]).count();
        assert_eq!(same, regular.len(), "{regular:?}");
        slabs.debug().set_shuffled(true);
        let (first, second) = (order(slabs), order(slabs));
        assert_ne!(first, regular);
        assert_ne!(first, second);
        slabs.debug().set_seed(1);
        assert_eq!(order(slabs), first, "a seed repeats");
        slabs.debug().set_shuffled(false);
        nothing_said();
    });
}

/// The same link is another word in another cache, and elsewhere.
#[test]
fn links_are_mixed() {
    let world = World::small();
    world.run(|slabs| {
        let links = |hardened| {
            slabs.debug().set_hardened(hardened);
            let spec = Spec::new("mixed", 64).flags(P);
            let cache = slabs.create(&spec).unwrap();
            let objects: Vec<_> = (0..3).map(|_| alloc(cache)).collect();
            let keeper = alloc(cache);
            objects.iter().for_each(|object| free(cache, *object));
            let word = |object: &NonNull<u8>| -> [u8; 8] {
                let at = cache.layout().link as isize;
                std::array::from_fn(|byte| peek(*object, at + byte as isize))
            };
            let words: Vec<_> = objects.iter().map(word).collect();
            assert_eq!(cache.validate(), 0);
            free(cache, keeper);
            destroy(cache);
            words
        };
        let (plain, hard, other) = (links(false), links(true), links(true));
        // Small numbers, as they are.
        assert!(
            plain
                .iter()
                .all(|word| word[2..] == [0xff; 6] || *word == [0; 8])
        );
        assert!(
            hard.iter()
                .all(|word| word[2..] != [0xff; 6] && *word != [0; 8])
        );
        assert_ne!(hard, other);
        nothing_said();
    });
}

#[test]
fn slub_debug_names_caches() {
    let machine = Machine::builder().cpus(1);
    let world = World::asleep(machine, Memory::builder().node(16 << 20));
    world.run(|slabs| {
        let debug = slabs.debug();
        assert!(debug.set_slub_debug("FQ").is_err());
        debug.set_slub_debug("FU,mine*;Z,yours;-").unwrap();
        // SAFETY: once; it stays where it is until the world ends.
        unsafe { slabs.start() }.expect("memory for the first caches");
        for (name, own, flags) in [
            ("mine-1", Flags::empty(), F | U),
            ("mine-2", Z, F | U | Z),
            ("yours", Flags::empty(), Z),
            ("yours-too", Flags::empty(), Flags::empty()),
            ("theirs", P, P),
        ] {
            let spec = Spec::new(name, 64).flags(own);
            let cache = slabs.create(&spec).unwrap();
            assert_eq!(cache.flags() & Flags::DEBUG, flags, "{name}");
            free(cache, alloc(cache));
            destroy(cache);
        }
        nothing_said();
    });
}

/// All caches, those that caches are made of and kmalloc's, too.
#[test]
fn slub_debug_for_all() {
    for text in ["", "F", "Z", "P", "U"] {
        let machine = Machine::builder().cpus(2).nodes(2);
        let memory = Memory::builder().node(16 << 20).node(16 << 20);
        let world = World::asleep(machine, memory);
        world.run(|slabs| {
            slabs.debug().set_slub_debug(text).unwrap();
            // SAFETY: once; it stays where it is until the world ends.
            unsafe { slabs.start() }.expect("memory for the first caches");
            assert!(slabs.caches().iter().all(Cache::is_debug));
            let spec = Spec::new("whatever", 100);
            let cache = slabs.create(&spec).unwrap();
            let objects: Vec<_> = (0..100).map(|_| alloc(cache)).collect();
            let blocks: Vec<_> = (0..100)
                .map(|size| slabs.kmalloc(size * 90, Gfp::KERNEL).unwrap())
                .collect();
            for cache in slabs.caches().iter() {
                assert_eq!(cache.validate(), 0, "{}", cache.name());
            }
            objects.into_iter().for_each(|object| free(cache, object));
            // SAFETY: the test's.
            blocks
                .into_iter()
                .for_each(|block| unsafe { slabs.kfree(block) });
            destroy(cache);
            nothing_said();
        });
    }
}
