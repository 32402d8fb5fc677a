//! Extended quiescent states: a word for each CPU, by which others see from afar that it is
//! idle and so reads nothing that RCU protects, or that it has been since they last looked.
//! An idle CPU need not be woken to end a grace period.
//!
//! The word counts; it is even while the CPU is in an extended quiescent state, odd while it
//! is *watching* (may be in a read-side section). Only its own CPU writes it.
//!
//! | state | left by | to |
//! |---|---|---|
//! | even: idle, or not started | [`idle_exit`](Eqs::idle_exit), by the idle loop | odd |
//! | | [`irq_enter`](Eqs::irq_enter) or [`nmi_enter`](Eqs::nmi_enter), which notes it | odd |
//! | odd: watching | [`idle_enter`](Eqs::idle_enter), by the idle loop | even |
//! | | [`irq_exit`](Eqs::irq_exit) or [`nmi_exit`](Eqs::nmi_exit) of the one that noted it | even |
//!
//! Nesting needs no count: each interrupt keeps in [`Entered`] whether it was it that made
//! the CPU watching; one that came while the CPU was watching does nothing at either end. So
//! an interrupt or NMI, as a whole, leaves the word as even or odd as it was, and one that
//! comes between the look at the word and its change takes nothing from what was seen.
//!
//! Ordering. Let an observer unpublish something, take a [`snapshot`](Eqs::snapshot), and
//! find `in_eqs`, or later [`passed_since`](Eqs::passed_since). Then
//!
//! - the CPU's accesses before that state are over: the change to even is a Release, the
//!   observer's load an Acquire;
//! - its accesses after that state see what was unpublished: the observer has a
//!   `fence(SeqCst)` between unpublishing and reading the word, the CPU has one between its
//!   change to odd and the accesses, and the observer read a value older than that change.
//!
//! The fences are fences in their own right: a sequentially consistent read-modify-write
//! would not order the accesses after it, on paper. An NMI that comes between the change to
//! odd and its fence finds the CPU watching and has a fence of its own. (On x86-64 a fence
//! costs one more locked instruction, and only NMIs and what ends an idle time have it.)

use crate::sync::{AtomicU64, Ordering, const_unless_model, fence};

/// Of the word: watching.
const WATCHING: u64 = 1;

/// The word of one CPU. Zeroed memory is a valid one, of a CPU that has not started.
#[derive(Debug)]
#[repr(transparent)]
pub struct Eqs(AtomicU64);

/// What [`Eqs::irq_enter`] or [`Eqs::nmi_enter`] found, for its opposite.
#[derive(Debug)]
#[must_use = "to be given to `irq_exit` or `nmi_exit`"]
pub struct Entered {
    /// This entry made the CPU watching.
    from_eqs: bool,
}

impl Entered {
    /// Whether the CPU was in an extended quiescent state, idle that is. Then the interrupt
    /// must return to where it came from, and not switch to another thread.
    pub fn from_eqs(&self) -> bool {
        self.from_eqs
    }
}

/// The word at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot(u64);

impl Snapshot {
    /// Whether the CPU was in an extended quiescent state. What that proves is said in the
    /// module's documentation.
    pub fn in_eqs(self) -> bool {
        self.0 & WATCHING == 0
    }
}

impl Eqs {
    const_unless_model! {
        /// That of a CPU that has not started: in an extended quiescent state.
        pub fn new() -> Self {
            Self(AtomicU64::new(0))
        }
    }

    /// The idle loop begins to wait: from here on nothing that RCU protects is read, but for
    /// interrupts. On the own CPU, preemption and interrupts off.
    pub fn idle_enter(&self) {
        self.begin();
    }

    /// The idle loop ends, or a CPU starts. On the own CPU, preemption and interrupts off.
    pub fn idle_exit(&self) {
        self.end(|| {});
    }

