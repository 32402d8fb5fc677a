//! Writing test results as KTAP, version 1.
//!
//! The shape, with two suites of which the first has a parameterised case:
//!
//! ```text
//! KTAP version 1
//! 1..2
//!     KTAP version 1
//!     # Subtest: mm
//!     1..1
//!     # run: mm.alloc
//!         KTAP version 1
//!         # Subtest: alloc
//!         1..2
//!         ok 1 small
//!         not ok 2 large
//!     not ok 1 alloc
//! not ok 1 mm
//! ...
//! # kunit: 1 passed, 1 failed, 0 skipped
//! ```
//!
//! [`Ktap`] keeps the numbers and the nesting: a suite or a parameterised case
//! has failed if a part of it has. It is generic over where the text goes and
//! writes each line with its newline in one piece after the other, so the
//! writer can send line by line. Errors of the writer come back as
//! [`fmt::Error`]; the state has moved on all the same.

use core::fmt::{self, Write};

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It passed.
    Passed,
    /// An expectation failed.
    Failed,
    /// It did not apply; with the reason.
    Skipped(&'a str),
    /// It took too long.
    TimedOut,
}

impl Outcome<'_> {
    /// Whether the case counts as failed.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut)
    }
}

/// How many cases ended how. A parameterised case counts once, as any other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed or took too long.
    pub failed: usize,
    /// Cases that were skipped.
    pub skipped: usize,
}

/// What one level of nesting has seen.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    results: usize,
    passed: usize,
    failed: usize,
}

impl Level {
    /// How the parts add up: skipped only if all were.
    fn outcome(self) -> Outcome<'static> {
        if self.failed > 0 {
            Outcome::Failed
        } else if self.results > 0 && self.passed == 0 {
            Outcome::Skipped("every part was skipped")
        } else {
            Outcome::Passed
        }
    }
}

/// Suites, cases, parameters.
const DEPTH: usize = 3;

/// A writer of KTAP.
///
/// Calls nest: [`start`](Self::start), then for each suite
/// [`start_suite`](Self::start_suite), its cases, [`end_suite`](Self::end_suite),
/// and [`finish`](Self::finish). A case is [`start_case`](Self::start_case) and
/// [`end_case`](Self::end_case), and if it has parameters between these two
/// [`start_params`](Self::start_params), [`end_param`](Self::end_param) for
/// each, and [`end_params`](Self::end_params).
#[derive(Debug)]
pub struct Ktap<W> {
    out: W,
    /// How many levels are open: 1 is the list of suites.
    depth: usize,
    levels: [Level; DEPTH],
    totals: Totals,
}

impl<W: Write> Ktap<W> {
    /// A writer to `out`. Writes nothing yet.
    pub fn new(out: W) -> Self {
        Self {
            out,
            depth: 0,
            levels: [Level::default(); DEPTH],
            totals: Totals::default(),
        }
    }

    /// The version and the plan: how many suites will come.
    pub fn start(&mut self, suites: usize) -> fmt::Result {
        self.levels[0] = Level::default();
        self.depth = 1;
        self.line(0, format_args!("KTAP version 1"))?;
        self.line(0, format_args!("1..{suites}"))
    }

    /// Opens a suite of `cases` cases.
    pub fn start_suite(&mut self, name: &str, cases: usize) -> fmt::Result {
        self.open(2, name, cases)
    }

    /// Closes the suite; it has failed if one of its cases has.
    pub fn end_suite(&mut self, name: &str) -> fmt::Result {
        let outcome = self.levels[1].outcome();
        self.depth = 1;
        self.result(0, name, outcome)
    }

    /// Marks that a case starts, so that a reader knows what it is that hangs
    /// or takes the machine down.
    pub fn start_case(&mut self, suite: &str, case: &str) -> fmt::Result {
        self.line(
            self.depth.saturating_sub(1),
            format_args!("# run: {suite}.{case}"),
        )
    }

    /// The result of a case.
    pub fn end_case(&mut self, name: &str, outcome: Outcome<'_>) -> fmt::Result {
        self.count(outcome);
        self.result(1, name, outcome)
    }

    /// Opens the parameters of a case.
    pub fn start_params(&mut self, case: &str, params: usize) -> fmt::Result {
        self.open(3, case, params)
    }

