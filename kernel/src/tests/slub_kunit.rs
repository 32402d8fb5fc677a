//! The cases of Linux's `slub_kunit`, by their names.
//!
//! What differs: Linux counts an error for each message, here a fault is one report. Where
//! Linux puts a damaged freelist together as far as it goes, and counts on, here the damaged
//! object is isolated and the others are linked anew, so a second look finds nothing.

use alloc::sync::Arc;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use mm::Gfp;
use mm::report::Kind as Found;
use mm::slab::debug::pattern::{POISON_FREE, RED_ACTIVE, RED_INACTIVE};
use mm::slab::{Flags, KmemCache, Spec};

use platform::{Priority, work};

use crate::kunit::{
    Ctx, Outcome, Stop, kassert, kassert_eq, kassert_ne, kassert_ok, knote, kunit_suite, rounds,
};
use crate::machine::Kernel;
use crate::memory::slab::slabs;
use crate::report::Kind;
use crate::sched;
use crate::sweep::sweep;
use crate::time;
use crate::timer::RawKind;

kunit_suite! {
    name: "slub_kunit",
    cases: [
        test_clobber_zone => { expects: [Kind::Memory(Found::SlabRedZone)] },
        test_next_pointer => { expects: [Kind::Memory(Found::SlabFreelist)] },
        test_first_word => { expects: [Kind::Memory(Found::SlabPoison)] },
        test_clobber_50th_byte => { expects: [Kind::Memory(Found::SlabPoison)] },
        test_clobber_redzone_free => { expects: [Kind::Memory(Found::SlabRedZone)] },
        test_kmalloc_redzone_access => { expects: [Kind::Memory(Found::SlabRedZone)] },
        test_kfree_rcu,
        test_kfree_rcu_wq_destroy,
        test_leak_destroy => { expects: [Kind::Memory(Found::SlabLeak)] },
        test_krealloc_redzone_zeroing,
        test_kmalloc_kfree_nolock => { over: BY },
    ],
}

type Cache = KmemCache<Kernel>;

/// A cache of the test's. (`slub_debug=` may add flags to it, with which a case finds the same.)
fn create(name: &str, size: usize, flags: Flags) -> Result<&'static Cache, Stop> {
    let spec = Spec::new(name, size).flags(flags | Flags::NO_MERGE);
    Ok(kassert_ok!(slabs().create(&spec)))
}

fn destroy(cache: &Cache) -> Outcome {
    // SAFETY: of `create`; the test does not use it any more.
    kassert_ok!(unsafe { slabs().destroy(cache) });
    Ok(())
}

fn alloc(cache: &Cache) -> Result<NonNull<u8>, Stop> {
    Ok(kassert_ok!(cache.alloc(Gfp::KERNEL)))
}

fn free(cache: &Cache, object: NonNull<u8>) {
    // SAFETY: the test's.
    unsafe { cache.free(object) };
}

fn read(object: NonNull<u8>, offset: usize) -> u8 {
    // SAFETY: in the object's slab, which lives.
    unsafe { object.add(offset).read_volatile() }
}

/// Writes, also where it is wrong to.
fn write(object: NonNull<u8>, offset: usize, byte: u8) {
    // SAFETY: in the object's slab, which lives; a fault on purpose.
    unsafe { object.add(offset).write_volatile(byte) };
}

/// The first look finds so many faults, the next one none.
fn validate(cache: &Cache, faults: usize) -> Outcome {
    kassert_eq!(cache.validate(), faults);
    kassert_eq!(cache.validate(), 0);
    kassert_eq!(cache.faults_found(), faults as u64);
    Ok(())
}

fn test_clobber_zone(_: &mut Ctx) -> Outcome {
    let cache = create("TestSlub_RZ_alloc", 64, Flags::RED_ZONE)?;
    let object = alloc(cache)?;
    write(object, 64, 0x12);
    validate(cache, 1)?;
    kassert_eq!(read(object, 64), RED_ACTIVE);
    free(cache, object);
    destroy(cache)
}

