//! What is done for a CPU that comes or goes, as a table of steps.
//!
//! A subsystem that is always there has its steps in [`BUILT_IN`] and [`BUILT_IN_ON_CPU`]; what
//! comes and goes registers one.

use arrayvec::ArrayVec;
use platform::{CpuId, SpawnError};

use super::{run, sharing};
use crate::{
    arch::smp_boot,
    memory,
    rcu::{self, rcu},
    softirq,
    sync::{HotplugSteps, IrqLock},
};

/// Most steps of a kind.
pub(super) const MOST: usize = 24;

/// Why a step failed, for people.
pub type Reason = &'static str;
/// One direction of a step.
pub type Action = fn(CpuId) -> Result<(), Reason>;

/// When a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// While the CPU does not run: before it starts, after it has stopped.
    Stopped,
    /// The start and the stop themselves.
    Turn,
    /// While it runs: after it has started, before it stops.
    Running,
}

/// What a subsystem does for a CPU. In the controller's thread, which may sleep but holds the
/// hotplug lock to write.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Of its own, for people.
    pub name: &'static str,
    /// When.
    pub place: Place,
    /// The CPU comes. On failure, it has done nothing.
    pub up: Action,
    /// The CPU goes: the opposite. On failure, it has done nothing.
    pub down: Action,
}

/// What a subsystem does on the CPU itself, with interrupts off, as its idle thread.
#[derive(Debug, Clone, Copy)]
pub struct CpuStep {
    /// Of its own, for people.
    pub name: &'static str,
    /// It comes: RCU watches it, and no other CPU sees it online yet.
    pub starting: fn(CpuId),
    /// It goes: no other CPU sees it online any more, and no call waits for it. The last one
    /// is the first of the table; then the CPU's extended quiescent state begins.
    pub dying: fn(CpuId),
}

fn nothing(_: CpuId) -> Result<(), Reason> {
    Ok(())
}

/// The steps of those who are always there, in the order of coming up.
const BUILT_IN: [Step; 9] = [
    Step {
        name: "stacks",
        place: Place::Stopped,
        up: smp_boot::make_stacks,
        down: nothing,
    },
    Step {
        name: "pages",
        place: Place::Stopped,
        up: nothing,
        down: give_back_pages,
    },
    Step {
        name: "sheaves",
        place: Place::Stopped,
        up: nothing,
        down: give_back_sheaves,
    },
    Step {
        name: "rcu_callbacks",
        place: Place::Stopped,
        up: nothing,
        down: adopt_callbacks,
    },
    Step {
        name: "run",
        place: Place::Turn,
        up: run::start,
        down: run::stop,
    },
    Step {
        name: "threads",
        place: Place::Running,
        up: sharing::start,
        down: sharing::stop,
    },
    Step {
        name: "softirq",
        place: Place::Running,
        up: start_softirq,
        down: nothing,
    },
    Step {
        name: "rcu_thread",
        place: Place::Running,
        up: start_rcu_thread,
        down: nothing,
    },
    Step {
        name: "kfree_rcu",
        place: Place::Running,
        up: start_drainer,
        down: nothing,
    },
];

/// What those who are always there do on the CPU, in the order of starting.
const BUILT_IN_ON_CPU: [CpuStep; 1] = [CpuStep {
    name: "rcu",
    starting: |cpu| rcu().cpu_starting(cpu),
    dying: |cpu| rcu().cpu_dying(cpu),
}];

fn give_back_pages(cpu: CpuId) -> Result<(), Reason> {
    // SAFETY: the CPU has said that it is off, which comes after all that it did, and it is
    // not started before this is over: both are the controller's to see.
    unsafe { memory::mm().drain_offline(cpu) };
    Ok(())
}

fn give_back_sheaves(cpu: CpuId) -> Result<(), Reason> {
    memory::slab::flush_offline(cpu);
    Ok(())
}

fn start_softirq(cpu: CpuId) -> Result<(), Reason> {
    softirq::start_thread(cpu).map_err(no_thread)
}

