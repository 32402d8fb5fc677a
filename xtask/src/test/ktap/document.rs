//! What the parser knows of the plan that is being worked off.

use std::collections::HashSet;

use super::item::{Directive, ResultLine, Totals};
use super::{CaseReport, Outcome};

/// How many lines of diagnostics are kept for one case.
const MAX_DIAGNOSTICS: usize = 500;

/// One `KTAP version 1` at column 0 and what belongs to it.
#[derive(Debug, Default)]
pub struct Document {
    /// How many suites were announced.
    pub planned: Option<usize>,
    /// How many suites have ended.
    pub done: usize,
    /// The suite that is being run.
    pub suite: Option<Suite>,
    /// The results so far.
    pub totals: Totals,
    /// Whether the kernel has printed its own count.
    pub totals_seen: bool,
}

impl Document {
    /// What is missing, if anything is.
    pub fn incomplete(&self) -> Option<String> {
        if let Some(suite) = &self.suite {
            let planned = suite
                .planned
                .map_or("no plan".into(), |planned| format!("{planned} planned"));
            return Some(format!(
                "the output ends in suite `{}` after {} of its cases ({planned})",
                suite.name(),
                suite.done
            ));
        }
        match self.planned {
            None => Some("no plan was printed".into()),
            Some(planned) if self.done < planned => Some(format!(
                "the plan is truncated: {} of {planned} suites were run",
                self.done
            )),
            Some(_) if !self.totals_seen => {
                Some("the kernel did not print its count at the end".into())
            }
            Some(_) => None,
        }
    }

    /// Whether nothing is planned after the case that is running or has ended last.
    pub fn nothing_left(&self) -> bool {
        let open = usize::from(self.suite.is_some());
        self.suite.as_ref().is_none_or(|suite| suite.left() == 0)
            && self
                .planned
                .is_some_and(|planned| self.done + open >= planned)
    }
}

/// A suite that is being run.
#[derive(Debug, Default)]
pub struct Suite {
    /// Its name, once known.
    pub name: Option<String>,
    /// How many cases were announced.
    pub planned: Option<usize>,
    /// How many results have come.
    pub done: usize,
    /// How many of them were failures.
    pub failed: usize,
    /// The case that was announced and has no result yet.
    pub running: Option<Running>,
    seen: HashSet<String>,
}

impl Suite {
    /// The name for messages.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("(no name)")
    }

    /// How many cases are planned and neither done nor running.
    pub fn left(&self) -> usize {
        let taken = self.done + usize::from(self.running.is_some());
        self.planned.unwrap_or(0).saturating_sub(taken)
    }

    /// Takes in a result line of a case. Also returns what is wrong with it.
    pub fn end_case(&mut self, result: &ResultLine<'_>) -> (CaseReport, Vec<String>) {
        let mut problems = Vec::new();
        self.done += 1;
        let full = format!("{}.{}", self.name(), result.name);
        if result.number != self.done {
            problems.push(format!(
                "case `{full}` has number {}, expected {}",
                result.number, self.done
            ));
        }
        match self.planned {
            None => problems.push(format!("case `{full}` has a result without a plan")),
            Some(planned) if self.done > planned => {
                problems.push(format!(
                    "case `{full}` is one more than the plan of {planned}"
                ));
            }
            Some(_) => {}
        }
        if !self.seen.insert(result.name.into()) {
            problems.push(format!("case `{full}` has two results"));
        }
        let running = self.running.take();
        match &running {
            Some(running) if running.split().1 != result.name => {
                problems.push(format!(
                    "the result of `{full}` comes while `{}` is running",
                    running.name
                ));
            }
            Some(_) => {}
            None => problems.push(format!("case `{full}` has a result, but was never started")),
        }
        let running = running.unwrap_or_else(|| Running::new(&full));
        problems.extend(running.check_params(result));
        let outcome = outcome_of(result, running);
        self.failed += usize::from(outcome.is_failure());
        let report = CaseReport {
            suite: self.name().into(),
            case: result.name.into(),
            outcome,
        };
        (report, problems)
    }

    /// What is wrong at the end of the suite.
    pub fn check_end(&self, result: &ResultLine<'_>) -> Vec<String> {
        let mut problems = Vec::new();
        let name = result.name;
        if self.name.as_deref().is_some_and(|own| own != name) {
            problems.push(format!("suite `{}` ends as `{name}`", self.name()));
        }
        if let Some(planned) = self.planned
            && self.done < planned
        {
            problems.push(format!(
                "the plan of suite `{name}` is truncated: {} of {planned} cases have a result",
                self.done
            ));
        }
        match (result.ok, self.failed) {
            (true, 1..) => problems.push(format!(
                "suite `{name}` is `ok`, but {} of its cases failed",
                self.failed
            )),
            (false, 0) => problems.push(format!(
                "suite `{name}` is `not ok`, but none of its cases failed"
            )),
            _ => {}
        }
        problems
    }
}

