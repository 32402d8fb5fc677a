//! What the parser tells.

use crate::test::outcome::Outcome;

/// What a line of output meant for the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A plan for so many suites was announced.
    Suites(usize),
    /// A suite with so many cases begins.
    SuiteStarted {
        /// Its name.
        suite: String,
        /// How many cases it plans.
        cases: usize,
    },
    /// A case begins.
    CaseStarted(String),
    /// A case ended.
    CaseEnded(CaseReport),
    /// A suite ended.
    SuiteEnded(String),
    /// Something is wrong with the plan or the results as such.
    Problem(String),
}

/// The result of one case as the guest reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseReport {
    /// The suite.
    pub suite: String,
    /// The case.
    pub case: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// A case that had been announced when the output ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// `suite.case`.
    pub name: String,
    /// The diagnostics it had printed.
    pub diagnostics: Vec<String>,
    /// The end of everything printed since it started.
    pub log: Vec<String>,
}

/// What is known when the output has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The case that was running.
    pub interrupted: Option<Interrupted>,
    /// What is missing from the plan, if anything is.
    pub incomplete: Option<String>,
    /// Whether the case that was running, or the one that ended last, was the
    /// last of the plan, so that nothing is left to be done after it.
    pub nothing_left: bool,
    /// How many cases are planned and neither running nor done in the suite
    /// that was being run.
    pub left_in_suite: usize,
    /// The first line of a kernel panic.
    pub panic: Option<String>,
}
