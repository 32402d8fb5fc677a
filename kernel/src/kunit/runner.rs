//! Runs what was planned and keeps the score.

use alloc::format;
use alloc::string::String;

use kernel_base::cmdline::{CommandLine, Shuffle};
use kernel_base::ktap::Totals;
use kernel_base::rng::Rng;
use platform::Priority;

use super::case_thread;
use super::plan::{self, Planned};
use super::planted::{self, Planted};
use super::{Body, Case, Ctx, Hook, Options, Outcome, Stop, Suite, expect, output};
use crate::memory::heap_walk;
use crate::report::Kind;
use crate::{boot, exit, sched, time};

/// How a case ended.
pub enum Verdict {
    /// As it should.
    Passed,
    /// Something is wrong; it has been printed.
    Failed,
    /// It could not run, for this reason.
    Skipped(String),
}

/// What the command line asks for (`kunit=`, `kunit.list` ...), then exits with a
/// status that says whether all went well.
pub fn run_from_command_line() -> ! {
    let line = boot::command_line();
    let options = Options::from_command_line(line);
    let mut suites = plan::suites();
    let mut truncated = None;
    if let Some(name) = line.kunit_planted {
        match planted::named(&format!("{name}")) {
            Some(Planted::Case(suite)) => suites.push(suite),
            Some(Planted::Truncate(suite)) => {
                suites.push(suite);
                truncated = Some(suite);
            }
            // A kernel that believes all is well although it ran nothing.
            Some(Planted::NoPlan) => {
                output::empty_plan();
                exit::success();
            }
            None => {
                log::error!("kunit.planted={name}: this kernel has no such planted fault");
                exit::failure();
            }
        }
    }
    if line.kunit_list {
        list(&suites, &options);
        exit::success();
    }
    if is_success(run_suites(&suites, &options, truncated)) {
        exit::success()
    } else {
        exit::failure()
    }
}

impl Options {
    /// Everything once, in the usual order.
    pub fn all() -> Self {
        Self::from_command_line(&CommandLine::new())
    }

    fn from_command_line(line: &CommandLine<'_>) -> Self {
        let patterns = line
            .kunit
            .map_or_else(|| String::from("*"), |globs| format!("{globs}"));
        Self {
            patterns: patterns.split(',').map(String::from).collect(),
            after: line.kunit_after.map(|name| format!("{name}")),
            shuffle: line.kunit_shuffle.map(|shuffle| match shuffle {
                Shuffle::Seed(seed) => seed,
                // Not a good random number, but a different one in every boot.
                Shuffle::Random => Rng::new(time::since_power_on_ns()).next_u64(),
            }),
            repeat: u32::try_from(line.kunit_repeat).unwrap_or(u32::MAX),
            timeout_ns: line.kunit_timeout_ms.saturating_mul(1_000_000),
        }
    }
}

