//! Caches as wholes: their names, their end, boxes of a type, no memory, CPUs that go.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mm::{
    Gfp,
    fault::Knobs,
    slab::{Cache, CreateError, Flags, KmemCache, SlabBox, Spec},
};

use super::{create, destroy, free, slabs_of, take};
use crate::{
    hotplug,
    kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ne, kassert_ok, knote, kskip, rounds},
    machine::Kernel,
    memory::{mm, slab::slabs},
    rcu, report,
    sched::{self, Builder},
    smp,
};

/// No kmalloc cache is near that.
const SIZE: usize = 360;

pub fn aliases_are_listed(_: &mut Ctx) -> Outcome {
    let first = kassert_ok!(slabs().create(&Spec::new("slab-first", SIZE)));
    if first.flags().intersects(Flags::DEBUG) {
        destroy(first)?;
        kskip!("slub_debug= is on, and debug caches are not merged");
    }
    let second = kassert_ok!(slabs().create(&Spec::new("slab-second", SIZE - 4)));
    kassert!(core::ptr::eq(first, second));
    {
        let caches = slabs().caches();
        let found = kassert_ok!(caches.find("slab-second"));
        kassert!(core::ptr::eq(found, first));
        let mut names = caches.aliases(found).map(|alias| alias.name.as_str());
        kassert!(names.any(|name| name == "slab-second"));
    }
    kassert_eq!(
        slabs().create(&Spec::new("slab-first", 8 * SIZE)).err(),
        Some(CreateError::NameTaken)
    );
    // SAFETY: the case's two references, and nothing is used any more.
    unsafe {
        kassert_ok!(slabs().destroy_named(second, "slab-second"));
        kassert!(slabs().caches().find("slab-second").is_none());
        kassert!(slabs().caches().find("slab-first").is_some());
        kassert_ok!(slabs().destroy_named(first, "slab-first"));
    }
    kassert!(slabs().caches().find("slab-first").is_none());
    Ok(())
}

fn any_is_dying() -> bool {
    slabs().caches().iter().any(KmemCache::is_dying)
}

/// Each object in use is reported; the cache goes with the last one.
pub fn objects_in_use_keep_their_cache(_: &mut Ctx) -> Outcome {
    let cache = create("slab-leak", 200, Flags::empty())?;
    let (objects, id) = (take(cache, 2)?, cache.id());
    // SAFETY: the case's own; objects are freed later.
    let leaked = unsafe { slabs().destroy(cache) }.err();
    kassert_eq!(
        leaked.map(|leaked| (leaked.objects, leaked.id)),
        Some((2, id))
    );
    let again = create("slab-leak", 200, Flags::empty())?;
    kassert_ne!(again.id(), id);
    destroy(again)?;
    for object in &objects {
        kassert!(any_is_dying());
        // SAFETY: the case's.
        unsafe { slabs().kfree(object.0) };
    }
    kassert!(!any_is_dying());
    Ok(())
}

/// Who reads an object finds one of its type, until the section has ended.
pub fn typesafe_slabs_wait_for_readers(_: &mut Ctx) -> Outcome {
    /// What objects are from their construction on.
    const MARK: u64 = 0x7e57_7e57_7e57_7e57;
    fn constructor(object: core::ptr::NonNull<u8>) {
        // SAFETY: an object of 128 bytes.
        unsafe { object.cast::<u64>().write(MARK) };
    }
    let spec = Spec::new("slab-typesafe", 128).flags(Flags::TYPESAFE_BY_RCU);
    for _ in 0..rounds(50, 5) {
        let cache = kassert_ok!(slabs().create(&spec.constructor(constructor)));
        let objects: Vec<_> = (0..100).filter_map(|_| cache.alloc(Gfp::KERNEL)).collect();
        kassert_eq!(objects.len(), 100);
        {
            let section = rcu::read();
            for object in &objects {
                // SAFETY: the case's.
                unsafe { cache.free(*object) };
            }
            for object in &objects {
                // SAFETY: its memory stays an object while the section lasts.
                let found = unsafe { object.cast::<u64>().read_volatile() };
                kassert_eq!(found, MARK);
            }
            drop(section);
        }
        destroy(cache)?;
        kassert!(!any_is_dying());
    }
    Ok(())
}

