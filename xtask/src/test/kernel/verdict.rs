//! What the end of a guest means for the run.

use crate::test::ktap::{Ending, Interrupted};
use crate::test::outcome::Outcome;
use crate::test::subject::{End, FAILURE, PANIC, RESET, SUCCESS};

/// The judgement on one guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The case that took the guest down, as `suite.case`.
    pub case: Option<(String, Outcome)>,
    /// Whatever is wrong with the run and not with one case.
    pub problems: Vec<String>,
    /// Whether cases are left that another guest has to run.
    pub go_on: bool,
    /// Whether the round that was running has nothing left.
    pub round_is_done: bool,
    /// How many cases of the suite that was running are left.
    pub left_in_suite: usize,
}

/// Judges a guest by its output and its end. `failed` says whether any case in
/// it had a result that is a failure.
pub fn judge(ending: &Ending, end: &End, failed: bool, stderr: &str) -> Verdict {
    let mut verdict = Verdict {
        round_is_done: ending.nothing_left,
        left_in_suite: ending.left_in_suite,
        ..Verdict::default()
    };
    if let Some(interrupted) = &ending.interrupted {
        verdict.case = Some((
            interrupted.name.clone(),
            blame(interrupted, ending, end, stderr),
        ));
        verdict.go_on = true;
        return verdict;
    }
    let regular = matches!(end, End::Exited(SUCCESS | FAILURE)) && ending.panic.is_none();
    if !regular {
        verdict.problems.push(explain(ending, end, stderr));
        // Between two cases: what is left may well run in a new guest.
        verdict.go_on = ending.incomplete.is_some() && !ending.nothing_left;
        if let Some(missing) = &ending.incomplete {
            verdict.problems.push(missing.clone());
        }
        // The watchdog has said what there is to say when it ends the guest.
        if failed && ending.panic.is_some() {
            verdict.problems.clear();
        }
        return verdict;
    }
    if let Some(missing) = &ending.incomplete {
        verdict.problems.push(format!("{missing}, but {end}"));
        return verdict;
    }
    match (end, failed) {
        (End::Exited(SUCCESS), true) => {
            verdict
                .problems
                .push("a case failed, but the guest ended with success".into());
        }
        (End::Exited(FAILURE), false) => {
            verdict
                .problems
                .push("no case failed, but the guest ended with failure".into());
        }
        _ => {}
    }
    verdict
}

/// What became of the case that was running when the guest ended.
fn blame(interrupted: &Interrupted, ending: &Ending, end: &End, stderr: &str) -> Outcome {
    let mut lines = vec![explain(ending, end, stderr)];
    lines.extend(interrupted.diagnostics.iter().cloned());
    lines.push("the output since the case started:".into());
    lines.extend(interrupted.log.iter().cloned());
    // A panic after an NMI from here, or one by the watchdog in the guest, is the
    // report of a hang.
    if end.is_hang() || watchdog_bit(&interrupted.name, ending) {
        Outcome::TimedOut(lines)
    } else {
        Outcome::Crashed(lines)
    }
}

/// Whether the guest's watchdog ended it because of this case, or of one of the
/// values of a case with parameters.
fn watchdog_bit(case: &str, ending: &Ending) -> bool {
    ending.panic.as_ref().is_some_and(|panic| {
        let rest = panic
            .split_once("watchdog: ")
            .and_then(|(_, rest)| rest.strip_prefix(case));
        rest.is_some_and(|rest| rest.starts_with([' ', '/']))
    })
}

fn explain(ending: &Ending, end: &End, stderr: &str) -> String {
    let mut text = match (end, &ending.panic) {
        (end, _) if end.is_hang() => end.to_string(),
        (End::Exited(PANIC), Some(panic)) => panic.clone(),
        (end, Some(panic)) => format!("{panic}; then {end}"),
        (End::Exited(RESET), None) => "the guest was reset: a triple fault, or a reboot".into(),
        (end, None) => end.to_string(),
    };
    if !stderr.trim().is_empty() {
        text += &format!("; QEMU says: {}", stderr.trim());
    }
    text
}
