//! CPUs that come and go at run time: a table of steps, walked up and down.
//!
//! The design, with the states of a CPU and who moves what, is in `docs/hotplug.md`.
//!
//! | lock | protects | order |
//! |---|---|---|
//! | `CONTROL`, to write | one CPU moves at a time; `DONE`, the table of steps | before all others; sleeps |
//! | `CONTROL`, to read ([`read_lock`]) | CPUs stay as they are | likewise |
//! | `steps::TABLE` | the table, for the CPU that comes or goes | no other under it |

mod run;
mod sharing;
mod steps;
mod word;

use core::{
    fmt,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use arrayvec::ArrayVec;
use platform::{
    CpuId, CpuMask, MAX_CPUS,
    wait::{ReadGuard, RwSemaphore},
};

use self::word::Word;
pub use self::{
    run::{arrive, go_if_told, set_patience, start_here},
    steps::{CpuStep, Place, Reason, Step},
};
use crate::{arch::smp_boot, machine::Kernel, smp, sync::Hotplug, time};

static CONTROL: RwSemaphore<(), Kernel, Hotplug> = RwSemaphore::new(());

// Relaxed wherever these are used: the lock orders them.

/// How many steps of the table are done for each CPU.
static DONE: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];
/// When each CPU came or went last.
static SINCE: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Why a CPU does not come or go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// It is not there, or the kernel was told not to use it: it has no per-CPU memory.
    NotPossible(CpuId),
    /// The boot CPU cannot go.
    BootCpu,
    /// It is online.
    AlreadyOnline(CpuId),
    /// It is offline.
    AlreadyOffline(CpuId),
    /// A step failed, and those before it were undone.
    Step {
        /// The CPU.
        cpu: CpuId,
        /// The step's name.
        step: &'static str,
        /// Why.
        why: Reason,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPossible(cpu) => write!(
                f,
                "cpu{cpu} is not possible: this kernel was started for CPUs {}",
                smp::cpus()
            ),
            Self::BootCpu => f.write_str(
                "cpu0 cannot go: it booted the machine and takes the serial line's interrupt, and \
                 somebody must be left for the threads",
            ),
            Self::AlreadyOnline(cpu) => write!(f, "cpu{cpu} is online already"),
            Self::AlreadyOffline(cpu) => write!(f, "cpu{cpu} is offline already"),
            Self::Step { cpu, step, why } => write!(f, "cpu{cpu}: step '{step}' failed: {why}"),
        }
    }
}

impl core::error::Error for Error {}

/// What is to be seen of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// It takes interrupts.
    pub online: bool,
    /// Steps that are done for it: all or none, but after a failure to go back.
    pub done: usize,
    /// Steps that there are.
    pub steps: usize,
    /// When it came or went, in [`time::now_ns`].
    pub since_ns: u64,
}

/// Keeps all CPUs as they are, online or offline, while it lives. May sleep. Not for who has it
/// already.
#[track_caller]
pub fn read_lock() -> ReadGuard<'static, (), Kernel, Hotplug> {
    CONTROL.read()
}

/// Brings up every CPU that the topology has; at boot, once, in its first thread. One that
/// cannot be started is reported and left out.
pub fn start() {
    steps::init();
    {
        let _control = CONTROL.write();
        let boot = CpuId::BOOT;
        word::set(boot, Word::Running);
        let steps = steps::all();
        let running = steps.iter().filter(|step| step.place == Place::Running);
        for step in running {
            if let Err(why) = (step.up)(boot) {
                panic!("cpu{boot}: step '{}' failed: {why}", step.name);
            }
        }
        DONE[boot.index()].store(steps.len(), Ordering::Relaxed);
    }
    let others = smp::cpus().without(CpuId::BOOT);
    smp_boot::reset(others);
    for cpu in others {
        if let Err(error) = on(cpu) {
            log::error!("smp: {error}");
        }
    }
    smp::report();
}

/// Brings a CPU up. May sleep.
///
/// # Errors
///
/// [`Error`]; the CPU is as before.
pub fn on(cpu: CpuId) -> Result<(), Error> {
    if !smp::cpus().contains(cpu) {
        return Err(Error::NotPossible(cpu));
    }
    let _control = CONTROL.write();
    let all = steps::all().len();
    if done(cpu) == all {
        return Err(Error::AlreadyOnline(cpu));
    }
    go(cpu, all)
}

/// Takes a CPU offline. Threads that run there go on elsewhere; see `docs/hotplug.md`. May
/// sleep.
///
/// # Errors
///
/// [`Error`]; the CPU is as before.
pub fn off(cpu: CpuId) -> Result<(), Error> {
    if !smp::cpus().contains(cpu) {
        return Err(Error::NotPossible(cpu));
    }
    if cpu == CpuId::BOOT {
        return Err(Error::BootCpu);
    }
    let _control = CONTROL.write();
    if done(cpu) == 0 {
        return Err(Error::AlreadyOffline(cpu));
    }
    go(cpu, 0)
}

