//! Objects that somebody has taken to free them, and that do not rest yet.
//!
//! Who takes objects off a [lane](super::lane) counts them here, under that lane's lock, before
//! the lane stops counting them; and takes them off again when they rest, as its last access. So whoever
//! finds, in this order, nothing on the lanes and nothing here knows that all of what was
//! queued before rests.
//!
//! Others may go on taking while somebody waits. So there are two counts, and a *phase* that
//! says in which of them who takes now counts:
//!
//! | arrow | the phase's count | the other count | who |
//! |---|---|---|---|
//! | `hands.take` | grows | | who takes, under a lane's lock |
//! | `hands.rest` | shrinks, or the other one does: that in which it was counted | shrinks | who took |
//! | `hands.flip` | becomes the other one | becomes the phase's | a barrier, one at a time, when what it waits for is off the lanes |
//! | `hands.wait` | | the barrier waits until it is 0 | the same, after it has had every lane's lock once |
//!
//! What a barrier waits for was taken before the flip, by itself or by others, so it is in the old count. (A barrier that flips
//! first misses what others take between the flip and its own look at the lane.) After the barrier had a lane's lock, all who
//! take there count in the new phase: the lock orders the flip before their look at the phase. So the old count only
//! shrinks, and reaches 0 however much is taken meanwhile. It was 0 when its phase began, as the barrier before
//! waited for that.
//!
//! A count has a bit that says that somebody waits: whoever takes it to 0 learns by the very
//! same exchange whether to wake, and needs nothing of the structure afterwards. It may be
//! gone by then, with its cache.

use platform::{
    Platform,
    sync::{AtomicU32, AtomicU64, Ordering},
    wait::WaitQueue,
};

/// Set while somebody waits for a count to be 0.
const AWAITED: u64 = 1;
/// One object.
const ONE: u64 = 2;

/// The counts. See the module.
#[derive(Debug)]
pub struct Hands {
    phase: AtomicU32,
    counts: [AtomicU64; 2],
}

/// In which of the two counts something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(bool);

impl Hands {
    /// Nothing was taken.
    pub fn new() -> Self {
        Self {
            phase: AtomicU32::new(0),
            counts: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    fn count(&self, ticket: Ticket) -> &AtomicU64 {
        &self.counts[usize::from(ticket.0)]
    }

    /// Counts objects that are taken off a lane. With that lane's lock, before the lane stops
    /// counting them.
    pub fn take(&self, objects: u64) -> Ticket {
        // Relaxed: the lane's lock orders it after a flip that has to be seen.
        let ticket = Ticket(self.phase.load(Ordering::Relaxed) != 0);
        // Relaxed: who has to see it looks at the lane first, whose count is changed after
        // this with Release.
        self.count(ticket)
            .fetch_add(objects * ONE, Ordering::Relaxed);
        ticket
    }

    /// Objects rest that were taken with `ticket`. The last access: whoever waits for them may free this. `true`: somebody
    /// waits, and nothing is left of that count, so that the queue is to be woken. Any context.
    #[must_use = "somebody may be waiting"]
    pub fn rest(&self, ticket: Ticket, objects: u64) -> bool {
        let all = objects * ONE;
        // Release: who reads 0 (Acquire) sees them at rest; read-modify-writes between carry it on.
        let was = self.count(ticket).fetch_sub(all, Ordering::Release);
        debug_assert!(was >= all, "what rests was taken before");
        was == all | AWAITED
    }

    /// Whether something was taken and does not rest, of any phase. Whoever gets `false` sees
    /// what was done to what rests.
    pub fn any(&self) -> bool {
        // Acquire pairs with the Release in `rest`.
        let is_some = |count: &AtomicU64| count.load(Ordering::Acquire) >= ONE;
        self.counts.iter().any(is_some)
    }

    /// How many were taken and do not rest, about. Any context.
    pub fn count_all(&self) -> u64 {
        let objects = |count: &AtomicU64| count.load(Ordering::Relaxed) / ONE;
        self.counts.iter().map(objects).sum()
    }

    /// Begins another phase: the ticket of the one that has ended. By one at a time, which
    /// [waits](Self::wait) for that one before the next.
    pub fn flip(&self) -> Ticket {
        // Relaxed: the lanes' locks publish it.
        let old = self.phase.fetch_xor(1, Ordering::Relaxed);
        Ticket(old != 0)
    }

    /// Waits until what was taken with a ticket rests; `queue` is what those wake who find that somebody waits. Nobody takes
    /// with that ticket any more, but for who knows that the wait will end. May sleep.
    pub fn wait<P: Platform>(&self, ticket: Ticket, queue: &WaitQueue<P>) {
        let count = self.count(ticket);
        let is_zero = || count.load(Ordering::Acquire) < ONE;
        if is_zero() {
            return;
        }
        // Relaxed: of the two changes of this word, this and the last `rest`, one comes first.
        // This: `rest` sees the bit. `rest`: the queue finds 0 when it looks.
        count.fetch_or(AWAITED, Ordering::Relaxed);
        queue.wait_until(is_zero);
        count.fetch_and(!AWAITED, Ordering::Relaxed);
    }

    /// [`wait`](Self::wait) for both, for who knows that nobody takes any more.
    pub fn wait_all<P: Platform>(&self, queue: &WaitQueue<P>) {
        for ticket in [Ticket(false), Ticket(true)] {
            self.wait(ticket, queue);
        }
    }
}

impl Default for Hands {
    fn default() -> Self {
        Self::new()
    }
}
