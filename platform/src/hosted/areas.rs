//! Per-CPU memory: one area for each possible CPU, with the same offsets.

use core::{
    alloc::Layout,
    ptr::{self, NonNull},
};
use std::{
    alloc::{alloc_zeroed, dealloc, handle_alloc_error},
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    vec::Vec,
};

use crate::CpuId;

/// The greatest alignment: that of an area.
const PAGE: usize = 4096;
/// Written over what is freed, so that a late use is noticed.
const POISON: u8 = 0x5a;

#[derive(Debug)]
pub(super) struct Areas {
    /// By CPU, page-aligned.
    bases: Vec<NonNull<u8>>,
    /// What the host gave for each, before alignment.
    blocks: Vec<NonNull<u8>>,
    bytes: usize,
    /// Offset and size of what is allocated. Offset 0 never is.
    used: Mutex<BTreeMap<usize, usize>>,
}

// SAFETY: the areas are plain memory, handed out in pieces under the lock.
unsafe impl Send for Areas {}
// SAFETY: as above.
unsafe impl Sync for Areas {}

impl Areas {
    pub(super) fn new(cpus: usize, bytes: usize) -> Self {
        let layout = Self::block(bytes);
        let blocks: Vec<_> = (0..cpus)
            .map(|_| {
                // SAFETY: not of size 0. (With a small alignment the host gives zeroed
                // memory without touching it.)
                let block = unsafe { alloc_zeroed(layout) };
                NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout))
            })
            .collect();
        let bases = blocks
            .iter()
            .map(|block| {
                let skip = block.as_ptr().align_offset(PAGE);
                // SAFETY: the block is a page longer than the area.
                unsafe { block.add(skip) }
            })
            .collect();
        Self {
            bases,
            blocks,
            bytes,
            used: Mutex::new(BTreeMap::new()),
        }
    }

    fn block(bytes: usize) -> Layout {
        Layout::from_size_align(bytes + PAGE, 16).expect("areas are of a sensible size")
    }

    /// First fit.
    pub(super) fn alloc(&self, layout: Layout) -> Option<usize> {
        if layout.align() > PAGE {
            return None;
        }
        let size = layout.size().max(1);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut offset = 1_usize.next_multiple_of(layout.align());
        for (&start, &length) in used.iter() {
            if offset + size <= start {
                break;
            }
            offset = offset.max((start + length).next_multiple_of(layout.align()));
        }
        if offset.checked_add(size)? > self.bytes {
            return None;
        }
        used.insert(offset, size);
        drop(used);
        for base in &self.bases {
            // SAFETY: within the area, and nobody else's.
            unsafe { ptr::write_bytes(base.add(offset).as_ptr(), 0, size) };
        }
        Some(offset)
    }

    /// # Safety
    ///
    /// As for [`Platform::percpu_free`](crate::Platform::percpu_free).
    pub(super) unsafe fn free(&self, offset: usize, layout: Layout) {
        let size = layout.size().max(1);
        for base in &self.bases {
            // SAFETY: allocated with this size, and no longer used.
            unsafe { ptr::write_bytes(base.add(offset).as_ptr(), POISON, size) };
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let was = used.remove(&offset);
        drop(used);
        assert_eq!(
            was,
            Some(size),
            "frees per-CPU memory that was not allocated so"
        );
    }

    pub(super) fn on(&self, offset: usize, cpu: CpuId) -> NonNull<u8> {
        let base = *self
            .bases
            .get(cpu.index())
            .unwrap_or_else(|| panic!("cpu{cpu} is not possible"));
        assert!(offset < self.bytes, "{offset:#x} is not in per-CPU memory");
        // SAFETY: within the area.
        unsafe { base.add(offset) }
    }

    /// Where a CPU's area begins.
    pub(super) fn base(&self, cpu: CpuId) -> *mut u8 {
        self.bases[cpu.index()].as_ptr()
    }

    pub(super) fn assert_free(&self) {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let (pieces, bytes) = (used.len(), used.values().sum::<usize>());
        drop(used);
        assert!(
            pieces == 0,
            "{pieces} pieces of per-CPU memory ({bytes} bytes) were not freed"
        );
    }
}

impl Drop for Areas {
    fn drop(&mut self) {
        let layout = Self::block(self.bytes);
        for block in &self.blocks {
            // SAFETY: allocated so.
            unsafe { dealloc(block.as_ptr(), layout) };
        }
    }
}
