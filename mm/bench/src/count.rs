//! Measuring: time, and instructions.
//!
//! Instructions are counted one by one: the program starts itself as a child, which stops
//! before and after the part that counts, and is single-stepped in between (`ptrace`). That
//! needs neither a counter of the processor, which virtual machines often lack, nor a tool
//! that not every program runs under, and is exact; but a step takes some 30 us, so few
//! operations are counted: once n and once 2n, and the difference is that of n.

use std::{
    cell::Cell,
    io,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kernel_base::bench::Tenths;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        ptrace,
        signal::{Signal, raise},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// The first argument of the child.
pub const CHILD: &str = "--count";

/// What measures the part of a workload that counts.
pub struct Clock {
    took: Cell<Duration>,
    stops: bool,
}

impl Clock {
    /// Measures time.
    pub fn watch() -> Self {
        Self {
            took: Cell::default(),
            stops: false,
        }
    }

    /// Stops the process before and after, for the one who counts.
    pub fn stops() -> Self {
        Self {
            stops: true,
            ..Self::watch()
        }
    }

    /// The part that counts.
    pub fn time<R>(&self, f: impl FnOnce() -> R) -> R {
        self.stop();
        let begun = Instant::now();
        let result = f();
        self.took.set(self.took.get() + begun.elapsed());
        self.stop();
        result
    }

    fn stop(&self) {
        if self.stops {
            raise(Signal::SIGSTOP).expect("a process may stop itself");
        }
    }

    /// The time of all parts.
    pub fn took(&self) -> Duration {
        self.took.get()
    }
}

/// Whether a child can be stepped here.
///
/// # Errors
///
/// Why not.
pub fn can() -> io::Result<()> {
    let mut child = Stepped::start(&mut Command::new("true"))?;
    child.step()?;
    Ok(())
}

/// The instructions of one operation of the workload `name`.
///
/// # Errors
///
/// What went wrong.
pub fn per_op(name: &str, ops: u64) -> Result<Tenths, String> {
    let count = |ops: u64| count(name, ops).map_err(|error| format!("cannot count: {error}"));
    let (once, twice) = (count(ops)?, count(2 * ops)?);
    let more = twice.checked_sub(once).ok_or("counts do not grow")?;
    Ok(Tenths::per_op(more, 1, ops))
}

fn count(name: &str, ops: u64) -> io::Result<u64> {
    let mut command = Command::new("/proc/self/exe");
    command.args([CHILD, name, &ops.to_string()]);
    let mut child = Stepped::start(&mut command)?;
    child.run_to_stop()?;
    let mut steps = 0;
    while child.step()? {
        steps += 1;
    }
    Ok(steps)
}

/// A child that is traced, and stopped. Killed when it is dropped.
struct Stepped {
    pid: Pid,
    /// The CPUs that this process had.
    cpus: CpuSet,
}

impl Stepped {
    /// Starts it up to its first instruction.
    fn start(command: &mut Command) -> io::Result<Self> {
        let own = Pid::from_raw(0);
        let cpus = sched_getaffinity(own)?;
        // Parent and child take turns: on one CPU that is twice as fast.
        let mut one = CpuSet::new();
        let first = (0..CpuSet::count()).find(|&cpu| cpus.is_set(cpu) == Ok(true));
        one.set(first.unwrap_or(0))?;
        sched_setaffinity(own, &one)?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: one system call, which may be made between fork and exec.
        unsafe { command.pre_exec(|| ptrace::traceme().map_err(io::Error::from)) };
        let started = command.spawn();
        let pid = match started {
            Ok(child) => Pid::from_raw(child.id() as i32),
            Err(error) => {
                sched_setaffinity(own, &cpus)?;
                return Err(error);
            }
        };
        let child = Self { pid, cpus };
        match waitpid(pid, None)? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => Ok(child),
            other => Err(unexpected(other)),
        }
    }

    /// Lets it run until it stops itself.
    fn run_to_stop(&mut self) -> io::Result<()> {
        ptrace::cont(self.pid, None)?;
        match waitpid(self.pid, None)? {
            WaitStatus::Stopped(_, Signal::SIGSTOP) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// One instruction; `false`: it has stopped itself.
    fn step(&mut self) -> io::Result<bool> {
        ptrace::step(self.pid, None)?;
        match waitpid(self.pid, None)? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => Ok(true),
            WaitStatus::Stopped(_, Signal::SIGSTOP) => Ok(false),
            other => Err(unexpected(other)),
        }
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = ptrace::kill(self.pid);
        let _ = waitpid(self.pid, None);
        let _ = sched_setaffinity(Pid::from_raw(0), &self.cpus);
    }
}

fn unexpected(status: WaitStatus) -> io::Error {
    io::Error::other(format!("the child does not run as expected: {status:?}"))
}
