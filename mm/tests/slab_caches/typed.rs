//! Caches of a type.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use mm::{
    Gfp,
    hosted::Memory,
    report::Kind,
    slab::{
        Cache, CreateError, Flags, KmemCache, SlabBox,
        typed::{Construct, ConstructedCache},
    },
};
use platform::{
    NodeId, Platform,
    hosted::{Hosted, Machine},
};

use crate::world::{MIB, World, rounds};

type Boxed<T> = SlabBox<T, Hosted>;

/// Counts those that live.
struct Counted(Arc<AtomicU32>, u64);

impl Counted {
    fn new(count: &Arc<AtomicU32>, value: u64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count), value)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn boxes_hold_their_values_and_drop_them_once() {
    let world = World::small();
    world.run(|slabs| {
        let count = Arc::new(AtomicU32::new(0));
        let cache = Cache::<Counted, _>::new(slabs, "counted", Flags::empty()).unwrap();
        let new = |value| match cache.try_new(Counted::new(&count, value), Gfp::KERNEL) {
            Ok(boxed) => boxed,
            Err(_) => panic!("no memory"),
        };
        let mut boxes: Vec<Boxed<Counted>> = (0..100).map(new).collect();
        assert!((0..).zip(&boxes).all(|(value, boxed)| boxed.1 == value));
        boxes[3].1 = 1000;
        assert_eq!(boxes[3].1, 1000);
        assert_eq!(count.load(Ordering::Relaxed), 100);
        boxes.truncate(50);
        assert_eq!(count.load(Ordering::Relaxed), 50);
        let inner = SlabBox::into_inner(boxes.pop().unwrap());
        assert_eq!((inner.1, count.load(Ordering::Relaxed)), (49, 50));
        drop(inner);
        let raw = SlabBox::into_raw(boxes.pop().unwrap());
        // SAFETY: from the line above.
        let again: Boxed<Counted> = unsafe { SlabBox::from_raw(raw, world.mm().layout()) };
        assert_eq!(again.1, 48);
        drop((again, boxes));
        assert_eq!(count.load(Ordering::Relaxed), 0);
        cache.destroy().unwrap();
    });
}

#[test]
fn a_value_comes_back_where_there_is_no_memory() {
    let world = World::small();
    let cache = world.run(|slabs| {
        let flags = Flags::NO_MERGE;
        Cache::<String, _>::new(slabs, "strings", flags).unwrap()
    });
    world.fail_pages(Some(0));
    world.run(|_| {
        let gfp = Gfp::KERNEL | Gfp::NOWARN;
        let text = cache.try_new("mine".to_string(), gfp).unwrap_err();
        assert_eq!(text, "mine");
        let text = cache.try_new_in_node(text, gfp, NodeId::FIRST).unwrap_err();
        assert_eq!(text, "mine");
    });
    world.fail_pages(None);
    world.run(|_| drop(cache));
}

#[test]
fn a_box_is_in_the_node_that_was_asked_for_and_aligned_as_its_type() {
    #[repr(align(256))]
    struct Wide([u8; 300]);
    let world = World::small();
    world.run(|slabs| {
        let cache = Cache::<Wide, _>::new(slabs, "wide", Flags::empty()).unwrap();
        for node in world.mm().nodes().iter() {
            let gfp = Gfp::KERNEL | Gfp::THISNODE;
            let boxed = cache.try_new_in_node(Wide([1; 300]), gfp, node);
            let boxed = boxed.unwrap_or_else(|_| panic!("no memory"));
            let address = core::ptr::from_ref(&*boxed).addr();
            assert!(address.is_multiple_of(256) && boxed.0[299] == 1);
            let frames = world.mm().frames();
            let frame = frames.get(frames.pfn_of_address(address).unwrap()).unwrap();
            assert_eq!(frame.word().zone().node(), node);
        }
        let nothing = Cache::<(), _>::new(slabs, "nothing", Flags::empty()).unwrap();
        let two = [(); 2].map(|()| nothing.try_new((), Gfp::KERNEL).unwrap());
        assert_ne!(
            SlabBox::into_raw(two.into_iter().next().unwrap())
                .addr()
                .get(),
            0
        );
    });
    // The second of the two was forgotten by `into_raw`; the cache is kmalloc's, which lives.
    world.leaked.set(1);
}

#[test]
fn errors_of_creation_are_the_cache_s() {
    let world = World::small();
    world.run(|slabs| {
        let error = Cache::<u64, _>::new(slabs, "a b", Flags::empty()).unwrap_err();
        assert_eq!(error, CreateError::BadName);
    });
}

