//! What the functions of the hot path use of a thread's state: turning preemption off and on, and
//! finding the CPU's own memory. It lies in the thread's own memory and not in its `Here`, so
//! that each is an instruction or two, as on metal: figures of what is built on them would be
//! figures of this machine otherwise.

use core::{
    cell::Cell,
    ptr::{self, NonNull},
    sync::atomic::{Ordering::SeqCst, compiler_fence},
};

use super::here::with;

/// On a machine without chance: of so many places where a point would be, one is.
const STRIDE: u32 = 256;

struct Quick {
    /// How often preemption was turned off.
    preempt: Cell<u32>,
    /// The per-CPU memory of the CPU whose baton the thread has; null: it belongs to no machine.
    area: Cell<*mut u8>,
    /// How many places are passed until the next point.
    skip: Cell<u32>,
}

std::thread_local! {
    static QUICK: Quick = const {
        Quick {
            preempt: Cell::new(0),
            area: Cell::new(ptr::null_mut()),
            skip: Cell::new(0),
        }
    };
}

/// How often preemption was turned off.
#[inline(always)]
pub(super) fn preempt() -> u32 {
    QUICK.with(|quick| quick.preempt.get())
}

pub(super) fn set_preempt(depth: u32) {
    QUICK.with(|quick| quick.preempt.set(depth));
}

/// The thread is on the CPU whose per-CPU memory begins at `area`, or (null) on none.
pub(super) fn set_area(area: *mut u8) {
    QUICK.with(|quick| quick.area.set(area));
}

/// The next point is the next place for one, or, if `steady`, one further on.
pub(super) fn set_skip(steady: bool) {
    QUICK.with(|quick| quick.skip.set(if steady { STRIDE - 1 } else { 0 }));
}

#[inline(always)]
pub(super) fn disable() {
    if cfg!(debug_assertions) {
        // It belongs to a machine.
        with(|_| {});
    }
    QUICK.with(|quick| quick.preempt.set(quick.preempt.get().wrapping_add(1)));
    // As on metal nothing moves out of the section. (Besides, the compiler does not keep the
    // sum at hand for its end, which would take three instructions for one.)
    compiler_fence(SeqCst);
}

#[inline(always)]
pub(super) fn enable() {
    compiler_fence(SeqCst);
    let depth = QUICK.with(|quick| {
        let depth = quick.preempt.get();
        debug_assert!(depth > 0, "preemption was not off");
        quick.preempt.set(depth.wrapping_sub(1));
        depth.wrapping_sub(1)
    });
    if depth == 0 {
        place();
    }
}

/// A place for a point.
#[inline(always)]
pub(super) fn place() {
    let is_due = QUICK.with(|quick| {
        let (left, is_due) = quick.skip.get().overflowing_sub(1);
        quick.skip.set(left);
        is_due
    });
    if is_due {
        point();
    }
}

#[cold]
#[inline(never)]
fn point() {
    with(|here| {
        set_skip(here.machine.steady);
        here.point();
    });
}

/// The copy of the thread's CPU of what has this offset in per-CPU memory.
#[inline(always)]
pub(super) fn own_copy(offset: usize) -> NonNull<u8> {
    let area = QUICK.with(|quick| quick.area.get());
    if area.is_null() {
        outside();
    }
    // SAFETY: not null; an offset that was allocated lies within the area.
    unsafe { NonNull::new_unchecked(area.wrapping_add(offset)) }
}

#[cold]
#[inline(never)]
fn outside() -> ! {
    with(|_| panic!("a thread of a machine has no per-CPU memory"))
}