fn test_next_pointer(_: &mut Ctx) -> Outcome {
    let cache = create("TestSlub_next_ptr_free", 64, Flags::POISON)?;
    let object = alloc(cache)?;
    free(cache, object);
    let at = cache.layout().link as usize;
    let before = read(object, at);
    write(object, at, !before);
    validate(cache, 1)?;
    // As in Linux: the link is put right, which is too late here.
    write(object, at, before);
    kassert_eq!(cache.validate(), 0);
    // All others are there, each once.
    let count = usize::from(cache.layout().objects);
    let mut first = None;
    for _ in 1..count {
        let object_again = alloc(cache)?;
        kassert_ne!(object_again, object);
        // SAFETY: the test's object; it keeps the list of them.
        unsafe { object_again.cast::<Option<NonNull<u8>>>().write(first) };
        first = Some(object_again);
    }
    while let Some(object) = first {
        // SAFETY: written above.
        first = unsafe { object.cast().read() };
        free(cache, object);
    }
    destroy(cache)
}

fn clobber_free(name: &str, at: usize) -> Outcome {
    let cache = create(name, 64, Flags::POISON)?;
    let object = alloc(cache)?;
    free(cache, object);
    kassert_eq!(read(object, at), POISON_FREE);
    write(object, at, 0x78);
    validate(cache, 1)?;
    // What somebody still writes to is not handed out.
    let other = alloc(cache)?;
    kassert_ne!(other, object);
    free(cache, other);
    destroy(cache)
}

fn test_first_word(_: &mut Ctx) -> Outcome {
    clobber_free("TestSlub_1th_word_free", 0)
}

fn test_clobber_50th_byte(_: &mut Ctx) -> Outcome {
    clobber_free("TestSlub_50th_word_free", 50)
}

fn test_clobber_redzone_free(_: &mut Ctx) -> Outcome {
    let cache = create("TestSlub_RZ_free", 64, Flags::RED_ZONE)?;
    let object = alloc(cache)?;
    free(cache, object);
    write(object, 64, 0xab);
    validate(cache, 1)?;
    kassert_eq!(read(object, 64), RED_INACTIVE);
    destroy(cache)
}

const KMALLOC: Flags = Flags::KMALLOC
    .union(Flags::STORE_USER)
    .union(Flags::RED_ZONE);

fn test_kmalloc_redzone_access(_: &mut Ctx) -> Outcome {
    let cache = create("TestSlub_RZ_kmalloc", 32, KMALLOC)?;
    let object = kassert_ok!(cache.alloc_sized(Gfp::KERNEL, 18));
    write(object, 18, 0xab);
    write(object, 19, 0xab);
    validate(cache, 1)?;
    free(cache, object);
    destroy(cache)
}

fn test_kfree_rcu(_: &mut Ctx) -> Outcome {
    let cache = create("TestSlub_kfree_rcu", 64, Flags::empty())?;
    let object = alloc(cache)?;
    // SAFETY: the test's; its head is its first two words.
    unsafe { slabs().kfree_rcu(object, object.cast()) };
    destroy(cache)
}

/// The cache is destroyed by a work item, a while after an object of it was given to `kfree_rcu`.
fn test_kfree_rcu_wq_destroy(ctx: &mut Ctx) -> Outcome {
    const TIMES: usize = 10;
    let queue = kassert_ok!(work::Queue::<Kernel>::new(
        "test_kfree_rcu",
        Priority::Normal
    ));
    let most_ms = rounds(255, 5);
    for _ in 0..TIMES {
        let cache = create("TestSlub_kfree_rcu_wq_destroy", 64, Flags::empty())?;
        let left = Arc::new(AtomicU64::new(u64::MAX));
        let item = {
            let left = Arc::clone(&left);
            work::Work::new(&queue, move |_| {
                // SAFETY: of `create`; nobody uses it any more.
                let destroyed = unsafe { slabs().destroy(cache) };
                let objects = destroyed.map_or_else(|leaked| leaked.objects, |()| 0);
                left.store(objects, Ordering::Relaxed);
            })
        };
        let object = alloc(cache)?;
        // SAFETY: the test's; its head is its first two words.
        unsafe { slabs().kfree_rcu(object, object.cast()) };
        sched::sleep_ns(ctx.rng().below(most_ms + 1) * 1_000_000);
        kassert!(item.queue());
        item.flush();
        kassert_eq!(left.load(Ordering::Relaxed), 0);
    }
    Ok(())
}

