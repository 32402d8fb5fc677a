//! Callbacks, and callbacks in a row.

use core::ptr::NonNull;

/// What is queued: part of the object that waits to be reclaimed.
///
/// While it is queued it belongs to the engine; it is the object's again when its function
/// is called with it.
#[derive(Debug)]
#[repr(C)]
pub struct Head {
    next: Option<NonNull<Head>>,
    run: Option<Function>,
    /// [`CLAIMED`] while it is queued: catches a second `call` of one head.
    #[cfg(debug_assertions)]
    claimed: core::sync::atomic::AtomicU32,
}

/// Unlikely to be found where there is no head.
#[cfg(debug_assertions)]
const CLAIMED: u32 = 0x7c1a_11ed;

/// What a callback does. Called once, after the grace period, with the head that was queued.
pub type Function = unsafe fn(NonNull<Head>);

impl Head {
    /// One that is not queued.
    pub const fn new() -> Self {
        Self {
            next: None,
            run: None,
            #[cfg(debug_assertions)]
            claimed: core::sync::atomic::AtomicU32::new(0),
        }
    }

    /// Writes what a queued head has in it.
    ///
    /// # Safety
    ///
    /// The head is valid, and nobody else's.
    #[inline(always)]
    pub(super) unsafe fn fill(head: NonNull<Self>, next: Option<NonNull<Self>>, run: Function) {
        // SAFETY: as the caller promises.
        unsafe {
            (&raw mut (*head.as_ptr()).next).write(next);
            (&raw mut (*head.as_ptr()).run).write(Some(run));
        }
    }

    /// Whether it is queued, for those who own it and so know that nobody queues it now.
    pub fn is_queued(&self) -> bool {
        self.run.is_some()
    }

    /// Takes it for who is about to queue it. `false`: it is queued, or two do that at a time.
    #[cfg(debug_assertions)]
    pub(crate) fn claim(&self) -> bool {
        // Relaxed: of two who queue it one is told; that is all.
        self.claimed
            .swap(CLAIMED, core::sync::atomic::Ordering::Relaxed)
            != CLAIMED
    }
}

impl Default for Head {
    fn default() -> Self {
        Self::new()
    }
}

/// Callbacks in a row. It does not own their memory: dropped, it forgets them.
#[derive(Debug)]
pub struct Queue {
    ends: Option<(NonNull<Head>, NonNull<Head>)>,
    len: usize,
}

// SAFETY: queued heads belong to the queue, wherever it goes; what their functions need of
// the thread that runs them is the promise of who queues them (`List::push`).
unsafe impl Send for Queue {}

impl Queue {
    /// An empty one.
    pub const fn new() -> Self {
        Self { ends: None, len: 0 }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    /// Puts a callback at the end.
    ///
    /// # Safety
    ///
    /// The head is valid, not queued, and the queue's until it is popped.
    pub(super) unsafe fn push(&mut self, head: NonNull<Head>, run: Function) {
        // SAFETY: the head is the queue's from now on.
        unsafe { Head::fill(head, None, run) };
        self.append(&mut Self {
            ends: Some((head, head)),
            len: 1,
        });
    }

    /// Puts a head that is filled in at the beginning. What it had as the next one.
    ///
    /// # Safety
    ///
    /// As for [`push`](Self::push), but for the filling.
    pub(super) unsafe fn push_front(&mut self, head: NonNull<Head>) -> Option<NonNull<Head>> {
        let last = self.ends.map_or(head, |(_, last)| last);
        let first = self.ends.map(|(first, _)| first);
        self.ends = Some((head, last));
        self.len += 1;
        // SAFETY: the head is the queue's from now on.
        unsafe { (&raw mut (*head.as_ptr()).next).replace(first) }
    }

    /// Moves all of `other` to the end.
    pub fn append(&mut self, other: &mut Self) {
        let Some((first, last)) = other.ends.take() else {
            return;
        };
        self.len += core::mem::take(&mut other.len);
        self.ends = Some(match self.ends {
            None => (first, last),
            Some((start, mut end)) => {
                // SAFETY: what is queued is valid and the queue's.
                unsafe { end.as_mut() }.next = Some(first);
                (start, last)
            }
        });
    }

    /// Takes the first callback: the head, which is the object's again, and what to call
    /// with it.
    pub fn pop(&mut self) -> Option<(NonNull<Head>, Function)> {
        let (first, last) = self.ends?;
        // SAFETY: what is queued is valid and the queue's; it is not any more.
        let Head { next, run, .. } = unsafe { first.replace(Head::new()) };
        self.ends = next.map(|next| (next, last));
        self.len -= 1;
        // Every head in a queue was given a function by `push`.
        run.map(|run| (first, run))
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}
