//! Runs the in-kernel suites on one shape of machine, in as many guests as it
//! takes to have a result for every case.
//!
//! A case that panics, hangs or resets the machine condemns its guest, but not
//! the run: that case is recorded with its log, and a new guest goes on behind it
//! (`kunit.after=`). Each new guest must get further than the last, so the number
//! of guests is bounded by the number of cases.

mod verdict;

use std::path::Path;
use std::time::{Duration, Instant};

use self::verdict::Verdict;
use super::ktap::{Event, Parser};
use super::outcome::{CaseResult, Outcome};
use super::report::Reporter;
use super::subject::{Log, Start, listen};

/// What to run on one shape of machine.
#[derive(Clone, Debug)]
pub struct Job {
    /// The first parts of the names, such as `kernel/4cpu-2node`.
    pub group: String,
    /// Globs of `suite.case`, at least one, without blanks and quotes.
    pub globs: Vec<String>,
    /// The seed to shuffle by.
    pub shuffle: Option<u64>,
    /// How often everything runs.
    pub repeat: u32,
    /// The longest guest time of one case; none for the kernel's own limit.
    pub case_timeout: Option<Duration>,
    /// Further words for the kernel command line.
    pub cmdline: String,
    /// How long a hung guest may take to answer an NMI.
    pub nmi_grace: Duration,
}

/// Runs `job` and hands every result to `reporter`.
pub fn run(job: &Job, start: &dyn Start, log: &mut Log, reporter: &Reporter) {
    let mut run = Run {
        job,
        reporter,
        rounds_left: job.repeat.max(1),
        after: None,
        expected: None,
    };
    while run.guest(start, log) {}
}

/// The part of the plan that a guest has to take up where the last one ended.
struct Expected {
    suite: String,
    cases: usize,
}

struct Run<'a> {
    job: &'a Job,
    reporter: &'a Reporter,
    rounds_left: u32,
    after: Option<String>,
    expected: Option<Expected>,
}

/// What is seen of one guest.
struct Guest {
    parser: Parser,
    started: usize,
    rounds: u32,
    last_case: Option<String>,
    case_since: Instant,
    suite_since: Instant,
    problems: Vec<String>,
    failed: bool,
    first_suite: Option<(String, usize)>,
}

