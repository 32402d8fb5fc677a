//! The results as JUnit XML, for CI systems.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite, XmlString};

use super::outcome::{CaseResult, Outcome};

/// Writes `results` to `path`; makes the folders on the way.
pub fn write(path: &Path, results: &[CaseResult], time: Duration) -> anyhow::Result<()> {
    let text = render(results, time)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// One test suite for each group, in the order of the groups' first results.
fn render(results: &[CaseResult], time: Duration) -> anyhow::Result<String> {
    let mut report = Report::new("granary");
    report.set_time(time);
    let mut suites: Vec<TestSuite> = Vec::new();
    for result in results {
        let at = match suites
            .iter()
            .position(|suite| suite.name.as_str() == result.group)
        {
            Some(at) => at,
            None => {
                suites.push(TestSuite::new(result.group.as_str()));
                suites.len() - 1
            }
        };
        suites[at].add_test_case(case(result));
    }
    for suite in &mut suites {
        let time = suite.test_cases.iter().filter_map(|case| case.time).sum();
        suite.set_time(time);
    }
    report.add_test_suites(suites);
    report.to_string().context("cannot make XML of the results")
}

fn case(result: &CaseResult) -> TestCase {
    let (kind, word) = match &result.outcome {
        Outcome::Passed => (None, ""),
        Outcome::Skipped(_) => (None, "skipped"),
        // In JUnit's terms a failed check is a failure, all else an error.
        Outcome::Failed(_) => (Some(NonSuccessKind::Failure), "failed"),
        Outcome::TimedOut(_) => (Some(NonSuccessKind::Error), "timed out"),
        Outcome::Crashed(_) => (Some(NonSuccessKind::Error), "crashed"),
        Outcome::Missing(_) => (Some(NonSuccessKind::Error), "missing"),
    };
    let mut status = match (&result.outcome, kind) {
        (Outcome::Skipped(_), _) => TestCaseStatus::skipped(),
        (_, Some(kind)) => TestCaseStatus::non_success(kind),
        (_, None) => TestCaseStatus::success(),
    };
    if result.outcome != Outcome::Passed {
        status.set_type(word);
        status.set_message(result.outcome.reason());
        if result.outcome.is_failure() {
            status.set_description(result.outcome.details().join("\n"));
        }
    }
    let mut case = TestCase::new(result.name.as_str(), status);
    case.set_classname(result.group.replace('/', "."));
    case.set_time(result.time);
    if let Some(log) = &result.log {
        case.set_system_out(XmlString::new(format!("log: {}", log.display())));
    }
    case
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<CaseResult> {
        let failed = Outcome::Failed(vec!["a < b & \"c\"".into(), "\u{1b}[31mred\u{0}".into()]);
        let mut crashed = CaseResult::new(
            "kernel/1cpu/ipi",
            "pairs",
            Outcome::Crashed(vec!["=== KERNEL PANIC".into()]),
        );
        crashed.log = Some("target/test-logs/1cpu.log".into());
        vec![
            CaseResult::new("host/xtask", "a::b", Outcome::Passed),
            crashed,
            CaseResult::new("host/xtask", "a::c", failed),
            CaseResult::new("boot", "uefi", Outcome::Skipped("no OVMF".into())),
        ]
    }

    #[test]
    fn groups_become_suites_with_counts() {
        let xml = render(&sample(), Duration::from_secs(3)).expect("renders");
        assert!(
            xml.contains(
                r#"<testsuite name="host/xtask" tests="2" disabled="0" errors="0" failures="1""#
            ),
            "{xml}"
        );
        assert!(xml.contains(r#"<testsuite name="kernel/1cpu/ipi" tests="1" disabled="0" errors="1" failures="0""#), "{xml}");
        assert!(
            xml.contains(r#"<testsuite name="boot" tests="1" disabled="1""#),
            "{xml}"
        );
        assert!(xml.contains(r#"classname="kernel.1cpu.ipi""#), "{xml}");
        assert!(xml.contains("log: target/test-logs/1cpu.log"), "{xml}");
    }

    #[test]
    fn text_is_escaped_and_control_characters_vanish() {
        let xml = render(&sample(), Duration::ZERO).expect("renders");
        assert!(xml.contains("a &lt; b &amp;"), "{xml}");
        assert!(xml.chars().all(|c| !c.is_control() || c == '\n'), "{xml}");
    }

    #[test]
    fn the_file_is_written_with_its_folder() {
        let folder = std::env::temp_dir().join(format!("granary-junit-{}", std::process::id()));
        let path = folder.join("a/junit.xml");
        write(&path, &sample(), Duration::ZERO).expect("writes");
        let text = std::fs::read_to_string(&path).expect("was written");
        assert!(text.starts_with("<?xml"));
        std::fs::remove_dir_all(&folder).expect("can be removed");
    }
}
