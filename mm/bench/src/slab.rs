//! Caches and kmalloc, by the contract's names.

use std::{hint::black_box, mem::MaybeUninit, ptr::NonNull};

use mm::{
    Gfp,
    slab::{Flags, KmemCache, Spec},
};

use crate::{
    Clock, Failure, Row,
    lone::{Lone, slabs},
};

/// What one row does.
type Work = fn(&Clock, u64) -> Result<(), Failure>;

/// Operations in a round.
pub const OPS: u64 = 200_000;
/// Operations whose instructions are counted, where each is like the next.
pub const COUNTED: u64 = 256;
/// Sizes of objects of `pair`.
pub const PAIRS: [usize; 4] = [64, 256, 1024, 4096];
/// Objects of a `batch`, and how many operations are counted (`None`: too many).
pub const BATCHES: [(u64, Option<u64>); 3] = [(16, Some(256)), (256, Some(512)), (10_000, None)];
const BULKS: [u64; 2] = [16, 64];

const NO_MEMORY: Failure = "no memory for objects";

/// Runs `work` with a cache of its own.
fn with_cache(
    size: usize,
    work: impl FnOnce(&KmemCache<Lone>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let spec = Spec::new("bench", size).flags(Flags::NO_MERGE);
    let slabs = slabs();
    let cache = slabs.create(&spec).map_err(|_| "no cache")?;
    let result = work(cache);
    // SAFETY: created above, and its objects were freed.
    let destroyed = unsafe { slabs.destroy(cache) };
    result.and(destroyed.map_err(|_| "the cache has objects left"))
}

fn pair(cache: &KmemCache<Lone>, clock: &Clock, ops: u64) -> Result<(), Failure> {
    clock.time(|| {
        for _ in 0..ops {
            let object = cache.alloc(Gfp::KERNEL).ok_or(NO_MEMORY)?;
            // SAFETY: just allocated, and used by nobody.
            unsafe { cache.free(object) };
        }
        Ok(())
    })
}

/// Allocates `count` objects, then frees them in the order allocated.
fn batch(cache: &KmemCache<Lone>, clock: &Clock, count: u64, ops: u64) -> Result<(), Failure> {
    let mut held = vec![NonNull::<u8>::dangling(); count as usize];
    clock.time(|| {
        for _ in 0..ops / count {
            for place in &mut held {
                *place = cache.alloc(Gfp::KERNEL).ok_or(NO_MEMORY)?;
            }
            for object in &held {
                // SAFETY: just allocated, and used by nobody.
                unsafe { cache.free(black_box(*object)) };
            }
        }
        Ok(())
    })
}

fn bulk(cache: &KmemCache<Lone>, clock: &Clock, count: u64, ops: u64) -> Result<(), Failure> {
    let mut held = vec![MaybeUninit::<NonNull<u8>>::uninit(); count as usize];
    clock.time(|| {
        for _ in 0..ops / count {
            if cache.alloc_bulk(Gfp::KERNEL, &mut held) != held.len() {
                return Err(NO_MEMORY);
            }
            // SAFETY: all of it was filled.
            let objects = unsafe { held.assume_init_ref() };
            // SAFETY: just allocated, and used by nobody.
            unsafe { cache.free_bulk(black_box(objects)) };
        }
        Ok(())
    })
}

/// Of a size that the compiler knows, as nearly all callers have.
fn kmalloc<const SIZE: usize>(clock: &Clock, ops: u64) -> Result<(), Failure> {
    let slabs = slabs();
    clock.time(|| {
        for _ in 0..ops {
            let memory = slabs.kmalloc(SIZE, Gfp::KERNEL).ok_or(NO_MEMORY)?;
            // SAFETY: just allocated, and used by nobody.
            unsafe { slabs.kfree(memory) };
        }
        Ok(())
    })
}

fn nolock(clock: &Clock, ops: u64) -> Result<(), Failure> {
    let slabs = slabs();
    // Without waiting only what is there can be had.
    kmalloc::<64>(&Clock::watch(), 1)?;
    clock.time(|| {
        for _ in 0..ops {
            let memory = slabs.kmalloc_nolock(64, Gfp::empty(), None);
            let memory = memory.ok_or(NO_MEMORY)?;
            // SAFETY: just allocated, and used by nobody.
            unsafe { slabs.kfree_nolock(memory) };
        }
        Ok(())
    })
}

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for size in PAIRS {
        let work = move |clock: &Clock, ops| with_cache(size, |cache| pair(cache, clock, ops));
        rows.push(Row::new(format!("pair/{size}"), OPS, Some(COUNTED), work));
    }
    for (count, counted) in BATCHES {
        rows.push(Row::new(
            format!("batch/256/{count}"),
            OPS / count * count,
            counted,
            move |clock, ops| with_cache(256, |cache| batch(cache, clock, count, ops)),
        ));
    }
    for count in BULKS {
        rows.push(Row::new(
            format!("bulk/256/{count}"),
            OPS,
            Some(COUNTED),
            move |clock, ops| with_cache(256, |cache| bulk(cache, clock, count, ops)),
        ));
    }
    let kmallocs: [(usize, Work); 4] = [
        (8, kmalloc::<8>),
        (64, kmalloc::<64>),
        (512, kmalloc::<512>),
        (8192, kmalloc::<8192>),
    ];
    for (size, work) in kmallocs {
        rows.push(Row::new(
            format!("kmalloc/{size}"),
            OPS,
            Some(COUNTED),
            work,
        ));
    }
    rows.push(Row::new("nolock/64", OPS, Some(COUNTED), nolock));
    rows
}
