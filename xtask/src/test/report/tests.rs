use std::sync::Arc;

use super::*;

/// An output that can be read afterwards.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn failed(lines: usize) -> CaseResult {
    let lines = (0..lines).map(|n| format!("line {n}")).collect();
    CaseResult::new("kernel/1cpu/ipi", "pairs", Outcome::Failed(lines))
}

#[test]
fn failures_are_printed_at_once_and_passes_by_group() {
    let shared = Shared::default();
    let reporter = Reporter::with_output(Box::new(shared.clone()), false);
    reporter.case(CaseResult::new("kernel/1cpu/ipi", "all", Outcome::Passed));
    reporter.case(failed(2));
    reporter.group_ended("kernel/1cpu/ipi", Duration::from_millis(1500));
    assert_eq!(reporter.totals().all(), 2);
    assert_eq!(reporter.finish().len(), 2);
    let text = String::from_utf8(shared.0.lock().expect("not poisoned").clone()).expect("UTF-8");
    assert_eq!(
        text,
        "FAILED    kernel/1cpu/ipi.pairs\n    line 0\n    line 1\n\
         FAILED  kernel/1cpu/ipi: 1 passed, 1 failed (1.5 s)\n"
    );
}

#[test]
fn a_group_that_runs_again_is_counted_anew() {
    let shared = Shared::default();
    let reporter = Reporter::with_output(Box::new(shared.clone()), false);
    for _ in 0..2 {
        reporter.case(CaseResult::new("g", "a", Outcome::Passed));
        reporter.group_ended("g", Duration::ZERO);
    }
    let text = String::from_utf8(shared.0.lock().expect("not poisoned").clone()).expect("UTF-8");
    assert_eq!(text, "ok      g: 1 passed (0.0 s)\n".repeat(2));
    assert_eq!(reporter.totals().all(), 2);
}

#[test]
fn long_explanations_lose_their_middle() {
    let text = explain(&failed(100), 10);
    assert_eq!(text.lines().count(), 12);
    assert!(
        text.contains("line 4\n    ... 90 lines left out ...\n    line 95"),
        "{text}"
    );
    assert!(text.ends_with("line 99"), "{text}");
    assert!(!explain(&failed(10), 10).contains("left out"));
}

#[test]
fn the_summary_ends_with_the_totals_alone() {
    let mut crashed = failed(1);
    crashed.log = Some("target/test-logs/1cpu.log".into());
    let results = [
        CaseResult::new("host/xtask", "a", Outcome::Passed),
        crashed,
        CaseResult::new("boot", "uefi", Outcome::Skipped("no OVMF here".into())),
    ];
    let text = summary(&results);
    assert!(
        text.contains(
            "\n  kernel/1cpu/ipi.pairs: FAILED: line 0\n    log: target/test-logs/1cpu.log\n"
        ),
        "{text}"
    );
    assert!(text.contains("\n  boot/uefi: no OVMF here\n"), "{text}");
    assert_eq!(text.lines().last(), Some("1 passed, 1 failed, 1 skipped"));
    assert_eq!(summary(&[]), "\n0 passed, 0 failed, 0 skipped\n");
}
