//! The kernel's heap, which `alloc` uses: kmalloc ([`memory::slab`]) as soon as there are slabs;
//! before that the boot heap, `linked_list_allocator` over a fixed piece of memory.
//!
//! What the boot heap has given out stays there. It is told by its address when it is freed, and
//! [`usage`] shows how much there still is.

use alloc::{boxed::Box, sync::Arc};
use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicUsize, Ordering},
};

use kernel_early::layout::{PAGE_SIZE, phys_to_virt};
use linked_list_allocator::Heap;
use mm::Gfp;

use crate::{
    memory::{self, Purpose, slab},
    sync::{self, IrqLock},
};

/// Bytes of the boot heap.
pub const SIZE: u64 = 4 << 20;

struct BootHeap {
    heap: IrqLock<Heap, sync::BootHeap>,
    /// Where it begins; 0: nowhere yet. Relaxed: it is written by the boot CPU before others run.
    start: AtomicUsize,
}

static BOOT_HEAP: BootHeap = BootHeap {
    heap: IrqLock::new(Heap::empty()),
    start: AtomicUsize::new(0),
};

impl BootHeap {
    fn alloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.heap.lock().allocate_first_fit(layout).ok()
    }

    /// # Safety
    ///
    /// The block came from [`alloc`](Self::alloc) with this layout, and is the caller's.
    unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { self.heap.lock().deallocate(block, layout) };
    }

    /// Whether a block is of this heap.
    #[inline]
    fn has(&self, block: NonNull<u8>) -> bool {
        let start = self.start.load(Ordering::Relaxed);
        block.addr().get().wrapping_sub(start) < SIZE as usize
    }
}

struct KernelHeap;

#[global_allocator]
static HEAP: KernelHeap = KernelHeap;

impl KernelHeap {
    /// Memory, with what `zero` says beside what may be done here. Any context.
    #[inline]
    fn alloc(layout: Layout, zero: Gfp) -> Option<NonNull<u8>> {
        let Some(slabs) = slab::try_slabs() else {
            let block = BOOT_HEAP.alloc(layout)?;
            if zero.contains(Gfp::ZERO) {
                // SAFETY: just allocated, and so large.
                unsafe { block.write_bytes(0, layout.size()) };
            }
            return Some(block);
        };
        match slab::gfp_here() {
            Some(gfp) => slabs.alloc_layout(layout, gfp | zero),
            None => slabs.alloc_layout_nolock(layout, zero),
        }
    }
}

// SAFETY: both allocators hand out blocks that are valid for the layout, distinct, and nobody
// else's; a block goes back to where it came from, which its address says.
unsafe impl GlobalAlloc for KernelHeap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::alloc(layout, Gfp::empty()).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::alloc(layout, Gfp::ZERO).map_or(null_mut(), NonNull::as_ptr)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else {
            return;
        };
        // SAFETY: the caller promises that `block` came from `alloc` with this layout. What is not of the boot heap
        // is of the slabs, which are there, then.
        unsafe {
            if BOOT_HEAP.has(block) {
                BOOT_HEAP.free(block, layout);
            } else if slab::in_nmi() {
                slab::slabs().kfree_nolock(block);
            } else {
                slab::slabs().kfree(block);
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(old) = NonNull::new(block) else {
            return null_mut();
        };
        let gfp = slab::gfp_here();
        if !BOOT_HEAP.has(old)
            && let Some(gfp) = gfp
        {
            // SAFETY: as the caller promises; of the slabs, see above.
            let new = unsafe { slab::slabs().realloc_layout(old, layout, size, gfp) };
            return new.map_or(null_mut(), NonNull::as_ptr);
        }
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else {
            return null_mut();
        };
        let Some(new) = Self::alloc(wanted, Gfp::empty()) else {
            return null_mut();
        };
        // SAFETY: both are at least so large; the old block is the caller's to give up.
        unsafe {
            new.copy_from_nonoverlapping(old, size.min(layout.size()));
            self.dealloc(block, layout);
        }
        new.as_ptr()
    }
}

/// Gives the boot heap its memory.
pub fn init() {
    let phys = memory::take_pages(SIZE / PAGE_SIZE, Purpose::BootHeap, None)
        .expect("no memory for the boot heap");
    let start = phys_to_virt(phys) as *mut u8;
    // SAFETY: the pages were just handed to us alone, for ever, and are mapped.
    unsafe { BOOT_HEAP.heap.lock().init(start, SIZE as usize) };
    BOOT_HEAP.start.store(start.addr(), Ordering::Relaxed);
}

/// Memory of the boot heap, as early code gets it: for tests of what becomes of it. To be given back as
/// any other.
pub fn alloc_early(layout: Layout) -> Option<NonNull<u8>> {
    BOOT_HEAP.alloc(layout)
}

/// Bytes of the boot heap in use, and bytes free.
pub fn usage() -> (usize, usize) {
    let heap = BOOT_HEAP.heap.lock();
    (heap.used(), heap.free())
}

/// A box, or nothing if there is no memory. (`Box::try_new` is not stable yet.)
pub fn try_box<T>(value: T) -> Option<Box<T>> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Some(Box::new(value));
    }
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc::alloc::alloc(layout) }.cast::<T>();
    if memory.is_null() {
        return None;
    }
    // SAFETY: fresh memory of T's layout from the global allocator, which is how a box's is
    // given back.
    unsafe {
        memory.write(value);
        Some(Box::from_raw(memory))
    }
}

/// An `Arc`, or nothing if there is no memory.
///
/// `Arc` has no stable way to fail: memory for it is tried first, and what is freed by the
/// trial serves the real allocation unless another CPU is quicker; then the kernel panics as
/// for any allocation that may not fail.
pub fn try_arc<T>(value: T) -> Option<Arc<T>> {
    // What an Arc holds: two counts and the value.
    let counts = Layout::new::<[usize; 2]>();
    let (layout, _) = counts.extend(Layout::new::<T>()).ok()?;
    // SAFETY: the size is not zero (the counts).
    unsafe {
        let trial = alloc::alloc::alloc(layout.pad_to_align());
        if trial.is_null() {
            return None;
        }
        alloc::alloc::dealloc(trial, layout.pad_to_align());
    }
    Some(Arc::new(value))
}
