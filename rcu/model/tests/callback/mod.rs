//! Callbacks that say that they have been run.

use std::{ptr::NonNull, sync::Arc};

use platform::sync::Cell;
use rcu::Head;

use crate::world::World;

/// A callback, what it finds, and what it does.
#[repr(C)]
pub struct Callback {
    head: Head,
    filled: Cell<bool>,
    ran: Arc<Cell<bool>>,
}

impl Callback {
    /// Queues one, which sets `ran` when it is run.
    pub fn queue(world: &World, ran: &Arc<Cell<bool>>) {
        let callback = Box::new(Self {
            head: Head::new(),
            filled: Cell::new(false),
            ran: Arc::clone(ran),
        });
        // SAFETY: nobody has it yet; the model checks it.
        unsafe { *callback.filled.exclusive().get_mut() = true };
        // SAFETY: the head of a leaked object.
        unsafe {
            world
                .rcu
                .call(NonNull::from(Box::leak(callback)).cast(), Self::run);
        }
    }

    /// # Safety
    ///
    /// The head of a leaked callback.
    unsafe fn run(head: NonNull<Head>) {
        // SAFETY: as the caller promises.
        let this = unsafe { Box::from_raw(head.cast::<Self>().as_ptr()) };
        // SAFETY: it was filled in before it was queued; the model checks it.
        assert!(unsafe { *this.filled.shared().get() });
        // SAFETY: who looks at it comes later; the model checks it.
        unsafe { *this.ran.exclusive().get_mut() = true };
    }
}
