use super::*;

const BEGIN: &str = "# bench: release build, no debug checks; rounds=5 cpus=1";
const LINE: &str = "BENCH pair/64 cpus=1 ops=200000 ns_per_op=142.0 min=142.0 max=142.0 idle_ns=0";

/// What comes of these lines, of a guest with 1 CPU and 5 rounds.
fn ran(lines: &[&str], end: End) -> Ran {
    let mut collector = Collector::new(5, 1);
    for line in lines {
        collector.line(line);
    }
    collector.finish(&end)
}

fn problems(lines: &[&str], status: i32) -> Vec<String> {
    ran(lines, End::Exited(status)).problems
}

#[test]
fn a_good_run() {
    let lines = [
        "[    0.1] cpu0 info: boot: ready in 1 ms",
        BEGIN,
        "# run: pair/64",
        LINE,
        "# run: remote_free/256",
        "# SKIP remote_free/256: needs 2 CPUs, 1 is online",
        "# bench: 1 measured, 1 skipped, 0 failed",
    ];
    let ran = ran(&lines, End::Exited(SUCCESS));
    assert_eq!(ran.problems, [""; 0]);
    assert!(ran.complete);
    assert_eq!(ran.rows.len(), 1);
    assert_eq!(ran.rows[0].name, "pair/64");
    assert_eq!(ran.skipped[0].reason, "needs 2 CPUs, 1 is online");
}

#[test]
fn only_results_go_to_standard_output() {
    let mut collector = Collector::new(5, 1);
    for (line, place) in [
        ("[    0.1] cpu0 info: x", Show::Nowhere),
        (BEGIN, Show::Result),
        ("# run: pair/64", Show::Progress),
        (LINE, Show::Result),
        ("# SKIP a: b", Show::Progress),
        ("# bench: 1 measured, 1 skipped, 0 failed", Show::Progress),
    ] {
        assert_eq!(collector.line(line), place, "{line}");
    }
}

#[test]
fn what_went_wrong_inside_is_told() {
    let lines = [
        BEGIN,
        "# bench: no workload matches nonsense",
        "# run: pair/64",
        LINE,
        "# run: a",
        "# FAIL a: no memory",
        "# bench: 1 measured, 0 skipped, 2 failed",
    ];
    let ran = ran(&lines, End::Exited(FAILURE));
    assert!(ran.complete);
    assert_eq!(
        ran.problems,
        ["no workload matches nonsense", "a failed: no memory"]
    );
    assert_eq!(ran.failed[0].name, "a");
}

#[test]
fn a_run_without_figures_has_failed() {
    let end = "# bench: 0 measured, 0 skipped, 0 failed";
    assert_eq!(
        problems(&[BEGIN, end], FAILURE),
        ["no workload was measured"]
    );
    let skipped = [
        BEGIN,
        "# run: a",
        "# SKIP a: no",
        "# bench: 0 measured, 1 skipped, 0 failed",
    ];
    assert_eq!(
        problems(&skipped, FAILURE),
        ["no workload was measured: all 1 were skipped"]
    );
}

#[test]
fn a_crash_names_its_workload() {
    let lines = [BEGIN, "# run: pair/64", LINE, "# run: batch/256/16"];
    let crash = ran(&lines, End::Exited(crate::test::subject::PANIC));
    assert_eq!(
        crash.problems,
        ["the run was cut short in batch/256/16: the kernel panicked"]
    );
    assert!(!crash.complete && crash.rows.len() == 1);
    let hang = ran(&lines[..2], End::Silent { printed: true });
    assert!(
        hang.problems[0].starts_with("the run was cut short in pair/64: the guest hangs"),
        "{:?}",
        hang.problems
    );
    let early = ran(&[], End::Exited(crate::test::subject::PANIC));
    assert_eq!(
        early.problems,
        ["the run did not begin: the kernel panicked"]
    );
}

#[test]
fn a_run_without_its_last_line_was_cut_short() {
    assert_eq!(
        problems(&[BEGIN, "# run: pair/64", LINE], SUCCESS),
        ["the run was cut short: the guest ended with success"]
    );
}

#[test]
fn what_the_kernel_counts_must_be_what_was_seen() {
    let lines = [
        BEGIN,
        "# run: pair/64",
        LINE,
        "# bench: 2 measured, 0 skipped, 0 failed",
    ];
    let ran = ran(&lines, End::Exited(SUCCESS));
    assert!(
        ran.problems[0].contains("[2, 0, 0]") && !ran.complete,
        "{ran:?}"
    );
}

#[test]
fn a_wrong_build_or_machine_is_refused() {
    let checked = Said::Begin {
        checked: true,
        rounds: 3,
        cpus: 4,
    };
    let lines = [
        &*checked.to_string(),
        "# run: pair/64",
        LINE,
        "# bench: 1 measured, 0 skipped, 0 failed",
    ];
    assert_eq!(
        problems(&lines, SUCCESS),
        [
            "this is no release build, its figures mean nothing",
            "3 rounds instead of 5",
            "4 of 1 CPUs are online"
        ]
    );
}

#[test]
fn damaged_doubled_and_misplaced_lines_are_told() {
    let end = "# bench: 1 measured, 0 skipped, 0 failed";
    let damaged = problems(
        &[BEGIN, LINE, "BENCH pair/256 cpus=1 [ 0.1] cpu1", end],
        SUCCESS,
    );
    assert!(damaged[0].contains("damaged"), "{damaged:?}");
    assert_eq!(
        problems(&[BEGIN, LINE, LINE, end], SUCCESS),
        ["`pair/64` comes twice"]
    );
    let misplaced = problems(&[LINE, BEGIN, end], SUCCESS);
    assert!(misplaced[0].contains("not in its place"), "{misplaced:?}");
}

#[test]
fn a_wrong_status_is_told() {
    let lines = [BEGIN, LINE, "# bench: 1 measured, 0 skipped, 0 failed"];
    assert_eq!(
        problems(&lines, FAILURE),
        ["all workloads went well, but the guest ended with failure"]
    );
}
