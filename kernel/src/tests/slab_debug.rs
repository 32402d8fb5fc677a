//! Debug caches in the kernel: silent under load with every set of flags, callers by name, and
//! allocations that are made to fail. Planted faults are in [`slub_kunit`](super::slub_kunit).

use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mm::Gfp;
use mm::fault::{Knobs, Marks, SlabFaults};
use mm::slab::{Flags, KmemCache, Spec};

use crate::kunit::{Ctx, Outcome, Stop, kassert, kassert_eq, kassert_ok, kunit_suite, rounds};
use crate::machine::Kernel;
use crate::memory::slab::slabs;
use crate::sched::{Builder, JoinHandle};
use crate::{boot, sched, smp, symbols};

kunit_suite! {
    name: "slab_debug",
    teardown: off,
    cases: [
        silent_on_all_cpus => { over: SETS },
        callers_have_names,
        every_allocation_can_fail,
        zeroed_while_that_is_on,
    ],
}

const F: Flags = Flags::CONSISTENCY_CHECKS;
const Z: Flags = Flags::RED_ZONE;
const P: Flags = Flags::POISON;
const U: Flags = Flags::STORE_USER;

/// Every set of debug flags.
const SETS: &[(&str, Flags)] = &[
    ("F", F),
    ("Z", Z),
    ("P", P),
    ("U", U),
    ("FZ", F.union(Z)),
    ("FP", F.union(P)),
    ("FU", F.union(U)),
    ("ZP", Z.union(P)),
    ("ZU", Z.union(U)),
    ("PU", P.union(U)),
    ("FZP", F.union(Z).union(P)),
    ("FZU", F.union(Z).union(U)),
    ("FPU", F.union(P).union(U)),
    ("ZPU", Z.union(P).union(U)),
    ("FZPU", Flags::DEBUG),
];

type Cache = KmemCache<Kernel>;

/// What a test leaves behind is what the command line wanted.
fn off(_: &mut Ctx) -> Outcome {
    let line = boot::command_line().slab;
    slabs().faults(SlabFaults::reset);
    slabs().set_zero_on_alloc(line.init_on_alloc);
    slabs().set_zero_on_free(line.init_on_free);
    Ok(())
}

fn create(size: usize, flags: Flags) -> Result<&'static Cache, Stop> {
    let spec = Spec::new("test_slab_debug", size).flags(flags | Flags::NO_MERGE);
    Ok(kassert_ok!(slabs().create(&spec)))
}

fn destroy(cache: &Cache) -> Outcome {
    // SAFETY: of `create`; the test does not use it any more.
    kassert_ok!(unsafe { slabs().destroy(cache) });
    Ok(())
}

static STOP: AtomicBool = AtomicBool::new(false);
/// Turns of all users.
static TURNS: AtomicU64 = AtomicU64::new(0);

/// Allocates objects, fills and frees them until it is to stop, with a rest now and then: a host with
/// fewer CPUs has others to run. How many others have written to.
fn user(cache: &Cache, own: u8) -> u64 {
    const OBJECTS: usize = 20;
    let size = cache.layout().object_size as usize;
    let mut damaged = 0;
    // Relaxed: what is to stop is waited for.
    while !STOP.load(Ordering::Relaxed) {
        let mut held: [Option<NonNull<u8>>; OBJECTS] = [None; OBJECTS];
        for place in &mut held {
            *place = cache.alloc(Gfp::ATOMIC);
            // SAFETY: just allocated, of this size.
            place.iter().for_each(|object| unsafe {
                object.write_bytes(own, size);
            });
        }
        for object in held.into_iter().flatten() {
            // SAFETY: this thread's, of this size.
            let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), size) };
            damaged += u64::from(bytes.iter().any(|byte| *byte != own));
            // SAFETY: as above.
            unsafe { cache.free(object) };
        }
        TURNS.fetch_add(1, Ordering::Relaxed);
        sched::sleep_ns(50_000);
    }
    damaged
}

/// A thread on every CPU uses a cache, while this one looks at it again and again.
fn silent_on_all_cpus(_: &mut Ctx, flags: Flags) -> Outcome {
    let cache = create(72, flags)?;
    STOP.store(false, Ordering::Relaxed);
    TURNS.store(0, Ordering::Relaxed);
    let mut threads = Vec::new();
    for cpu in smp::online() {
        let own = cpu.number() as u8 + 1;
        let thread = Builder::new()
            .on(cpu)
            .spawn(format_args!("slab user"), move || user(cache, own));
        threads.extend(thread);
    }
    let mut faults = 0;
    let turns = 3 * threads.len() as u64;
    let mut round = 0;
    while round < rounds(200, 2) || TURNS.load(Ordering::Relaxed) < turns {
        faults += cache.validate();
        sched::sleep_ns(100_000);
        round += 1;
    }
    STOP.store(true, Ordering::Relaxed);
    let started = threads.len();
    let damaged: u64 = threads.into_iter().map(JoinHandle::join).sum();
    kassert_eq!((faults, damaged), (0, 0));
    kassert_eq!(started, smp::online().count());
    kassert_eq!(cache.validate(), 0);
    destroy(cache)
}

