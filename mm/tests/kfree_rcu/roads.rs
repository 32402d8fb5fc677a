//! Each road that an object can take, and that it comes to an end.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mm::{
    Gfp,
    hosted::Reports,
    kvfree_rcu::{Head, Vmalloc},
    report::Kind,
    slab::{Flags, stats::Stat},
};
use platform::NodeId;

use crate::{
    common::{
        OF_SHEAF, Section, Shared, count, cpu, create, destroy, fail_pages, free_rcu,
        free_rcu_at_once, make, spec, take, walk, world,
    },
    world::World,
};

#[test]
pub fn sheaves_gather_and_go_to_the_barn() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let (cache, shared) = (create(slabs, "test"), Shared::new());
        free_rcu_at_once(slabs, take(cache, 4 * OF_SHEAF, shared));
        assert_eq!(count(slabs, "rcu.page"), 0);
        assert_eq!(count(slabs, "rcu.close_full"), 3);
        assert_eq!(count(slabs, "rcu.open"), 4);
        slabs.kvfree_rcu_barrier();
        assert!(!cache.has_in_flight());
        assert_eq!(shared.ended(), 4 * OF_SHEAF);
        assert_eq!(count(slabs, "rcu.close_barrier"), 1, "of the last one");
        assert_eq!(count(slabs, "rcu.to_barn"), 4);
        assert!(count(slabs, "rcu.take_sheaf") > 0);
        assert_eq!(cache.stat(Stat::FreeRcuSheaf), 4 * OF_SHEAF);
        // Emptied by allocations they are what the next ones are exchanged for.
        free_rcu_at_once(slabs, take(cache, 6 * OF_SHEAF, shared));
        assert!(count(slabs, "rcu.exchange") > 0);
        slabs.kvfree_rcu_barrier();
        assert_eq!(shared.ended(), 10 * OF_SHEAF);
        // One that was closed early is flushed.
        free_rcu_at_once(slabs, take(cache, 1, shared));
        slabs.kvfree_rcu_barrier_on_cache(cache);
        assert_eq!(count(slabs, "rcu.flush_partial"), 1);
        walk(slabs, engine);
        destroy(slabs, cache);
    });
}

/// A barn has room for ten, so of twelve full ones two are flushed.
#[test]
pub fn sheaves_that_find_no_room_in_the_barn_are_flushed() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let (cache, shared) = (create(slabs, "test"), Shared::new());
        free_rcu_at_once(slabs, take(cache, 12 * OF_SHEAF, shared));
        slabs.kvfree_rcu_barrier();
        assert_eq!(shared.ended(), 12 * OF_SHEAF);
        assert_eq!(count(slabs, "rcu.to_barn"), 10);
        assert_eq!(count(slabs, "rcu.barn_full"), 2);
        walk(slabs, engine);
        destroy(slabs, cache);
    });
}

#[test]
pub fn objects_of_another_node_never_get_into_a_sheaf() {
    let world = World::small();
    world.run_with_rcu(|slabs, engine| {
        let (cache, shared) = (create(slabs, "test"), Shared::new());
        let there = NodeId::from_index(1).expect("a node");
        let alloc = |_| cache.alloc_node(Gfp::KERNEL, there).expect("memory");
        let all: Vec<_> = (0..100).map(|n| make(alloc(n), shared)).collect();
        free_rcu_at_once(slabs, all);
        assert_eq!(count(slabs, "rcu.remote"), 100);
        assert_eq!(count(slabs, "rcu.page"), 100);
        assert_eq!(count(slabs, "rcu.open"), 0);
        assert_eq!(cache.stat(Stat::FreeRcuSheaf), 0);
        // One of here does.
        free_rcu_at_once(slabs, take(cache, 1, shared));
        assert_eq!(count(slabs, "rcu.open"), 1);
        slabs.kvfree_rcu_barrier_on_cache(cache);
        assert_eq!(shared.ended(), 101);
        walk(slabs, engine);
        destroy(slabs, cache);
    });
}

