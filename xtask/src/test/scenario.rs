//! Scenarios: each boots a guest of its own, or runs xtask as a user would, and
//! compares what comes out with what it expects. A scenario is data; the tables
//! are in [`scenarios`](super::scenarios), and this is the one engine for all.

mod check;
mod panic_report;
mod program;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use self::check::{Check, Transcript};
pub use self::panic_report::PanicExpected;
pub use self::program::{Program, this_program};
use super::kernel::{self, Job};
use super::outcome::{CaseResult, Outcome, full_name};
use super::report::Reporter;
use super::subject::{Log, Start, listen};
use super::tier::Tier;
use crate::machine::{Firmware, Machine};

/// The group of all scenarios.
pub const GROUP: &str = "boot";

/// How many scenarios run at once. Each has several vCPU threads.
const AT_ONCE: usize = 2;

/// How many lines of output a failure shows.
const SHOWN_LINES: usize = 40;

/// One scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name, without the group.
    pub name: String,
    /// The smallest tier in which it runs.
    pub least: Tier,
    /// What happens.
    pub action: Action,
}

impl Scenario {
    /// Whether its machine starts by UEFI.
    pub fn boots_by_uefi(&self) -> bool {
        match &self.action {
            Action::Boot(boot) | Action::Twice(boot) => boot.machine.firmware == Firmware::Uefi,
            Action::Planted(planted) => planted.machine.firmware == Firmware::Uefi,
            Action::Program(_) | Action::Orphan => false,
        }
    }
}

/// What a scenario does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Boots once and looks at the output.
    Boot(Boot),
    /// The same twice, and whether both print the same to the last byte.
    Twice(Boot),
    /// Runs the in-kernel tests with a planted fault and looks at the results.
    Planted(Planted),
    /// Runs xtask and looks at what it says.
    Program(Program),
    /// Starts `xtask run`, kills xtask, and looks whether QEMU is gone.
    Orphan,
}

/// A boot.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The machine.
    pub machine: Machine,
    /// The kernel command line.
    pub cmdline: String,
    /// What is typed once the kernel is ready.
    pub input: String,
    /// What has to come out.
    pub checks: Vec<Check>,
    /// Whether the wall time to the end of boot is shown. It is never judged.
    pub show_time: bool,
}

/// A run of the in-kernel tests with a planted fault.
#[derive(Clone, Debug)]
pub struct Planted {
    /// The machine.
    pub machine: Machine,
    /// The value of `kunit.planted=`.
    pub fault: &'static str,
    /// All results that have to come out, in order.
    pub results: Vec<ResultExpected>,
}

/// A result that has to come out of a run.
#[derive(Clone, Copy, Debug)]
pub struct ResultExpected {
    /// `suite.case`, or the name of what is no case.
    pub name: &'static str,
    /// The word for the outcome.
    pub word: &'static str,
    /// What some line of the explanation contains.
    pub says: &'static str,
}

/// Why a guest cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Something is not there that need not be.
    Skip(String),
    /// Something went wrong.
    Fail(String),
}

/// What the scenarios need of the world. The tests of the engine have another one.
pub trait World: Sync {
    /// Whatever starts such machines, with `limits`.
    fn starter(&self, machine: &Machine, limits: Limits) -> Result<Box<dyn Start + '_>, Absent>;

    /// The program `xtask`.
    fn xtask(&self) -> PathBuf;

    /// The folder for logs.
    fn logs(&self) -> &Path;
}

/// For how long a guest may do nothing, or run at all. Wall time; generous, since
/// the host may be busy with other things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest time without a line of output.
    pub silence: Duration,
    /// The longest time in all.
    pub deadline: Duration,
}

/// For guests that are expected to come to an end by themselves.
pub const GENEROUS: Limits = Limits {
    silence: Duration::from_secs(120),
    deadline: Duration::from_secs(600),
};

/// For guests with a planted fault, whose hang is certain.
const IMPATIENT: Limits = Limits {
    silence: Duration::from_secs(25),
    deadline: Duration::from_secs(180),
};

/// The limit of a case in guests with a planted fault.
const IMPATIENT_CASE: Duration = Duration::from_secs(3);

