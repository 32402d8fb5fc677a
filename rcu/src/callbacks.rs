//! A CPU's callbacks, in the order in which they were queued, cut into segments by what
//! they wait for.
//!
//! | segment | its callbacks wait for | they leave it by |
//! |---|---|---|
//! | *done* | nothing: they are ripe | [`take_done`](List::take_done), to be run |
//! | *wait* | the first grace period that has a name here | [`advance`](List::advance), when it has ended |
//! | *next ready* | a later one | `advance`: to *done*, or to *wait* when that is empty |
//! | *next* | they have no name for it yet | [`accelerate`](List::accelerate), which gives them one |
//!
//! Callbacks only move forward, and never pass each other. *wait* and *next ready* have a
//! [`Cookie`], and the first one's is never after the second one's.
//!
//! Nothing here is shared: the list belongs to whoever has its lock. What a cookie proves is
//! up to the owner.
//!
//! After the lists of P. E. McKenney's tree RCU in Linux (`kernel/rcu/rcu_segcblist.c`), by
//! their behaviour; here each segment is a queue of its own.

pub(crate) mod arrivals;
mod queue;

use core::{fmt, ptr::NonNull};

use crate::seq::{Cookie, Seq};

pub use queue::{Function, Head, Queue};

/// The segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Ripe.
    Done = 0,
    /// Waits for a grace period.
    Wait = 1,
    /// Waits for a later one.
    NextReady = 2,
    /// Waits for one that has no name yet.
    Next = 3,
}

/// How many segments there are.
pub const SEGMENTS: usize = 4;

impl Segment {
    /// All, in the order in which callbacks go through them.
    pub const ALL: [Self; SEGMENTS] = [Self::Done, Self::Wait, Self::NextReady, Self::Next];

    /// The name in listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Wait => "wait",
            Self::NextReady => "next ready",
            Self::Next => "next",
        }
    }
}

/// The list. See the module.
#[derive(Debug)]
pub struct List {
    segments: [Queue; SEGMENTS],
    /// What *wait* and *next ready* wait for; means nothing while they are empty.
    due: [Cookie; 2],
}

