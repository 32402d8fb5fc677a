//! How much may wait, and what is done about more.
//!
//! | bytes on a lane | what is done |
//! |---|---|
//! | over the soft limit | its drainer makes an expedited grace period |
//! | over the hard limit | who queues frees what is ripe, and, if it may sleep, waits for the drainer |
//! | memory is short | all that waits anywhere is freed after an expedited grace period |
//!
//! Limits are of a lane, so that no CPU has to look at another's. They are parts of memory, so that a
//! small machine survives a flood.

use platform::sync::Ordering;

use super::lane::Lane;
use crate::{
    frame::PAGE_SIZE,
    reclaim::{Shrink, Wanted},
    slab::{Machine, Slabs, arrows::Arrow},
};

/// The soft limit of all lanes together is memory divided by this.
const MEMORY_PART: u64 = 512;
/// What the soft limit of a lane is at least, and at most.
const SOFT_BYTES: core::ops::RangeInclusive<u64> = 64 << 10..=1 << 20;
/// Soft limits that make a hard one.
const HARD: u64 = 8;

/// The soft limit of a lane, in bytes.
pub(crate) fn soft_limit(memory: u64, cpus: usize) -> u64 {
    let part = memory / MEMORY_PART / (cpus.max(1) as u64);
    part.clamp(*SOFT_BYTES.start(), *SOFT_BYTES.end())
}

impl<M: Machine> super::KvfreeRcu<M> {
    /// Bytes on a lane over which its drainer hurries.
    pub fn soft_limit(&self) -> u64 {
        // Relaxed: a number by itself.
        self.soft_limit.load(Ordering::Relaxed)
    }

    /// Sets that, and the hard limit with it. Any context.
    pub fn set_soft_limit(&self, bytes: u64) {
        self.soft_limit.store(bytes.max(1), Ordering::Relaxed);
    }

    /// Bytes on a lane over which who queues helps.
    pub fn hard_limit(&self) -> u64 {
        self.soft_limit().saturating_mul(HARD)
    }

    /// Bytes that wait for a grace period, about; not those in open sheaves. Any context.
    pub fn bytes(&self) -> u64 {
        self.lanes().iter().map(Lane::bytes).sum()
    }

    /// After something was queued: if far too much waits, frees what is ripe, and waits if that may be. Any context but
    /// NMI, no lock of the allocator held.
    #[inline]
    pub(crate) fn help(&self, lane: &Lane<M>) {
        if lane.bytes() > self.hard_limit() {
            self.help_slowly(lane);
        }
    }

    #[cold]
    fn help_slowly(&self, lane: &Lane<M>) {
        // Destructors are for threads.
        if !M::may_sleep() || M::reader_depth() > 0 {
            return;
        }
        // A destructor queues in the drainer itself, which cannot wait for itself; or in who helps, which would help from
        // within, as deep as there is something ripe.
        let me = M::current_thread();
        if lane.thread.lock().as_ref() == Some(&me) || lane.helper.lock().as_ref() == Some(&me) {
            return;
        }
        lane.arrow(Arrow::LaneHelp);
        let helps = {
            let mut helper = lane.helper.lock();
            helper.is_none() && helper.replace(me).is_none()
        };
        if helps {
            lane.drain();
            let done = lane.helper.lock().take();
            drop(done);
        }
        if lane.bytes() <= self.hard_limit() || lane.thread.lock().is_none() {
            return;
        }
        lane.state.lock().urgent = true;
        lane.wake();
        // Not for ever: this is a favour, on which nothing else hangs.
        let deadline = M::now_ns() + WAIT_NS;
        let _ = lane
            .eased
            .wait_until_timeout(|| lane.bytes() <= self.hard_limit(), deadline);
    }
}

/// How long who queues waits for the drainer, and a shrinker for its grace period, at most.
const WAIT_NS: u64 = 100_000_000;
/// How often the latter looks.
const POLL_NS: u64 = 100_000;

impl<M: Machine> Lane<M> {
    /// Something was freed: lets those go on who wait for that.
    pub(crate) fn ease(&self) {
        if self.bytes() <= self.slabs().kvfree_rcu.hard_limit() && !self.eased.is_idle() {
            self.eased.wake_all();
        }
    }
}

impl<M: Machine> Slabs<M> {
    /// Frees all that waits for a grace period, after an expedited one, but for what others are about to
    /// free: bytes, about. Task context, may sleep, not in a section.
    pub fn flush_kvfree_rcu(&self) -> u64 {
        let Some(rcu) = self.rcu() else { return 0 };
        let before = self.kvfree_rcu.bytes();
        // Who takes a CPU's sheaves away may be who wants memory.
        self.close_all_open(false);
        for lane in self.kvfree_rcu.lanes() {
            lane.state.lock().loose.close_all(true, || lane.name());
        }
        let after = self.kvfree_rcu.bytes().max(before);
        if after == 0 {
            return 0;
        }
        // Not by `synchronize_expedited`: the caller may hold locks that come behind that one's.
        let cookie = rcu.start_poll_expedited();
        let deadline = M::now_ns() + WAIT_NS;
        while !rcu.poll_expedited(cookie) && M::now_ns() < deadline {
            M::park_until(M::now_ns() + POLL_NS);
        }
        for lane in self.kvfree_rcu.lanes() {
            lane.drain();
        }
        after.saturating_sub(self.kvfree_rcu.bytes())
    }
}

/// When memory is short nothing waits longer than an expedited grace period.
impl<M: Machine> Shrink for super::KvfreeRcu<M> {
    fn name(&self) -> &'static str {
        "kfree_rcu"
    }

    fn count(&self) -> u64 {
        self.bytes() / PAGE_SIZE as u64
    }

    fn scan(&self, _: Wanted) -> u64 {
        // The allocation may be a destructor's, whose caller's hands nobody waits for here. The lock of expedited
        // grace periods may be one that the caller is to be kept from: then they are not asked for.
        if M::reader_depth() > 0 || !M::may_sleep() {
            return 0;
        }
        let slabs = self.lane(platform::CpuId::BOOT).slabs();
        let mut frames = 0;
        for lane in self.lanes() {
            let spare = lane.state.lock().loose.take_spare();
            if let Some(page) = spare {
                lane.free_page(page);
                frames += 1;
            }
        }
        frames + slabs.flush_kvfree_rcu() / PAGE_SIZE as u64
    }
}