    /// An interrupt begins; first thing in its handler, before anything that RCU protects is
    /// read. Interrupts off.
    #[inline]
    pub fn irq_enter(&self) -> Entered {
        self.enter(|| {}, || {})
    }

    /// An interrupt ends; last thing in its handler. Interrupts off.
    #[inline]
    pub fn irq_exit(&self, entered: Entered) {
        if entered.from_eqs {
            self.begin();
        }
    }

    /// An NMI begins; first thing in its handler, before anything that RCU protects is read.
    #[inline]
    pub fn nmi_enter(&self) -> Entered {
        let entered = self.enter(|| {}, || {});
        if !entered.from_eqs {
            // SeqCst: what it interrupted may be on its way out of the state, past the
            // change and before the fence.
            fence(Ordering::SeqCst);
        }
        entered
    }

    /// An NMI ends; last thing in its handler.
    #[inline]
    pub fn nmi_exit(&self, entered: Entered) {
        self.irq_exit(entered);
    }

    /// Begins an extended quiescent state.
    fn begin(&self) {
        // Release: accesses made so far come before it.
        let was = self.0.fetch_add(1, Ordering::Release);
        debug_assert!(!Snapshot(was).in_eqs(), "the CPU was idle already");
    }

    /// Ends an extended quiescent state. An NMI may come where `changed` is called, and does
    /// in the model.
    #[inline]
    fn end(&self, changed: impl FnOnce()) {
        // Relaxed: what orders it is the fence, with the one in `snapshot`.
        let was = self.0.fetch_add(1, Ordering::Relaxed);
        debug_assert!(Snapshot(was).in_eqs(), "the CPU was not idle");
        changed();
        // SeqCst: whoever misses the change above in `snapshot` has what came before that
        // snapshot seen by the accesses after this.
        fence(Ordering::SeqCst);
    }

    /// Begins an interrupt. An NMI may come where `looked` and `changed` are called, and
    /// does in the model.
    #[inline]
    fn enter(&self, looked: impl FnOnce(), changed: impl FnOnce()) -> Entered {
        // Relaxed: only this CPU writes it.
        let from_eqs = Snapshot(self.0.load(Ordering::Relaxed)).in_eqs();
        looked();
        if from_eqs {
            self.end(changed);
        }
        Entered { from_eqs }
    }

    /// [`idle_exit`](Self::idle_exit) with an NMI between change and fence.
    #[cfg(model)]
    pub fn idle_exit_with_nmi(&self, nmi: impl FnOnce()) {
        self.end(nmi);
    }

    /// [`irq_enter`](Self::irq_enter) with NMIs between look and change, and between change
    /// and fence.
    #[cfg(model)]
    pub fn irq_enter_with_nmis(&self, looked: impl FnOnce(), changed: impl FnOnce()) -> Entered {
        self.enter(looked, changed)
    }

    /// Whether RCU may be read on this CPU: on the own CPU, for checks. Any context.
    pub fn is_watching(&self) -> bool {
        // Relaxed: only this CPU writes it.
        !Snapshot(self.0.load(Ordering::Relaxed)).in_eqs()
    }

    /// The word now, after everything that the caller did before. From any CPU, any context.
    pub fn snapshot(&self) -> Snapshot {
        // SeqCst: see `end`.
        fence(Ordering::SeqCst);
        // Acquire pairs with the Release in `begin`.
        Snapshot(self.0.load(Ordering::Acquire))
    }

    /// Whether the CPU was in an extended quiescent state at the snapshot or since. If so,
    /// its accesses before are over, and those after see what came before the snapshot. From
    /// any CPU, any context.
    pub fn passed_since(&self, snapshot: Snapshot) -> bool {
        // Acquire pairs with the Release in `begin`: any later value carries it on, for
        // only read-modify-writes of the one CPU follow.
        snapshot.in_eqs() || self.0.load(Ordering::Acquire) != snapshot.0
    }
}

impl Default for Eqs {
    fn default() -> Self {
        Self::new()
    }
}
