//! All threads that are alive.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU32, Ordering};

use platform::SpawnError;

use super::{
    stack_pool,
    thread::{Thread, ThreadRef},
};
use crate::{
    arch::stacks,
    sync::{IrqLock, ThreadTable},
};

/// Most threads that are alive at a time: their descriptors come from the boot heap.
pub const MAX_THREADS: usize = 2048;

/// Live threads, by no order. Grown outside the lock.
static LIVE: IrqLock<Vec<Arc<Thread>>, ThreadTable> = IrqLock::new(Vec::new());
static NEXT_ID: AtomicU32 = AtomicU32::new(0);

/// A new thread's number.
pub(super) fn next_id() -> u32 {
    // Relaxed: numbers need only differ.
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// Makes a thread alive: from here on the table holds it. Task context.
pub(super) fn insert(thread: &Arc<Thread>) -> Result<(), SpawnError> {
    let mut spare = Vec::new();
    loop {
        let mut live = LIVE.lock();
        if live.len() >= MAX_THREADS {
            return Err(SpawnError::TooManyThreads);
        }
        if live.len() == live.capacity() {
            let wanted = live.capacity() * 2 + 16;
            if spare.capacity() < wanted {
                drop(live);
                // Not under the lock, which interrupts are off for.
                spare
                    .try_reserve_exact(wanted)
                    .map_err(|_| SpawnError::OutOfMemory)?;
                continue;
            }
            spare.append(&mut live);
            core::mem::swap(&mut *live, &mut spare);
        }
        live.push(Arc::clone(thread));
        break;
    }
    if let Some(stack) = thread.own_stack {
        stacks::set_thread(stack, Arc::as_ptr(thread) as usize);
    }
    Ok(())
}

/// The thread is dead. The caller gets the table's reference, to be dropped when nothing
/// points to the thread any more.
pub(super) fn remove(thread: &Thread) -> Arc<Thread> {
    if let Some(stack) = thread.own_stack {
        stacks::set_thread(stack, 0);
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

/// Calls `f` with the thread of that number, if it is alive. Task and interrupt context; under
/// the table's lock.
pub fn with<R>(id: u32, f: impl FnOnce(&Thread) -> R) -> Option<R> {
    let live = LIVE.lock();
    let thread = live.iter().find(|thread| thread.id == id)?;
    Some(f(thread))
}

/// How many threads are alive.
pub fn count() -> usize {
    LIVE.lock().len()
}

/// Stacks in use, and stacks that exist.
pub fn stack_usage() -> (usize, usize) {
    stack_pool::usage()
}

/// Calls `each` with every thread that has a stack of its own, for a panic: no waiting.
/// Whether the table could be read.
///
/// # Safety
///
/// No thread may end meanwhile: all other CPUs are stopped.
pub unsafe fn for_each_now(mut each: impl FnMut(&Thread)) -> bool {
    let Some(live) = LIVE.try_lock() else {
        return false;
    };
    let own = live.iter().filter(|thread| thread.own_stack.is_some());
    own.for_each(|thread| each(thread));
    true
}

/// The thread that a stack's owner names ([`stacks::Owner::Thread`]): no lock.
///
/// # Safety
///
/// The address is from there, and the thread does not end while the result is used: all CPUs
/// stopped, or its stack in use.
pub unsafe fn by_address(address: usize) -> Option<&'static Thread> {
    // SAFETY: a live thread's address, as the caller promises.
    unsafe { (address as *const Thread).as_ref() }
}
