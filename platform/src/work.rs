//! Work queues: functions to be run soon, or later, by threads that stand ready.
//!
//! A [`Queue`] has one worker thread for each CPU, bound to it. A [`Work`] item is made once
//! and queued any number of times: on the CPU that asks or a chosen one, at once or after a
//! delay. Queueing, changing a delay and [`cancel`](Work::cancel) never allocate or sleep,
//! and are allowed in interrupts, not in NMI (where [`deferred`](crate::deferred) work can
//! queue them). The function runs in the worker, and may sleep; others of its CPU wait
//! meanwhile. While the CPU of a worker is offline the worker runs on others, if the machine
//! has its bound threads do so (the kernel does): its items run then, but elsewhere.
//!
//! # States of an item
//!
//! Each worker has a *pool*: a list of items that are ready, one of those that wait for
//! their time, and what runs. An item belongs to one pool at a time, its *home*; all of its
//! state is guarded by that pool's lock (class [`Pools`], level 60).
//!
//! | state | who moves it on |
//! |---|---|
//! | idle | who queues it: to pending, or delayed |
//! | delayed | its worker, when the time has come, or a flush: to pending; who changes the delay: delayed; cancel: to idle |
//! | pending | its worker, in the order of the list: to running; who changes the delay: to delayed; cancel: to idle |
//! | running | its worker, when the function returns: to idle; who queues it: to running + pending (or delayed) |
//! | running + pending (delayed) | its worker, when the function returns: to pending (delayed); cancel: to running |
//! | canceling, with any of idle and running | [`cancel_sync`](Work::cancel_sync) counts itself in and out; queueing is refused meanwhile |
//!
//! An item in a list has a reference of its own there, which goes to the worker that runs
//! it.
//!
//! *Never on two CPUs at once*: home changes only in state idle, with both pools' locks held
//! (taken in the order of the CPUs' numbers). Who queues an item for another CPU while it
//! runs queues it for the CPU that runs it. Whoever wants an item's lock reads the home,
//! takes that pool's lock, and looks whether it still is the home.
//!
//! *Which run is meant*: every accepted queueing of an item gets the item's next number, which
//! becomes the number of the run. A [`flush`](Work::flush) waits until neither what is
//! pending nor what runs has a number up to the one that was last when it came. Likewise
//! items get a number of the pool's when they become ready, in the order of the list; a flush
//! of a queue waits until all up to the last one have gone. Both end even if others go on
//! queueing.
//!
//! *Waiting for an item*: under the pool's lock the waiter finds that it must wait and sets a
//! mark (the item's `awaited`, the pool's `awaited`); the worker, or who cancels, takes the
//! mark under the same lock when something has changed, and wakes. The waiter is linked in the
//! wait queue before it looks, so it is found.
//!
//! *Waking a worker*: it sets `idle` under its pool's lock when it has found nothing to do;
//! who adds something it would not wake up for takes `idle` and unparks it, under the lock.
//!
//! # The end
//!
//! A queue that is dropped refuses what is queued from then on, in functions that still run
//! too, cancels what is delayed, and returns when all that was pending has run and the
//! workers are done. Items may live longer; they can no longer be queued.

mod item;
mod list;
mod pool;
mod queue;

pub use item::Work;
pub use queue::Queue;

crate::lock_class! {
    /// The lists of work, one lock for each queue and CPU.
    pub struct Pools = ("work pool", 60, nests);
}

/// What a [`Queue`] has done, summed over its CPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Times that an item was accepted.
    pub queued: u64,
    /// Times that one was run to its end.
    pub run: u64,
    /// Times that one was cancelled, or dropped with the queue. When nothing is pending,
    /// `queued` is `run` plus this.
    pub cancelled: u64,
    /// Times that one was refused, because it was being cancelled or the queue dropped.
    pub refused: u64,
    /// The longest run, in nanoseconds.
    pub longest_ns: u64,
}
