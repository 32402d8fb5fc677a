//! What the end of a cache asks of others: by the record that it makes of itself, never by
//! counts of the machine, never by time.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mm::{Gfp, kvfree_rcu::InFlight};

use super::{Cache, create, destroy, free_rcu, take};
use crate::{
    kunit::{Ctx, Outcome, Stop, kassert, kassert_eq, kassert_ok, knote, kskip},
    memory::slab::slabs,
    rcu::rcu,
    sched::{self, Builder, JoinHandle},
    smp,
};

/// Destroys a cache: what its record says.
fn destroyed(cache: &Cache) -> Result<InFlight, Stop> {
    let id = cache.id();
    destroy(cache)?;
    let record = kassert_ok!(slabs().last_destroy());
    kassert_eq!(record.id, id);
    Ok(record.did)
}

/// Nothing was asked of anybody, nor waited for.
fn nothing_asked(did: &InFlight) -> Outcome {
    kassert_eq!(*did, InFlight::default());
    Ok(())
}

pub fn idle_cache_asks_nothing(_: &mut Ctx) -> Outcome {
    let cache = create("exact_idle", 256)?;
    for object in take(cache, 100)? {
        // SAFETY: of this cache, and the test's.
        unsafe { cache.free(object) };
    }
    nothing_asked(&destroyed(cache)?)
}

pub fn in_flight_asks_once(_: &mut Ctx) -> Outcome {
    let cache = create("exact_rcu", 256)?;
    // More than a sheaf, so that some are closed and some are not.
    take(cache, 100)?.into_iter().for_each(free_rcu);
    let did = destroyed(cache)?;
    kassert!(did.requested <= 1, "grace periods: {did:?}");
    kassert!(did.freed <= 100, "frees: {did:?}");
    kassert_eq!((did.calls, did.works), (0, 0));
    Ok(())
}

/// What was closed before a grace period that has passed needs no other one.
pub fn passed_cookie_asks_nothing(_: &mut Ctx) -> Outcome {
    let cache = create("exact_passed", 256)?;
    take(cache, 100)?.into_iter().for_each(free_rcu);
    slabs().kvfree_rcu_barrier_on_cache(cache);
    kassert!(!cache.has_in_flight());
    rcu().synchronize();
    nothing_asked(&destroyed(cache)?)
}

/// All other CPUs flood another cache: an idle one still asks nothing, and one with objects
/// in flight asks for one grace period at most, and frees no others than its own.
pub fn others_flood(_: &mut Ctx) -> Outcome {
    let others = smp::online().without(smp::this_cpu());
    if others.is_empty() {
        kskip!("needs 2 CPUs");
    }
    let flooded = create("exact_flooded", 128)?;
    let (stop, made) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut threads = Vec::new();
    for cpu in others {
        let (stop, made) = (Arc::clone(&stop), Arc::clone(&made));
        let flood = Builder::new()
            .on(cpu)
            .spawn(format_args!("flood"), move || {
                while !stop.load(Ordering::Relaxed) {
                    let Some(object) = flooded.alloc(Gfp::KERNEL | Gfp::NOWARN) else {
                        sched::yield_now();
                        continue;
                    };
                    free_rcu(object);
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        threads.push(kassert_ok!(flood));
    }
    while made.load(Ordering::Relaxed) < 1000 {
        sched::yield_now();
    }
    let outcome = (0..20).try_for_each(|_| {
        let cache = create("exact_idle", 256)?;
        for object in take(cache, 100)? {
            // SAFETY: of this cache, and the test's.
            unsafe { cache.free(object) };
        }
        nothing_asked(&destroyed(cache)?)?;
        let cache = create("exact_rcu", 256)?;
        take(cache, 10)?.into_iter().for_each(free_rcu);
        let did = destroyed(cache)?;
        kassert!(did.requested <= 1, "grace periods: {did:?}");
        kassert!(did.freed <= 10, "frees: {did:?}");
        kassert_eq!((did.calls, did.works), (0, 0));
        Ok(())
    });
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(JoinHandle::join);
    knote!("{} objects flooded", made.load(Ordering::Relaxed));
    let ended = destroy(flooded);
    outcome.and(ended)
}