/// The parameters of a case.
#[derive(Debug, Default)]
pub struct Params {
    /// How many were announced.
    pub planned: Option<usize>,
    done: usize,
    failed: usize,
}

/// A case that was announced.
#[derive(Debug)]
pub struct Running {
    /// `suite.case`.
    pub name: String,
    /// What it has printed with a `#` in front.
    pub diagnostics: Vec<String>,
    /// Its parameters, if it has any.
    pub params: Option<Params>,
}

impl Running {
    /// A case that begins.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            diagnostics: Vec::new(),
            params: None,
        }
    }

    /// The suite and the case.
    pub fn split(&self) -> (&str, &str) {
        self.name.split_once('.').unwrap_or(("", &self.name))
    }

    /// Takes in a line of diagnostics.
    pub fn diagnose(&mut self, text: &str) {
        if self.diagnostics.len() < MAX_DIAGNOSTICS {
            self.diagnostics.push(text.into());
        }
    }

    /// Takes in the result of a parameter; returns what is wrong with it.
    pub fn param(&mut self, result: &ResultLine<'_>) -> Option<String> {
        let Some(params) = &mut self.params else {
            return Some(format!(
                "parameter `{}` of `{}` comes without `KTAP version 1`",
                result.name, self.name
            ));
        };
        params.done += 1;
        let expected = params.done;
        if !result.ok {
            params.failed += 1;
            let how = if result.directive == Directive::Timeout {
                "timed out"
            } else {
                "failed"
            };
            let name = result.name;
            self.diagnose(&format!("parameter {name} {how}"));
        }
        (result.number != expected).then(|| {
            format!(
                "parameter `{}` of `{}` has number {}, expected {expected}",
                result.name, self.name, result.number
            )
        })
    }

    /// What is wrong with the parameters when the case ends. A case that failed
    /// or was skipped may leave some out.
    fn check_params(&self, result: &ResultLine<'_>) -> Option<String> {
        let params = self.params.as_ref()?;
        if !result.ok || matches!(result.directive, Directive::Skip(_)) {
            return None;
        }
        let name = &self.name;
        match params.planned {
            None => Some(format!("the parameters of `{name}` have no plan")),
            Some(planned) if planned != params.done => Some(format!(
                "case `{name}` has {} results for {planned} parameters",
                params.done
            )),
            Some(_) if params.failed > 0 => Some(format!(
                "case `{name}` is `ok`, but {} of its parameters failed",
                params.failed
            )),
            Some(_) => None,
        }
    }
}

fn outcome_of(result: &ResultLine<'_>, running: Running) -> Outcome {
    let mut details = running.diagnostics;
    match (result.ok, &result.directive) {
        (true, Directive::Skip(reason)) => Outcome::Skipped((*reason).into()),
        (true, Directive::None) => Outcome::Passed,
        (_, Directive::Timeout) => {
            details.insert(
                0,
                "the case did not end in its time (watchdog in the guest)".into(),
            );
            Outcome::TimedOut(details)
        }
        (false, _) => {
            if details.is_empty() {
                details.push("the case failed without saying why".into());
            }
            Outcome::Failed(details)
        }
    }
}
