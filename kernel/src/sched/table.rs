//! All threads that are alive.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{
    stack_pool,
    thread::{Thread, ThreadRef},
};
use crate::{
    arch::stacks::THREADS,
    sync::{IrqLock, ThreadTable},
};

/// Live threads, by no order. Grown outside the lock; never beyond what stacks and CPUs
/// allow.
static LIVE: IrqLock<Vec<Arc<Thread>>, ThreadTable> = IrqLock::new(Vec::new());
static NEXT_ID: AtomicU32 = AtomicU32::new(0);
/// Address of the thread that has each stack: for a stack that ran over, which can take no
/// lock to find out whose it was.
static BY_STACK: [AtomicU64; THREADS] = [const { AtomicU64::new(0) }; THREADS];

/// A new thread's number.
pub(super) fn next_id() -> u32 {
    // Relaxed: numbers need only differ.
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// No memory for the table.
#[derive(Debug)]
pub(super) struct OutOfMemory;

/// Makes a thread alive: from here on the table holds it. Task context.
pub(super) fn insert(thread: &Arc<Thread>) -> Result<(), OutOfMemory> {
    let mut spare = Vec::new();
    loop {
        let mut live = LIVE.lock();
        if live.len() == live.capacity() {
            let wanted = live.capacity() * 2 + 16;
            if spare.capacity() < wanted {
                drop(live);
                // Not under the lock, which interrupts are off for.
                spare.try_reserve_exact(wanted).map_err(|_| OutOfMemory)?;
                continue;
            }
            spare.append(&mut live);
            core::mem::swap(&mut *live, &mut spare);
        }
        live.push(Arc::clone(thread));
        break;
    }
    if let Some(index) = thread.stack_index {
        // Release: who finds the thread sees it filled in.
        BY_STACK[index].store(Arc::as_ptr(thread) as u64, Ordering::Release);
    }
    Ok(())
}

/// The thread is dead. The caller gets the table's reference, to be dropped when nothing
/// points to the thread any more.
pub(super) fn remove(thread: &Thread) -> Arc<Thread> {
    if let Some(index) = thread.stack_index {
        BY_STACK[index].store(0, Ordering::Release);
    }
    let mut live = LIVE.lock();
    let place = live
        .iter()
        .position(|each| core::ptr::eq(Arc::as_ptr(each), thread))
        .expect("a thread that ran is in the table");
    live.swap_remove(place)
}

/// All threads that are alive now. Task context.
pub fn all() -> Vec<ThreadRef> {
    let mut threads = Vec::new();
    loop {
        let live = LIVE.lock();
        if threads.capacity() < live.len() {
            let wanted = live.len() + 8;
            drop(live);
            if threads.try_reserve(wanted).is_err() {
                return threads;
            }
            continue;
        }
        threads.extend(live.iter().map(|thread| ThreadRef(Arc::clone(thread))));
        drop(live);
        threads.sort_by_key(|thread| thread.id);
        return threads;
    }
}

/// How many threads are alive.
pub fn count() -> usize {
    LIVE.lock().len()
}

/// Stacks in use, and stacks that exist.
pub fn stack_usage() -> (usize, usize) {
    stack_pool::usage()
}

/// The thread that has the thread stack `index`, for a panic: no lock.
///
/// # Safety
///
/// The thread must not end while the result is used: all CPUs stopped, or its stack in use.
pub unsafe fn by_stack(index: usize) -> Option<&'static Thread> {
    // Acquire pairs with the Release in `insert`.
    let address = BY_STACK.get(index)?.load(Ordering::Acquire);
    // SAFETY: a live thread's address, as the caller promises.
    unsafe { (address as *const Thread).as_ref() }
}
