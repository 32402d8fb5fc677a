//! The run-time checker of lock order: it learns from every lock taken in which order the
//! classes of locks nest, and reports the first use that contradicts what it learned, even
//! if nothing hung this time.
//!
//! A [`Checker`] belongs to a machine, a [`Held`] to each of its threads. Locks tell
//! [`Platform::lock_acquire`](crate::Platform::lock_acquire) and its like, and the machine
//! forwards to [`Checker::acquire`], [`Checker::release`], [`Checker::might_sleep`],
//! [`Checker::check_empty`] with the running thread's `Held`, with what runs ([`Now`]), and
//! with a function that is handed each [`Report`].
//!
//! # When to tell
//!
//! - *Acquire* comes before the wait for the lock, so that a deadlock is reported before it
//!   is entered; for a lock that turns interrupts or preemption off, after that. A try tells
//!   once it has the lock.
//! - *Release* comes before the lock is free and before interrupts come back on.
//! - A sleeping lock need not tell `might_sleep` as well; `acquire` looks.
//!
//! # What is checked
//!
//! | finding | rule |
//! |---|---|
//! | [`Kind::Level`] | the level of classes grows; it may stay the same only if the class taken `nests` |
//! | [`Kind::AbBa`], [`Kind::Cycle`] | "taken while holding" has no cycle, over all threads and all time |
//! | [`Kind::Recursion`] | a thread does not wait for a lock that it holds |
//! | [`Kind::SameClass`] | of one class, several only if it `nests` and the nesting number grows |
//! | [`Kind::IrqUsage`] | a class taken in interrupts is never held with these interrupts on |
//! | [`Kind::IrqDependency`] | nor is any class that is taken under it, however indirectly |
//! | [`Kind::SleepUnderLock`], [`Kind::SleepInAtomic`] | who sleeps holds no spinning or local lock, is a thread, has preemption and interrupts on |
//! | [`Kind::SleepingLockInInterrupt`], [`Kind::WaitInNmi`] | interrupts wait for no sleeping lock, NMIs for no lock |
//! | [`Kind::ReleasedElsewhere`], [`Kind::NotHeld`] | a lock is released by who took it, a spinning or local one on the same CPU in the same context |
//! | [`Kind::StillHeld`] | nothing is held when a thread or a handler ends |
//! | [`Kind::TooManyHeld`], [`Kind::TooManyClasses`] | the checker's own bounds: beyond them it sees less |
//!
//! A try-lock does not wait, so its acquisition makes no order (and no use in interrupts);
//! once held it counts like any other. What an interrupt takes is not ordered after what
//! the interrupted code holds: that would forbid too much. It marks the class as taken in
//! interrupts instead, which forbids what can deadlock.
//!
//! Every finding is reported once for a pair of classes or a place in the source, so that a
//! loop with a fault in it does not flood the log; after 256 findings the rest are counted
//! only.
//!
//! # Protocol
//!
//! No locks, no allocation, no waiting: everything may be called in any context that takes
//! locks, NMIs that interrupt the checker included.
//!
//! *Order* is a bit matrix over class numbers. Who meets a new edge sets its bit, passes a
//! full fence, and only then searches a path back. Of several CPUs whose edges close a cycle
//! together, the one whose fence comes last sees all of them, so at least one reports.
//! Uses in and out of interrupts are bits that are set in the same manner before the same
//! search. An edge or a use that a finding was made of is taken out of the search again, so
//! that one fault is not reported once more for every class around it. A second matrix says
//! which edges were looked at; the common path is one load of it for each lock held.
//!
//! *Held locks* are slots and a word of bits saying which are taken. Only the thread and
//! the interrupts on top of it write. An interrupt releases what it takes, so it leaves the
//! word as it found it, and the thread may read, change and write the word in three steps.
//! A slot is reserved before it is filled, and its class is written last and removed first,
//! so what an interrupt sees is either a whole entry or none.
//!
//! *Places* (where an edge or a use was first seen) are noted before the bit that leads to
//! them. They are for people; a place that was not noted, because the table is full or the
//! CPU that notes it was interrupted, is shown as unknown.
//!
//! # What it cannot see
//!
//! - Orders that never ran; locks that do not tell; what happened while a class had no
//!   number or a lock no slot (both reported).
//! - Waiting that is not for a lock: a completion, a thread's end, a function call to other
//!   CPUs. Only `might_sleep` watches these.
//! - Which of two locks of a class is meant: AB-BA within a class is seen by its nesting
//!   numbers alone. Two classes of the same name are two classes.
//! - Readers that may share: [`LockKind::SleepShared`](crate::LockKind) counts as exclusive,
//!   because a writer may wait in between.
//! - Interrupts that come on while a lock is held are noticed at the next acquisition or at
//!   the release, not at once.
//! - Semaphores, which others than the taker may release, must not tell.

mod checker;
mod classes;
mod entry;
mod finding;
mod graph;
mod held;
mod irq;
mod now;
mod once;
mod report;
mod show;
mod sites;
mod usage;

pub use checker::{Checker, Statistics};
pub use classes::{ClassId, MAX_CLASSES};
pub use entry::HeldLock;
pub use finding::{Finding, Kind};
pub use graph::{Graph, Path};
pub use held::{Held, MAX_HELD};
pub use now::Now;
pub use report::Report;
pub use usage::{Irq, Use};