impl Run<'_> {
    /// Runs one guest; returns whether another one is needed.
    fn guest(&mut self, start: &dyn Start, log: &mut Log) -> bool {
        let cmdline = self.command_line();
        log.remark(&format!("{}: {cmdline}", self.job.group));
        self.reporter
            .status(format!("{}: starting", self.job.group));
        let mut machine = match start.start(&cmdline) {
            Ok(machine) => machine,
            Err(error) => {
                self.pseudo_case("(start)", Outcome::Failed(vec![format!("{error:#}")]), log);
                return false;
            }
        };
        let mut guest = Guest::new();
        let path = log.path().to_owned();
        let end = listen(&mut *machine, start, self.job.nmi_grace, log, |line, _| {
            for event in guest.parser.line(line) {
                self.event(&mut guest, event, &path);
            }
        });
        let verdict = verdict::judge(
            &guest.parser.ending(),
            &end,
            guest.failed,
            &machine.stderr(),
        );
        drop(machine);
        self.conclude(guest, verdict, log)
    }

    fn command_line(&self) -> String {
        let mut words = vec![format!("kunit={}", self.job.globs.join(","))];
        if let Some(seed) = self.job.shuffle {
            // Each round has a seed of its own, counted up by the kernel.
            let round = u64::from(self.job.repeat.max(1) - self.rounds_left);
            words.push(format!("kunit.shuffle={}", seed.wrapping_add(round)));
        }
        if self.rounds_left > 1 {
            words.push(format!("kunit.repeat={}", self.rounds_left));
        }
        if let Some(after) = &self.after {
            words.push(format!("kunit.after={after}"));
        }
        if let Some(timeout) = self.job.case_timeout {
            words.push(format!("kunit.timeout_ms={}", timeout.as_millis()));
        }
        if !self.job.cmdline.is_empty() {
            words.push(self.job.cmdline.clone());
        }
        words.join(" ")
    }

    fn event(&mut self, guest: &mut Guest, event: Event, log: &Path) {
        let group = &self.job.group;
        match event {
            Event::Suites(_) => guest.rounds += 1,
            Event::SuiteStarted { suite, cases } => {
                guest.suite_since = Instant::now();
                guest.first_suite.get_or_insert((suite, cases));
            }
            Event::CaseStarted(name) => {
                guest.started += 1;
                guest.case_since = Instant::now();
                self.reporter.status(format!("{group}: {name}"));
                guest.last_case = Some(name);
            }
            Event::CaseEnded(report) => {
                guest.failed |= report.outcome.is_failure();
                let group = format!("{group}/{}", report.suite);
                let mut result = CaseResult::new(group, report.case, report.outcome).with_log(log);
                result.time = guest.case_since.elapsed();
                self.reporter.case(result);
            }
            Event::SuiteEnded(suite) => {
                self.reporter
                    .group_ended(&format!("{group}/{suite}"), guest.suite_since.elapsed());
            }
            Event::Problem(text) => guest.problems.push(text),
        }
    }

    /// Records what the verdict says; returns whether to go on in a new guest.
    fn conclude(&mut self, mut guest: Guest, verdict: Verdict, log: &mut Log) -> bool {
        guest.problems.extend(self.check_expected(&guest));
        if let Some((name, outcome)) = verdict.case {
            let (suite, case) = name.split_once('.').unwrap_or(("", &name));
            let group = format!("{}/{suite}", self.job.group);
            let mut result = CaseResult::new(&group, case, outcome);
            result.time = guest.case_since.elapsed();
            result.log = Some(log.path().to_owned());
            self.reporter.case(result);
            if verdict.left_in_suite == 0 {
                self.reporter
                    .group_ended(&group, guest.suite_since.elapsed());
            }
        }
        guest.problems.extend(verdict.problems);
        if !guest.problems.is_empty() {
            self.pseudo_case("(plan)", Outcome::Failed(guest.problems), log);
        }
        if !verdict.go_on {
            return false;
        }
        // Rounds that were begun, but for the one to be gone on with, are done.
        self.rounds_left -= guest.rounds.saturating_sub(1).min(self.rounds_left - 1);
        if verdict.round_is_done {
            // The crash came with the last case of its round.
            self.after = None;
            self.expected = None;
            self.rounds_left -= 1;
            return self.rounds_left > 0;
        }
        if guest.started == 0 {
            // If it was the first one, its failure has been recorded as such.
            if self.after.is_some() {
                let text = "a new guest got no further than the last: the rest was not run";
                self.pseudo_case("(rest)", Outcome::Missing(text.into()), log);
            }
            return false;
        }
        self.expected = guest.last_case.as_deref().and_then(|last| {
            let suite = last.split_once('.')?.0.to_owned();
            (verdict.left_in_suite > 0).then_some(Expected {
                suite,
                cases: verdict.left_in_suite,
            })
        });
        self.after = guest.last_case;
        true
    }

    /// Whether the new guest took up what the last one left over.
    fn check_expected(&mut self, guest: &Guest) -> Option<String> {
        let expected = self.expected.take()?;
        let Expected { suite, cases } = expected;
        match &guest.first_suite {
            Some((first, count)) if *first == suite && *count == cases => None,
            Some((first, count)) => Some(format!(
                "{cases} cases of suite `{suite}` were left, but the new guest began with {count} of `{first}`"
            )),
            None => None,
        }
    }

    /// A failure that belongs to no case.
    fn pseudo_case(&self, name: &str, outcome: Outcome, log: &Log) {
        let mut result = CaseResult::new(&self.job.group, name, outcome);
        result.log = Some(log.path().to_owned());
        self.reporter.case(result);
    }
}

impl Guest {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            parser: Parser::new(),
            started: 0,
            rounds: 0,
            last_case: None,
            case_since: now,
            suite_since: now,
            problems: Vec::new(),
            failed: false,
            first_suite: None,
        }
    }
}

#[cfg(test)]
mod tests;
