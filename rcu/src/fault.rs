//! Faults that can be switched on, to see that the tests find them.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A set of faults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults(u32);

impl Faults {
    /// None.
    pub const NONE: Self = Self(0);
    /// A grace period does not wait for one of the CPUs.
    pub const SKIP_CPU: Self = Self(1);
    /// Callbacks of one segment run before their grace period has ended.
    pub const EARLY_SEGMENT: Self = Self(2);
    /// A quiescent state that a CPU reports is lost.
    pub const LOSE_QS: Self = Self(4);
    /// A CPU that has left idle counts as still idle.
    pub const STILL_IDLE: Self = Self(8);
    /// A callback of a CPU that goes offline is dropped.
    pub const DROP_ON_HOTPLUG: Self = Self(16);

    /// All, with the names that select them.
    pub const ALL: [(&'static str, Self); 5] = [
        ("skip_cpu", Self::SKIP_CPU),
        ("early_segment", Self::EARLY_SEGMENT),
        ("lose_qs", Self::LOSE_QS),
        ("still_idle", Self::STILL_IDLE),
        ("drop_on_hotplug", Self::DROP_ON_HOTPLUG),
    ];

    /// The fault of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, fault)| *fault)
    }

    /// As bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` are in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The faults of an engine that are switched on.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    on: AtomicU32,
    /// CPUs that were idle once.
    idle_once: AtomicU64,
}

// Relaxed throughout: switched in tests, whenever it takes effect.
impl Switches {
    pub const fn new() -> Self {
        Self {
            on: AtomicU32::new(0),
            idle_once: AtomicU64::new(0),
        }
    }

    pub fn set(&self, faults: Faults) {
        self.on.store(faults.bits(), Ordering::Relaxed);
    }

    pub fn contains(&self, fault: Faults) -> bool {
        Faults(self.on.load(Ordering::Relaxed)).contains(fault)
    }

    /// Whether a CPU, which is `idle` or not, shall count as idle.
    pub fn takes_as_idle(&self, cpu: usize, idle: bool) -> bool {
        let bit = 1 << (cpu % 64);
        if idle {
            self.idle_once.fetch_or(bit, Ordering::Relaxed);
        }
        idle || self.contains(Faults::SKIP_CPU) && cpu == SKIPPED
            || self.contains(Faults::STILL_IDLE)
                && self.idle_once.load(Ordering::Relaxed) & bit != 0
    }
}

/// The CPU that is not waited for.
const SKIPPED: usize = 0;
