//! Waiting, and asking whether one would have to: `synchronize_rcu` and the polled API.
//!
//! A cookie names a grace period that begins after it was taken. There is one for normal
//! grace periods, one for expedited ones, and one that is ripe as soon as either of the two
//! is. Each can be taken without asking for the grace period (`snap`), or with that
//! (`start_poll`); then looked at (`poll`), any number of times; `cond_synchronize` waits if
//! it has to. Who finds a cookie ripe sees what all sections did that were there when it was
//! taken.

use core::ptr::NonNull;

use platform::{
    IrqsOff,
    sync::{Ordering, fence},
};

use crate::{
    Machine, Rcu, Seq,
    seq::{Cookie, PHASE_BITS},
    tree::Request,
    waiters::Waiter,
};

/// A [`Cookie`] of expedited grace periods, which have numbers of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpCookie(Cookie);

/// A cookie that is ripe when either of two is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullCookie {
    /// The normal one.
    pub normal: Cookie,
    /// The expedited one.
    pub expedited: ExpCookie,
}

impl ExpCookie {
    /// One that is ripe at any time.
    pub const COMPLETED: Self = Self(Cookie::COMPLETED);
}

impl FullCookie {
    /// One that is ripe at any time.
    pub const COMPLETED: Self = Self {
        normal: Cookie::COMPLETED,
        expedited: ExpCookie::COMPLETED,
    };
}

/// A [`FullCookie`] in one word, for who keeps many of them: of each number the lower half.
///
/// The halves wrap, and are compared the shorter way round, so one that is kept for more than
/// 2^29 grace periods of a kind may be taken for one that is not ripe by that kind; never for one
/// that is. The two lowest bits are 0, as in any cookie, so that a word with one of them set
/// can mean something else to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct PackedCookie(u64);

impl FullCookie {
    /// The cookie in one word.
    pub const fn pack(self) -> PackedCookie {
        let low = self.normal.to_bits() & 0xffff_ffff;
        PackedCookie(self.expedited.0.to_bits() << 32 | low)
    }
}

impl PackedCookie {
    /// The word.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The cookie of a word that [`to_bits`](Self::to_bits) gave.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether either number has been reached.
    const fn is_done(self, normal: u64, expedited: u64) -> bool {
        const fn reached(now: u64, half: u64) -> bool {
            (now as u32).wrapping_sub(half as u32) as i32 >= 0
        }
        reached(normal, self.0) || reached(expedited, self.0 >> 32)
    }

    /// How many grace periods of either kind, normal and expedited, will have ended when that kind makes
    /// it ripe, of those from `first` on; as far as halves tell, so modulo 2^30.
    const fn numbers(self, first: Seq) -> [u32; 2] {
        [
            ended(self.0 as u32, first),
            ended((self.0 >> 32) as u32, first),
        ]
    }
}

/// How many grace periods have ended between a number and the lower half of a later one.
const fn ended(half: u32, first: Seq) -> u32 {
    half.wrapping_sub(first.to_bits() as u32) >> PHASE_BITS
}

impl<M: Machine> Rcu<M> {
    #[track_caller]
    pub(crate) fn assert_may_wait(&self) {
        debug_assert!(
            M::reader_depth() == 0 && (M::may_sleep() || self.running_threads() == 0),
            "waits for a grace period in a section, or where it may not sleep"
        );
    }

    /// Waits until all sections of now are over: `synchronize_rcu`. Callbacks that were
    /// queued before may still have to be run. Task context, may sleep, not in a section.
    #[track_caller]
    pub fn synchronize(&self) {
        self.assert_may_wait();
        let waiter = Waiter::new();
        // SAFETY: it stays until it is done, which this waits for.
        unsafe { self.waiters.push(NonNull::from(&waiter)) };
        self.help();
        waiter.done.wait();
    }

    /// What to wait for so that all sections of now are over; asks for nothing:
    /// `get_state_synchronize_rcu`. Any context.
    pub fn snap(&self) -> Cookie {
        self.tree.snap()
    }

    /// [`snap`](Self::snap), and asks for that grace period: `start_poll_synchronize_rcu`.
    /// Any context but NMI.
    pub fn start_poll(&self) -> Cookie {
        let cookie = self.tree.snap();
        let here = IrqsOff::<M>::disable();
        if self.tree.request(here.cpu().index(), cookie) == Request::Wake {
            self.wake_near(self.here(here.as_preempt()));
        }
        cookie
    }

    /// Whether the cookie is ripe: `poll_state_synchronize_rcu`. Any context.
    pub fn poll(&self, cookie: Cookie) -> bool {
        let ripe = cookie.is_done(self.tree.seq());
        if ripe {
            // SeqCst: also a reader that begins after this, elsewhere, and is seen by who
            // takes another cookie, comes after the grace period.
            fence(Ordering::SeqCst);
        }
        ripe
    }

