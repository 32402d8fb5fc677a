//! Allocation that may fail.

use alloc::{alloc::alloc, boxed::Box, sync::Arc};
use core::alloc::Layout;

/// A box. `None`: no memory.
pub(crate) fn try_box<T>(value: T) -> Option<Box<T>> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Some(Box::new(value));
    }
    // SAFETY: the layout is not empty.
    let place = unsafe { alloc(layout) }.cast::<T>();
    if place.is_null() {
        return None;
    }
    // SAFETY: memory of the layout of a `T`, from the allocator that boxes are freed to.
    unsafe {
        place.write(value);
        Some(Box::from_raw(place))
    }
}

/// A shared value. `None`: no memory.
pub(crate) fn try_arc<T>(value: T) -> Option<Arc<T>> {
    // What an Arc holds: two counts and the value.
    let counts = Layout::new::<[usize; 2]>();
    let layout = counts.extend(Layout::new::<T>()).ok()?.0.pad_to_align();
    // SAFETY: the layout is not empty (the counts), and the memory is given back as it came.
    unsafe {
        let trial = alloc(layout);
        if trial.is_null() {
            return None;
        }
        alloc::alloc::dealloc(trial, layout);
    }
    Some(Arc::new(value))
}