/// Adds a step behind the others of its place, and does its `up` for every CPU that is online.
/// May sleep.
///
/// # Errors
///
/// The name is taken, the table full, or an `up` failed: then those done are undone, and the
/// step is not there.
pub fn register(step: Step) -> Result<(), Reason> {
    let _control = CONTROL.write();
    let number = steps::insert(step)?;
    let online = steps_done_up_to(number);
    for cpu in online {
        if let Err(why) = (step.up)(cpu) {
            for done in online.iter().take_while(|&done| done != cpu) {
                undo(&step, done);
            }
            steps::remove(step.name);
            return Err(why);
        }
    }
    for cpu in online {
        DONE[cpu.index()].fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Takes a step out, after its `down` for every CPU that is online. May sleep.
pub fn unregister(name: &str) {
    let _control = CONTROL.write();
    let Some((number, step)) = steps::remove(name) else {
        return;
    };
    for cpu in steps_done_up_to(number + 1) {
        undo(&step, cpu);
        DONE[cpu.index()].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Adds what CPUs do themselves on their way up and down, behind the others. It is not done for
/// those that are online. May sleep.
///
/// # Errors
///
/// The table is full.
pub fn register_on_cpu(step: CpuStep) -> Result<(), Reason> {
    let _control = CONTROL.write();
    steps::insert_on_cpu(step)
}

/// Takes out what [`register_on_cpu`] added. May sleep.
pub fn unregister_on_cpu(name: &str) {
    let _control = CONTROL.write();
    steps::remove_on_cpu(name);
}

/// Makes the step `name` fail the next time that it is to be done, up or down, but for going
/// back. `None`: nothing is to fail any more. Whether there is one of that name.
pub fn fail(name: Option<&str>) -> bool {
    steps::fail(name.unwrap_or_default()) || name.is_none()
}

/// The names of the steps, in the order of coming up.
pub fn step_names() -> ArrayVec<&'static str, { steps::MOST }> {
    steps::all().iter().map(|step| step.name).collect()
}

/// What is to be seen of a CPU. Exact for who has the [`read_lock`].
pub fn status(cpu: CpuId) -> Status {
    Status {
        online: smp::online().contains(cpu),
        done: done(cpu),
        steps: steps::all().len(),
        since_ns: SINCE[cpu.index()].load(Ordering::Relaxed),
    }
}

fn done(cpu: CpuId) -> usize {
    DONE[cpu.index()].load(Ordering::Relaxed)
}

/// CPUs for which the steps below `number` are done, of which there is at least one.
fn steps_done_up_to(number: usize) -> CpuMask {
    let there = |&cpu: &CpuId| done(cpu) >= number.max(1);
    smp::cpus().iter().filter(there).collect()
}

/// Walks to `to` steps done, or back. With the lock.
fn go(cpu: CpuId, to: usize) -> Result<(), Error> {
    let from = done(cpu);
    let result = walk(cpu, to, true);
    match result {
        Ok(()) => {
            SINCE[cpu.index()].store(time::now_ns(), Ordering::Relaxed);
            let state = if to == 0 { "offline" } else { "online" };
            log::debug!("hotplug: cpu{cpu} is {state}");
        }
        Err(_) => {
            if let Err(error) = walk(cpu, from, false) {
                log::error!("hotplug: cpu{cpu} is not back where it was: {error}");
            }
        }
    }
    result
}

/// Does steps until `to` are done, or one fails. With the lock.
fn walk(cpu: CpuId, to: usize, with_faults: bool) -> Result<(), Error> {
    let steps = steps::all();
    loop {
        let done = done(cpu);
        let (step, action, next) = match done.cmp(&to) {
            core::cmp::Ordering::Equal => return Ok(()),
            core::cmp::Ordering::Less => (&steps[done], steps[done].up, done + 1),
            core::cmp::Ordering::Greater => (&steps[done - 1], steps[done - 1].down, done - 1),
        };
        let result = if with_faults && steps::takes_fault(step) {
            Err("it was made to")
        } else {
            action(cpu)
        };
        result.map_err(|why| Error::Step {
            cpu,
            step: step.name,
            why,
        })?;
        DONE[cpu.index()].store(next, Ordering::Relaxed);
    }
}

/// A step's `down`, which nobody could go back from.
fn undo(step: &Step, cpu: CpuId) {
    if let Err(why) = (step.down)(cpu) {
        log::error!(
            "hotplug: cpu{cpu}: step '{}' is not undone: {why}",
            step.name
        );
    }
}
