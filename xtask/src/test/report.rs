//! Shows results as they come and collects them: one line that is overwritten on
//! a terminal, one line a suite elsewhere, and every failure at once.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::outcome::{CaseResult, Outcome, Totals};

/// How many lines of a failure are shown at once; its log has them all.
const SHOWN_LINES: usize = 60;

/// Where the runners hand in what happens. Shared by threads.
pub struct Reporter {
    bar: ProgressBar,
    inner: Mutex<Inner>,
}

struct Inner {
    results: Vec<CaseResult>,
    /// What the last line of each group has counted.
    told: HashMap<String, Totals>,
    out: Box<dyn Write + Send>,
    live: bool,
}

impl Reporter {
    /// A reporter for the terminal, or whatever standard output is.
    pub fn new() -> Self {
        let live = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        Self::with_output(Box::new(std::io::stdout()), live)
    }

    /// A reporter that only collects: for runs whose results are judged, not shown.
    pub fn silent() -> Self {
        Self::with_output(Box::new(std::io::sink()), false)
    }

    fn with_output(out: Box<dyn Write + Send>, live: bool) -> Self {
        let target = if live {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        if live {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self {
            bar,
            inner: Mutex::new(Inner {
                results: Vec::new(),
                told: HashMap::new(),
                out,
                live,
            }),
        }
    }

    /// Says what is being done now; seen on a terminal only.
    pub fn status(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// Prints a line that stays.
    pub fn line(&self, text: &str) {
        let mut inner = self.lock();
        self.print(&mut inner, text);
    }

    /// Takes in a result; a failure is shown with its explanation.
    pub fn case(&self, result: CaseResult) {
        let mut inner = self.lock();
        if result.outcome.is_failure() {
            let text = explain(&result, SHOWN_LINES);
            self.print(&mut inner, &text);
        }
        inner.results.push(result);
    }

    /// Prints the one line for a group of which all cases have been handed in. If
    /// the group is run again, the next line counts what came since.
    pub fn group_ended(&self, group: &str, time: Duration) {
        let mut inner = self.lock();
        let all = Totals::of(inner.results.iter().filter(|result| result.group == group));
        let before = inner.told.insert(group.to_owned(), all).unwrap_or_default();
        let text = group_line(group, all - before, time);
        self.print(&mut inner, &text);
    }

    /// How many cases have been handed in so far.
    pub fn totals(&self) -> Totals {
        Totals::of(&self.lock().results)
    }

    /// Ends the display; returns all results.
    pub fn finish(self) -> Vec<CaseResult> {
        self.bar.finish_and_clear();
        self.inner
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .results
    }

    fn print(&self, inner: &mut Inner, text: &str) {
        let write = |inner: &mut Inner| {
            // Nobody can be told that standard output is closed.
            let _ = writeln!(inner.out, "{text}").and_then(|()| inner.out.flush());
        };
        if inner.live {
            self.bar.suspend(|| write(inner))
        } else {
            write(inner)
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // A thread that panicked while printing has left nothing half done.
        self.inner
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The line for a group.
fn group_line(group: &str, totals: Totals, time: Duration) -> String {
    let word = if totals.failed > 0 { "FAILED" } else { "ok" };
    let mut text = format!("{word:<7} {group}: {} passed", totals.passed);
    if totals.failed > 0 {
        text += &format!(", {} failed", totals.failed);
    }
    if totals.skipped > 0 {
        text += &format!(", {} skipped", totals.skipped);
    }
    text + &format!(" ({:.1} s)", time.as_secs_f64())
}

/// A failure with at most `most` lines of explanation: the first and the last.
pub fn explain(result: &CaseResult, most: usize) -> String {
    let mut text = format!("{:<9} {}", result.outcome.word(), result.full_name());
    let details = result.outcome.details();
    let left_out = details.len().saturating_sub(most);
    for (at, line) in details.iter().enumerate() {
        if left_out > 0 && at == most / 2 {
            text += &format!("\n    ... {left_out} lines left out ...");
        }
        let in_gap = left_out > 0 && (most / 2..most / 2 + left_out).contains(&at);
        if !in_gap {
            text += &format!("\n    {}", line.trim_end());
        }
    }
    if let Some(log) = &result.log {
        text += &format!("\n    log: {}", log.display());
    }
    text
}

/// The end of a run: skipped and failed cases with their reasons, then the line
/// with the totals, which stands alone and last.
pub fn summary(results: &[CaseResult]) -> String {
    let mut text = String::new();
    let skipped: Vec<_> = results
        .iter()
        .filter(|result| matches!(result.outcome, Outcome::Skipped(_)))
        .collect();
    if !skipped.is_empty() {
        text += "\nskipped:\n";
        for result in skipped {
            text += &format!("  {}: {}\n", result.full_name(), result.outcome.reason());
        }
    }
    let failed: Vec<_> = results
        .iter()
        .filter(|result| result.outcome.is_failure())
        .collect();
    if !failed.is_empty() {
        text += "\nfailed:\n";
        for result in failed {
            let word = result.outcome.word();
            text += &format!(
                "  {}: {word}: {}\n",
                result.full_name(),
                result.outcome.reason()
            );
            if let Some(log) = &result.log {
                text += &format!("    log: {}\n", log.display());
            }
        }
    }
    text + &format!("\n{}\n", Totals::of(results))
}

#[cfg(test)]
mod tests;
