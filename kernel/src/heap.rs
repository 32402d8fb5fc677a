//! The boot heap: `linked_list_allocator` over a fixed piece of memory, until the slab
//! allocator takes over. What it holds is known and shown.

use alloc::{boxed::Box, sync::Arc};
use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::NonNull,
};

use kernel_early::layout::{PAGE_SIZE, phys_to_virt};
use linked_list_allocator::Heap;

use crate::{
    memory::{self, Purpose},
    sync::{self, IrqLock},
};

/// Bytes of the boot heap.
pub const SIZE: u64 = 4 << 20;

struct BootHeap(IrqLock<Heap, sync::BootHeap>);

#[global_allocator]
static HEAP: BootHeap = BootHeap(IrqLock::new(Heap::empty()));

// SAFETY: `Heap` hands out blocks that are valid for the layout, distinct, and inside the
// memory given to it, which is nobody else's.
unsafe impl GlobalAlloc for BootHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0
            .lock()
            .allocate_first_fit(layout)
            .map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else {
            return;
        };
        // SAFETY: the caller promises that `block` came from `alloc` with this layout.
        unsafe { self.0.lock().deallocate(block, layout) };
    }
}

/// Gives the heap its memory.
pub fn init() {
    let phys = memory::take_pages(SIZE / PAGE_SIZE, Purpose::BootHeap, None)
        .expect("no memory for the boot heap");
    // SAFETY: the pages were just handed to us alone, for ever, and are mapped.
    unsafe {
        HEAP.0
            .lock()
            .init(phys_to_virt(phys) as *mut u8, SIZE as usize);
    }
}

/// Bytes in use and bytes free.
pub fn usage() -> (usize, usize) {
    let heap = HEAP.0.lock();
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
