//! Threads of a machine.

use core::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};
use std::sync::{Arc, OnceLock, Weak};

use super::{attached::Values, machine::Inner};
use crate::{CpuId, Priority, Spawn, lockdep::Held, park::ParkWord};

/// A thread of a hosted machine.
#[derive(Clone)]
pub struct Thread(pub(super) Arc<State>);

pub(super) struct State {
    pub(super) name: &'static str,
    /// Its number, of those of all machines of the process.
    number: u32,
    /// The only CPU that it runs on.
    pub(super) cpu: Option<CpuId>,
    pub(super) priority: Priority,
    pub(super) machine: Weak<Inner>,
    pub(super) park: ParkWord,
    pub(super) held: Held,
    pub(super) values: Values,
    /// The CPU whose baton it holds, plus 1; or 0. Given under the scheduler's lock.
    on_cpu: AtomicU32,
    /// The host's thread, once there is one.
    pub(super) os: OnceLock<std::thread::Thread>,
}

impl Thread {
    pub(super) fn new(machine: Weak<Inner>, spawn: &Spawn) -> Self {
        static NUMBERS: AtomicU32 = AtomicU32::new(1);
        Self(Arc::new(State {
            name: spawn.name,
            // Relaxed: only to be different.
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            cpu: spawn.cpu,
            priority: spawn.priority,
            machine,
            park: ParkWord::new(),
            held: Held::new(),
            values: Values::new(),
            on_cpu: AtomicU32::new(0),
            os: OnceLock::new(),
        }))
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Its number: never 0, and no two threads of a process have the same.
    pub fn number(&self) -> u32 {
        self.0.number
    }

    /// The CPU whose baton it holds.
    pub(super) fn on_cpu(&self) -> Option<CpuId> {
        // Acquire pairs with the Release in `set_on_cpu`: it sees what earlier holders did.
        CpuId::new(self.0.on_cpu.load(Ordering::Acquire).wrapping_sub(1))
    }

    /// Gives it a CPU, or says that it has none. Under the scheduler's lock.
    pub(super) fn set_on_cpu(&self, cpu: Option<CpuId>) {
        let word = cpu.map_or(0, |cpu| cpu.number() + 1);
        // Release pairs with the Acquire in `on_cpu`.
        self.0.on_cpu.store(word, Ordering::Release);
        if cpu.is_some()
            && let Some(os) = self.0.os.get()
        {
            os.unpark();
        }
    }
}

impl PartialEq for Thread {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}", self.0.name, self.0.priority)?;
        if let Some(cpu) = self.0.cpu {
            write!(f, ", of {cpu:?}")?;
        }
        match self.on_cpu() {
            Some(cpu) => write!(f, ", on {cpu:?})"),
            None if self.0.park.is_parked() => f.write_str(", parked)"),
            None => f.write_str(", ready)"),
        }
    }
}
