//! The in-kernel suites' results: a streaming parser for KTAP version 1 in the
//! shape that the kernel's `kunit` prints, robust to whatever else comes over
//! the serial line.
//!
//! ```text
//! KTAP version 1                      level 0: suites
//! 1..<suites>
//!     KTAP version 1                  level 1: the cases of a suite
//!     # Subtest: <suite>
//!     1..<cases>
//!     # run: <suite>.<case>
//!     ok 1 <case>                     or `not ok`, `# SKIP <reason>`, `# TIMEOUT`
//! ok 1 <suite>
//! # kunit: <p> passed, <f> failed, <s> skipped
//! ```
//!
//! A parameterised case has a level of its own before its result line. With
//! `kunit.repeat` the whole comes several times. Log lines, which begin with `[`,
//! may come between any two lines.
//!
//! The parser believes nothing: numbers, names, plans and counts are checked
//! against each other, and whatever does not agree is a [`Event::Problem`],
//! which fails the run even if every case passed.

mod document;
mod event;
mod item;

use std::collections::VecDeque;

use self::document::{Document, Params, Running, Suite};
pub use self::event::{CaseReport, Ending, Event, Interrupted};
use self::item::{Directive, Item, ResultLine, Totals};
use super::outcome::Outcome;

/// How much of the output since the start of a case is kept for its report.
const LOG_TAIL_LINES: usize = 400;

/// The parser. Feed it lines with [`Parser::line`], then ask for the
/// [`Parser::ending`].
#[derive(Debug, Default)]
pub struct Parser {
    document: Option<Document>,
    events: Vec<Event>,
    /// The last lines of output since the running case, or the last result.
    log: VecDeque<String>,
    panic: Option<String>,
    cases: usize,
}

impl Parser {
    /// A parser that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one line of output, with or without its line end.
    pub fn line(&mut self, line: &str) -> Vec<Event> {
        let line = line.trim_end_matches(['\r', '\n']);
        if self.log.len() == LOG_TAIL_LINES {
            self.log.pop_front();
        }
        self.log.push_back(line.to_owned());
        if let Some(message) = panic_message(line) {
            self.panic.get_or_insert(message.to_owned());
        }
        // The report of a panic is text, whatever its lines look like.
        if self.panic.is_none() {
            let (level, item) = item::parse(line);
            self.item(level, item, line);
        }
        std::mem::take(&mut self.events)
    }

    /// How many cases have ended so far.
    #[cfg(test)]
    pub fn cases(&self) -> usize {
        self.cases
    }

    /// The case that is running now, as `suite.case`.
    pub fn running(&self) -> Option<&str> {
        Some(
            &self
                .document
                .as_ref()?
                .suite
                .as_ref()?
                .running
                .as_ref()?
                .name,
        )
    }

    /// What is known at the end of the output.
    pub fn ending(&self) -> Ending {
        let mut ending = Ending {
            panic: self.panic.clone(),
            ..Ending::default()
        };
        let Some(document) = &self.document else {
            ending.incomplete = Some("no test plan was printed".into());
            return ending;
        };
        if let Some(suite) = &document.suite {
            ending.left_in_suite = suite.left();
            ending.interrupted = suite.running.as_ref().map(|running| Interrupted {
                name: running.name.clone(),
                diagnostics: running.diagnostics.clone(),
                log: self.log.iter().cloned().collect(),
            });
        }
        ending.nothing_left = document.nothing_left();
        ending.incomplete = document.incomplete();
        if ending.incomplete.is_none() && self.cases == 0 {
            ending.incomplete = Some("the plan has no case".into());
        }
        ending
    }

    fn problem(&mut self, text: impl Into<String>) {
        self.events.push(Event::Problem(text.into()));
    }

