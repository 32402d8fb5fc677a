//! Timing one call of a workload.

use core::hint::black_box;

use arrayvec::ArrayVec;
use kernel_base::bench::{MAX_KEYS, Tenths, Value};
use platform::CpuId;

use super::{Stop, idle};
use crate::{smp, time};

/// A call of a workload: what it has to do, and what it has measured so far.
#[derive(Debug)]
pub struct Run {
    ops: u64,
    took: Took,
    cpus: u32,
    total_ops: u64,
    keys: ArrayVec<(&'static str, Value), MAX_KEYS>,
    measured: bool,
}

/// A stretch of time that was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Took {
    /// Wall time in nanoseconds.
    pub ns: u64,
    /// Nanoseconds of it in which the CPU had nothing to run.
    pub idle_ns: u64,
}

/// The beginning of such a stretch. The thread that measures should be bound to its CPU:
/// idle time is that of the CPU where it began.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    cpu: CpuId,
    idle_ns: u64,
    // Read last at the start and first at the end, so that only the counter's own reading
    // is inside.
    ns: u64,
}

impl Start {
    /// Now.
    #[inline]
    pub fn now() -> Self {
        let cpu = smp::this_cpu();
        Self {
            cpu,
            idle_ns: idle::ns(cpu),
            ns: time::now_ns(),
        }
    }

    /// What has passed since.
    #[inline]
    pub fn took(self) -> Took {
        let ns = time::now_ns() - self.ns;
        Took {
            ns,
            idle_ns: idle::ns(self.cpu) - self.idle_ns,
        }
    }
}

impl Run {
    /// A call that has to do `ops` operations.
    pub fn new(ops: u64) -> Self {
        Self {
            ops,
            took: Took::default(),
            cpus: 1,
            total_ops: ops,
            keys: ArrayVec::new(),
            measured: false,
        }
    }

    /// How many operations to do; on each CPU, if several work at once.
    pub fn ops(&self) -> u64 {
        self.ops
    }

    /// Calls `f` and adds the time that it took.
    #[inline]
    pub fn time<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let start = Start::now();
        let result = black_box(f());
        self.add(start.took());
        result
    }

    /// Adds time that was measured elsewhere.
    #[inline]
    pub fn add(&mut self, took: Took) {
        self.took.ns += took.ns;
        self.took.idle_ns += took.idle_ns;
        self.measured = true;
    }

    /// Says that `cpus` CPUs worked at once and did `total_ops` operations together. Without
    /// this, one CPU did [`ops`](Self::ops).
    pub fn shared_by(&mut self, cpus: usize, total_ops: u64) {
        self.cpus = cpus as u32;
        self.total_ops = total_ops;
    }

    /// Adds a key of the workload's own to its line, at most [`MAX_KEYS`] of them. The
    /// units belong into its name: `peak_kib`, `destroy_us`.
    pub fn key(&mut self, name: &'static str, value: Value) -> Result<(), Stop> {
        self.measured = true;
        self.keys
            .try_push((name, value))
            .map_err(|_| Stop::Failed("it has too many keys".into()))
    }

    /// Whether anything was measured.
    pub(super) fn has_measured(&self) -> bool {
        self.measured
    }

    pub(super) fn ns_per_op(&self) -> Tenths {
        Tenths::per_op(self.took.ns, self.cpus, self.total_ops)
    }

    /// The time added so far.
    pub fn took(&self) -> Took {
        self.took
    }

    pub(super) fn cpus(&self) -> u32 {
        self.cpus
    }

    pub(super) fn total_ops(&self) -> u64 {
        self.total_ops
    }

    pub(super) fn keys(&self) -> &[(&'static str, Value)] {
        &self.keys
    }
}