#[inline(never)]
fn allocator_of_objects(cache: &Cache) -> Option<NonNull<u8>> {
    core::hint::black_box(cache.alloc(Gfp::KERNEL))
}

#[inline(never)]
fn freer_of_objects(cache: &Cache, object: NonNull<u8>) {
    // SAFETY: the test's.
    unsafe { cache.free(object) };
    core::hint::black_box(object);
}

/// Whether a function is among the callers.
fn names(stack: &[usize], function: &str) -> bool {
    let named = |address: &usize| symbols::resolve(*address as u64 - 1);
    stack
        .iter()
        .take_while(|address| **address != 0)
        .filter_map(named)
        .any(|symbol| alloc::format!("{symbol}").contains(function))
}

fn callers_have_names(_: &mut Ctx) -> Outcome {
    for flags in [U, Flags::DEBUG] {
        let cache = create(64, flags)?;
        let object = kassert_ok!(allocator_of_objects(cache));
        freer_of_objects(cache, object);
        // SAFETY: an object of the cache.
        let record = kassert_ok!(unsafe { cache.record_of(object) });
        let (allocated, freed) = (record.allocated, record.freed);
        let (allocated, freed) = (kassert_ok!(allocated), kassert_ok!(freed));
        kassert_eq!(allocated.thread, sched::current_ref().id);
        kassert!(names(&allocated.stack, "allocator_of_objects"), "{record}");
        kassert!(names(&freed.stack, "freer_of_objects"), "{record}");
        destroy(cache)?;
    }
    Ok(())
}

/// Allocates some objects and gives them back, wherever it is made to stop. How many it got.
fn sequence(cache: &Cache) -> usize {
    const OBJECTS: usize = 5;
    let mut held: [Option<NonNull<u8>>; OBJECTS] = [None; OBJECTS];
    for place in &mut held {
        *place = cache.alloc(Gfp::KERNEL);
        if place.is_none() {
            break;
        }
    }
    for object in held.into_iter().flatten() {
        // SAFETY: allocated above.
        unsafe { cache.free(object) };
    }
    held.iter().flatten().count()
}

fn every_allocation_can_fail(_: &mut Ctx) -> Outcome {
    for flags in [Flags::empty(), Flags::DEBUG] {
        let cache = create(64, flags)?;
        // Its sheaf, which is memory, too, is there.
        let all = sequence(cache);
        slabs().faults(|slab| {
            slab.attr.configure(&Knobs {
                task: Marks::one(sched::current_ref().id),
                ..Knobs::OFF
            });
        });
        for nth in 1.. {
            slabs().faults(|slab| slab.fail_nth(nth));
            let got = sequence(cache);
            let pending = slabs().faults(SlabFaults::pending);
            kassert_eq!(cache.validate(), 0);
            if pending {
                kassert_eq!((got, nth as usize), (all, all + 1));
                break;
            }
            kassert_eq!(got, nth as usize - 1);
        }
        slabs().faults(SlabFaults::reset);
        destroy(cache)?;
    }
    Ok(())
}

fn zeroed_while_that_is_on(_: &mut Ctx) -> Outcome {
    let cache = create(64, U)?;
    let first_byte = || -> Result<u8, Stop> {
        let object = kassert_ok!(cache.alloc(Gfp::KERNEL));
        // SAFETY: the test's.
        unsafe {
            let found = object.read_volatile();
            object.write_bytes(0xee, 64);
            cache.free(object);
            Ok(found)
        }
    };
    let line = boot::command_line().slab;
    slabs().set_zero_on_alloc(false);
    slabs().set_zero_on_free(false);
    first_byte()?;
    if !cache.flags().contains(P) {
        kassert_eq!(first_byte()?, 0xee);
        slabs().set_zero_on_alloc(true);
        kassert_eq!(first_byte()?, 0);
        slabs().set_zero_on_alloc(false);
        kassert_eq!(first_byte()?, 0xee);
        slabs().set_zero_on_free(true);
        first_byte()?;
        kassert_eq!(first_byte()?, 0);
    }
    slabs().set_zero_on_alloc(line.init_on_alloc);
    slabs().set_zero_on_free(line.init_on_free);
    destroy(cache)
}
