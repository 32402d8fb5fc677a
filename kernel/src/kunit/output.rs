//! The results on the console, as KTAP.
//!
//! Every line goes out whole and at once, so that what other CPUs log meanwhile
//! comes between lines, not into them, and so that nothing is lost if the next
//! step crashes. The console never refuses text, so errors are not looked at.

use core::fmt::{self, Write};

use alloc::format;
use alloc::string::String;
use kernel_base::ktap::{Ktap, Outcome, Totals};

use super::runner::Verdict;
use crate::{
    console,
    sync::{IrqLock, TestOutput},
};

/// The results so far, and what is running.
struct State {
    ktap: Ktap<Lines>,
    /// `suite.case` of the running case.
    current: String,
}

static STATE: IrqLock<Option<State>, TestOutput> = IrqLock::new(None);

/// Sends text to the console line by line.
struct Lines(String);

impl Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            self.0.push_str(piece);
            if piece.ends_with('\n') {
                console::Writer.write_str(&self.0)?;
                self.0.clear();
            }
        }
        Ok(())
    }
}

fn new() -> State {
    State {
        ktap: Ktap::new(Lines(String::new())),
        current: String::new(),
    }
}

fn with<R>(action: impl FnOnce(&mut State) -> R) -> R {
    action(STATE.lock().get_or_insert_with(new))
}

fn write(action: impl FnOnce(&mut Ktap<Lines>) -> fmt::Result) {
    // See the module's documentation.
    let _ = with(|state| action(&mut state.ktap));
}

/// The running case, as `suite.case`.
pub fn current() -> String {
    with(|state| state.current.clone())
}

/// Diagnostics of the running case.
pub fn diagnostic(text: fmt::Arguments<'_>) {
    write(|ktap| ktap.diagnostic(text));
}

/// A line about the run as a whole, before it begins.
pub fn remark(text: fmt::Arguments<'_>) {
    *STATE.lock() = None;
    diagnostic(format_args!("kunit: {text}"));
}

/// The run begins.
pub fn begin_run(suites: usize) {
    *STATE.lock() = None;
    write(|ktap| ktap.start(suites));
}

/// The whole output of a run without a case.
pub fn empty_plan() {
    begin_run(0);
    end_run();
}

/// A suite begins.
pub fn begin_suite(name: &str, cases: usize) {
    write(|ktap| ktap.start_suite(name, cases));
}

/// A case is about to start.
pub fn begin_case(suite: &str, case: &str) {
    with(|state| state.current = format!("{suite}.{case}"));
    write(|ktap| ktap.start_case(suite, case));
}

/// The values of a case begin.
pub fn begin_params(case: &str, count: usize) {
    write(|ktap| ktap.start_params(case, count));
}

/// One value of a case is done.
pub fn end_param(name: &str, verdict: &Verdict) {
    write(|ktap| ktap.end_param(name, outcome(verdict)));
}

/// The values of a case are done; its own result follows. This is what it is if
/// nothing else goes wrong.
pub fn end_params() -> Verdict {
    match with(|state| state.ktap.end_params()) {
        Outcome::Passed => Verdict::Passed,
        Outcome::Failed | Outcome::TimedOut => Verdict::Failed,
        Outcome::Skipped(reason) => Verdict::Skipped(String::from(reason)),
    }
}

/// A case is done.
pub fn end_case(name: &str, verdict: &Verdict) {
    write(|ktap| ktap.end_case(name, outcome(verdict)));
}

/// A suite is done.
pub fn end_suite(name: &str) {
    write(|ktap| ktap.end_suite(name));
}

/// The run is done.
pub fn end_run() -> Totals {
    write(Ktap::finish);
    with(|state| state.ktap.totals())
}

fn outcome(verdict: &Verdict) -> Outcome<'_> {
    match verdict {
        Verdict::Passed => Outcome::Passed,
        Verdict::Failed => Outcome::Failed,
        Verdict::Skipped(reason) => Outcome::Skipped(reason),
    }
}
