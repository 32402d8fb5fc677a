//! The workloads of [`slab`](crate::slab) on allocators of the host, called raw.

use std::{
    alloc::{Layout, alloc, dealloc},
    hint::black_box,
};

use crate::{Clock, Failure, Row, slab};

/// An allocator.
pub trait Heap {
    /// `size` bytes, or null.
    fn alloc(&self, size: usize) -> *mut u8;

    /// Frees it.
    ///
    /// # Safety
    ///
    /// It came from [`alloc`](Self::alloc) with this size, and nobody uses it.
    unsafe fn free(&self, memory: *mut u8, size: usize);
}

/// The host's own.
#[derive(Clone, Copy)]
pub struct Malloc;

const fn layout_of(size: usize) -> Layout {
    match Layout::from_size_align(size, 16) {
        Ok(layout) => layout,
        Err(_) => panic!("too large"),
    }
}

impl Heap for Malloc {
    #[inline(always)]
    fn alloc(&self, size: usize) -> *mut u8 {
        // SAFETY: no workload asks for nothing.
        unsafe { alloc(layout_of(size)) }
    }

    #[inline(always)]
    unsafe fn free(&self, memory: *mut u8, size: usize) {
        // SAFETY: as the caller promises.
        unsafe { dealloc(memory, layout_of(size)) };
    }
}

#[cfg(feature = "others")]
#[derive(Clone, Copy)]
struct Mimalloc;

#[cfg(feature = "others")]
impl Heap for Mimalloc {
    #[inline(always)]
    fn alloc(&self, size: usize) -> *mut u8 {
        // SAFETY: any size will do.
        unsafe { libmimalloc_sys::mi_malloc(size).cast() }
    }

    #[inline(always)]
    unsafe fn free(&self, memory: *mut u8, _: usize) {
        // SAFETY: as the caller promises.
        unsafe { libmimalloc_sys::mi_free(memory.cast()) };
    }
}

#[cfg(feature = "others")]
#[derive(Clone, Copy)]
struct Snmalloc;

#[cfg(feature = "others")]
impl Heap for Snmalloc {
    #[inline(always)]
    fn alloc(&self, size: usize) -> *mut u8 {
        // SAFETY: a power of two for the alignment, and any size.
        unsafe { snmalloc_sys::sn_rust_alloc(16, size).cast() }
    }

    #[inline(always)]
    unsafe fn free(&self, memory: *mut u8, size: usize) {
        // SAFETY: as the caller promises.
        unsafe { snmalloc_sys::sn_rust_dealloc(memory.cast(), 16, size) };
    }
}

/// Allocates and frees the same.
pub fn pair(heap: &impl Heap, clock: &Clock, size: usize, ops: u64) -> Result<(), Failure> {
    clock.time(|| {
        for _ in 0..ops {
            let memory = black_box(heap.alloc(black_box(size)));
            if memory.is_null() {
                return Err("no memory");
            }
            // SAFETY: just allocated, and used by nobody.
            unsafe { heap.free(memory, size) };
        }
        Ok(())
    })
}

/// Allocates `count`, then frees them in the order allocated.
pub fn batch(
    heap: &impl Heap,
    clock: &Clock,
    size: usize,
    count: u64,
    ops: u64,
) -> Result<(), Failure> {
    let mut held = vec![std::ptr::null_mut(); count as usize];
    clock.time(|| {
        for _ in 0..ops / count {
            for place in &mut held {
                *place = heap.alloc(black_box(size));
                if place.is_null() {
                    return Err("no memory");
                }
            }
            for memory in &held {
                // SAFETY: just allocated, and used by nobody.
                unsafe { heap.free(black_box(*memory), size) };
            }
        }
        Ok(())
    })
}

fn rows_of<H: Heap + Copy + 'static>(name: &str, heap: H) -> Vec<Row> {
    let mut rows = Vec::new();
    for size in slab::PAIRS {
        rows.push(Row::new(
            format!("pair/{size}/{name}"),
            slab::OPS,
            Some(slab::COUNTED),
            move |clock, ops| pair(&heap, clock, size, ops),
        ));
    }
    for (count, counted) in slab::BATCHES {
        rows.push(Row::new(
            format!("batch/256/{count}/{name}"),
            slab::OPS / count * count,
            counted,
            move |clock, ops| batch(&heap, clock, 256, count, ops),
        ));
    }
    rows
}

pub fn rows() -> Vec<Row> {
    #[cfg_attr(not(feature = "others"), expect(unused_mut, reason = "no others"))]
    let mut rows = rows_of("malloc", Malloc);
    #[cfg(feature = "others")]
    {
        rows.extend(rows_of("mimalloc", Mimalloc));
        rows.extend(rows_of("snmalloc", Snmalloc));
    }
    rows
}
