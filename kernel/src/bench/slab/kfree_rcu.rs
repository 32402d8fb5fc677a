//! `kfree_rcu` on every CPU at once; a round ends when all is free.

use alloc::sync::Arc;
use core::{
    hint::black_box,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use kernel_base::bench::Value;
use mm::{Gfp, kvfree_rcu::Head};

use super::{Own, had_memory, memory::slab_kib, several::on_all};
use crate::{
    bench::{Outcome, Run, bench},
    memory::slab::slabs,
};

bench! {
    name: "kfree_rcu/64",
    ops: 100_000,
    run: of_a_cache,
}

bench! {
    name: "kfree_rcu/kmalloc-64",
    ops: 100_000,
    run: of_kmalloc,
}

/// After so many operations a CPU looks how much memory slabs have.
const LOOK: u64 = 1024;

/// Gives an object to `kfree_rcu`; its head is its first two words.
#[inline(always)]
fn free_rcu(object: NonNull<u8>) {
    // SAFETY: callers have just allocated it, of 16 bytes at least, and nobody uses it.
    unsafe { slabs().kfree_rcu(object, object.cast::<Head>()) };
}

fn of_a_cache(run: &mut Run) -> Outcome {
    let own = Own::of(64)?;
    let cache = own.cache();
    let had = flood(run, move || cache.alloc(Gfp::KERNEL))?;
    own.end()?;
    had_memory(had)
}

fn of_kmalloc(run: &mut Run) -> Outcome {
    let had = flood(run, || slabs().kmalloc(64, Gfp::KERNEL))?;
    had_memory(had)
}

/// What `alloc` gives goes to `kfree_rcu`.
fn flood(
    run: &mut Run,
    alloc: impl Fn() -> Option<NonNull<u8>> + Copy + Send + 'static,
) -> Result<bool, crate::bench::Stop> {
    let ops = run.ops();
    let before = slab_kib();
    let peak = Arc::new(AtomicU64::new(before));
    let make = || {
        let peak = Arc::clone(&peak);
        Ok(move || {
            for op in 0..ops {
                let Some(object) = black_box(alloc()) else {
                    return false;
                };
                free_rcu(object);
                if op % LOOK == 0 {
                    peak.fetch_max(slab_kib(), Ordering::Relaxed);
                }
            }
            true
        })
    };
    let had = on_all(run, ops, make, || slabs().kvfree_rcu_barrier())?;
    let kib = peak.load(Ordering::Relaxed) - before;
    run.key("peak_kib", Value::Whole(kib))?;
    Ok(had)
}
