//! Updaters: those that replace the current element and wait in every way there is before
//! the old one grows older, and those that only make grace periods go on.

use alloc::vec::Vec;
use core::{ptr::NonNull, sync::atomic::Ordering};

use super::{Ground, Torture, element::ELEMENTS, random::Random, tally::Wrong, threads::Seat};
use crate::{Cookie, Head, Machine};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

/// How an updater waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Way {
    /// A callback that queues itself again until the element is free.
    Call,
    /// `synchronize`.
    Synchronize,
    /// `synchronize_expedited`.
    Expedited,
    /// `start_poll`, then `poll` now and then.
    Poll,
    /// The same, expedited.
    PollExpedited,
    /// The same, whichever comes first.
    PollFull,
    /// `snap`, and later `cond_synchronize`.
    Cond,
    /// The same, expedited.
    CondExpedited,
    /// The same, whichever comes first.
    CondFull,
}

impl Way {
    /// How many there are.
    pub const COUNT: usize = 9;
    /// All, with their names in the summary.
    pub const ALL: [(Self, &'static str); Self::COUNT] = [
        (Self::Call, "call"),
        (Self::Synchronize, "sync"),
        (Self::Expedited, "exp"),
        (Self::Poll, "poll"),
        (Self::PollExpedited, "poll-exp"),
        (Self::PollFull, "poll-full"),
        (Self::Cond, "cond"),
        (Self::CondExpedited, "cond-exp"),
        (Self::CondFull, "cond-full"),
    ];

    fn draw(random: &mut Random) -> Self {
        Self::ALL[random.below(Self::COUNT as u64) as usize].0
    }
}

impl<M: Machine, G: Ground<M>> Torture<M, G> {
    /// A thread that replaces the current element.
    pub(super) fn writer(&self, seat: &Seat, random: &mut Random) {
        // Retired by this thread, and waited for by it.
        let mut retired = Vec::new();
        if retired.try_reserve_exact(ELEMENTS).is_err() {
            return self.wrong(Wrong::Resources, 1);
        }
        let mut last = Cookie::COMPLETED;
        while self.goes_on(seat) {
            self.pause(random.below(400 * US));
            let Some(new) = self.elements.take() else {
                self.pause(2 * MS);
                self.wait_for_readers(Way::Synchronize, random, &mut last);
                self.grow_older(&mut retired);
                continue;
            };
            let Some(old) = self.elements.publish(new) else {
                continue;
            };
            match Way::draw(random) {
                Way::Call => self.free_by_callbacks(old),
                way => {
                    retired.push(old);
                    self.wait_for_readers(way, random, &mut last);
                    self.grow_older(&mut retired);
                }
            }
        }
        while !retired.is_empty() && !self.is_given_up() {
            self.ground.rcu().synchronize_expedited();
            self.grow_older(&mut retired);
        }
    }

    /// A thread that waits for grace periods and has nothing to free.
    pub(super) fn fake_writer(&self, seat: &Seat, random: &mut Random) {
        let mut last = Cookie::COMPLETED;
        while self.goes_on(seat) {
            self.pause(random.below(10 * MS));
            let way = Way::draw(random);
            if way != Way::Call {
                self.wait_for_readers(way, random, &mut last);
            }
        }
    }

    /// The last element is freed.
    pub(super) fn withdraw(&self) {
        if let Some(last) = self.elements.withdraw() {
            self.free_by_callbacks(last);
        }
    }

    fn grow_older(&self, retired: &mut Vec<usize>) {
        retired.retain(|&index| !self.elements.grow_older(index));
    }

    fn free_by_callbacks(&self, index: usize) {
        self.tally.ways[Way::Call as usize].fetch_add(1, Ordering::Relaxed);
        // SAFETY: an element's callback, and whoever retired the element is the only one to
        // queue it.
        unsafe {
            let callback = &self.elements.get(index).callback;
            self.queue(callback, grow_older_and_queue::<M, G>);
        }
    }

    /// Waits until all sections of now are over, in the way that is asked for. `last`: a
    /// cookie that was ripe, and must still be.
    fn wait_for_readers(&self, way: Way, random: &mut Random, last: &mut Cookie) {
        let rcu = self.ground.rcu();
        self.tally.ways[way as usize].fetch_add(1, Ordering::Relaxed);
        let pause = random.below(2 * MS);
        match way {
            Way::Synchronize | Way::Call => {
                let cookie = rcu.snap();
                rcu.synchronize();
                self.check_ripe(rcu.poll(cookie), 1);
                *last = cookie;
            }
            Way::Expedited => {
                let cookie = rcu.snap_expedited();
                rcu.synchronize_expedited();
                self.check_ripe(rcu.poll_expedited(cookie), 2);
            }
            Way::Poll => {
                let cookie = rcu.start_poll();
                self.poll_until(random, || rcu.poll(cookie), || rcu.synchronize());
                *last = cookie;
            }
            Way::PollExpedited => {
                let cookie = rcu.start_poll_expedited();
                self.poll_until(
                    random,
                    || rcu.poll_expedited(cookie),
                    || rcu.synchronize_expedited(),
                );
            }
            Way::PollFull => {
                let cookie = rcu.start_poll_full();
                self.poll_until(random, || rcu.poll_full(cookie), || rcu.synchronize());
            }
            Way::Cond => {
                let cookie = rcu.snap();
                self.pause(pause);
                rcu.cond_synchronize(cookie);
                self.check_ripe(rcu.poll(cookie), 3);
                *last = cookie;
            }
            Way::CondExpedited => {
                let cookie = rcu.snap_expedited();
                self.pause(pause);
                rcu.cond_synchronize_expedited(cookie);
                self.check_ripe(rcu.poll_expedited(cookie), 4);
            }
            Way::CondFull => {
                let cookie = rcu.snap_full();
                self.pause(pause);
                rcu.cond_synchronize_full(cookie);
                self.check_ripe(rcu.poll_full(cookie), 5);
            }
        }
        self.check_ripe(rcu.poll(*last), 6);
    }

    fn check_ripe(&self, ripe: bool, which: u64) {
        if !ripe {
            self.wrong(Wrong::Late, which);
        }
    }

    /// Asks `poll` until it says yes; if it never does, that is noted, and `instead` waits.
    fn poll_until(&self, random: &mut Random, poll: impl Fn() -> bool, instead: impl Fn()) {
        let patience = M::now_ns() + self.options.patience_ns();
        while !poll() {
            if M::now_ns() > patience {
                self.wrong(Wrong::Never, 0);
                return instead();
            }
            self.nap(random.between(50 * US, 2 * MS));
        }
    }
}

/// An element's callback: a grace period is over.
///
/// # Safety
///
/// The head is that of an element's callback, queued by [`Torture::queue`], and this is its
/// turn.
unsafe fn grow_older_and_queue<M: Machine, G: Ground<M>>(head: NonNull<Head>) {
    // SAFETY: as the caller promises.
    let (torture, callback) = unsafe { Torture::<M, G>::invoked(head) };
    let index = torture.elements.index_of(callback);
    if !torture.elements.grow_older(index) {
        // SAFETY: it is not queued now, and nobody else queues it.
        unsafe { torture.queue(callback, grow_older_and_queue::<M, G>) };
    }
    torture.ran();
}
