//! Several CPUs with one cache, and how often they met at its locks.

use alloc::{format, sync::Arc, vec::Vec};
use core::{
    ptr::{self, NonNull},
    sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
};

use kernel_base::bench::{Tenths, Value};
use mm::{
    Gfp,
    slab::{KmemCache, stats::Waits},
};
use platform::CpuId;

use super::{Own, batches_of, failed, had_memory, pairs, places};
use crate::{
    bench::{Outcome, Run, Start, Stop, bench},
    machine::Kernel,
    sched::{Builder, JoinHandle},
    smp,
};

bench! {
    name: "smp_pair/256",
    ops: 200_000,
    run: smp_pair,
}

bench! {
    name: "smp_batch/256/256",
    ops: 199_936,
    run: smp_batch,
}

bench! {
    name: "remote_free/256",
    ops: 200_000,
    cpus: 2,
    run: remote_free,
}

/// Objects of a batch.
const BATCH: usize = 256;
/// Slots of the ring.
const SLOTS: usize = 1024;
/// After so many each side of the ring says how far it is: a cache line of slots.
const SAID: usize = 8;

fn smp_pair(run: &mut Run) -> Outcome {
    let own = Own::of(256)?;
    let cache = own.cache();
    let ops = run.ops();
    let had = on_all_with(run, ops, cache, move || Ok(move || pairs(cache, ops)))?;
    own.end()?;
    had_memory(had)
}

fn smp_batch(run: &mut Run) -> Outcome {
    let own = Own::of(256)?;
    let cache = own.cache();
    let batches = (run.ops() / BATCH as u64).max(1);
    let had = on_all_with(run, batches * BATCH as u64, cache, move || {
        let mut held = places(BATCH)?.into_iter().map(Place).collect::<Vec<_>>();
        Ok(move || batches_of(cache, Place::all(&mut held), batches))
    })?;
    own.end()?;
    had_memory(had)
}

/// A place for an object, which goes to another CPU while there is none in it.
#[repr(transparent)]
struct Place(NonNull<u8>);

// SAFETY: what it points to is the thread's that has put it in.
unsafe impl Send for Place {}

impl Place {
    fn all(places: &mut [Self]) -> &mut [NonNull<u8>] {
        // SAFETY: transparent around them.
        unsafe { &mut *(ptr::from_mut(places) as *mut [NonNull<u8>]) }
    }
}

pub(super) fn spawn<T: Send + 'static>(
    cpu: CpuId,
    f: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Stop> {
    let built = Builder::new().on(cpu).spawn(format_args!("bench"), f);
    built.map_err(|error| failed(format!("no thread: {error}")))
}

/// Runs what `make` makes on every CPU, `ops` operations each, from the moment when all are
/// ready until the last is done, and then `end`. Whether all had memory.
pub(super) fn on_all<F: FnOnce() -> bool + Send + 'static>(
    run: &mut Run,
    ops: u64,
    make: impl Fn() -> Result<F, Stop>,
    end: impl FnOnce(),
) -> Result<bool, Stop> {
    let cpus = smp::online();
    let own = make()?;
    let (begin, ready) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut workers = Vec::new();
    let started = cpus.without(smp::this_cpu()).iter().try_for_each(|cpu| {
        let (begin, ready) = (Arc::clone(&begin), Arc::clone(&ready));
        let work = make()?;
        workers.push(spawn(cpu, move || {
            ready.fetch_add(1, Ordering::Relaxed);
            // Acquire pairs with the Release below.
            while !begin.load(Ordering::Acquire) {
                core::hint::spin_loop();
            }
            work()
        })?);
        Ok(())
    });
    while ready.load(Ordering::Relaxed) < workers.len() {
        core::hint::spin_loop();
    }
    let start = Start::now();
    begin.store(true, Ordering::Release);
    let mut had = own();
    for worker in workers {
        had &= worker.join();
    }
    end();
    run.add(start.took());
    started?;
    run.shared_by(cpus.count(), ops * cpus.count() as u64);
    Ok(had)
}

/// [`on_all`] with one cache, of which it tells how often CPUs met at its locks.
fn on_all_with<F: FnOnce() -> bool + Send + 'static>(
    run: &mut Run,
    ops: u64,
    cache: &'static KmemCache<Kernel>,
    make: impl Fn() -> Result<F, Stop>,
) -> Result<bool, Stop> {
    let before = cache.contention();
    let had = on_all(run, ops, make, || {})?;
    let total = ops * smp::online().count() as u64;
    tell_contention(run, before, cache.contention(), total)?;
    Ok(had)
}

