//! A hosted machine with an engine, and values that know whether they are alive.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicIsize, Ordering},
    },
};

use platform::{
    CpuId,
    hosted::{Hosted, Machine},
};
use rcu::{Config, Rcu, hosted::Engine};

use crate::memory::POISON;

/// Runs a body on CPU 0 of a machine that has an engine; once for each flavour.
pub fn run(cpus: usize, seed: u64, body: impl Fn(&Machine, &Arc<Rcu<Hosted>>)) {
    for preemptible in [false, true] {
        let machine = Machine::builder().cpus(cpus).seed(seed).build();
        if preemptible {
            rcu::hosted::make_preemptible(&machine);
        }
        machine.run(|| body(&machine, &Engine::start(&machine, Config::default())));
    }
}

/// The CPUs but the first, of a machine of so many.
pub fn others(cpus: usize) -> impl Iterator<Item = CpuId> {
    (1..cpus).filter_map(CpuId::from_index)
}

/// How often a long test does something: `full` times with `GRANARY_PERCENT=100`, and `quick`
/// times if nothing is said.
pub fn rounds(full: usize, quick: usize) -> usize {
    match std::env::var("GRANARY_PERCENT") {
        Ok(percent) => {
            let percent: usize = percent.parse().expect("GRANARY_PERCENT is no number");
            (full * percent / 100).max(1)
        }
        Err(_) => quick,
    }
}

/// A plain generator, so that threads do not share one.
pub struct Random(pub u64);

impl Random {
    pub fn of(cpu: CpuId) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (cpu.index() as u64 + 1) << 20)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// How many values there are.
#[derive(Clone, Default)]
pub struct Count(Arc<AtomicIsize>);

impl Count {
    pub fn get(&self) -> isize {
        self.0.load(Ordering::Relaxed)
    }

    pub fn value(&self, number: u64) -> Value {
        self.0.fetch_add(1, Ordering::Relaxed);
        Value {
            canary: number ^ ALIVE,
            number,
            count: self.clone(),
        }
    }
}

const ALIVE: u64 = 0x600d_600d_600d_600d;

/// A number that shows whether it is alive.
pub struct Value {
    canary: u64,
    number: u64,
    count: Count,
}

impl Value {
    /// The number.
    #[track_caller]
    pub fn number(&self) -> u64 {
        // Volatile: looks each time.
        // SAFETY: from a reference.
        let (canary, number) = unsafe {
            (
                std::ptr::read_volatile(&self.canary),
                std::ptr::read_volatile(&self.number),
            )
        };
        assert!(canary != POISON && number != POISON, "a freed value");
        assert_eq!(canary ^ ALIVE, number, "a dropped value, or half of one");
        number
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.number();
        // SAFETY: its own. Volatile: somebody may look who should not.
        unsafe { std::ptr::write_volatile(&mut self.canary, 0) };
        self.count.0.fetch_sub(1, Ordering::Relaxed);
    }
}