    /// Waits until the cookie is ripe: `cond_synchronize_rcu`. Task context, may sleep, not
    /// in a section.
    #[track_caller]
    pub fn cond_synchronize(&self, cookie: Cookie) {
        if !self.poll(cookie) {
            self.synchronize();
        }
    }

    /// [`snap`](Self::snap) for expedited grace periods. Any context.
    pub fn snap_expedited(&self) -> ExpCookie {
        ExpCookie(self.expedited.snap())
    }

    /// [`snap_expedited`](Self::snap_expedited), and asks for that grace period; the
    /// engine's thread makes it. Any context but NMI.
    pub fn start_poll_expedited(&self) -> ExpCookie {
        let cookie = self.expedited.snap();
        self.expedited.ask(cookie);
        ExpCookie(cookie)
    }

    /// Whether the cookie is ripe. Any context.
    pub fn poll_expedited(&self, cookie: ExpCookie) -> bool {
        let ripe = cookie.0.is_done(self.expedited.seq());
        if ripe {
            // SeqCst: as in `poll`.
            fence(Ordering::SeqCst);
        }
        ripe
    }

    /// Waits until the cookie is ripe, by an expedited grace period. Task context, may
    /// sleep, not in a section.
    #[track_caller]
    pub fn cond_synchronize_expedited(&self, cookie: ExpCookie) {
        self.assert_may_wait();
        if !self.poll_expedited(cookie) {
            self.expedite(cookie.0);
        }
    }

    /// [`snap`](Self::snap) for grace periods of either kind. Any context.
    pub fn snap_full(&self) -> FullCookie {
        FullCookie {
            normal: self.snap(),
            expedited: self.snap_expedited(),
        }
    }

    /// [`snap_full`](Self::snap_full), and asks for the normal grace period. Any context but
    /// NMI.
    pub fn start_poll_full(&self) -> FullCookie {
        FullCookie {
            expedited: self.snap_expedited(),
            normal: self.start_poll(),
        }
    }

    /// Whether one of the two is ripe. Any context.
    pub fn poll_full(&self, cookie: FullCookie) -> bool {
        self.poll(cookie.normal) || self.poll_expedited(cookie.expedited)
    }

    /// [`poll_full`](Self::poll_full) for a cookie in one word. Any context.
    pub fn poll_packed(&self, cookie: PackedCookie) -> bool {
        let normal = self.tree.seq().to_bits();
        let ripe = cookie.is_done(normal, self.expedited.seq().to_bits());
        if ripe {
            // SeqCst: as in `poll`.
            fence(Ordering::SeqCst);
        }
        ripe
    }

    /// How many grace periods have ended since the engine began, normal and expedited ones, modulo 2^30: what
    /// [`numbers_of`](Self::numbers_of) gives can be compared with it. Any context.
    pub fn numbers(&self) -> [u32; 2] {
        let now = [self.tree.seq(), self.expedited.seq()];
        now.map(|seq| ended(seq.to_bits() as u32, self.tree.first))
    }

    /// A cookie in one word for people: how many normal, or else expedited, grace periods it waits for, in all since the engine
    /// began. Any context.
    pub fn numbers_of(&self, cookie: PackedCookie) -> [u32; 2] {
        cookie.numbers(self.tree.first)
    }

    /// Waits until one of the two is ripe. Task context, may sleep, not in a section.
    #[track_caller]
    pub fn cond_synchronize_full(&self, cookie: FullCookie) {
        if !self.poll_full(cookie) {
            self.synchronize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(normal: u64, expedited: u64) -> PackedCookie {
        let cookie = |bits| Seq::from_bits(bits).snap();
        FullCookie {
            normal: cookie(normal),
            expedited: ExpCookie(cookie(expedited)),
        }
        .pack()
    }

    #[test]
    fn a_packed_cookie_is_done_by_either_number() {
        let cookie = packed(8, 40);
        assert!(!cookie.is_done(8, 40));
        assert!(!cookie.is_done(11, 43));
        assert!(cookie.is_done(12, 40));
        assert!(cookie.is_done(8, 44));
    }

    #[test]
    fn numbers_count_from_the_first() {
        let first = Seq::from_bits(8u64.wrapping_neg());
        let cookie = |normal: u64, expedited: u64| {
            packed(
                first.to_bits().wrapping_add(normal << 2),
                first.to_bits().wrapping_add(expedited << 2),
            )
        };
        assert_eq!(cookie(0, 0).numbers(first), [1, 1]);
        // Where the number wraps, nothing changes.
        assert_eq!(cookie(1, 6).numbers(first), [2, 7]);
        assert_eq!(ended(first.start().to_bits() as u32, first), 0);
    }

    #[test]
    fn halves_wrap() {
        let last = u64::from(u32::MAX) - 3;
        let cookie = packed(last, last);
        assert!(!cookie.is_done(last, last));
        assert!(cookie.is_done(last + 4, last));
        assert!(cookie.is_done(last, last + 8));
        // Of numbers that are too far ahead it says that they are not reached.
        assert!(!cookie.is_done(last + (1 << 31) + 8, last));
    }
}