impl List {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            segments: [const { Queue::new() }; SEGMENTS],
            due: [Cookie::COMPLETED; 2],
        }
    }

    /// How many callbacks a segment has.
    pub const fn len_of(&self, segment: Segment) -> usize {
        self.segments[segment as usize].len()
    }

    /// How many callbacks there are.
    pub fn len(&self) -> usize {
        self.segments.iter().map(Queue::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.segments.iter().all(Queue::is_empty)
    }

    /// Whether there are callbacks that are ripe.
    pub const fn has_done(&self) -> bool {
        !self.segments[Segment::Done as usize].is_empty()
    }

    /// Whether there are callbacks that wait, with or without a name for what.
    pub fn has_waiting(&self) -> bool {
        self.segments[Segment::Wait as usize..]
            .iter()
            .any(|segment| !segment.is_empty())
    }

    /// What the callbacks of a segment wait for: *wait* or *next ready*, with any.
    pub fn due(&self, segment: Segment) -> Option<Cookie> {
        let place = match segment {
            Segment::Wait => 0,
            Segment::NextReady => 1,
            Segment::Done | Segment::Next => return None,
        };
        (self.len_of(segment) > 0).then_some(self.due[place])
    }

    /// Puts callbacks behind all others, in *next*.
    pub(crate) fn append(&mut self, queue: &mut Queue) {
        self.segments[Segment::Next as usize].append(queue);
    }

    /// Queues a callback behind all others, in *next*.
    ///
    /// # Safety
    ///
    /// The head is valid, not queued, and the engine's until `run` is called with it; `run`
    /// may be called by any thread.
    pub unsafe fn push(&mut self, head: NonNull<Head>, run: Function) {
        // SAFETY: as the caller promises.
        unsafe { self.segments[Segment::Next as usize].push(head, run) };
    }

    /// Queues a callback that will run after all that are queued now, and not wait for
    /// anything that they do not wait for: a barrier's. `false`: there are none, and it was
    /// not queued.
    ///
    /// # Safety
    ///
    /// As for [`push`](Self::push).
    #[must_use]
    pub unsafe fn entrain(&mut self, head: NonNull<Head>, run: Function) -> bool {
        let Some(last) = self.segments.iter_mut().rev().find(|list| !list.is_empty()) else {
            return false;
        };
        // SAFETY: as the caller promises.
        unsafe { last.push(head, run) };
        true
    }

    /// Queues a callback that is ripe, behind all that are.
    ///
    /// # Safety
    ///
    /// As for [`push`](Self::push).
    pub unsafe fn push_done(&mut self, head: NonNull<Head>, run: Function) {
        // SAFETY: as the caller promises.
        unsafe { self.segments[Segment::Done as usize].push(head, run) };
    }

    /// A fault: takes the callbacks that wait as ripe.
    #[cfg(debug_assertions)]
    pub(crate) fn ripen_too_early(&mut self) {
        let [done, wait, ..] = &mut self.segments;
        done.append(wait);
        // What is due after it is due first now.
        let [_, wait, next_ready, _] = &mut self.segments;
        wait.append(next_ready);
        self.due[0] = self.due[1];
    }

    /// A fault: forgets a callback.
    #[cfg(debug_assertions)]
    pub(crate) fn drop_one(&mut self) {
        let full = self.segments.iter_mut().find(|segment| !segment.is_empty());
        let _forgotten = full.and_then(Queue::pop);
    }

    /// Makes ripe what has waited long enough, with the number of grace periods at `now`.
    /// Whether there is anything ripe.
    pub fn advance(&mut self, now: Seq) -> bool {
        let [done, wait, next_ready, _] = &mut self.segments;
        if wait.is_empty() || self.due[0].is_done(now) {
            done.append(wait);
            // Of two cookies the second is done only if the first one is.
            if self.due[1].is_done(now) {
                done.append(next_ready);
            } else {
                wait.append(next_ready);
                self.due[0] = self.due[1];
            }
        }
        !done.is_empty()
    }

    /// Gives the callbacks of *next* a name for what they wait for: `cookie`, taken after
    /// the last of them was queued. Callbacks that wait for as long already, or longer, get
    /// the new name with them. Whether there is something that waits for `cookie` now (then
    /// that grace period is needed).
    ///
    /// With both named segments taken by earlier grace periods, *next* goes on waiting for a
    /// place; `false` then, and `accelerate` is to be called again after `advance`.
    pub fn accelerate(&mut self, cookie: Cookie) -> bool {
        let earlier = |place: usize, segment: Segment| {
            !self.segments[segment as usize].is_empty()
                && self.due[place] != cookie
                && self.due[place].later(cookie) == cookie
        };
        // The first place behind all that waits for less.
        let place = if earlier(1, Segment::NextReady) {
            return false;
        } else if earlier(0, Segment::Wait) {
            1
        } else {
            0
        };
        let [_, wait, next_ready, next] = &mut self.segments;
        if place == 0 {
            wait.append(next_ready);
            wait.append(next);
        } else {
            next_ready.append(next);
        }
        self.due[place] = cookie;
        !self.segments[place + 1].is_empty()
    }

    /// Takes all that is ripe.
    #[must_use]
    pub fn take_done(&mut self) -> Queue {
        core::mem::take(&mut self.segments[Segment::Done as usize])
    }

    /// Takes over all callbacks of a CPU that goes, behind the own ones. Ripe ones stay
    /// ripe; the others wait anew, since what their names prove was proven for another CPU's
    /// list.
    pub fn adopt(&mut self, other: &mut Self) {
        let [done, rest @ ..] = &mut other.segments;
        self.segments[Segment::Done as usize].append(done);
        for segment in rest {
            self.segments[Segment::Next as usize].append(segment);
        }
    }
}

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for List {
    /// Writes the lengths of the segments and what they wait for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in Segment::ALL {
            if segment != Segment::Done {
                f.write_str(" ")?;
            }
            write!(f, "{}:{}", segment.name(), self.len_of(segment))?;
            if let Some(due) = self.due(segment) {
                write!(f, "({due})")?;
            }
        }
        Ok(())
    }
}
