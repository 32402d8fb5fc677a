//! What has happened so far.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{Machine, Rcu, arrows::Arrow};

/// Buckets of the histogram: one for each power of two.
pub const BUCKETS: usize = 40;

/// How long grace periods took.
#[derive(Debug)]
pub(crate) struct Latency {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
    longest_ns: AtomicU64,
}

// Relaxed throughout: statistics.
impl Latency {
    pub const fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum_ns: AtomicU64::new(0),
            longest_ns: AtomicU64::new(0),
        }
    }

    pub fn add(&self, ns: u64) {
        let bucket = ns.checked_ilog2().unwrap_or(0) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
        self.longest_ns.fetch_max(ns, Ordering::Relaxed);
    }
}

/// Counts since the engine was made. Read one after the other, so not of one moment.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Normal grace periods that have ended.
    pub grace_periods: u64,
    /// Looks at idle CPUs.
    pub scans: u64,
    /// CPUs that were interrupted for normal grace periods.
    pub urged: u64,
    /// Stalls that were reported, of both kinds.
    pub stalls: u64,
    /// How many normal grace periods took at least 2^n nanoseconds, and less than twice
    /// that, by n.
    pub latency: [u64; BUCKETS],
    /// The sum of their durations in nanoseconds.
    pub latency_sum_ns: u64,
    /// The longest, in nanoseconds.
    pub latency_longest_ns: u64,
    /// Expedited grace periods that have ended.
    pub expedited: u64,
    /// The sum of their durations in nanoseconds.
    pub expedited_sum_ns: u64,
    /// Callbacks that were queued, without those of barriers. They are counted when their
    /// CPU's list takes them over: before a barrier that waits for them is over, and before
    /// they run.
    pub queued: u64,
    /// Callbacks that have been run, with those of barriers.
    pub invoked: u64,
    /// Callbacks of barriers that were queued.
    pub barrier_callbacks: u64,
    /// Of `queued`, those that have not been run.
    pub pending: u64,
    /// Barriers that have ended.
    pub barriers: u64,
}

impl<M: Machine> Rcu<M> {
    /// Counts since the engine was made. Any context.
    pub fn stats(&self) -> Stats {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let arrows = &self.tree.arrows;
        let mut stats = Stats {
            grace_periods: self.tree.seq().completed_since(self.tree.first),
            scans: arrows.count(Arrow::GpFirstScan) + arrows.count(Arrow::GpScan),
            urged: load(&self.urged),
            stalls: arrows.count(Arrow::GpStall) + arrows.count(Arrow::ExpStall),
            latency: core::array::from_fn(|bucket| load(&self.latency.buckets[bucket])),
            latency_sum_ns: load(&self.latency.sum_ns),
            latency_longest_ns: load(&self.latency.longest_ns),
            expedited: load(&self.expedited.count),
            expedited_sum_ns: load(&self.expedited.took_ns),
            queued: 0,
            invoked: 0,
            barrier_callbacks: arrows.count(Arrow::BarrierQueued)
                + arrows.count(Arrow::BarrierBehindRunning),
            pending: 0,
            barriers: self.barrier.count(),
        };
        for (_, cpu) in self.cpus.iter() {
            stats.queued += load(&cpu.queued);
            stats.invoked += load(&cpu.invoked);
            stats.pending += cpu.pending.load(Ordering::Relaxed) as u64;
        }
        stats
    }

    /// The counter of each arrow in the state tables of `docs/rcu.md`.
    pub fn arrows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Arrow::ALL
            .iter()
            .map(|arrow| (arrow.name(), self.tree.arrows.count(*arrow)))
    }
}