/// In one structure with it, on another node, later than it.
pub fn boxes_know_their_cache(_: &mut Ctx) -> Outcome {
    type Link = SlabBox<Item, Kernel>;
    struct Item(u64, Option<Link>);
    let cache = kassert_ok!(Cache::<Item, Kernel>::new(
        slabs(),
        "slab-items",
        Flags::NO_MERGE
    ));
    let mut list: Option<Link> = None;
    for (number, node) in (0..20).zip(mm().nodes().iter().cycle()) {
        let item = cache.try_new_in_node(Item(number, list.take()), Gfp::KERNEL, node);
        list = item.ok();
        kassert!(list.is_some());
    }
    let mut sum = 0;
    let mut next = list.as_deref();
    while let Some(item) = next {
        sum += item.0;
        next = item.1.as_deref();
    }
    kassert_eq!(sum, (0..20).sum());
    let mut last = list.and_then(|first| SlabBox::into_inner(first).1);
    while let Some(item) = last.take_if(|item| item.0 > 0) {
        last = SlabBox::into_inner(item).1;
    }
    kassert_eq!(cache.destroy().err().map(|leaked| leaked.objects), Some(1));
    kassert!(any_is_dying());
    drop(last);
    kassert!(!any_is_dying());
    Ok(())
}

/// Threads of all CPUs drop boxes while their cache is destroyed.
pub fn boxes_may_be_dropped_while_their_cache_goes(_: &mut Ctx) -> Outcome {
    const EACH: usize = 30;
    let leaks = AtomicU64::new(0);
    for round in 0..rounds(200, 10) {
        let new = || Cache::<[u64; 9], Kernel>::new(slabs(), "slab-raced", Flags::NO_MERGE);
        let cache = kassert_ok!(new());
        let go = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for cpu in smp::online() {
            let mut mine = Vec::new();
            for _ in 0..EACH {
                mine.extend(cache.try_new([round; 9], Gfp::KERNEL));
            }
            kassert_eq!(mine.len(), EACH);
            let go = Arc::clone(&go);
            let thread = Builder::new()
                .on(cpu)
                .spawn(format_args!("drops"), move || {
                    while !go.load(Ordering::Acquire) {
                        sched::yield_now();
                    }
                    let sound = mine.iter().all(|words| **words == [round; 9]);
                    drop(mine);
                    sound
                });
            threads.push(kassert_ok!(thread));
        }
        go.store(true, Ordering::Release);
        // What is not dropped yet is reported: it may be none, or all.
        let leak = report::Kind::Memory(mm::report::Kind::SlabLeak);
        let destroyed = report::tolerate(leak, || cache.destroy());
        if let Err(leaked) = destroyed {
            leaks.fetch_add(leaked.objects, Ordering::Relaxed);
        }
        for thread in threads {
            kassert!(thread.join());
        }
        kassert!(!any_is_dying());
    }
    knote!(
        "{} boxes outlived their cache",
        leaks.load(Ordering::Relaxed)
    );
    Ok(())
}

/// Every allocation of a creation and of the first objects fails in turn.
pub fn without_memory_nothing_is_left(_: &mut Ctx) -> Outcome {
    let spec = Spec::new("slab-poor", 3000).flags(Flags::NO_MERGE);
    let mut pages = 0;
    loop {
        mm().debug().faults(|page| {
            // Of all orders and flags.
            page.fail_nth(0);
            page.attr.configure(&Knobs {
                probability: 100,
                space: pages,
                times: -1,
                ..Knobs::OFF
            });
        });
        let result = slabs().create(&spec);
        let mut objects = 0;
        for _ in 0..3 {
            if let Ok(cache) = result
                && let Some(object) = cache.alloc(Gfp::KERNEL | Gfp::NOWARN)
            {
                // SAFETY: just allocated.
                unsafe { cache.free(object) };
                objects += 1;
            }
        }
        mm().debug().faults(|page| page.attr.configure(&Knobs::OFF));
        match result {
            Ok(cache) => destroy(cache)?,
            Err(error) => kassert_eq!(error, CreateError::NoMemory),
        }
        kassert!(slabs().caches().find("slab-poor").is_none());
        if objects == 3 {
            break;
        }
        pages += 1;
    }
    kassert!(pages > 0, "nothing was made to fail");
    Ok(())
}

/// Its sheaves are given back, so nothing keeps the cache's slabs.
pub fn a_cpu_that_goes_keeps_nothing(_: &mut Ctx) -> Outcome {
    let Some(cpu) = smp::online()
        .iter()
        .next_back()
        .filter(|cpu| cpu.index() > 0)
    else {
        kskip!("there is only one CPU, which stays");
    };
    let cache = create("slab-hotplug", 504, Flags::empty())?;
    for _ in 0..rounds(20, 2) {
        smp::call_on(cpu, &|| {
            let objects: [_; 20] = core::array::from_fn(|_| cache.alloc(Gfp::ATOMIC));
            for object in objects.into_iter().flatten() {
                // SAFETY: just allocated.
                unsafe { cache.free(object) };
            }
        });
        kassert!(slabs_of(cache) > 0);
        kassert_ok!(hotplug::off(cpu));
        // Only CPUs that are online are asked for theirs.
        cache.shrink();
        let left = slabs_of(cache);
        kassert_ok!(hotplug::on(cpu));
        kassert_eq!(left, 0);
    }
    let objects = take(cache, 5)?;
    free(cache, &objects);
    destroy(cache)
}