/// Debug caches, and caches without sheaves. Pages have room for 509.
#[test]
pub fn pages_take_what_has_no_sheaf() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let debug = slabs.create(&spec("debug").flags(Flags::POISON)).unwrap();
        let none = slabs.create(&spec("none").sheaf_capacity(0)).unwrap();
        let mut all = take(debug, 600, shared);
        all.extend(take(none, 600, shared));
        all.push(slabs.kmalloc(20_000, Gfp::KERNEL).unwrap());
        free_rcu_at_once(slabs, all);
        assert_eq!(count(slabs, "rcu.close_page"), 2);
        assert_eq!(count(slabs, "rcu.no_sheaf"), 1200);
        assert_eq!(count(slabs, "rcu.page"), 1201);
        slabs.kvfree_rcu_barrier_on_cache(debug);
        assert!(!debug.has_in_flight());
        slabs.kvfree_rcu_barrier_on_cache(none);
        assert_eq!(shared.ended(), 1200);
        slabs.kvfree_rcu_barrier();
        assert_eq!(slabs.kvfree_rcu().bytes(), 0);
        walk(slabs, engine);
        destroy(slabs, debug);
        destroy(slabs, none);
    });
}

/// Memory that looks as that of vmalloc: how often each block was freed is in its third word.
static BLOCKS: [[AtomicU64; 8]; 700] = [const { [const { AtomicU64::new(0) }; 8] }; 700];

static VMALLOC: Vmalloc = Vmalloc {
    is_vmalloc: |address| {
        let start = BLOCKS.as_ptr().addr();
        (start..start + size_of_val(&BLOCKS)).contains(&address)
    },
    vfree: |memory| {
        // SAFETY: one of the blocks.
        let freed = unsafe { &(*memory.cast::<[AtomicU64; 8]>().as_ptr())[2] };
        freed.fetch_add(1, Relaxed);
    },
};

#[test]
fn memory_of_vmalloc_is_freed_by_its_own() {
    let world = world(2);
    world.run_with_rcu(|slabs, _| {
        slabs.kvfree_rcu().set_vmalloc(&VMALLOC);
        let freed = || -> Vec<u64> { BLOCKS.iter().map(|block| block[2].load(Relaxed)).collect() };
        let mut blocks = BLOCKS.iter().map(|block| NonNull::from(block).cast());
        let section = Section::begin(&world, cpu(1));
        // Pages of each kind by themselves.
        let (some, others): (Vec<_>, Vec<_>) =
            (blocks.by_ref().take(600).collect(), blocks.collect());
        free_rcu_at_once(slabs, some);
        free_rcu(slabs, slabs.kmalloc(64, Gfp::KERNEL).unwrap());
        free_rcu(slabs, slabs.kmalloc(1 << 20, Gfp::KERNEL).unwrap());
        // By their heads, in one chain with others.
        fail_pages(&world, Some(0));
        let chained = others.len() as u64;
        free_rcu_at_once(slabs, others);
        fail_pages(&world, None);
        assert!(count(slabs, "rcu.chain") > 0 && count(slabs, "rcu.chain") <= chained);
        // SAFETY: a block of this test.
        unsafe { slabs.kfree_rcu_mightsleep(NonNull::from(&BLOCKS[1]).cast()) };
        assert!(freed().iter().all(|times| *times == 0), "a reader is there");
        section.end();
        slabs.kvfree_rcu_barrier();
        let freed = freed();
        assert!(freed[2..].iter().all(|times| *times == 1), "{freed:?}");
        assert_eq!(slabs.kvfree_rcu().bytes(), 0);
    });
}

