//! The slab allocator under everything at once: all CPUs allocate and free each other's
//! objects one by one, in bulk and by prefilled sheaves, also from interrupts and NMIs that come
//! in the middle of it; caches are created and destroyed, CPUs go and come back. At the end all
//! objects are back.

mod objects;
mod steps;

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kernel_base::rng::Rng;
use platform::SpawnError;

use self::{
    objects::Pool,
    steps::{Seen, Worker},
};
use crate::{
    kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok, knote, kunit_suite},
    sched, smp,
    tests::long_run::{self, AllBack, Parts, move_one},
    time,
};

kunit_suite! {
    name: "slab_stress",
    cases: [
        everything_at_once => { over: Parts },
        cpus_stay,
    ],
}

/// Milliseconds of one part, in full and in daily work.
const FULL_MS: u64 = 30_000;
const QUICK_MS: u64 = 700;
/// How often it goes on if something did not come: a busy host may give the guest next to no time.
const TURNS: u64 = 20;

fn everything_at_once(ctx: &mut Ctx, part: u64) -> Outcome {
    run(ctx.rng().next_u64() ^ part, true)
}

/// Without CPUs that go, all of them are busy all the time.
fn cpus_stay(ctx: &mut Ctx) -> Outcome {
    run(ctx.rng().next_u64(), false)
}

/// What has to come, and how much of it did.
fn kinds(seen: &Seen) -> [(&'static str, u64); 5] {
    [
        ("objects in bulk", seen.bulk),
        ("prefilled objects", seen.prefilled),
        ("caches", seen.caches),
        ("objects of interrupts", seen.interrupts),
        ("objects of NMIs", seen.nmis),
    ]
}

fn run(seed: u64, moves: bool) -> Outcome {
    let pool = Arc::new(kassert_ok!(Pool::new()));
    let mut seen = Seen::default();
    for turn in 0..TURNS {
        seen.add(&kassert_ok!(stress(&pool, seed.wrapping_add(turn), moves)));
        if kinds(&seen).iter().all(|&(_, count)| count > 0) {
            break;
        }
    }
    let damaged = pool.empty();
    knote!("{seen:?}");
    kassert_eq!((seen.damaged, seen.wrong_node, damaged), (0, 0, 0));
    // There is enough memory; only who may not wait goes without now and then.
    kassert!(seen.allocated > seen.none, "mostly no memory");
    for (what, count) in kinds(&seen) {
        kassert!(count > 0, "no {what}");
    }
    let pool = Arc::into_inner(pool);
    let left = pool.map(Pool::end);
    kassert_eq!(left, Some(Ok(())), "the caches have something left");
    Ok(())
}

/// Every CPU works for a while; meanwhile others interrupt it, and CPUs go. `Err`: no thread.
fn stress(pool: &Arc<Pool>, seed: u64, moves: bool) -> Result<Seen, SpawnError> {
    let _back = AllBack;
    let until = time::now_ns() + long_run::duration_ns(FULL_MS, QUICK_MS);
    let mut rng = Rng::new(seed);
    let working = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    let mut started = Ok(());
    for number in 0..smp::online().count() {
        let (pool, own) = (Arc::clone(pool), Arc::clone(&working));
        let rng = rng.split();
        working.fetch_add(1, Ordering::Relaxed);
        let thread = sched::Builder::new().spawn(format_args!("slab stress {number}"), move || {
            let mut worker = Worker::new(&pool, rng);
            while time::now_ns() < until {
                worker.step();
            }
            let seen = worker.end();
            drop(pool);
            // Release: with the Acquire below, the pool is given back.
            own.fetch_sub(1, Ordering::Release);
            seen
        });
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                working.fetch_sub(1, Ordering::Relaxed);
                started = Err(error);
            }
        }
    }
    let interrupted = AtomicU64::new(0);
    let damaged = AtomicBool::new(false);
    while working.load(Ordering::Acquire) > 0 {
        if moves {
            move_one(&mut rng);
        }
        let seed = rng.next_u64();
        smp::call_all(&|| {
            let mut rng = Rng::new(seed ^ u64::from(smp::this_cpu().number()));
            let seen = pool.interrupt(&mut rng, objects::From::Irq);
            interrupted.fetch_add(seen.0, Ordering::Relaxed);
            damaged.fetch_or(seen.1 > 0, Ordering::Relaxed);
        });
        sched::sleep_ns(200_000);
    }
    let mut all = Seen::default();
    for thread in threads {
        all.add(&thread.join());
    }
    started?;
    all.interrupts += interrupted.load(Ordering::Relaxed);
    all.damaged += u64::from(damaged.load(Ordering::Relaxed));
    Ok(all)
}
