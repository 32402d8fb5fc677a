//! Destructors that free, queue further objects, and take locks.

use std::{
    cell::Cell,
    ptr::NonNull,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use mm::{
    Gfp,
    kvfree_rcu::Head,
    slab::{Flags, Spec},
};
use platform::{hosted::Hosted, lock::SpinLock, lock_class};

use crate::common::{
    Allocator, CAPACITY, Cache, OF_SHEAF, Section, count, cpu, destroy, free_rcu, free_rcu_at_once,
    wait_until, walk, without_drainers, world,
};

lock_class! {
    /// What a destructor takes.
    struct Inner = ("destructor's test", 40);
}

/// What objects of this file share.
struct Shared {
    slabs: &'static Allocator,
    /// Objects that were destructed.
    ended: AtomicU64,
    /// Taken by each destructor, and by who queues.
    lock: SpinLock<u64, Hosted, Inner>,
    /// Destructors within one another, at most.
    deepest: AtomicU64,
}

impl Shared {
    fn new(slabs: &'static Allocator) -> &'static Self {
        Box::leak(Box::new(Self {
            slabs,
            ended: AtomicU64::new(0),
            lock: SpinLock::new(0),
            deepest: AtomicU64::new(0),
        }))
    }

    fn ended(&self) -> u64 {
        self.ended.load(Acquire)
    }
}

/// An object of a list that is freed one after the other.
#[repr(C)]
struct Node {
    head: Head,
    shared: Option<&'static Shared>,
    /// The rest of the list, given to `kfree_rcu` when this one ends.
    next: Option<NonNull<u8>>,
    /// Memory that is freed with it.
    owned: Option<NonNull<u8>>,
}

std::thread_local! {
    /// Destructors that this thread is in.
    static DEPTH: Cell<u64> = const { Cell::new(0) };
}

/// # Safety
///
/// It is a [`Node`], and nobody else's.
unsafe fn end(object: NonNull<u8>) {
    // SAFETY: as the caller promises.
    let node = unsafe { object.cast::<Node>().as_ref() };
    let Some(shared) = node.shared else { return };
    let depth = DEPTH.get() + 1;
    DEPTH.set(depth);
    shared.deepest.fetch_max(depth, Relaxed);
    *shared.lock.lock() += 1;
    // SAFETY: owned by this node, and not used by anybody else.
    unsafe {
        if let Some(owned) = node.owned {
            shared.slabs.kfree(owned);
        }
        if let Some(next) = node.next {
            shared.slabs.kfree_rcu(next, next.cast::<Head>());
        }
    }
    DEPTH.set(depth - 1);
    shared.ended.fetch_add(1, Release);
}

fn create(slabs: &'static Allocator, flags: Flags) -> &'static Cache {
    let spec = Spec::new("nodes", 96)
        .sheaf_capacity(CAPACITY)
        .flags(Flags::NO_MERGE | flags);
    // SAFETY: all objects are `Node`s.
    slabs
        .create(&unsafe { spec.destructor(end) })
        .expect("a cache")
}

/// A list of so many nodes: its first.
fn list(cache: &Cache, count: u64, shared: &'static Shared) -> Option<NonNull<u8>> {
    (0..count).fold(None, |next, number| {
        let object = cache.alloc(Gfp::KERNEL).expect("memory");
        let owned = (number % 3 == 0).then(|| shared.slabs.kmalloc(200, Gfp::KERNEL).unwrap());
        // SAFETY: the caller's, and large enough.
        unsafe {
            object.cast::<Node>().write(Node {
                head: Head::new(),
                shared: Some(shared),
                next,
                owned,
            });
        }
        Some(object)
    })
}

/// Each node queues the next one: by itself, by a cache's end, which waits for all of them.
#[test]
fn a_list_is_freed_one_after_the_other() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        for flags in [Flags::empty(), Flags::POISON] {
            let shared = Shared::new(slabs);
            let cache = create(slabs, flags);
            free_rcu_at_once(slabs, list(cache, 5, shared).into_iter().collect());
            // Batches of one each, which get old one by one.
            wait_until(|| shared.ended() == 5);
            assert_eq!(*shared.lock.lock(), 5);
            // Its end does not return before the last one.
            for length in [1, 2, 12] {
                let ended = shared.ended();
                let cache = slabs_of(slabs, flags, length);
                let lists = (0..4).filter_map(|_| list(cache, length, shared)).collect();
                free_rcu_at_once(slabs, lists);
                destroy(slabs, cache);
                assert_eq!(shared.ended(), ended + 4 * length);
            }
            destroy(slabs, cache);
        }
        walk(slabs, engine);
    });
}

/// A further cache of the same kind, by another name.
fn slabs_of(slabs: &'static Allocator, flags: Flags, number: u64) -> &'static Cache {
    let name = format!("nodes{number}");
    let spec = Spec::new(&name, 96)
        .sheaf_capacity(CAPACITY)
        .flags(Flags::NO_MERGE | flags);
    // SAFETY: all objects are `Node`s.
    slabs
        .create(&unsafe { spec.destructor(end) })
        .expect("a cache")
}

/// A barrier waits for what was queued before it, so for one node more of each list at a time, at least.
#[test]
fn a_barrier_waits_for_what_was_queued_before_it() {
    let world = world(2);
    without_drainers(&world, |slabs, engine| {
        let shared = Shared::new(slabs);
        let cache = create(slabs, Flags::empty());
        for of_all in [true, false] {
            let ended = shared.ended();
            let section = Section::begin(&world, cpu(1));
            free_rcu_at_once(slabs, list(cache, 6, shared).into_iter().collect());
            assert_eq!(shared.ended(), ended);
            section.end();
            for nodes in 1..=6 {
                if of_all {
                    slabs.kvfree_rcu_barrier();
                } else {
                    slabs.kvfree_rcu_barrier_on_cache(cache);
                }
                assert!(shared.ended() >= ended + nodes);
            }
            assert!(!cache.has_in_flight());
        }
        walk(slabs, engine);
        destroy(slabs, cache);
    });
}

/// Who helps since far too much waits runs destructors that queue more, where again far too much waits: they do not help
/// from within.
#[test]
fn destructors_do_not_nest_without_end() {
    let world = world(2);
    without_drainers(&world, |slabs, engine| {
        let shared = Shared::new(slabs);
        let cache = create(slabs, Flags::POISON);
        slabs.kvfree_rcu().set_soft_limit(OF_SHEAF * 96);
        // Three full pages, which are ripe, and nobody has come for.
        let many: Vec<_> = (0..1600).filter_map(|_| list(cache, 2, shared)).collect();
        free_rcu_at_once(slabs, many);
        assert_eq!(count(slabs, "rcu.close_page"), 3);
        engine.synchronize();
        assert_eq!(shared.ended(), 0);
        list(cache, 1, shared)
            .into_iter()
            .for_each(|object| free_rcu(slabs, object));
        assert!(count(slabs, "lane.help") > 0);
        assert!(shared.ended() >= 1527, "who queues has freed them");
        let deepest = shared.deepest.load(Relaxed);
        assert!(deepest <= 2, "{deepest} within one another");
        slabs.kvfree_rcu_barrier();
        slabs.kvfree_rcu_barrier();
        assert_eq!(shared.ended(), 3201);
        walk(slabs, engine);
        destroy(slabs, cache);
    });
}
