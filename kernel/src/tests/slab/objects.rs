//! Objects: by each function, on each node, from interrupts, on all CPUs.

use alloc::vec::Vec;
use core::{
    mem::MaybeUninit,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use mm::{Gfp, Machine, slab::Flags};

use super::{Object, create, destroy, free, slabs_of, take};
use crate::{
    kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok, rounds},
    machine::Kernel,
    memory::mm,
    sched::Builder,
    smp,
};

/// Objects are apart from each other, whatever function gave them.
pub fn every_api(_: &mut Ctx, size: usize) -> Outcome {
    let cache = create("slab-api", size, Flags::empty())?;
    let mut objects = take(cache, 50)?;
    let node = kassert_ok!(mm().nearest_memory(Kernel::node_here()));
    for _ in 0..10 {
        objects.push(Object(kassert_ok!(cache.alloc_node(Gfp::KERNEL, node))));
    }
    let mut bulk = [MaybeUninit::<NonNull<u8>>::uninit(); 40];
    kassert_eq!(cache.alloc_bulk(Gfp::KERNEL, &mut bulk), bulk.len());
    // SAFETY: all were written.
    objects.extend(bulk.map(|object| Object(unsafe { object.assume_init() })));
    let mut prefilled = kassert_ok!(cache.prefill(Gfp::KERNEL, 70));
    for _ in 0..70 {
        objects.push(Object(kassert_ok!(prefilled.alloc(Gfp::empty()))));
    }
    kassert!(prefilled.refill(Gfp::KERNEL, 20));
    objects.push(Object(kassert_ok!(prefilled.alloc(Gfp::empty()))));
    drop(prefilled);
    objects.extend(cache.alloc_nolock(None).map(Object));
    for (object, number) in objects.iter().zip(0..) {
        object.mark(size, number);
    }
    for (object, number) in objects.iter().zip(0..) {
        kassert!(object.is_marked(size, number), "object {number}");
    }
    let zeroed = Object(kassert_ok!(cache.alloc(Gfp::KERNEL | Gfp::ZERO)));
    kassert!(zeroed.is_marked(size, 0));
    objects.push(zeroed);
    let bulk: Vec<NonNull<u8>> = objects.split_off(100).iter().map(|it| it.0).collect();
    // SAFETY: the case's, and not used any more.
    unsafe {
        cache.free_bulk(&bulk);
        if let Some(object) = objects.pop() {
            cache.free_nolock(object.0);
        }
    }
    free(cache, &objects);
    destroy(cache)
}

/// On every node that has memory.
pub fn node_is_as_asked(_: &mut Ctx) -> Outcome {
    let cache = create("slab-node", 600, Flags::empty())?;
    let frames = mm().frames();
    let mut objects = Vec::new();
    for _ in 0..rounds(100, 20) {
        for node in mm().nodes() {
            let gfp = Gfp::KERNEL | Gfp::THISNODE;
            let object = kassert_ok!(cache.alloc_node(gfp, node));
            let pfn = kassert_ok!(frames.pfn_of_address(object.addr().get()));
            kassert_eq!(kassert_ok!(frames.get(pfn)).word().zone().node(), node);
            objects.push(Object(object));
        }
    }
    free(cache, &objects);
    destroy(cache)
}

/// In interrupts of all CPUs at once, whatever they were doing.
pub fn from_interrupts(_: &mut Ctx) -> Outcome {
    let cache = create("slab-irq", 100, Flags::empty())?;
    let (none, damaged) = (AtomicU64::new(0), AtomicU64::new(0));
    for round in 0..rounds(20_000, 200) {
        smp::call_all(&|| {
            let objects: [Option<NonNull<u8>>; 8] =
                core::array::from_fn(|_| cache.alloc(Gfp::ATOMIC));
            for object in objects.iter().flatten() {
                Object(*object).mark(96, round);
            }
            for object in objects {
                let Some(object) = object.map(Object) else {
                    none.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                if !object.is_marked(96, round) {
                    damaged.fetch_add(1, Ordering::Relaxed);
                }
                // SAFETY: just allocated.
                unsafe { cache.free(object.0) };
            }
        });
    }
    kassert_eq!(damaged.load(Ordering::Relaxed), 0);
    kassert_eq!(none.load(Ordering::Relaxed), 0);
    destroy(cache)
}

/// Threads take and give back; each frees what another one took.
pub fn on_all_cpus_at_once(ctx: &mut Ctx) -> Outcome {
    const SIZE: usize = 72;
    let cache = create("slab-smp", SIZE, Flags::empty())?;
    let turns = rounds(40, 4);
    let mut given: Vec<Vec<Object>> = Vec::new();
    for turn in 0..turns {
        let mut threads = Vec::new();
        for cpu in smp::online() {
            let mine = given.pop().unwrap_or_default();
            let mark = turn << 8 | cpu.index() as u64;
            let count = 200 + ctx.rng().below(200);
            let thread = Builder::new().on(cpu).spawn(format_args!("slab"), move || {
                let mut taken = Vec::new();
                for _ in 0..count {
                    let Some(object) = cache.alloc(Gfp::KERNEL).map(Object) else {
                        return Err("no memory");
                    };
                    object.mark(SIZE, mark);
                    taken.push(object);
                }
                free(cache, &mine);
                let sound = taken.iter().all(|object| object.is_marked(SIZE, mark));
                if sound { Ok(taken) } else { Err("damaged") }
            });
            threads.push(kassert_ok!(thread));
        }
        for thread in threads {
            given.push(kassert_ok!(thread.join()));
        }
        // The next turn's CPUs are others.
        given.rotate_left(1);
    }
    given.iter().for_each(|objects| free(cache, objects));
    destroy(cache)
}

/// What is free goes back to the page allocator, also from other CPUs' sheaves.
pub fn shrink_gives_back(_: &mut Ctx) -> Outcome {
    let cache = create("slab-shrink", 256, Flags::empty())?;
    let objects = take(cache, 1000)?;
    smp::call_all(&|| {
        let object = cache.alloc(Gfp::ATOMIC);
        // SAFETY: just allocated.
        object
            .into_iter()
            .for_each(|object| unsafe { cache.free(object) });
    });
    free(cache, &objects);
    kassert!(slabs_of(cache) > 0);
    kassert!(cache.shrink() > 0);
    kassert_eq!(slabs_of(cache), 0);
    destroy(cache)
}