/// How long a hung guest may take to answer an NMI.
pub const NMI_GRACE: Duration = Duration::from_secs(20);

/// Runs the scenarios, some at a time, and hands the results to `reporter`.
pub fn run(scenarios: Vec<Scenario>, world: &dyn World, reporter: &Reporter) {
    if scenarios.is_empty() {
        return;
    }
    let since = Instant::now();
    let all = scenarios.len();
    let queue = Mutex::new(VecDeque::from(scenarios));
    let worker = || {
        loop {
            let next = queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some(scenario) = next else { return };
            let left = queue.lock().unwrap_or_else(PoisonError::into_inner).len();
            reporter.status(format!("{GROUP}: {}/{all} {}", all - left, scenario.name));
            reporter.case(one(&scenario, world, reporter));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(worker);
        }
    });
    reporter.group_ended(GROUP, since.elapsed());
}

/// Runs one scenario.
fn one(scenario: &Scenario, world: &dyn World, reporter: &Reporter) -> CaseResult {
    let since = Instant::now();
    let path = world.logs().join(format!("{GROUP}-{}.log", scenario.name));
    let outcome = match Log::create(&path) {
        Ok(mut log) => match &scenario.action {
            Action::Boot(boot) => {
                run_boot(boot, &scenario.name, world, &mut log, reporter).outcome(boot)
            }
            Action::Twice(boot) => run_twice(boot, &scenario.name, world, &mut log, reporter),
            Action::Planted(planted) => run_planted(planted, world, &mut log),
            Action::Program(program) => program::run(program, &world.xtask(), &mut log),
            Action::Orphan => program::run_orphan(&world.xtask(), &mut log),
        },
        Err(error) => Outcome::Failed(vec![format!("{error:#}")]),
    };
    let mut result = CaseResult::new(GROUP, &scenario.name, outcome).with_log(&path);
    result.time = since.elapsed();
    result
}

/// What came of a boot.
enum Booted {
    /// There was none.
    Not(Outcome),
    /// What was seen, what went wrong outside of the guest, and what QEMU said.
    Seen(Transcript, Vec<String>, String),
}

impl Booted {
    fn outcome(self, boot: &Boot) -> Outcome {
        match self {
            Self::Not(outcome) => outcome,
            Self::Seen(transcript, wrong, stderr) => {
                let mut ended = vec![format!("its end: {}", transcript.end)];
                if !stderr.trim().is_empty() {
                    ended.push(format!("QEMU says: {}", stderr.trim()));
                }
                conclude(&boot.checks, transcript, wrong, ended)
            }
        }
    }
}

fn run_boot(
    boot: &Boot,
    name: &str,
    world: &dyn World,
    log: &mut Log,
    reporter: &Reporter,
) -> Booted {
    let starter = match world.starter(&boot.machine, GENEROUS) {
        Ok(starter) => starter,
        Err(absent) => return Booted::Not(absent.into()),
    };
    log.remark(&format!("command line: {}", boot.cmdline));
    let since = Instant::now();
    let mut machine = match starter.start(&boot.cmdline) {
        Ok(machine) => machine,
        Err(error) => return Booted::Not(Outcome::Failed(vec![format!("{error:#}")])),
    };
    let mut lines = Vec::new();
    let mut typed = None;
    let end = listen(&mut *machine, &*starter, NMI_GRACE, log, |line, machine| {
        lines.push(line.to_owned());
        if !line.contains("boot: ready in ") {
            return;
        }
        if boot.show_time {
            let wall = since.elapsed().as_secs_f64();
            reporter.line(&format!(
                "        {GROUP}/{name}: wall time to the end of boot: {wall:.2} s"
            ));
        }
        if !boot.input.is_empty() {
            typed = Some(machine.write(boot.input.as_bytes()));
        }
    });
    let mut wrong = Vec::new();
    if let Some(Err(error)) = typed {
        wrong.push(format!("cannot type to the guest: {error:#}"));
    }
    let stderr = machine.stderr();
    Booted::Seen(Transcript { lines, end }, wrong, stderr)
}