/// How often the locks of barns and lists were taken, and found held, per 1000 operations.
fn tell_contention(
    run: &mut Run,
    before: (Waits, Waits),
    after: (Waits, Waits),
    ops: u64,
) -> Outcome {
    let per_1000 = |from: u64, to: u64| Value::Tenths(Tenths::new((to - from) * 10_000 / ops));
    for (taken, contended, before, after) in [
        ("barn_per_1000", "barn_waits_per_1000", before.0, after.0),
        ("list_per_1000", "list_waits_per_1000", before.1, after.1),
    ] {
        run.key(taken, per_1000(before.taken, after.taken))?;
        run.key(contended, per_1000(before.contended, after.contended))?;
    }
    Ok(())
}

/// A number on a cache line of its own.
#[repr(align(64))]
struct Line(AtomicUsize);

/// The ring, of one producer and one consumer. Each side looks at the other's number only when by
/// what it saw last there is nothing to do, and writes its own for several slots at a time: so lines
/// go to and fro rarely, and it is the allocator that is measured (as in MCRingBuffer by Lee, Bu
/// and Chandranmenon, 2009).
struct Ring {
    /// Objects' addresses; null stands for one that could not be allocated.
    slots: [AtomicPtr<u8>; SLOTS],
    /// Objects that were put in.
    put: Line,
    /// Objects that were taken out.
    taken: Line,
}

impl Ring {
    const fn new() -> Self {
        Self {
            slots: [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS],
            put: Line(AtomicUsize::new(0)),
            taken: Line(AtomicUsize::new(0)),
        }
    }
}

/// One CPU allocates, another one frees.
fn remote_free(run: &mut Run) -> Outcome {
    let others = smp::online().without(smp::this_cpu());
    let other = others.first().ok_or(Stop::Skipped("no other CPU".into()))?;
    let own = Own::of(256)?;
    let cache = own.cache();
    let ops = run.ops();
    let ring = Arc::new(Ring::new());
    let before = cache.contention();
    let freeing = Arc::new(AtomicBool::new(false));
    let worker = {
        let (ring, freeing) = (Arc::clone(&ring), Arc::clone(&freeing));
        spawn(other, move || {
            freeing.store(true, Ordering::Relaxed);
            free_all(cache, &ring, ops);
        })?
    };
    while !freeing.load(Ordering::Relaxed) {
        core::hint::spin_loop();
    }
    let start = Start::now();
    let had = alloc_all(cache, &ring, ops);
    worker.join();
    run.add(start.took());
    run.shared_by(2, ops);
    tell_contention(run, before, cache.contention(), ops)?;
    own.end()?;
    had_memory(had)
}

/// Puts `ops` objects in; whether there was memory for all.
fn alloc_all(cache: &KmemCache<Kernel>, ring: &Ring, ops: u64) -> bool {
    let (ops, mut had, mut taken) = (ops as usize, true, 0);
    for op in 0..ops {
        let object = cache.alloc(Gfp::KERNEL);
        had &= object.is_some();
        while op - taken == SLOTS {
            // Acquire pairs with the Release in `free_all`: the slot was read.
            taken = ring.taken.0.load(Ordering::Acquire);
            if op - taken == SLOTS {
                core::hint::spin_loop();
            }
        }
        let object = object.map_or(ptr::null_mut(), NonNull::as_ptr);
        // Relaxed: behind `put`.
        ring.slots[op % SLOTS].store(object, Ordering::Relaxed);
        if (op + 1).is_multiple_of(SAID) || op + 1 == ops {
            // Release: the slots, and what the allocations wrote, come before.
            ring.put.0.store(op + 1, Ordering::Release);
        }
    }
    had
}

/// Takes `ops` objects out, and frees them.
fn free_all(cache: &KmemCache<Kernel>, ring: &Ring, ops: u64) {
    let mut put = 0;
    for op in 0..ops as usize {
        while op == put {
            // Acquire pairs with the Release in `alloc_all`.
            put = ring.put.0.load(Ordering::Acquire);
            if op == put {
                core::hint::spin_loop();
            }
        }
        // Relaxed: behind `put`.
        let object = NonNull::new(ring.slots[op % SLOTS].load(Ordering::Relaxed));
        if (op + 1).is_multiple_of(SAID) {
            // Release: the slots were read.
            ring.taken.0.store(op + 1, Ordering::Release);
        }
        if let Some(object) = object {
            // SAFETY: allocated by the other side, and handed over.
            unsafe { cache.free(object) };
        }
    }
}
