//! What can be chosen about an engine. In parentheses: Linux's names.

use crate::grace_period::Times;

/// Nanoseconds of a tick, in which Linux gives some of these.
const TICK_NS: u64 = 4_000_000;

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Config {
    /// CPUs on a leaf, 2 to 64 (`rcu_fanout_leaf`).
    pub leaf_fanout: usize,
    /// Nodes below another, 2 to 64 (`RCU_FANOUT`).
    pub fanout: usize,
    /// Nanoseconds from the beginning of a grace period to the first look for idle CPUs
    /// (`jiffies_till_first_fqs`). 0: at once.
    pub first_scan_ns: u64,
    /// Nanoseconds from one look to the next (`jiffies_till_next_fqs`).
    pub next_scan_ns: u64,
    /// The age at which CPUs that have not reported are interrupted
    /// (`jiffies_till_sched_qs`).
    pub urge_ns: u64,
    /// The age at which a stall is reported (`rcu_cpu_stall_timeout`).
    pub stall_ns: u64,
    /// The least time between beginnings of grace periods that only callbacks want: of a
    /// flood of callbacks not every one shall have a grace period of its own. One that comes
    /// after a pause does not wait.
    pub min_interval_ns: u64,
    /// Callbacks that are run in a row with preemption off (`blimit`).
    pub batch: usize,
    /// With more callbacks on a CPU, grace periods begin at once (`qhimark`).
    pub high_mark: usize,
    /// Nanoseconds that a CPU's thread runs callbacks before it lets others of its priority
    /// run (`rcu_resched_ns`).
    pub slice_ns: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            leaf_fanout: 16,
            fanout: 64,
            first_scan_ns: 0,
            next_scan_ns: TICK_NS,
            urge_ns: 2 * TICK_NS,
            stall_ns: 21_000_000_000,
            min_interval_ns: 1_000_000,
            batch: 32,
            high_mark: 10_000,
            slice_ns: 3_000_000,
        }
    }
}

impl Config {
    pub(crate) fn times(&self) -> Times {
        Times {
            first_scan: self.first_scan_ns,
            next_scan: self.next_scan_ns.max(1),
            urge: self.urge_ns,
            stall: self.stall_ns.max(1),
            interval: self.min_interval_ns,
        }
    }
}
