//! Destroying caches: idle ones, ones with objects that wait for a grace period, under load.

use alloc::{sync::Arc, vec::Vec};
use core::{
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use kernel_base::bench::{Tenths, Value};
use mm::{
    Gfp,
    kvfree_rcu::Head,
    slab::{Flags, KmemCache, Spec},
};

use super::{Own, had_memory, memory::XFS, several::spawn};
use crate::{
    bench::{Outcome, Run, Start, bench},
    machine::Kernel,
    memory::slab::slabs,
    sched::{self, JoinHandle},
    smp, time,
};

bench! {
    name: "destroy/idle",
    ops: 200,
    run: |run| destroy(run, 0),
}

bench! {
    name: "destroy/rcu",
    ops: 100,
    run: |run| destroy(run, DEFERRED),
}

bench! {
    name: "destroy/all_cpus",
    ops: 100,
    run: destroy_all_cpus,
}

bench! {
    name: "destroy/busy",
    ops: 100,
    cpus: 2,
    run: |run| under_load(run, |run| destroy(run, 0)),
}

bench! {
    name: "destroy/busy_rcu",
    ops: 100,
    cpus: 2,
    run: |run| under_load(run, |run| destroy(run, DEFERRED)),
}

bench! {
    name: "destroy/xfs",
    ops: 20,
    run: xfs,
}

/// Objects of a cache that is to be destroyed.
const OBJECTS: usize = 100;
/// Of these, how many are freed by RCU just before.
const DEFERRED: usize = 10;
/// Objects that a CPU of the load has in flight, at most.
const IN_FLIGHT: u64 = 10_000;

/// How long it waits before it looks again.
const PAUSE_NS: u64 = 100_000;

/// Gives an object to `kfree_rcu`; its head is its first two words.
fn free_rcu(object: NonNull<u8>) {
    // SAFETY: callers have just allocated it, of 16 bytes at least, and nobody uses it.
    unsafe { slabs().kfree_rcu(object, object.cast::<Head>()) };
}

/// Allocates [`OBJECTS`] and frees them, the last `deferred` of them by RCU; whether there was memory.
fn use_objects(cache: &KmemCache<Kernel>, objects: usize, deferred: usize) -> bool {
    let mut held = [NonNull::dangling(); OBJECTS];
    let mut got = 0;
    while got < objects
        && let Some(object) = cache.alloc(Gfp::KERNEL)
    {
        held[got] = object;
        got += 1;
    }
    for (number, object) in held[..got].iter().enumerate() {
        if number + deferred < got {
            // SAFETY: allocated above.
            unsafe { cache.free(*object) };
        } else {
            free_rcu(*object);
        }
    }
    got == objects
}

fn destroy(run: &mut Run, deferred: usize) -> Outcome {
    let mut longest = 0;
    for _ in 0..run.ops() {
        let own = Own::of(256)?;
        let had = use_objects(own.cache(), OBJECTS, deferred);
        let start = Start::now();
        own.end()?;
        let took = start.took();
        run.add(took);
        longest = longest.max(took.ns);
        had_memory(had)?;
    }
    run.key("one_max_ns", Value::Whole(longest))
}

fn destroy_all_cpus(run: &mut Run) -> Outcome {
    for _ in 0..run.ops() {
        let own = Own::of(256)?;
        let cache = own.cache();
        let others = smp::online().without(smp::this_cpu());
        let mut users = Vec::new();
        let started = others.iter().try_for_each(|cpu| {
            users.push(spawn(cpu, move || use_objects(cache, OBJECTS, 0))?);
            Ok(())
        });
        let mut had = use_objects(cache, OBJECTS, 0);
        for user in users {
            had &= user.join();
        }
        run.time(|| own.end())?;
        started?;
        had_memory(had)?;
    }
    Ok(())
}

/// All caches of XFS are created, used, and destroyed in the reverse order; one operation is all of that.
fn xfs(run: &mut Run) -> Outcome {
    let (mut destroys, mut destroy_ns) = (0, 0);
    for _ in 0..run.ops() {
        let start = Start::now();
        let mut caches = Vec::new();
        for (name, size, aligned) in XFS {
            let flags = if aligned {
                Flags::HWCACHE_ALIGN
            } else {
                Flags::empty()
            };
            let own = Own::new(&Spec::new(name, size).flags(flags))?;
            had_memory(use_objects(own.cache(), 64, 0))?;
            caches.push(own);
        }
        let before = Start::now();
        destroys += caches.len() as u64;
        caches.into_iter().rev().try_for_each(Own::end)?;
        destroy_ns += before.took().ns;
        run.add(start.took());
    }
    run.key("destroys", Value::Whole(destroys))?;
    let tenths = destroy_ns / 100 / destroys.max(1);
    run.key("destroy_us", Value::Tenths(Tenths::new(tenths)))
}

/// Runs `f` while every other CPU allocates objects of another cache and gives them to `kfree_rcu`.
fn under_load(run: &mut Run, f: impl FnOnce(&mut Run) -> Outcome) -> Outcome {
    let load = Own::new(&Spec::new("load", 256))?;
    let cache = load.cache();
    let stop = Arc::new(AtomicBool::new(false));
    let (running, objects) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let mut workers = Vec::new();
    let others = smp::online().without(smp::this_cpu());
    let started = others.iter().try_for_each(|cpu| {
        let (stop, running, objects) = (
            Arc::clone(&stop),
            Arc::clone(&running),
            Arc::clone(&objects),
        );
        workers.push(spawn(cpu, move || {
            running.fetch_add(1, Ordering::Relaxed);
            while !stop.load(Ordering::Relaxed) {
                let mut done = 0;
                while done < 64
                    && let Some(object) = cache.alloc(Gfp::KERNEL)
                {
                    free_rcu(object);
                    done += 1;
                }
                objects.fetch_add(done, Ordering::Relaxed);
                while cache.in_flight_on(cpu) > IN_FLIGHT && !stop.load(Ordering::Relaxed) {
                    sched::park_until(time::now_ns() + PAUSE_NS);
                }
            }
        })?);
        Ok(())
    });
    while running.load(Ordering::Relaxed) < workers.len() {
        core::hint::spin_loop();
    }
    let start = Start::now();
    let before = objects.load(Ordering::Relaxed);
    let outcome = started.and_then(|()| f(run));
    let (made, took) = (objects.load(Ordering::Relaxed) - before, start.took());
    stop.store(true, Ordering::Relaxed);
    workers.into_iter().for_each(JoinHandle::join);
    load.end()?;
    outcome?;
    let per_ms = made * 1_000_000 / took.ns.max(1);
    run.key("load_ops_per_ms", Value::Whole(per_ms))
}
