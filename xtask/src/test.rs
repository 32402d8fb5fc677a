//! `cargo xtask test`: the host tests of every crate, the suites inside the
//! kernel on several shapes of machine, and scenarios that boot once each.
//!
//! - [`host`]: builds and runs the host tests
//! - [`kernel`]: runs the in-kernel suites; [`ktap`] reads what they print
//! - [`scenario`]: the engine for scenarios; [`scenarios`]: their tables
//! - [`subject`]: a guest as seen from here; [`qemu`]: the real one
//! - [`torture`]: one long run that tortures RCU
//! - [`filter`], [`tier`]: what to run; [`outcome`], [`report`], [`junit`]: what came of it
//!
//! Each case has a full name: `host/<crate>/<test>`, `kernel/<shape>/<suite>.<case>`
//! or `boot/<scenario>`. The last line of the output is the count of all of them,
//! and the status is a failure if one failed or none ran.

mod filter;
mod host;
mod junit;
mod kernel;
mod ktap;
mod list;
mod outcome;
mod process;
pub(crate) mod qemu;
mod report;
pub(crate) mod scenario;
mod scenarios;
mod shapes;
pub(crate) mod subject;
pub(crate) mod tier;
mod torture;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kernel_base::cmdline::DEFAULT_CASE_TIMEOUT_MS;

use self::filter::Filter;
pub use self::filter::Kind;
pub use self::host::Sanitizer;
use self::host::{Host, RECURSION_GUARD, Sanitized};
use self::kernel::Job;
use self::outcome::{CaseResult, Outcome, Totals, full_name};
use self::qemu::Qemu;
use self::report::Reporter;
use self::scenario::{Absent, GROUP, Limits, NMI_GRACE, Scenario, World};
use self::shapes::Shape;
use self::subject::Log;
use self::tier::Tier;
use crate::cli::{TestArgs, Usage};
use crate::{ui, workspace};

/// Runs the tests that `args` select.
pub fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    if let Some(duration) = args.torture.torture {
        return torture::run(args, duration);
    }
    let begun = Instant::now();
    let run = Run::new(args)?;
    if args.list {
        return run.list();
    }
    if args.machine.dry_run {
        return run.dry_run();
    }
    let reporter = Reporter::new();
    run.host(&reporter);
    run.guests(&reporter);
    let results = reporter.finish();
    junit::write(&run.junit, &results, begun.elapsed())?;
    if results.is_empty() {
        ui::error(&format!("no test matches {}", run.filter.describe()));
    }
    print!("{}", report::summary(&results));
    Ok(if Totals::of(&results).is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Run<'a> {
    args: &'a TestArgs,
    filter: Filter,
    tier: Tier,
    logs: PathBuf,
    junit: PathBuf,
    sanitized: Option<Sanitized>,
}

impl<'a> Run<'a> {
    fn new(args: &'a TestArgs) -> anyhow::Result<Self> {
        // A pattern goes to the kernel as a word of its command line.
        if let Some(bad) = args
            .filters
            .iter()
            .find(|glob| glob.contains([' ', '"', ',']) || glob.is_empty())
        {
            return Err(Usage(format!(
                "`{bad}` is no pattern: it is empty, or has a blank, comma or quote"
            ))
            .into());
        }
        // A test that runs xtask may run the tests inside the kernel, but not
        // those to which it belongs.
        let outer = std::env::var_os(RECURSION_GUARD).map(PathBuf::from);
        if outer.is_some() && args.only != Some(Kind::Kernel) {
            return Err(Usage("a test of xtask must not run all tests".into()).into());
        }
        let (junit, logs) = match outer {
            Some(folder) => (folder.join("junit.xml"), folder),
            None => (
                workspace::target().join("junit.xml"),
                workspace::target().join("test-logs"),
            ),
        };
        // Guests have none.
        let only = args.sanitize.map(|_| Kind::Host).or(args.only);
        Ok(Self {
            args,
            filter: Filter::new(args.filters.clone(), only),
            sanitized: args.sanitize.map(Sanitized::find).transpose()?,
            tier: Tier::choose(args.long, std::env::var("CI").ok().as_deref()),
            logs,
            junit: args.junit.clone().unwrap_or(junit),
        })
    }

