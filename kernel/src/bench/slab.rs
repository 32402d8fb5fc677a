//! The slab allocator, by the contract's names.

mod destroy;
mod kfree_rcu;
mod memory;
mod several;

use alloc::{format, string::ToString, vec, vec::Vec};
use core::{hint::black_box, mem::MaybeUninit, ptr::NonNull};

use mm::{
    Gfp,
    slab::{Flags, KmemCache, Spec},
};

use super::{Outcome, Run, Stop, bench};
use crate::{machine::Kernel, memory::slab::slabs};

bench! {
    name: "pair/64",
    ops: 200_000,
    run: pair::<64>,
}

bench! {
    name: "pair/256",
    ops: 200_000,
    run: pair::<256>,
}

bench! {
    name: "pair/1024",
    ops: 200_000,
    run: pair::<1024>,
}

bench! {
    name: "pair/4096",
    ops: 200_000,
    run: pair::<4096>,
}

bench! {
    name: "batch/256/16",
    ops: 200_000,
    run: batch::<16>,
}

bench! {
    name: "batch/256/256",
    ops: 199_936,
    run: batch::<256>,
}

bench! {
    name: "batch/256/10000",
    ops: 200_000,
    run: batch::<10_000>,
}

bench! {
    name: "bulk/256/16",
    ops: 200_000,
    run: bulk::<16>,
}

bench! {
    name: "bulk/256/64",
    ops: 200_000,
    run: bulk::<64>,
}

bench! {
    name: "kmalloc/8",
    ops: 200_000,
    run: kmalloc::<8>,
}

bench! {
    name: "kmalloc/64",
    ops: 200_000,
    run: kmalloc::<64>,
}

bench! {
    name: "kmalloc/512",
    ops: 200_000,
    run: kmalloc::<512>,
}

bench! {
    name: "kmalloc/8192",
    ops: 200_000,
    run: kmalloc::<8192>,
}

bench! {
    name: "nolock/64",
    ops: 200_000,
    run: nolock,
}

bench! {
    name: "create",
    ops: 200,
    run: create,
}

/// A cache of one workload, destroyed at its end.
pub(super) struct Own(&'static KmemCache<Kernel>);

impl Own {
    pub(super) fn new(spec: &Spec<'_>) -> Result<Self, Stop> {
        let spec = spec.flags(spec.flags | Flags::NO_MERGE);
        let created = slabs().create(&spec);
        created.map(Self).map_err(|error| failed(error.to_string()))
    }

    /// Of objects of `size` bytes.
    pub(super) fn of(size: usize) -> Result<Self, Stop> {
        Self::new(&Spec::new("bench", size))
    }

    pub(super) fn cache(&self) -> &'static KmemCache<Kernel> {
        self.0
    }

    /// Destroys it.
    pub(super) fn end(self) -> Outcome {
        // SAFETY: made by `new`; workloads have freed their objects.
        let destroyed = unsafe { slabs().destroy(self.0) };
        destroyed.map_err(|leaked| failed(leaked.to_string()))
    }
}

pub(super) fn failed(why: impl Into<alloc::string::String>) -> Stop {
    Stop::Failed(why.into())
}

/// For loops that are timed: whether there was memory.
pub(super) fn had_memory(had: bool) -> Outcome {
    if had {
        Ok(())
    } else {
        Err(failed("no memory for objects"))
    }
}

/// Allocates an object and frees it.
fn pair<const SIZE: usize>(run: &mut Run) -> Outcome {
    let own = Own::of(SIZE)?;
    let ops = run.ops();
    let had = run.time(|| pairs(own.cache(), ops));
    own.end()?;
    had_memory(had)
}

/// `ops` pairs; whether there was memory.
pub(super) fn pairs(cache: &KmemCache<Kernel>, ops: u64) -> bool {
    for _ in 0..ops {
        let Some(object) = cache.alloc(Gfp::KERNEL) else {
            return false;
        };
        // SAFETY: just allocated, and used by nobody.
        unsafe { cache.free(object) };
    }
    true
}

