//! Each road that an object can take, and that it comes to an end.

use std::ptr::NonNull;

use mm::{
    Gfp,
    hosted::Memory,
    kvfree_rcu::Head,
    slab::{Flags, KmemCache, Slabs, Spec},
};
use platform::hosted::{Hosted, Machine};

use crate::world::{MIB, World};

fn world() -> World {
    let memory = Memory::builder().node(32 * MIB);
    World::new(Machine::builder().cpus(2), memory)
}

fn alloc(cache: &KmemCache<Hosted>) -> NonNull<u8> {
    cache.alloc(Gfp::KERNEL).expect("memory")
}

/// Gives an object to `kfree_rcu`; its head is its first two words.
fn free_rcu(slabs: &Slabs<Hosted>, object: NonNull<u8>) {
    // SAFETY: the caller's, and large enough.
    unsafe { slabs.kfree_rcu(object, object.cast::<Head>()) };
}

fn count(slabs: &Slabs<Hosted>, name: &str) -> u64 {
    let found = slabs.arrows().find(|(arrow, _)| *arrow == name);
    found.expect("an arrow").1
}

#[test]
fn sheaves_gather_and_go_to_the_barn() {
    world().run_with_rcu(|slabs, _| {
        let spec = Spec::new("test", 64).flags(Flags::NO_MERGE);
        let cache = slabs.create(&spec).unwrap();
        let held: Vec<_> = (0..610).map(|_| alloc(cache)).collect();
        for object in held {
            free_rcu(slabs, object);
        }
        assert_eq!(count(slabs, "rcu.page"), 0);
        slabs.kvfree_rcu_barrier();
        assert!(!cache.has_in_flight());
        assert!(count(slabs, "rcu.to_barn") >= 9);
        // SAFETY: nothing is left.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}

#[test]
fn a_cache_ends_with_objects_in_flight() {
    world().run_with_rcu(|slabs, _| {
        for round in 0..20 {
            let spec = Spec::new("test", 64).flags(Flags::NO_MERGE);
            let cache = slabs.create(&spec).unwrap();
            let held: Vec<_> = (0..round * 7).map(|_| alloc(cache)).collect();
            for object in held {
                free_rcu(slabs, object);
            }
            // SAFETY: nothing is left.
            unsafe { slabs.destroy(cache) }.unwrap();
        }
    });
}

#[test]
fn pages_take_what_has_no_sheaf() {
    world().run_with_rcu(|slabs, _| {
        let spec = Spec::new("debug", 64).flags(Flags::POISON);
        let cache = slabs.create(&spec).unwrap();
        for _ in 0..1200 {
            free_rcu(slabs, alloc(cache));
        }
        let large = slabs.kmalloc(20_000, Gfp::KERNEL).unwrap();
        free_rcu(slabs, large);
        slabs.kvfree_rcu_barrier_on_cache(cache);
        assert!(!cache.has_in_flight());
        assert!(count(slabs, "rcu.close_page") >= 2);
        free_rcu(slabs, alloc(cache));
        // SAFETY: nothing is left.
        unsafe { slabs.destroy(cache) }.unwrap();
        slabs.kvfree_rcu_barrier();
    });
}
