//! Kernel reports that a case expects, and those that it does not.

use super::output;
use crate::report::{self, Kind};

/// From here on, reports of these kinds are taken down instead of printed.
pub fn arm(expects: &[Kind]) {
    // What was reported before is nothing to do with what comes now.
    report::take_expected();
    for &kind in expects {
        report::expect(kind);
    }
}

/// Whether exactly the expected reports came since [`arm`]; says so if not. The
/// case called `name` need not have come to the point where it provokes them if
/// it did not end well.
pub fn check(name: &str, expects: &[Kind], ended_well: bool) -> bool {
    let (_, got) = report::take_expected();
    if got.as_slice() == expects || (got.is_empty() && !ended_well) {
        return true;
    }
    output::diagnostic(format_args!(
        "{name}: EXPECTATION FAILED: other kernel reports"
    ));
    output::diagnostic(format_args!("  expected: {expects:?}"));
    output::diagnostic(format_args!("  reported: {got:?}"));
    false
}