fn run_twice(
    boot: &Boot,
    name: &str,
    world: &dyn World,
    log: &mut Log,
    reporter: &Reporter,
) -> Outcome {
    let first = match run_boot(boot, name, world, log, reporter) {
        Booted::Seen(transcript, ..) => transcript,
        Booted::Not(outcome) => return outcome,
    };
    let mut second = run_boot(boot, name, world, log, reporter);
    if let Booted::Seen(again, wrong, _) = &mut second {
        let pairs = first.lines.iter().zip(&again.lines);
        if let Some((before, after)) = pairs.clone().find(|(before, after)| before != after) {
            wrong.push(format!("the two differ: `{before}`, then `{after}`"));
        } else if first.lines.len() != again.lines.len() || first.end != again.end {
            wrong.push(format!(
                "the two differ: {} lines and {}, then {} lines and {}",
                first.lines.len(),
                first.end,
                again.lines.len(),
                again.end
            ));
        }
    }
    second.outcome(boot)
}

/// Applies all checks; what is wrong comes first, then how it `ended` in words, then the end of
/// the output.
fn conclude(
    checks: &[Check],
    transcript: Transcript,
    mut wrong: Vec<String>,
    ended: Vec<String>,
) -> Outcome {
    wrong.extend(
        checks
            .iter()
            .filter_map(|check| check.apply(&transcript).err()),
    );
    if wrong.is_empty() {
        return Outcome::Passed;
    }
    wrong.extend(ended);
    wrong.push("the end of the output:".into());
    let from = transcript.lines.len().saturating_sub(SHOWN_LINES);
    wrong.extend(transcript.lines[from..].iter().cloned());
    if transcript.end.is_hang() {
        Outcome::TimedOut(wrong)
    } else {
        Outcome::Failed(wrong)
    }
}

fn run_planted(planted: &Planted, world: &dyn World, log: &mut Log) -> Outcome {
    let starter = match world.starter(&planted.machine, IMPATIENT) {
        Ok(starter) => starter,
        Err(absent) => return absent.into(),
    };
    let job = Job {
        group: "kernel/planted".into(),
        globs: vec!["planted.*".into()],
        shuffle: None,
        repeat: 1,
        case_timeout: Some(IMPATIENT_CASE),
        cmdline: format!("kunit.planted={}", planted.fault),
        nmi_grace: NMI_GRACE,
    };
    let inner = Reporter::silent();
    kernel::run(&job, &*starter, log, &inner);
    compare(&planted.results, &inner.finish())
}

/// Whether the results are exactly the ones expected.
fn compare(expected: &[ResultExpected], results: &[CaseResult]) -> Outcome {
    let name = |result: &CaseResult| {
        let full = full_name(&result.group, &result.name);
        full.trim_start_matches("kernel/planted/").to_owned()
    };
    let fits = |(expected, result): (&ResultExpected, &CaseResult)| {
        name(result) == expected.name
            && result.outcome.word() == expected.word
            && (expected.says.is_empty()
                || result
                    .outcome
                    .details()
                    .iter()
                    .any(|line| line.contains(expected.says)))
    };
    if expected.len() == results.len() && expected.iter().zip(results).all(fits) {
        return Outcome::Passed;
    }
    let mut lines = vec![
        "the results are not as expected".to_owned(),
        "expected:".into(),
    ];
    for one in expected {
        lines.push(format!("  {}: {} ({})", one.name, one.word, one.says));
    }
    lines.push("came:".into());
    for result in results {
        let outcome = &result.outcome;
        lines.push(format!("  {}: {}", name(result), outcome.word()));
        lines.extend(
            outcome
                .details()
                .iter()
                .take(SHOWN_LINES)
                .map(|line| format!("    {line}")),
        );
    }
    Outcome::Failed(lines)
}

impl From<Absent> for Outcome {
    fn from(absent: Absent) -> Self {
        match absent {
            Absent::Skip(reason) => Self::Skipped(reason),
            Absent::Fail(reason) => Self::Failed(reason.lines().map(str::to_owned).collect()),
        }
    }
}

#[cfg(test)]
mod tests;