    /// The result for one parameter.
    pub fn end_param(&mut self, name: &str, outcome: Outcome<'_>) -> fmt::Result {
        self.result(2, name, outcome)
    }

    /// Closes the parameters of a case and says how they add up: failed if one
    /// has, skipped if all were. The case's own result may be worse.
    pub fn end_params(&mut self) -> Outcome<'static> {
        self.depth = 2;
        self.levels[2].outcome()
    }

    /// A remark on what is going on, at the level that is open. Each of its
    /// lines becomes a line that starts with `# `.
    pub fn diagnostic(&mut self, text: fmt::Arguments<'_>) -> fmt::Result {
        let indent = self.depth.saturating_sub(1);
        let mut lines = Lines {
            out: &mut self.out,
            indent,
            at_start: true,
        };
        lines.write_fmt(text)?;
        lines.end()
    }

    /// The totals, behind the last suite.
    pub fn finish(&mut self) -> fmt::Result {
        self.depth = 1;
        let Totals {
            passed,
            failed,
            skipped,
        } = self.totals;
        self.line(
            0,
            format_args!("# kunit: {passed} passed, {failed} failed, {skipped} skipped"),
        )
    }

    /// How many cases ended how, so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Gives the writer back.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn open(&mut self, depth: usize, name: &str, parts: usize) -> fmt::Result {
        self.depth = depth;
        self.levels[depth - 1] = Level::default();
        let indent = depth - 1;
        self.line(indent, format_args!("KTAP version 1"))?;
        self.line(indent, format_args!("# Subtest: {name}"))?;
        self.line(indent, format_args!("1..{parts}"))
    }

    fn count(&mut self, outcome: Outcome<'_>) {
        match outcome {
            Outcome::Passed => self.totals.passed += 1,
            Outcome::Failed | Outcome::TimedOut => self.totals.failed += 1,
            Outcome::Skipped(_) => self.totals.skipped += 1,
        }
    }

    fn result(&mut self, level: usize, name: &str, outcome: Outcome<'_>) -> fmt::Result {
        let seen = &mut self.levels[level];
        seen.results += 1;
        seen.passed += usize::from(outcome == Outcome::Passed);
        seen.failed += usize::from(outcome.is_failure());
        let number = seen.results;
        let not = if outcome.is_failure() { "not " } else { "" };
        match outcome {
            Outcome::Passed | Outcome::Failed => {
                self.line(level, format_args!("{not}ok {number} {name}"))
            }
            Outcome::TimedOut => {
                self.line(level, format_args!("{not}ok {number} {name} # TIMEOUT"))
            }
            Outcome::Skipped(reason) => {
                // A newline in the reason would look like a line of its own.
                let reason = reason.lines().next().unwrap_or("");
                self.line(level, format_args!("ok {number} {name} # SKIP {reason}"))
            }
        }
    }

    fn line(&mut self, indent: usize, text: fmt::Arguments<'_>) -> fmt::Result {
        write_indent(&mut self.out, indent)?;
        self.out.write_fmt(text)?;
        self.out.write_char('\n')
    }
}

fn write_indent(out: &mut impl Write, indent: usize) -> fmt::Result {
    (0..indent).try_for_each(|_| out.write_str("    "))
}

/// Puts indentation and `# ` before each line that is written to it.
struct Lines<'a, W> {
    out: &'a mut W,
    indent: usize,
    at_start: bool,
}

impl<W: Write> Lines<'_, W> {
    fn start_line(&mut self) -> fmt::Result {
        if self.at_start {
            self.at_start = false;
            write_indent(self.out, self.indent)?;
            self.out.write_str("# ")?;
        }
        Ok(())
    }

    /// Ends the last line if the text has not.
    fn end(mut self) -> fmt::Result {
        if self.at_start {
            Ok(())
        } else {
            self.write_char('\n')
        }
    }
}

impl<W: Write> Write for Lines<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            self.start_line()?;
            let line = piece.strip_suffix('\n');
            self.out
                .write_str(line.map_or(piece, |line| line.strip_suffix('\r').unwrap_or(line)))?;
            if line.is_some() {
                self.out.write_char('\n')?;
                self.at_start = true;
            }
        }
        Ok(())
    }
}