    /// The seed of schedules: the same every day, another one in every long run. The guest
    /// prints it.
    fn schedule_seed(&self) -> u64 {
        if self.tier == Tier::Long {
            random_seed().max(1)
        } else {
            1
        }
    }

    fn host_tests(&self) -> Host<'_> {
        Host {
            root: workspace::root(),
            filter: &self.filter,
            logs: self.logs.clone(),
            tier: self.tier,
            sanitized: self.sanitized.clone(),
        }
    }

    fn host(&self, reporter: &Reporter) {
        if self.filter.wants(Kind::Host) {
            self.host_tests().run(reporter);
        }
    }

    /// The scenarios that are selected.
    fn scenarios(&self) -> Vec<Scenario> {
        if !self.filter.wants(Kind::Boot) {
            return Vec::new();
        }
        let mut scenarios = scenarios::all(self.tier);
        scenarios.retain(|scenario| self.filter.selects(&full_name(GROUP, &scenario.name)));
        scenarios
    }

    /// The shapes on which cases are selected, with the globs for the kernel.
    fn shapes(&self) -> Vec<(Shape, Vec<String>)> {
        let shapes = Shape::chosen(&self.args.machine);
        let with_globs = shapes.into_iter().map(|shape| {
            let globs = self.filter.kernel_globs(&shape.name());
            (shape, globs)
        });
        with_globs.filter(|(_, globs)| !globs.is_empty()).collect()
    }

    /// Runs what needs guests: in-kernel suites and scenarios.
    fn guests(&self, reporter: &Reporter) {
        let (shapes, scenarios) = (self.shapes(), self.scenarios());
        if shapes.is_empty() && scenarios.is_empty() {
            return;
        }
        reporter.status("building the kernel");
        let world = match self.world() {
            Ok(world) => world,
            Err(error) => {
                let lines = format!("{error:#}").lines().map(str::to_owned).collect();
                reporter.case(CaseResult::new("kernel", "(build)", Outcome::Failed(lines)));
                return;
            }
        };
        let shuffle = self
            .args
            .shuffle
            .map(|seed| seed.unwrap_or_else(random_seed));
        if let Some(seed) = shuffle {
            reporter.line(&format!(
                "shuffled: --shuffle={seed} gives the same order again"
            ));
        }
        let wants_disk = !shapes.is_empty() && scenarios.iter().any(Scenario::boots_by_uefi);
        let run = |(shape, globs)| self.suites(&world, shape, globs, shuffle, reporter);
        let (alone, beside): (Vec<_>, Vec<_>) = shapes
            .into_iter()
            .partition(|(shape, _): &(Shape, _)| !shape.is_one_thread());
        let beside = Mutex::new(beside);
        let next = || beside.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // These guests use one processor each, and do not see how fast it is.
        let run_beside = || {
            while let Some(shape) = next() {
                run(shape);
            }
        };
        std::thread::scope(|scope| {
            // The others leave a processor idle for most of the time.
            scope.spawn(|| {
                // It takes minutes the first time. Who needs it waits for it.
                if wants_disk {
                    world.make_disk();
                }
                run_beside();
            });
            alone.into_iter().for_each(run);
            run_beside();
        });
        scenario::run(scenarios, &world, reporter);
    }

    fn world(&self) -> anyhow::Result<Qemu> {
        Qemu::prepare(&self.args.machine, self.tier, self.logs.clone())
    }

    /// Runs the in-kernel suites on one shape.
    fn suites(
        &self,
        world: &Qemu,
        shape: Shape,
        globs: Vec<String>,
        shuffle: Option<u64>,
        reporter: &Reporter,
    ) {
        let group = format!("kernel/{}", shape.name());
        let job = Job {
            group: group.clone(),
            globs,
            shuffle,
            repeat: self.args.repeat,
            case_timeout: None,
            cmdline: [
                shape.cmdline(self.schedule_seed()),
                with_tier(
                    &self.args.machine.cmdline,
                    self.tier,
                    shape.percent(self.tier),
                ),
            ]
            .join(" ")
            .trim()
            .to_owned(),
            nmi_grace: NMI_GRACE,
        };
        let path = self.logs.join(format!("{}.log", shape.name()));
        let started = shape
            .machine(&self.args.machine)
            .map_err(|error| Absent::Fail(format!("{error:#}")))
            .and_then(|machine| world.starter(&machine, self.limits()))
            .map_err(Outcome::from);
        match (started, Log::create(&path)) {
            (Ok(starter), Ok(mut log)) => kernel::run(&job, &*starter, &mut log, reporter),
            (Err(outcome), _) => reporter.case(CaseResult::new(group, "(start)", outcome)),
            (_, Err(error)) => {
                let outcome = Outcome::Failed(vec![format!("{error:#}")]);
                reporter.case(CaseResult::new(group, "(log)", outcome));
            }
        }
    }

    /// The limits of a guest that runs suites: `--timeout` bounds its whole time.
    fn limits(&self) -> Limits {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        // Not less in CI: there the host may be busy with as much again.
        let deadline = match (self.args.machine.timeout, self.tier) {
            (Some(seconds), _) => Duration::from_secs(seconds),
            (None, Tier::Long) => hours(12),
            (None, Tier::Quick | Tier::Ci) => hours(1),
        };
        // A case may be silent for as long as the kernel lets it run, and the kernel should
        // be the first to say that it hangs.
        let case = Duration::from_millis(case_timeout_ms(self.tier));
        Limits {
            silence: scenario::GENEROUS.silence.max(case + case / 4),
            deadline,
        }
    }

    /// Prints how QEMU would be started for the suites on each shape.
    fn dry_run(&self) -> anyhow::Result<ExitCode> {
        let world = self.world()?;
        for (shape, globs) in self.shapes() {
            let machine = shape.machine(&self.args.machine)?;
            let cmdline = format!("kunit={} {}", globs.join(","), self.args.machine.cmdline);
            println!("{}", world.command_line(&machine, cmdline.trim())?);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Prints the full names of all selected tests.
    fn list(&self) -> anyhow::Result<ExitCode> {
        let mut names = Vec::new();
        if self.filter.wants(Kind::Host) {
            names.extend(self.host_tests().list()?);
        }
        let shapes = self.shapes();
        if !shapes.is_empty() {
            let world = self.world()?;
            for (shape, globs) in shapes {
                let mut log = Log::create(&self.logs.join(format!("{}.log", shape.name())))?;
                let machine = shape.machine(&self.args.machine)?;
                let starter =
                    world
                        .starter(&machine, self.limits())
                        .map_err(|absent| match absent {
                            Absent::Skip(reason) | Absent::Fail(reason) => {
                                anyhow::Error::msg(reason)
                            }
                        })?;
                let cases = list::kernel_cases(&globs, &*starter, &mut log)?;
                names.extend(
                    cases
                        .into_iter()
                        .map(|case| format!("kernel/{}/{case}", shape.name())),
                );
            }
        }
        names.extend(
            self.scenarios()
                .into_iter()
                .map(|scenario| full_name(GROUP, &scenario.name)),
        );
        for name in &names {
            println!("{name}");
        }
        if names.is_empty() {
            ui::error(&format!("no test matches {}", self.filter.describe()));
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A seed that differs from run to run; short, since somebody may type it.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) % 1_000_000
}
/// How long a case may take, in guest milliseconds.
fn case_timeout_ms(tier: Tier) -> u64 {
    match tier {
        Tier::Quick => DEFAULT_CASE_TIMEOUT_MS,
        Tier::Long => 1_200_000,
        Tier::Ci => 240_000,
    }
}

/// The command line of a guest of this tier: how long its long cases run, and how long one
/// may take.
fn with_tier(cmdline: &str, tier: Tier, percent: Option<u32>) -> String {
    let Some(percent) = percent else {
        return cmdline.to_owned();
    };
    let timeout = case_timeout_ms(tier);
    let words = format!("kunit.percent={percent} kunit.timeout_ms={timeout}");
    // What the user says comes last, and counts.
    format!("{words} {cmdline}").trim_end().to_owned()
}