/// Prints the full names of all cases that match, and returns how many they are.
pub fn list(suites: &[&'static Suite], options: &Options) -> usize {
    let plan = plan::build(suites, options, 0);
    for planned in &plan {
        for case in &planned.cases {
            crate::println!("{}", plan::full_name(planned.suite, case));
        }
    }
    plan.iter().map(|planned| planned.cases.len()).sum()
}

/// Runs the registered suites as `options` say; whether something ran or was skipped,
/// and nothing failed.
pub fn run(options: &Options) -> bool {
    is_success(run_suites(&plan::suites(), options, None))
}

fn is_success(totals: Totals) -> bool {
    totals.failed == 0 && totals.passed + totals.skipped > 0
}

/// Runs `suites`. The plan of the suite `truncated` is one too high.
fn run_suites(
    suites: &[&'static Suite],
    options: &Options,
    truncated: Option<&'static Suite>,
) -> Totals {
    let mut totals = Totals::default();
    // A case that never stops must not keep the runner from seeing that.
    let _urgent = sched::with_priority(Priority::Urgent);
    if let Some(after) = &options.after
        && !plan::contains(suites, options, after)
    {
        output::remark(format_args!(
            "no case selected is called {after} (kunit.after)"
        ));
        totals.failed += 1;
        return totals;
    }
    let mut ran = false;
    for round in 0..options.repeat {
        let plan = plan::build(suites, options, round);
        if plan.is_empty() {
            continue;
        }
        ran = true;
        if let Some(seed) = options.shuffle {
            output::remark(format_args!(
                "shuffle seed {}",
                seed.wrapping_add(u64::from(round))
            ));
        }
        let score = run_round(&plan, options, round, truncated);
        totals.passed += score.passed;
        totals.failed += score.failed;
        totals.skipped += score.skipped;
    }
    if !ran {
        output::remark(format_args!(
            "no case matches {}",
            options.patterns.join(",")
        ));
        output::empty_plan();
    }
    totals
}

fn run_round(
    plan: &[Planned],
    options: &Options,
    round: u32,
    truncated: Option<&'static Suite>,
) -> Totals {
    output::begin_run(plan.len());
    for planned in plan {
        let missing = truncated.is_some_and(|suite| core::ptr::eq(suite, planned.suite));
        output::begin_suite(
            planned.suite.name,
            planned.cases.len() + usize::from(missing),
        );
        SuiteRun::new(planned, options, round).run();
        output::end_suite(planned.suite.name);
    }
    output::end_run()
}

/// Walks the whole heap, as a part of a suite's last case. A fault is its suite's: that of an
/// earlier one would have been found then.
fn is_heap_sound(suite: &str) -> bool {
    match heap_walk::walk() {
        Ok(_) => true,
        Err(error) => {
            output::diagnostic(format_args!("heap after {suite}: {error}"));
            false
        }
    }
}

/// A suite that is being run.
struct SuiteRun<'a> {
    planned: &'a Planned,
    options: &'a Options,
    seed: u64,
    /// Why no case can run.
    broken: Option<Stop>,
}

impl<'a> SuiteRun<'a> {
    fn new(planned: &'a Planned, options: &'a Options, round: u32) -> Self {
        let seed = options.shuffle.unwrap_or(0).wrapping_add(u64::from(round));
        Self {
            planned,
            options,
            seed,
            broken: None,
        }
    }

    fn run(mut self) {
        let suite = self.planned.suite;
        let last = self.planned.cases.len();
        for (index, case) in self.planned.cases.iter().enumerate() {
            output::begin_case(suite.name, case.name);
            // Set-up and teardown run as part of a case, so that one that hangs
            // or panics is a case that hangs or panics to whoever reads this.
            if index == 0 {
                self.broken = self.hook("setup", suite.setup).err();
            }
            let mut verdict = self.case(case);
            if index + 1 == last
                && self.broken.is_none()
                && let Err(Stop::Failed) = self.hook("teardown", suite.teardown)
            {
                verdict = Verdict::Failed;
            }
            if index + 1 == last && !is_heap_sound(suite.name) {
                verdict = Verdict::Failed;
            }
            output::end_case(case.name, &verdict);
        }
    }

    fn hook(&self, name: &str, hook: Option<Hook>) -> Outcome {
        let Some(hook) = hook else { return Ok(()) };
        let full_name = format!("{}.{name}", self.planned.suite.name);
        match self.guarded(&full_name, &[], hook) {
            Verdict::Passed => Ok(()),
            Verdict::Skipped(reason) => Err(Stop::Skipped(reason)),
            Verdict::Failed => {
                output::diagnostic(format_args!("{full_name} failed"));
                Err(Stop::Failed)
            }
        }
    }

    fn case(&self, case: &Case) -> Verdict {
        match &self.broken {
            Some(Stop::Failed) => {
                let suite = self.planned.suite.name;
                output::diagnostic(format_args!("not run: {suite}.setup failed"));
                return Verdict::Failed;
            }
            Some(Stop::Skipped(reason)) => return Verdict::Skipped(reason.clone()),
            None => {}
        }
        let full_name = plan::full_name(self.planned.suite, case);
        let params = match case.body {
            Body::Plain(run) => return self.guarded(&full_name, case.expects, run),
            Body::Each(params) => params,
        };
        let count = params.count();
        if count == 0 {
            return Verdict::Skipped(String::from("there is nothing to run it over here"));
        }
        output::begin_params(case.name, count);
        for index in 0..count {
            let name = params.name(index);
            let what = format!("{full_name}/{name}");
            let verdict = self.guarded(&what, case.expects, move |ctx| params.run(index, ctx));
            output::end_param(&name, &verdict);
        }
        output::end_params()
    }

    /// Runs something in a thread of its own, for a limited time, and checks what it leaves
    /// behind.
    fn guarded(
        &self,
        name: &str,
        expects: &[Kind],
        run: impl FnOnce(&mut Ctx) -> Outcome + Send + 'static,
    ) -> Verdict {
        // From the name, so that a case gets the same numbers whatever ran before.
        let seed = name.bytes().fold(self.seed, |seed, byte| {
            seed.wrapping_mul(0x0000_0100_0000_01b3) ^ u64::from(byte)
        });
        expect::arm(expects);
        let ended = case_thread::run(name, seed, self.options.timeout_ns, run);
        let outcome = match ended {
            Ok(ended) => {
                let as_expected = expect::check(name, expects, ended.outcome.is_ok());
                if !ended.report(name) || !as_expected {
                    return Verdict::Failed;
                }
                ended.outcome
            }
            Err(why) => {
                output::diagnostic(format_args!("{name}: {why}"));
                expect::arm(&[]);
                return Verdict::Failed;
            }
        };
        match outcome {
            Err(Stop::Failed) => Verdict::Failed,
            Err(Stop::Skipped(reason)) => Verdict::Skipped(reason),
            Ok(()) => Verdict::Passed,
        }
    }
}
