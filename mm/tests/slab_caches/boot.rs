//! The allocator comes up, and goes down.

use mm::{Gfp, hosted::Memory, slab::Flags};
use platform::{
    hosted::{Hosted, Machine},
    percpu::PerCpu,
};

use crate::world::{MIB, World};

#[test]
fn boot_makes_the_caches_of_descriptors_and_of_kmalloc_in_order() {
    let world = World::small();
    let names: Vec<String> = world.run(|slabs| {
        let caches = slabs.caches();
        caches
            .iter()
            .map(|cache| cache.name().to_string())
            .collect()
    });
    let expected = [
        "kmalloc-8k",
        "kmalloc-4k",
        "kmalloc-2k",
        "kmalloc-1k",
        "kmalloc-512",
        "kmalloc-256",
        "kmalloc-192",
        "kmalloc-128",
        "kmalloc-96",
        "kmalloc-64",
        "kmalloc-32",
        "kmalloc-16",
        "kmalloc-8",
        "kmem_cache",
        "kmem_cache_node",
    ];
    assert_eq!(names, expected);
    world.run(|slabs| {
        for cache in slabs.caches().iter() {
            let is_boot = cache.name().as_str().starts_with("kmem_cache");
            assert_eq!(cache.flags().contains(Flags::NO_SHEAVES), is_boot);
        }
        let object = slabs.kmalloc(100, Gfp::KERNEL).unwrap();
        // SAFETY: just allocated.
        unsafe { slabs.kfree(object) };
    });
}

#[test]
fn boot_fails_cleanly_wherever_memory_ends() {
    let memory = Memory::builder().node(16 * MIB);
    let world = World::asleep(Machine::builder().cpus(2), memory);
    let mut pages = 0;
    loop {
        world.fail_pages(Some(pages));
        // SAFETY: again after an error, or the first time.
        let started = world.run(|slabs| unsafe { slabs.start() });
        let used = world.run(|_| world.mm().counts().used_frames());
        match started {
            Ok(()) => break,
            Err(_) => assert_eq!(used, 0, "pages are left of a start with {pages}"),
        }
        pages += 1;
    }
    // Parts on nodes need at least one, which is all that comes from pages.
    assert!(pages > 0, "nothing was made to fail");
    world.fail_pages(None);
    world.run(|slabs| {
        let object = slabs.kmalloc(100, Gfp::KERNEL).unwrap();
        // SAFETY: just allocated.
        unsafe { slabs.kfree(object) };
    });
}

#[test]
fn boot_fails_cleanly_wherever_per_cpu_memory_ends() {
    let memory = Memory::builder().node(16 * MIB);
    let machine = Machine::builder().cpus(2).percpu_bytes(16 * 1024);
    let world = World::asleep(machine, memory);
    let failed = world.run(|slabs| {
        // All there is; then one piece after the other is given back.
        let piece = || PerCpu::<[u64; 8], Hosted>::try_new(|_| [0; 8]);
        let mut pieces: Vec<_> = std::iter::from_fn(piece).collect();
        let mut failed = 0;
        // SAFETY: again after an error, or the first time.
        while unsafe { slabs.start() }.is_err() {
            assert_eq!(world.mm().counts().used_frames(), 0);
            pieces.pop().expect("all of it is enough");
            failed += 1;
        }
        failed
    });
    assert!(failed > 5, "each cache takes some");
}