/// What has no head, and what no memory can be found for.
#[test]
pub fn objects_without_heads_wait_in_the_caller_if_nothing_else_helps() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let cache = create(slabs, "test");
        let none = slabs.create(&spec("none").sheaf_capacity(0)).unwrap();
        let [one, two, three] = [
            take(cache, 1, shared),
            take(none, 1, shared),
            take(none, 1, shared),
        ];
        // SAFETY: the test's objects.
        unsafe {
            slabs.kfree_rcu_mightsleep(one[0]);
            assert_eq!(count(slabs, "rcu.open"), 1);
            slabs.kfree_rcu_mightsleep(two[0]);
            assert_eq!(count(slabs, "rcu.page"), 1);
            slabs.kvfree_rcu_barrier();
            assert_eq!(shared.ended(), 2);
            // A page that was used is kept, but for this.
            slabs.flush_kvfree_rcu();
            let spare = mm::reclaim::Shrink::scan(
                slabs.kvfree_rcu(),
                mm::reclaim::Wanted {
                    frames: 1,
                    gfp: Gfp::KERNEL,
                },
            );
            assert!(spare > 0);
            fail_pages(&world, Some(0));
            slabs.kfree_rcu_mightsleep(three[0]);
            fail_pages(&world, None);
        }
        assert_eq!(count(slabs, "rcu.synchronize"), 1);
        assert_eq!(shared.ended(), 3, "it is free when the call returns");
        walk(slabs, engine);
        destroy(slabs, cache);
        destroy(slabs, none);
    });
}

#[test]
pub fn objects_that_are_left_after_destroy_are_freed_all_the_same() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let cache = create(slabs, "left");
        let left = take(cache, 3, shared);
        // SAFETY: three objects are left on purpose, and freed below.
        let leaked = unsafe { slabs.destroy(cache) };
        assert_eq!(leaked.map_err(|leaked| leaked.objects), Err(3));
        let said = Reports::here().take();
        assert!(said.iter().all(|said| said.kind == Kind::SlabLeak));
        let section = Section::begin(&world, cpu(1));
        for object in left {
            free_rcu(slabs, object);
        }
        assert_eq!(count(slabs, "rcu.dying"), 3);
        let listed = || {
            slabs
                .caches()
                .iter()
                .any(|cache| &*cache.name().to_string() == "left")
        };
        assert!(listed(), "as left~number");
        assert_eq!(shared.ended(), 0, "a reader is there");
        section.end();
        slabs.kvfree_rcu_barrier();
        assert_eq!(shared.ended(), 3);
        assert!(!listed(), "it goes with its last object");
        walk(slabs, engine);
    });
}

/// Address 16, which is nobody's, and addresses that are nothing.
#[test]
fn what_is_no_memory_is_not_queued() {
    let world = world(2);
    world.run_with_rcu(|slabs, _| {
        let zero = slabs.kmalloc(0, Gfp::KERNEL).unwrap();
        // SAFETY: nothing is written to what is not queued.
        unsafe {
            slabs.kfree_rcu(zero, zero.cast::<Head>());
            slabs.kfree_rcu_nolock(zero, zero.cast::<Head>());
            slabs.kfree_rcu_mightsleep(zero);
        }
        let local = 0_u64;
        free_rcu(slabs, NonNull::from(&local).cast());
        let said = Reports::here().expect(Kind::BadKmallocAddress);
        assert!(
            said.caller
                .is_some_and(|caller| caller.file().contains("common.rs")),
            "{said}"
        );
        assert_eq!(count(slabs, "rcu.page"), 0);
    });
}

#[test]
fn a_cache_ends_with_objects_in_flight() {
    let world = world(2);
    world.run_with_rcu(|slabs, _| {
        let shared = Shared::new();
        let mut all = 0;
        for round in 0..20 {
            let cache = create(slabs, "test");
            for object in take(cache, round * 7, shared) {
                free_rcu(slabs, object);
            }
            all += round * 7;
            destroy(slabs, cache);
            assert_eq!(shared.ended(), all);
        }
    });
}
