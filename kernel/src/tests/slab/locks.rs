//! Interrupts and NMIs that come while each of a cache's locks is held.

use core::sync::atomic::{AtomicU64, Ordering};

use mm::{
    Gfp,
    slab::{CacheLock, Flags},
};

use super::{Object, create, destroy, take};
use crate::{
    kunit::{Ctx, Outcome, kassert, kassert_eq, knote},
    memory::slab::slabs,
    sweep::sweep,
    time,
    timer::RawKind,
};

/// What comes then allocates and frees without waiting; what it frees is free in the end, which
/// the destruction of the cache shows.
///
/// With the lock of sheaves held an ordinary interrupt may do anything; a spinning lock it does not come
/// into, since it turns interrupts off.
pub fn under_each_lock(_: &mut Ctx, kind: RawKind) -> Outcome {
    const SIZE: usize = 120;
    let nmi = kind == RawKind::Nmi;
    for lock in CacheLock::ALL {
        if !nmi && lock != CacheLock::Sheaves {
            continue;
        }
        let cache = create("slab-locked", SIZE, Flags::empty())?;
        // To be freed by handlers, one each; spread over slabs.
        let given = take(cache, 400)?;
        let next = AtomicU64::new(0);
        let (got, none, damaged) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let handler = || {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if let Some(object) = given.get(number as usize) {
                if !object.is_marked(SIZE, number) {
                    damaged.fetch_add(1, Ordering::Relaxed);
                }
                // SAFETY: the case's; each is freed once.
                unsafe {
                    if nmi {
                        cache.free_nolock(object.0);
                    } else {
                        cache.free(object.0);
                    }
                }
            }
            let object = if nmi {
                cache.alloc_nolock(None)
            } else {
                cache.alloc(Gfp::ATOMIC)
            };
            // And something of kmalloc, whose caches are not locked.
            let small = slabs().kmalloc_nolock(100, Gfp::NOLOCK, None);
            // SAFETY: just allocated.
            small
                .into_iter()
                .for_each(|small| unsafe { slabs().kfree_nolock(small) });
            match object.map(Object) {
                None => {
                    none.fetch_add(1, Ordering::Relaxed);
                }
                Some(object) => {
                    got.fetch_add(1, Ordering::Relaxed);
                    object.mark(SIZE, number);
                    // SAFETY: just allocated.
                    unsafe { cache.free_nolock(object.0) };
                }
            }
        };
        // Each run has one interrupt; where the host is slow it comes before the lock is held.
        let (mut runs, mut met) = (0, 0);
        let after_ns = if time::is_exact() { 100_000 } else { 2_000_000 };
        let swept = sweep(kind, after_ns, after_ns + 60, &handler, || {
            runs += 1;
            cache.while_locked(lock, || {
                met += u64::from(next.load(Ordering::Relaxed) < runs);
                // With the lock held until it has come.
                while next.load(Ordering::Relaxed) < runs {
                    core::hint::spin_loop();
                }
            });
        });
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let used = read(&next).min(given.len() as u64) as usize;
        knote!(
            "{lock:?}: {swept:?}, {met} with the lock held, {} allocated, {} not",
            read(&got),
            read(&none)
        );
        kassert_eq!(read(&damaged), 0);
        kassert!(met > 0, "none of {runs} came while the lock was held");
        kassert!(used >= 60, "{used} handlers freed something");
        for (object, number) in given[used..].iter().zip(used as u64..) {
            kassert!(
                object.is_marked(SIZE, number),
                "object {number} was given out"
            );
            // SAFETY: the case's, and no handler's.
            unsafe { cache.free(object.0) };
        }
        destroy(cache)?;
    }
    Ok(())
}
