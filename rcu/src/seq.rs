//! Sequence numbers of grace periods.
//!
//! A [`Seq`] says how many grace periods have ended and whether one is running.
//! Its low two bits are the phase of the running one, the bits above count
//! those that have ended:
//!
//! | low bits | phase | next |
//! |---|---|---|
//! | 0 | idle: no grace period runs | [`start`](Seq::start): 1 |
//! | 1 | running, first phase | [`next_phase`](Seq::next_phase): 2, or [`end`](Seq::end) |
//! | 2 | running, second phase | `next_phase`: 3, or `end` |
//! | 3 | running, third phase | `end` |
//!
//! `end` adds one to the count and goes back to phase 0, so the number only
//! ever grows. What the phases mean is up to the owner: a grace period of tree
//! RCU uses the first alone, one of SRCU a phase for each of its scans.
//!
//! A [`Cookie`] is taken at some moment and names the number that will be
//! reached once every reader that was there at that moment has gone. While a
//! grace period runs, some of these readers may be newer than its start, so the
//! cookie waits for the *next* one to end:
//!
//! | number when taken | cookie |
//! |---|---|
//! | count n, idle | count n + 1 |
//! | count n, running | count n + 2 |
//!
//! # Wrapping
//!
//! Numbers wrap; which of two comes first is decided by the sign of their
//! difference, which is right as long as they are less than 2^63 apart. An owner
//! that reads the number without a lock may see an old one: for it, too, a
//! cookie is then "not done yet", never "done" by mistake. Debug builds start
//! 300 grace periods before the count wraps, so that every test run wraps.
//!
//! Only arithmetic lives here. Who may change the number under which lock, and
//! the memory ordering that makes a cookie mean something, is up to the owner.

use core::fmt;

/// The bits of the phase.
pub(crate) const PHASE_BITS: u32 = 2;
/// The mask of these bits.
const PHASE_MASK: u64 = (1 << PHASE_BITS) - 1;
/// What one grace period adds.
const ONE: u64 = 1 << PHASE_BITS;
/// How many grace periods before the wrap debug builds start.
const DEBUG_BEFORE_WRAP: u64 = 300;

/// Whether `a` comes before `b`, going the shorter way round.
const fn before(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) < 0
}

/// The number of grace periods that have ended, and the phase of one that runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Seq(u64);

impl Seq {
    /// Where counting starts: at 0, and in debug builds shortly before the wrap.
    pub const INITIAL: Seq = if cfg!(debug_assertions) {
        Seq((DEBUG_BEFORE_WRAP << PHASE_BITS).wrapping_neg())
    } else {
        Seq(0)
    };

    /// The number with these bits, as [`to_bits`](Self::to_bits) gave them.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The number as bits, to be kept in an atomic word.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The phase: 0 if no grace period runs, otherwise 1 to 3.
    pub const fn phase(self) -> u8 {
        (self.0 & PHASE_MASK) as u8
    }

    /// Whether a grace period runs.
    pub const fn is_running(self) -> bool {
        self.phase() != 0
    }

    /// How many grace periods have ended, modulo 2^62.
    pub const fn completed(self) -> u64 {
        self.0 >> PHASE_BITS
    }

    /// The number after a grace period has started.
    ///
    /// # Panics
    /// In debug builds if one is running.
    #[must_use]
    pub const fn start(self) -> Self {
        debug_assert!(!self.is_running(), "a grace period is running already");
        Self(self.0.wrapping_add(1))
    }

    /// The number after the running grace period has gone on to its next phase.
    ///
    /// # Panics
    /// In debug builds if none is running, or it is in its third phase.
    #[must_use]
    pub const fn next_phase(self) -> Self {
        debug_assert!(self.is_running(), "no grace period is running");
        debug_assert!(
            self.phase() < PHASE_MASK as u8,
            "the grace period has no further phase"
        );
        Self(self.0.wrapping_add(1))
    }

    /// The number after the running grace period has ended.
    ///
    /// # Panics
    /// In debug builds if none is running.
    #[must_use]
    pub const fn end(self) -> Self {
        debug_assert!(self.is_running(), "no grace period is running");
        Self((self.0 | PHASE_MASK).wrapping_add(1))
    }

    /// The number that must be reached before every reader of now has gone.
    #[must_use]
    pub const fn snap(self) -> Cookie {
        // One grace period from now on, or the rest of this and then one.
        Cookie(self.0.wrapping_add(ONE + PHASE_MASK) & !PHASE_MASK)
    }

    /// Whether this number was there before `other`; see the
    /// [module](self#wrapping) on wrapping.
    pub const fn is_before(self, other: Self) -> bool {
        before(self.0, other.0)
    }

    /// How many grace periods have ended from `earlier` up to this number.
    pub const fn completed_since(self, earlier: Self) -> u64 {
        self.completed().wrapping_sub(earlier.completed()) & (u64::MAX >> PHASE_BITS)
    }
}

impl Default for Seq {
    fn default() -> Self {
        Self::INITIAL
    }
}

impl fmt::Display for Seq {
    /// Writes count and phase: `41.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.completed(), self.phase())
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seq({self})")
    }
}

/// What to wait for: a moment's readers are gone once the number of grace
/// periods has come as far as the cookie.
///
/// ```
/// use rcu::seq::Seq;
/// let now = Seq::INITIAL.start();
/// let cookie = now.snap();
/// // The end of the running grace period is not enough.
/// let now = now.end();
/// assert!(!cookie.is_done(now) && !cookie.has_started(now));
/// let now = now.start();
/// assert!(!cookie.is_done(now) && cookie.has_started(now));
/// assert!(cookie.is_done(now.end()));
/// ```
///
/// # Invariants
/// The phase is 0, except in [`Cookie::COMPLETED`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Cookie(u64);

impl Cookie {
    /// A cookie that is done at any time: for those who need not wait.
    pub const COMPLETED: Cookie = Cookie(1);

    /// The cookie with these bits, as [`to_bits`](Self::to_bits) gave them.
    /// Bits that no cookie has make [`COMPLETED`](Self::COMPLETED).
    pub const fn from_bits(bits: u64) -> Self {
        if bits & PHASE_MASK == 0 {
            Self(bits)
        } else {
            Self::COMPLETED
        }
    }

    /// The cookie as bits.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Whether the wait is over, with the number at `now`. Once it is, it stays
    /// so for 2^61 grace periods.
    pub const fn is_done(self, now: Seq) -> bool {
        self.0 == Self::COMPLETED.0 || !before(now.0, self.0)
    }

    /// Whether the grace period that is waited for has at least started, with
    /// the number at `now`: no other needs to be asked for.
    pub const fn has_started(self, now: Seq) -> bool {
        // It starts when the number leaves the one before it.
        self.0 == Self::COMPLETED.0 || before(self.0.wrapping_sub(ONE), now.0)
    }

    /// The one of two cookies that takes longer: when it is done, so is the other.
    #[must_use]
    pub const fn later(self, other: Self) -> Self {
        if self.0 == Self::COMPLETED.0 {
            other
        } else if other.0 == Self::COMPLETED.0 || before(other.0, self.0) {
            self
        } else {
            other
        }
    }
}

impl fmt::Display for Cookie {
    /// Writes the count that is waited for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::COMPLETED {
            f.write_str("completed")
        } else {
            write!(f, "{}", self.0 >> PHASE_BITS)
        }
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cookie({self})")
    }
}
