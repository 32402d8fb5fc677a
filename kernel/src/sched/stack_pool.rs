//! Stacks for threads: a fixed number of guarded slots, mapped when first needed and kept
//! for the next thread then.

use arrayvec::ArrayVec;

use crate::{
    arch::stacks::{self, Owner, Stack, THREADS},
    sync::{IrqLock, StackPool},
};

struct Pool {
    /// Mapped and unused.
    free: ArrayVec<u16, THREADS>,
    /// Slots from here on were never mapped.
    fresh: usize,
}

static POOL: IrqLock<Pool, StackPool> = IrqLock::new(Pool {
    free: ArrayVec::new_const(),
    fresh: 0,
});

/// Why there is no stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoStack {
    /// Every slot is in use.
    AllInUse,
    /// A slot is free, but there is no memory for it.
    OutOfMemory,
}

/// A stack that belongs to one thread. Dropping it gives it back: not while it is in use.
#[derive(Debug)]
pub struct ThreadStack {
    index: usize,
}

impl ThreadStack {
    /// Takes a stack. Task context.
    ///
    /// # Errors
    ///
    /// [`NoStack`].
    pub fn take() -> Result<Self, NoStack> {
        let index = {
            let mut pool = POOL.lock();
            if let Some(index) = pool.free.pop() {
                return Ok(Self {
                    index: usize::from(index),
                });
            }
            if pool.fresh == THREADS {
                return Err(NoStack::AllInUse);
            }
            pool.fresh += 1;
            pool.fresh - 1
        };
        // Mapped without the lock; the slot is ours by its number.
        match stacks::allocate_for_thread(index) {
            Ok(_) => Ok(Self { index }),
            Err(_) => {
                let mut pool = POOL.lock();
                // The slot can be tried again if no later one was begun meanwhile;
                // else it is lost, which a machine this full will not miss.
                if pool.fresh == index + 1 {
                    pool.fresh -= 1;
                }
                Err(NoStack::OutOfMemory)
            }
        }
    }

    /// Its number among the threads' stacks.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Where it is.
    pub fn memory(&self) -> Stack {
        stacks::of_owner(Owner::Thread(self.index))
    }
}

impl Drop for ThreadStack {
    fn drop(&mut self) {
        // Below THREADS, so it fits 16 bits, and no more than THREADS are ever free.
        let index = self.index as u16;
        POOL.lock().free.push(index);
    }
}

/// Stacks in use, and stacks that exist.
pub fn usage() -> (usize, usize) {
    let pool = POOL.lock();
    (pool.fresh - pool.free.len(), pool.fresh)
}