    fn item(&mut self, level: usize, item: Item<'_>, line: &str) {
        match item {
            Item::Other | Item::Seed(_) => {}
            Item::Malformed(why) => self.problem(format!("{why}: `{}`", line.trim())),
            Item::Run(name) => self.start_case(name),
            Item::Diagnostic(text) => {
                if let Some(running) = self.running_mut() {
                    running.diagnose(text);
                }
            }
            Item::Totals(totals) => self.totals(totals),
            Item::Version(version) => {
                if version != "1" {
                    self.problem(format!("KTAP version {version} is not known"));
                }
                match level {
                    0 => self.start_document(),
                    1 => self.start_suite(),
                    _ => self.start_params(line),
                }
            }
            Item::Subtest(name) => match level {
                1 => self.name_suite(name),
                2 => self.name_params(name),
                _ => self.problem(format!("a subtest on the wrong level: `{}`", line.trim())),
            },
            Item::Plan(count) => self.plan(level, count),
            Item::Result(result) => match level {
                0 => self.end_suite(&result),
                1 => self.end_case(&result),
                2 => self.param(&result),
                _ => self.problem(format!("a result on the wrong level: `{}`", line.trim())),
            },
        }
    }

    fn running_mut(&mut self) -> Option<&mut Running> {
        self.document.as_mut()?.suite.as_mut()?.running.as_mut()
    }

    fn start_document(&mut self) {
        if let Some(missing) = self.document.as_ref().and_then(Document::incomplete) {
            self.problem(format!(
                "a new plan begins before the last one has ended: {missing}"
            ));
            self.abandon_case();
        }
        self.document = Some(Document::default());
    }

    /// The document, for a line that belongs into one.
    fn document(&mut self) -> &mut Document {
        if self.document.is_none() {
            self.events.push(Event::Problem(
                "results come without `KTAP version 1`".into(),
            ));
        }
        self.document.get_or_insert_default()
    }

    fn start_suite(&mut self) {
        let abandoned = self.document().suite.is_some();
        if abandoned {
            self.abandon_case();
            self.close_suite();
        }
        self.document().suite = Some(Suite::default());
    }

    /// A running case without a result, although something else begins.
    fn abandon_case(&mut self) {
        let Some(suite) = self
            .document
            .as_mut()
            .and_then(|document| document.suite.as_mut())
        else {
            return;
        };
        let Some(running) = suite.running.take() else {
            return;
        };
        suite.failed += 1;
        let (suite, case) = running.split();
        self.cases += 1;
        self.events.push(Event::CaseEnded(CaseReport {
            suite: suite.into(),
            case: case.into(),
            outcome: Outcome::Missing("the case was started, and no result came".into()),
        }));
    }

    fn name_suite(&mut self, name: &str) {
        if self.document().suite.is_none() {
            self.problem(format!("suite `{name}` begins without `KTAP version 1`"));
        }
        let suite = self.document().suite.get_or_insert_default();
        match suite.name.replace(name.into()) {
            Some(old) if old != name => {
                self.problem(format!("suite `{old}` calls itself `{name}` as well"));
            }
            _ => {}
        }
    }

    fn plan(&mut self, level: usize, count: usize) {
        let document = self.document();
        let suite = document.suite.as_mut();
        let (planned, what, event) = match (level, suite) {
            (0, _) => (
                Some(&mut document.planned),
                "the run".into(),
                Some(Event::Suites(count)),
            ),
            (1, Some(suite)) => {
                let name = suite.name().to_owned();
                let what = format!("suite `{name}`");
                let event = Event::SuiteStarted {
                    suite: name,
                    cases: count,
                };
                (Some(&mut suite.planned), what, Some(event))
            }
            (
                2,
                Some(Suite {
                    running: Some(running),
                    ..
                }),
            ) => {
                let planned = running.params.as_mut().map(|params| &mut params.planned);
                (planned, format!("case `{}`", running.name), None)
            }
            _ => (None, String::new(), None),
        };
        let Some(planned) = planned else {
            return self.problem(format!("a plan for {count} that belongs to nothing"));
        };
        if let Some(old) = planned.replace(count) {
            return self.problem(format!("{what} has two plans, for {old} and for {count}"));
        }
        if count == 0 {
            self.problem(format!("the plan of {what} has no case"));
        }
        self.events.extend(event);
    }