/// A box outlives its cache, in one structure with it, forgotten or dropped elsewhere.
#[test]
fn boxes_outlive_their_cache() {
    let world = World::small();
    world.run(|slabs| {
        let new = || Cache::<u64, _>::new(slabs, "outlived", Flags::NO_MERGE).unwrap();
        let cache = new();
        let boxed = cache.try_new(5, Gfp::KERNEL).unwrap();
        let leaked = cache.destroy().unwrap_err();
        assert_eq!(leaked.objects, 1);
        assert_eq!(*boxed, 5);
        assert!(slabs.caches().iter().any(KmemCache::is_dying));
        drop(boxed);
        assert!(!slabs.caches().iter().any(KmemCache::is_dying));
        // Fields are dropped in this order.
        struct Both {
            _cache: Cache<u64, Hosted>,
            boxed: Boxed<u64>,
        }
        let cache = new();
        let boxed = cache.try_new(6, Gfp::KERNEL).unwrap();
        let both = Both {
            _cache: cache,
            boxed,
        };
        assert_eq!(*both.boxed, 6);
        drop(both);
        assert!(!slabs.caches().iter().any(KmemCache::is_dying));
        // What is forgotten stays, and does no harm.
        core::mem::forget(new());
        assert_eq!(
            Cache::<u64, _>::new(slabs, "outlived", Flags::NO_MERGE).unwrap_err(),
            CreateError::NameTaken
        );
    });
    assert_eq!(world.take_reports(Kind::SlabLeak), 2);
}

#[test]
fn typed_caches_merge_and_lose_their_own_name() {
    let world = World::small();
    world.run(|slabs| {
        let one = Cache::<[u64; 45], _>::new(slabs, "one", Flags::empty()).unwrap();
        let other = Cache::<[u8; 360], _>::new(slabs, "other", Flags::empty()).unwrap();
        assert!(core::ptr::eq(one.raw(), other.raw()));
        let boxed = other.try_new([7; 360], Gfp::KERNEL).unwrap();
        other.destroy().unwrap();
        assert!(slabs.caches().find("other").is_none());
        assert!(slabs.caches().find("one").is_some());
        assert!(boxed.iter().all(|byte| *byte == 7));
        drop(boxed);
        one.destroy().unwrap();
    });
}

/// Boxes are dropped on all CPUs, in interrupts too, while their cache is destroyed.
#[test]
fn drops_may_race_the_end_of_the_cache() {
    let memory = Memory::builder().node(16 * MIB).node(16 * MIB);
    let machine = Machine::builder().cpus(4).nodes(2);
    let world = World::new(machine, memory);
    // Interrupts that take long, so that a drop may take as long as a destruction.
    let _slow = world.machine.on_interrupt(8, || {
        std::thread::sleep(std::time::Duration::from_micros(20));
    });
    let mut leaks = 0;
    for round in 0..rounds(2000, 40) {
        let cache =
            world.run(|slabs| Cache::<[u64; 9], _>::new(slabs, "raced", Flags::NO_MERGE).unwrap());
        let boxes: Vec<Boxed<[u64; 9]>> = world.run(|_| {
            let new = |_| cache.try_new([round; 9], Gfp::KERNEL).unwrap();
            (0..240).map(new).collect()
        });
        let go = AtomicBool::new(false);
        let boxes = std::sync::Mutex::new(boxes);
        let cache = std::sync::Mutex::new(Some(cache));
        world.machine.run_on_all(|cpu| {
            let mut mine = {
                let mut boxes = boxes.lock().unwrap();
                let from = boxes.len().saturating_sub(60);
                boxes.split_off(from)
            };
            if cpu.index() == 0 {
                go.store(true, Ordering::Release);
                let cache = cache.lock().unwrap().take().unwrap();
                if cache.destroy().is_err() {
                    // Expected, unless all were quicker.
                }
            }
            while !go.load(Ordering::Acquire) {
                Hosted::yield_now();
            }
            for (number, boxed) in mine.drain(..).enumerate() {
                assert!(boxed.iter().all(|word| *word == round));
                drop(boxed);
                if number % 8 == 0 {
                    Hosted::yield_now();
                }
            }
        });
        world.run(|slabs| assert!(!slabs.caches().iter().any(KmemCache::is_dying)));
        leaks += world.take_reports(Kind::SlabLeak);
    }
    assert!(leaks > 0, "never destroyed with boxes in use");
}

struct Table([u64; 30]);

static MADE: AtomicU32 = AtomicU32::new(0);

impl Construct for Table {
    fn construct() -> Self {
        MADE.fetch_add(1, Ordering::Relaxed);
        Self(core::array::from_fn(|index| index as u64))
    }
}

#[test]
fn constructed_objects_keep_their_value_while_they_are_free() {
    let world = World::small();
    world.run(|slabs| {
        let cache = ConstructedCache::<Table, _>::new(slabs, "tables", Flags::empty()).unwrap();
        let mut tables: Vec<_> = (0..40).map(|_| cache.take(Gfp::KERNEL).unwrap()).collect();
        for table in &mut tables {
            assert!((0..).zip(table.0).all(|(index, word)| word == index));
            table.0[0] = 77;
        }
        drop(tables);
        let made = MADE.load(Ordering::Relaxed);
        let again: Vec<_> = (0..40).map(|_| cache.take(Gfp::KERNEL).unwrap()).collect();
        assert_eq!(MADE.load(Ordering::Relaxed), made, "nothing is made twice");
        assert!(
            again
                .iter()
                .all(|table| table.0[0] == 77 && table.0[29] == 29)
        );
        let here = cache.take_in_node(Gfp::KERNEL, NodeId::FIRST).unwrap();
        assert_eq!(here.0[1], 1);
        drop((again, here));
        cache.destroy().unwrap();
    });
}
