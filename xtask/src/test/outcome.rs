//! What became of one test case, whatever ran it.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The case ran and found nothing wrong.
    Passed,
    /// The case ran and found something wrong; the lines say what.
    Failed(Vec<String>),
    /// The case did not run, for the reason given.
    Skipped(String),
    /// The case did not end in its time; the lines are what was seen of it.
    TimedOut(Vec<String>),
    /// The case took its guest or its process down; the lines are the end of the log.
    Crashed(Vec<String>),
    /// The case was announced or planned, and no result ever came.
    Missing(String),
}

impl Outcome {
    /// Whether this counts as a failure of the run.
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::Passed | Self::Skipped(_))
    }

    /// One word for progress lines and summaries.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "skipped",
            Self::TimedOut(_) => "TIMED OUT",
            Self::Crashed(_) => "CRASHED",
            Self::Missing(_) => "MISSING",
        }
    }

    /// The lines that explain the outcome; none for a pass.
    pub fn details(&self) -> &[String] {
        match self {
            Self::Passed => &[],
            Self::Skipped(reason) | Self::Missing(reason) => std::slice::from_ref(reason),
            Self::Failed(lines) | Self::TimedOut(lines) | Self::Crashed(lines) => lines,
        }
    }

    /// The explanation in one line, for the summary at the end.
    pub fn reason(&self) -> &str {
        let mut telling = self
            .details()
            .iter()
            .map(|line| line.trim())
            .filter(|line| !line.is_empty());
        let first = telling.next().unwrap_or("no reason was given");
        // On the host the place of a panic comes before what it says.
        let is_place = first.starts_with("thread '") && first.contains("panicked at");
        if is_place {
            telling.next().unwrap_or(first)
        } else {
            first
        }
    }
}

/// One case with its full name and result.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// What the case belongs to, such as `host/xtask` or `kernel/1cpu/ipi`.
    pub group: String,
    /// The name inside the group.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Wall time; for information only, nothing is judged by it.
    pub time: Duration,
    /// Where the whole output is kept.
    pub log: Option<PathBuf>,
}

impl CaseResult {
    /// A result without time and log.
    pub fn new(group: impl Into<String>, name: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            group: group.into(),
            name: name.into(),
            outcome,
            time: Duration::ZERO,
            log: None,
        }
    }

    /// The same result with the place of its log.
    #[must_use]
    pub fn with_log(mut self, log: &Path) -> Self {
        self.log = Some(log.to_owned());
        self
    }

    /// The name that filters and summaries use: `host/xtask/glob::tests::star`,
    /// `kernel/1cpu/ipi.all_pairs`, `boot/cpus-64`.
    pub fn full_name(&self) -> String {
        full_name(&self.group, &self.name)
    }
}

/// The full name of case `name` of `group`: in-kernel cases are written
/// `suite.case`, as everywhere in the kernel, all others with a slash.
pub fn full_name(group: &str, name: &str) -> String {
    let separator = if group.starts_with("kernel/") && group.matches('/').count() == 2 {
        '.'
    } else {
        '/'
    };
    format!("{group}{separator}{name}")
}

/// How many cases ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed, in whichever way.
    pub failed: usize,
    /// Cases that were skipped.
    pub skipped: usize,
}

impl Totals {
    /// Counts `results`.
    pub fn of<'a>(results: impl IntoIterator<Item = &'a CaseResult>) -> Self {
        let mut totals = Self::default();
        for result in results {
            match &result.outcome {
                Outcome::Passed => totals.passed += 1,
                Outcome::Skipped(_) => totals.skipped += 1,
                _ => totals.failed += 1,
            }
        }
        totals
    }

    /// How many cases there were in all.
    pub fn all(self) -> usize {
        self.passed + self.failed + self.skipped
    }

    /// Whether the run as a whole is good: something ran and nothing failed. A
    /// run of skipped cases only proves nothing, but is not a failure.
    pub fn is_success(self) -> bool {
        self.failed == 0 && self.all() > 0
    }
}

impl std::ops::Sub for Totals {
    type Output = Self;

    /// What came after `earlier`, which counted the first part of the same results.
    fn sub(self, earlier: Self) -> Self {
        Self {
            passed: self.passed - earlier.passed,
            failed: self.failed - earlier.failed,
            skipped: self.skipped - earlier.skipped,
        }
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kernel_cases_have_a_dot() {
        assert_eq!(
            full_name("kernel/1cpu/ipi", "pairs"),
            "kernel/1cpu/ipi.pairs"
        );
        assert_eq!(full_name("kernel/1cpu", "(plan)"), "kernel/1cpu/(plan)");
        assert_eq!(full_name("host/xtask", "a::b"), "host/xtask/a::b");
        assert_eq!(full_name("boot", "cpus-4"), "boot/cpus-4");
    }

    #[test]
    fn totals_count_every_kind_of_failure() {
        let outcomes = [
            Outcome::Passed,
            Outcome::Failed(vec![]),
            Outcome::Skipped("no".into()),
            Outcome::TimedOut(vec![]),
            Outcome::Crashed(vec![]),
            Outcome::Missing("gone".into()),
        ];
        let results: Vec<_> = outcomes
            .into_iter()
            .map(|o| CaseResult::new("g", "n", o))
            .collect();
        let totals = Totals::of(&results);
        assert_eq!(
            totals,
            Totals {
                passed: 1,
                failed: 4,
                skipped: 1
            }
        );
        assert_eq!(totals.to_string(), "1 passed, 4 failed, 1 skipped");
        assert!(!totals.is_success());
    }

    #[test]
    fn an_empty_run_is_no_success() {
        assert!(!Totals::default().is_success());
        assert!(
            Totals {
                passed: 1,
                ..Totals::default()
            }
            .is_success()
        );
        assert!(
            Totals {
                skipped: 1,
                ..Totals::default()
            }
            .is_success()
        );
    }

    #[test]
    fn the_reason_is_the_first_line_with_text() {
        let lines = vec![String::new(), "  a != b".into(), "more".into()];
        assert_eq!(Outcome::Failed(lines).reason(), "a != b");
        let lines = vec![
            "thread 'a' (1) panicked at src/lib.rs:1:1:".into(),
            "a != b".into(),
        ];
        assert_eq!(Outcome::Failed(lines).reason(), "a != b");
        assert_eq!(Outcome::Crashed(vec![]).reason(), "no reason was given");
    }
}
