//! The results on the console, as KTAP.
//!
//! Every line goes out whole and at once, so that what other CPUs log meanwhile
//! comes between lines, not into them, and so that nothing is lost if the next
//! step crashes.

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use alloc::format;
use alloc::string::String;
use spin::Mutex;

use super::Totals;
use super::runner::Verdict;

/// Depth of nesting: 0 for suites, 1 for cases, 2 for the values of a case.
/// Relaxed: only the CPU that runs the cases uses it.
static LEVEL: AtomicUsize = AtomicUsize::new(0);

/// `suite.case` of the running case.
static CURRENT: Mutex<String> = Mutex::new(String::new());

/// The running case, as `suite.case`.
pub fn current() -> String {
    CURRENT.lock().clone()
}

/// A line of diagnostics of the running case.
pub fn diagnostic(text: fmt::Arguments<'_>) {
    line(format_args!("# {text}"));
}

/// A line about the run as a whole.
pub fn remark(text: fmt::Arguments<'_>) {
    line(format_args!("# kunit: {text}"));
}

/// The run begins.
pub fn begin_run(suites: usize) {
    LEVEL.store(0, Ordering::Relaxed);
    begin(None, suites);
}

/// The whole output of a run without a case.
pub fn empty_plan() {
    begin_run(0);
    end_run(&Totals::default());
}

/// A suite begins.
pub fn begin_suite(name: &str, cases: usize) {
    deeper();
    begin(Some(name), cases);
}

/// A case is about to start.
pub fn begin_case(suite: &str, case: &str) {
    let name = format!("{suite}.{case}");
    line(format_args!("# run: {name}"));
    *CURRENT.lock() = name;
}

/// The values of a case begin.
pub fn begin_params(case: &str, count: usize) {
    deeper();
    begin(Some(case), count);
}

/// One value of a case is done.
pub fn end_param(number: usize, name: &str, verdict: &Verdict) {
    result(number, name, verdict);
}

/// The values of a case are done; its own result follows.
pub fn end_params() {
    shallower();
}

/// A case is done.
pub fn end_case(number: usize, name: &str, verdict: &Verdict) {
    result(number, name, verdict);
}

/// A suite is done.
pub fn end_suite(number: usize, name: &str, ok: bool) {
    shallower();
    result(
        number,
        name,
        if ok {
            &Verdict::Passed
        } else {
            &Verdict::Failed
        },
    );
}

/// The run is done.
pub fn end_run(totals: &Totals) {
    let Totals {
        passed,
        failed,
        skipped,
    } = totals;
    remark(format_args!(
        "{passed} passed, {failed} failed, {skipped} skipped"
    ));
}

fn begin(name: Option<&str>, count: usize) {
    line(format_args!("KTAP version 1"));
    if let Some(name) = name {
        line(format_args!("# Subtest: {name}"));
    }
    line(format_args!("1..{count}"));
}

fn result(number: usize, name: &str, verdict: &Verdict) {
    match verdict {
        Verdict::Passed => line(format_args!("ok {number} {name}")),
        Verdict::Failed => line(format_args!("not ok {number} {name}")),
        Verdict::Skipped(reason) => line(format_args!("ok {number} {name} # SKIP {reason}")),
    }
}

fn deeper() {
    LEVEL.fetch_add(1, Ordering::Relaxed);
}

fn shallower() {
    LEVEL.fetch_sub(1, Ordering::Relaxed);
}

fn line(text: fmt::Arguments<'_>) {
    let indent = 4 * LEVEL.load(Ordering::Relaxed);
    crate::println!("{:indent$}{text}", "");
}
