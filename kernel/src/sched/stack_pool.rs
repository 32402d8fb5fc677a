//! Stacks for threads: vmalloc areas, of which a few are kept for the next threads.

use arrayvec::ArrayVec;
use platform::MAX_CPUS;

use crate::{
    arch::stacks::{Stack, THREAD_REQUEST},
    memory::vmalloc::{Area, vmalloc},
    smp,
    sync::{IrqLock, StackPool},
};

/// Stacks that are kept, for each CPU, as in Linux.
const KEPT: usize = 2;

struct Pool {
    /// Mapped and unused.
    free: ArrayVec<Area, { MAX_CPUS * KEPT }>,
    in_use: usize,
}

static POOL: IrqLock<Pool, StackPool> = IrqLock::new(Pool {
    free: ArrayVec::new_const(),
    in_use: 0,
});

/// A stack that belongs to one thread. Dropping it gives it back: not while it is in use. Any
/// context but NMI.
#[derive(Debug)]
pub struct ThreadStack {
    /// There until the drop.
    area: Option<Area>,
}

impl ThreadStack {
    /// Takes a stack. Task context, may sleep. `None`: no memory.
    pub fn take() -> Option<Self> {
        let kept = POOL.lock().free.pop();
        let area = match kept {
            Some(area) => area,
            None => vmalloc().alloc(&THREAD_REQUEST).ok()?,
        };
        POOL.lock().in_use += 1;
        Some(Self { area: Some(area) })
    }

    /// Where it is.
    pub fn memory(&self) -> Stack {
        let memory = self.area.as_ref().map_or(0..0, Area::memory);
        Stack {
            bottom: memory.start as u64,
            top: memory.end as u64,
        }
    }
}

impl Drop for ThreadStack {
    fn drop(&mut self) {
        let mut pool = POOL.lock();
        pool.in_use -= 1;
        if pool.free.len() < smp::online().count() * KEPT
            && let Some(area) = self.area.take()
        {
            pool.free.push(area);
        }
        // What is left is dropped without the lock: the area goes to who may sleep.
    }
}

/// Frees the stacks that are kept. Task context, may sleep.
pub fn free_unused() {
    let free = core::mem::take(&mut POOL.lock().free);
    drop(free);
}

/// Stacks in use, and stacks that exist.
pub fn usage() -> (usize, usize) {
    let pool = POOL.lock();
    (pool.in_use, pool.in_use + pool.free.len())
}