fn test_leak_destroy(_: &mut Ctx) -> Outcome {
    let cache = create("TestSlub_leak_destroy", 64, Flags::empty())?;
    let object = alloc(cache)?;
    // SAFETY: the test does not use it any more but to free the object.
    let left = unsafe { slabs().destroy(cache) };
    let leaked = left.err();
    kassert_eq!(leaked.map(|leaked| leaked.objects), Some(1));
    // The name is free; the cache goes with the object.
    let again = create("TestSlub_leak_destroy", 64, Flags::empty())?;
    destroy(again)?;
    free(cache, object);
    Ok(())
}

fn test_krealloc_redzone_zeroing(_: &mut Ctx) -> Outcome {
    let cache = create("TestSlub_krealloc", 64, KMALLOC)?;
    let object = kassert_ok!(cache.alloc_sized(Gfp::KERNEL, 48));
    (0..48).for_each(|at| write(object, at, 0xff));
    let zero = Gfp::KERNEL | Gfp::ZERO;
    // SAFETY: the test's.
    let krealloc = |object, size| unsafe { slabs().krealloc(Some(object), size, zero) };
    let red = |from: usize| (from..64).all(|at| read(object, at) == RED_ACTIVE);

    // Smaller.
    kassert_eq!(krealloc(object, 40), Some(object));
    kassert!(red(40));
    // Larger, in the same object.
    kassert_eq!(krealloc(object, 56), Some(object));
    kassert!((40..56).all(|at| read(object, at) == 0));
    kassert!(red(56));
    validate(cache, 0)?;
    // Larger than it.
    (0..56).for_each(|at| write(object, at, 0xff));
    let larger = kassert_ok!(krealloc(object, 112));
    kassert_ne!(larger, object);
    kassert!((0..56).all(|at| read(larger, at) == 0xff));
    kassert!((56..112).all(|at| read(larger, at) == 0));
    // SAFETY: the test's.
    unsafe { slabs().kfree(larger) };
    destroy(cache)
}

const BY: &[(&str, RawKind)] = &[("interrupts", RawKind::Irq), ("nmis", RawKind::Nmi)];

/// kmalloc and kfree all the while, interrupted by a handler that does the same without locks.
/// (Linux skips this case on emulators: it takes its interrupts from performance counters.)
fn test_kmalloc_kfree_nolock(_: &mut Ctx, kind: RawKind) -> Outcome {
    /// Objects that are held at a time: more than a sheaf has, so that sheaves run empty and full.
    const OBJECTS: usize = 70;
    let [done, nothing, damaged, refused] = [const { AtomicU64::new(0) }; 4];
    // Relaxed: read when everything has ended.
    let add = |count: &AtomicU64| {
        count.fetch_add(1, Ordering::Relaxed);
    };
    let handler = || match slabs().kmalloc_nolock(64, Gfp::empty(), None) {
        None => add(&nothing),
        Some(object) => {
            // SAFETY: the handler's, of 64 bytes.
            unsafe {
                object.write_bytes(0x11, 64);
                if (0..64).any(|at| read(object, at) != 0x11) {
                    add(&damaged);
                }
                slabs().kfree_nolock(object);
            }
            add(&done);
        }
    };
    let mut objects = [None; OBJECTS];
    let length = if time::is_exact() {
        600
    } else {
        rounds(4_000, 150) as u32
    };
    let swept = sweep(kind, 1, length, &handler, || {
        // The timer is taken, so nobody sleeps here.
        for (number, place) in objects.iter_mut().enumerate() {
            *place = slabs().kmalloc(64, Gfp::ATOMIC);
            match place {
                Some(object) => write(*object, 63, number as u8),
                None => add(&refused),
            }
        }
        for (number, place) in objects.iter_mut().enumerate() {
            let Some(object) = place.take() else { continue };
            if read(object, 63) != number as u8 {
                add(&damaged);
            }
            // SAFETY: the case's.
            unsafe { slabs().kfree(object) };
        }
    });
    let [done, nothing, damaged, refused] =
        [done, nothing, damaged, refused].map(AtomicU64::into_inner);
    knote!("{swept:?}: {done} times memory, {nothing} times none");
    kassert_eq!((damaged, refused), (0, 0));
    kassert_eq!(done + nothing, swept.interrupts);
    kassert!(done > 0);
    let cache = kassert_ok!(slabs().kmalloc_cache(64));
    kassert_eq!(cache.validate(), 0);
    Ok(())
}