    fn start_case(&mut self, name: &str) {
        if let Some(running) = self.running() {
            let running = running.to_owned();
            self.problem(format!(
                "case `{name}` begins while `{running}` has no result"
            ));
            self.abandon_case();
        }
        self.log.clear();
        let suite_of_case = name.split_once('.').map(|(suite, _)| suite.to_owned());
        let suite = self.document().suite.get_or_insert_default();
        suite.running = Some(Running::new(name));
        let expected = suite.name.clone();
        if suite_of_case.is_none() || expected.is_some() && suite_of_case != expected {
            let expected = expected.unwrap_or_else(|| "(no name)".into());
            self.problem(format!("suite `{expected}` runs a case called `{name}`"));
        }
        self.events.push(Event::CaseStarted(name.into()));
    }

    fn end_case(&mut self, result: &ResultLine<'_>) {
        let document = self.document();
        let (end, problems) = document.suite.get_or_insert_default().end_case(result);
        match end.outcome {
            Outcome::Passed => document.totals.passed += 1,
            Outcome::Skipped(_) => document.totals.skipped += 1,
            _ => document.totals.failed += 1,
        }
        self.events.extend(problems.into_iter().map(Event::Problem));
        self.cases += 1;
        self.log.clear();
        self.events.push(Event::CaseEnded(end));
    }

    fn start_params(&mut self, line: &str) {
        match self.running_mut() {
            Some(running) if running.params.is_none() => {
                running.params = Some(Params::default());
            }
            _ => self.problem(format!(
                "a nested plan that belongs to no case: `{}`",
                line.trim()
            )),
        }
    }

    fn name_params(&mut self, name: &str) {
        let running = self.running().unwrap_or_default();
        if running.split_once('.').map_or(running, |(_, case)| case) != name {
            let running = running.to_owned();
            self.problem(format!(
                "parameters of `{name}` while `{running}` is running"
            ));
        }
    }

    fn param(&mut self, result: &ResultLine<'_>) {
        let Some(running) = self.running_mut() else {
            return self.problem(format!("parameter `{}` belongs to no case", result.name));
        };
        if let Some(problem) = running.param(result) {
            self.problem(problem);
        }
    }

    fn end_suite(&mut self, result: &ResultLine<'_>) {
        if self.running().is_some() {
            self.problem(format!(
                "suite `{}` ends while a case has no result",
                result.name
            ));
            self.abandon_case();
        }
        let document = self.document();
        document.done += 1;
        let mut problems = Vec::new();
        if result.number != document.done {
            problems.push(format!(
                "suite `{}` has number {}, expected {}",
                result.name, result.number, document.done
            ));
        }
        match document.planned {
            Some(planned) if document.done > planned => {
                problems.push(format!(
                    "suite `{}` is one more than the plan of {planned}",
                    result.name
                ));
            }
            Some(_) => {}
            None => problems.push(format!(
                "suite `{}` has a result without a plan",
                result.name
            )),
        }
        match &document.suite {
            Some(suite) => problems.extend(suite.check_end(result)),
            None if matches!(result.directive, Directive::Skip(_)) => {}
            None => problems.push(format!(
                "suite `{}` has a result, but no cases",
                result.name
            )),
        }
        if document.suite.take().is_some() {
            self.events.push(Event::SuiteEnded(result.name.into()));
        }
        self.events.extend(problems.into_iter().map(Event::Problem));
    }

    /// Ends a suite that has no result line.
    fn close_suite(&mut self) {
        if let Some(suite) = self
            .document
            .as_mut()
            .and_then(|document| document.suite.take())
        {
            let name = suite.name().to_owned();
            self.problem(format!("suite `{name}` has no result: the next one begins"));
            self.events.push(Event::SuiteEnded(name));
        }
    }

    fn totals(&mut self, said: Totals) {
        let document = self.document();
        document.totals_seen = true;
        let seen = document.totals;
        if said != seen {
            self.problem(format!(
                "the kernel counts {} passed, {} failed, {} skipped, but printed {}, {}, {}",
                said.passed, said.failed, said.skipped, seen.passed, seen.failed, seen.skipped
            ));
        }
    }
}

/// The message of the line that begins a panic report. It may come in the
/// middle of another line: a panic does not wait for the console.
pub fn panic_message(line: &str) -> Option<&str> {
    let start = line
        .find("=== KERNEL PANIC on cpu")
        .or_else(|| line.find("=== PANIC IN PANIC on cpu"))?;
    Some(line[start..].trim_start_matches("=== "))
}

#[cfg(test)]
mod tests;