/// Allocates `COUNT` objects, then frees them in the order allocated.
fn batch<const COUNT: usize>(run: &mut Run) -> Outcome {
    let own = Own::of(256)?;
    let mut held = places(COUNT)?;
    let batches = run.ops() / COUNT as u64;
    if batches == 0 {
        // The warm-up of large ones.
        batches_of(own.cache(), &mut held, 1);
    }
    let had = run.time(|| batches_of(own.cache(), &mut held, batches));
    own.end()?;
    had_memory(had)
}

/// Places for so many objects.
pub(super) fn places(count: usize) -> Result<Vec<NonNull<u8>>, Stop> {
    let mut held = Vec::new();
    held.try_reserve_exact(count)
        .map_err(|_| failed("no memory for a list of objects"))?;
    held.resize(count, NonNull::dangling());
    Ok(held)
}

/// So many batches as large as `held`; whether there was memory.
pub(super) fn batches_of(
    cache: &KmemCache<Kernel>,
    held: &mut [NonNull<u8>],
    batches: u64,
) -> bool {
    for _ in 0..batches {
        for place in held.iter_mut() {
            let Some(object) = cache.alloc(Gfp::KERNEL) else {
                return false;
            };
            *place = object;
        }
        for object in black_box(&*held) {
            // SAFETY: just allocated, and used by nobody.
            unsafe { cache.free(*object) };
        }
    }
    true
}

/// One operation is one object.
fn bulk<const COUNT: usize>(run: &mut Run) -> Outcome {
    let own = Own::of(256)?;
    let cache = own.cache();
    let mut held = vec![MaybeUninit::<NonNull<u8>>::uninit(); COUNT];
    let bulks = run.ops() / COUNT as u64;
    let had = run.time(|| {
        for _ in 0..bulks {
            if cache.alloc_bulk(Gfp::KERNEL, &mut held) != COUNT {
                return false;
            }
            // SAFETY: all of it was filled.
            let objects = unsafe { held.assume_init_ref() };
            // SAFETY: just allocated, and used by nobody.
            unsafe { cache.free_bulk(black_box(objects)) };
        }
        true
    });
    own.end()?;
    had_memory(had)
}

/// Of a size that the compiler knows, as nearly all callers have.
fn kmalloc<const SIZE: usize>(run: &mut Run) -> Outcome {
    let slabs = slabs();
    let ops = run.ops();
    let had = run.time(|| {
        for _ in 0..ops {
            let Some(memory) = slabs.kmalloc(SIZE, Gfp::KERNEL) else {
                return false;
            };
            // SAFETY: just allocated, and used by nobody.
            unsafe { slabs.kfree(memory) };
        }
        true
    });
    had_memory(had)
}

fn nolock(run: &mut Run) -> Outcome {
    let slabs = slabs();
    let ops = run.ops();
    // There has to be something that can be had without waiting.
    let warm = slabs.kmalloc(64, Gfp::KERNEL);
    let had = run.time(|| {
        for _ in 0..ops {
            let Some(memory) = slabs.kmalloc_nolock(64, Gfp::empty(), None) else {
                return false;
            };
            // SAFETY: just allocated, and used by nobody.
            unsafe { slabs.kfree_nolock(memory) };
        }
        true
    });
    if let Some(memory) = warm {
        // SAFETY: as above.
        unsafe { slabs.kfree(memory) };
    }
    had_memory(had)
}

/// Creating a cache, from where on the statistics files have it; destroying it is not timed.
fn create(run: &mut Run) -> Outcome {
    let mut made = Vec::new();
    let mut outcome = Ok(());
    for number in 0..run.ops() {
        let name = format!("bench-{number}");
        let spec = Spec::new(&name, 256);
        match run.time(|| Own::new(&spec)) {
            Ok(own) => made.push(own),
            Err(stop) => {
                outcome = Err(stop);
                break;
            }
        }
    }
    let ended = made.into_iter().try_for_each(Own::end);
    outcome.and(ended)
}