/// Callbacks that the CPU left go to this one.
fn adopt_callbacks(cpu: CpuId) -> Result<(), Reason> {
    rcu().cpu_dead(cpu);
    Ok(())
}

fn start_drainer(cpu: CpuId) -> Result<(), Reason> {
    memory::slab::start_drainer(cpu).map_err(no_thread)
}

fn start_rcu_thread(cpu: CpuId) -> Result<(), Reason> {
    rcu::start_thread(cpu).map_err(no_thread)
}

fn no_thread(error: SpawnError) -> Reason {
    match error {
        SpawnError::Offline(_) => "no thread can be bound to the CPU",
        _ => "no memory for its thread",
    }
}

type Steps = ArrayVec<Step, MOST>;
type CpuSteps = ArrayVec<CpuStep, MOST>;

struct Table {
    /// In the order of coming up. Changed by the hotplug lock's writer only.
    steps: Steps,
    /// In the order of starting. Likewise.
    on_cpu: CpuSteps,
    /// The step that fails the next time.
    failing: Option<&'static str>,
}

static TABLE: IrqLock<Table, HotplugSteps> = IrqLock::new(Table {
    steps: ArrayVec::new_const(),
    on_cpu: ArrayVec::new_const(),
    failing: None,
});

/// Fills the table. At boot, once.
pub(super) fn init() {
    let mut table = TABLE.lock();
    table.steps.extend(BUILT_IN);
    table.on_cpu.extend(BUILT_IN_ON_CPU);
}

/// The steps, in the order of coming up. They stay so while the hotplug lock is held.
pub(super) fn all() -> Steps {
    TABLE.lock().steps.clone()
}

/// The steps on the CPU itself, in the order of starting. They stay so while a CPU comes or
/// goes. Interrupts may be off.
pub(super) fn on_cpu() -> CpuSteps {
    TABLE.lock().on_cpu.clone()
}

/// Adds a step behind the others of its place, and returns its number. With the hotplug lock,
/// to write.
pub(super) fn insert(step: Step) -> Result<usize, Reason> {
    let mut table = TABLE.lock();
    if table.steps.iter().any(|there| there.name == step.name) {
        return Err("there is a step of that name");
    }
    if table.steps.is_full() {
        return Err("the table is full");
    }
    let number = match step.place {
        Place::Stopped => table
            .steps
            .iter()
            .take_while(|there| there.place == Place::Stopped)
            .count(),
        Place::Turn => return Err("there is one turn only"),
        Place::Running => table.steps.len(),
    };
    table.steps.insert(number, step);
    Ok(number)
}

/// Takes a step out; its number, and what it was. With the hotplug lock, to write.
pub(super) fn remove(name: &str) -> Option<(usize, Step)> {
    let mut table = TABLE.lock();
    let number = table.steps.iter().position(|step| step.name == name)?;
    Some((number, table.steps.remove(number)))
}

/// Adds a step on the CPU itself behind the others. With the hotplug lock, to write.
pub(super) fn insert_on_cpu(step: CpuStep) -> Result<(), Reason> {
    let mut table = TABLE.lock();
    table.on_cpu.try_push(step).map_err(|_| "the table is full")
}

/// Takes a step on the CPU itself out. With the hotplug lock, to write.
pub(super) fn remove_on_cpu(name: &str) {
    TABLE.lock().on_cpu.retain(|step| step.name != name);
}

/// Makes the step `name` fail the next time that it is to be done in either direction, but for
/// going back. Whether there is one of that name.
pub(super) fn fail(name: &str) -> bool {
    let mut table = TABLE.lock();
    let step = table.steps.iter().find(|step| step.name == name);
    table.failing = step.map(|step| step.name);
    table.failing.is_some()
}

/// Whether the step is to fail now.
pub(super) fn takes_fault(step: &Step) -> bool {
    let mut table = TABLE.lock();
    let fails = table.failing == Some(step.name);
    if fails {
        table.failing = None;
    }
    fails
}
