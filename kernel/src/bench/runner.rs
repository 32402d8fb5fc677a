//! Runs what was selected and prints what came of it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kernel_base::bench::{Figures, Malformed, Said, median};
use kernel_base::cmdline::CommandLine;

use platform::{CpuId, CpuMask};

use super::{Options, Run, Stop, Workload, idle, plan};
use crate::{boot, exit, hotplug, sched, smp};

/// The warm-up does the part of the operations that has this divisor.
const WARM_UP: u64 = 10;

/// What the command line asks for (`bench=`, `bench.list` ...), then exits with a status
/// that says whether all went well.
pub fn run_from_command_line() -> ! {
    let line = boot::command_line();
    let options = Options::from_command_line(line);
    let good = if line.bench_list {
        list(&options)
    } else {
        run(&options)
    };
    if good {
        exit::success()
    } else {
        exit::failure()
    }
}

impl Options {
    /// Everything, as often as the command line says.
    pub fn all() -> Self {
        Self {
            patterns: [String::from("*")].into(),
            ..Self::from_command_line(boot::command_line())
        }
    }

    fn from_command_line(line: &CommandLine<'_>) -> Self {
        let patterns = line
            .bench
            .map_or_else(|| String::from("*"), |globs| globs.to_string());
        Self {
            patterns: patterns.split(',').map(String::from).collect(),
            rounds: u32::try_from(line.bench_rounds).unwrap_or(u32::MAX),
        }
    }
}

/// Prints the names of the workloads that `options` select, and what is wrong with its
/// patterns. Whether each pattern means some.
pub fn list(options: &Options) -> bool {
    for workload in plan::selected(options) {
        crate::println!("{}", workload.name);
    }
    unmatched(options) == 0
}

/// Runs the workloads that `options` select. Whether there are figures, nothing went wrong,
/// and each pattern means some workload; one that cannot run on this machine is no failure.
pub fn run(options: &Options) -> bool {
    let _stay = hotplug::read_lock();
    say(Said::Begin {
        checked: cfg!(debug_assertions),
        rounds: options.rounds,
        cpus: smp::online().count() as u32,
    });
    idle::prepare();
    // Always the same CPU, so that runs are alike.
    let allowed = sched::current().allowed();
    sched::move_to(CpuMask::only(CpuId::BOOT));
    let good = run_here(options);
    sched::move_to(allowed);
    good
}

fn run_here(options: &Options) -> bool {
    let (mut measured, mut skipped, mut failed) = (0, 0, unmatched(options));
    for workload in plan::selected(options) {
        let name = workload.name;
        say(Said::Run(name));
        match one(workload, options.rounds) {
            Ok(()) => measured += 1,
            Err(Stop::Skipped(reason)) => {
                skipped += 1;
                say(Said::Skip {
                    name,
                    reason: &reason,
                });
            }
            Err(Stop::Failed(reason)) => {
                failed += 1;
                say(Said::Fail {
                    name,
                    reason: &reason,
                });
            }
        }
    }
    say(Said::End {
        measured,
        skipped,
        failed,
    });
    failed == 0 && measured > 0
}

/// Complains of patterns that mean nothing; how many they are.
fn unmatched(options: &Options) -> u32 {
    let unmatched = plan::unmatched(options);
    for pattern in &unmatched {
        say(Said::NoMatch(pattern));
    }
    unmatched.len() as u32
}

/// A line of its own on the console, in one piece.
fn say(said: Said<'_>) {
    crate::println!("{said}");
}

fn one(workload: &Workload, rounds: u32) -> Result<(), Stop> {
    let online = smp::online().count();
    if online < workload.cpus {
        let are = if online == 1 { "is" } else { "are" };
        let needed = workload.cpus;
        return Err(Stop::Skipped(format!(
            "needs {needed} CPUs, {online} {are} online"
        )));
    }
    let mut measured = Vec::new();
    let figures = figures(workload, rounds, &mut measured)?;
    say(Said::Figures(figures));
    Ok(())
}

/// Warms up, measures `rounds` rounds into `measured`, and makes the line.
pub fn figures<'a>(
    workload: &Workload,
    rounds: u32,
    measured: &'a mut Vec<Run>,
) -> Result<Figures<'a>, Stop> {
    measured
        .try_reserve_exact(rounds as usize)
        .map_err(|_| Stop::Failed(format!("no memory for {rounds} rounds")))?;
    (workload.run)(&mut Run::new((workload.ops / WARM_UP).max(1)))?;
    for _ in 0..rounds {
        let mut run = Run::new(workload.ops);
        (workload.run)(&mut run)?;
        if !run.has_measured() {
            return Err(Stop::Failed("it measured nothing".into()));
        }
        measured.push(run);
    }
    let Some((run, min, max)) = median(measured, Run::ns_per_op) else {
        return Err(Stop::Failed("there are no rounds".into()));
    };
    line(workload.name, run)
        .and_then(|figures| figures.with_range(min, max))
        .map_err(|error| Stop::Failed(format!("its line cannot be made: {error}")))
}

fn line<'a>(name: &'static str, run: &'a Run) -> Result<Figures<'a>, Malformed> {
    let figures = Figures::new(name, run.cpus(), run.total_ops(), run.ns_per_op())?
        .with_idle_ns(run.took().idle_ns);
    run.keys()
        .iter()
        .try_fold(figures, |figures, &(key, value)| {
            figures.with_key(key, value)
        })
}
