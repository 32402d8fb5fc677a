//! Running the guest.

use super::{Collector, Ran, Show};
use crate::test::scenario::NMI_GRACE;
use crate::test::subject::{Log, Start, listen};

/// How many lines of the guest's output a failure shows.
const SHOWN_LINES: usize = 40;

/// Starts a guest of `start` with this kernel command line, listens until it ends, and
/// hands the lines that are to be shown to `show`. Everything goes to `log`.
///
/// # Errors
///
/// If the guest cannot be started; all else is in [`Ran::problems`].
pub fn measure(
    start: &dyn Start,
    cmdline: &str,
    mut collector: Collector,
    log: &mut Log,
    mut show: impl FnMut(Show, &str),
) -> anyhow::Result<Ran> {
    log.remark(&format!("command line: {cmdline}"));
    let mut guest = start.start(cmdline)?;
    let mut lines = Vec::new();
    let end = listen(&mut *guest, start, NMI_GRACE, log, |line, _| {
        let place = collector.line(line);
        if place != Show::Nowhere {
            show(place, line);
        }
        lines.push(line.to_owned());
    });
    let mut ran = collector.finish(&end);
    // What a run that came to its end has to say it has said.
    if !ran.complete {
        let said = guest.stderr();
        if !said.trim().is_empty() {
            ran.problems.push(format!("QEMU says: {}", said.trim()));
        }
        let from = lines.len().saturating_sub(SHOWN_LINES);
        for line in &lines[from..] {
            show(Show::Progress, line);
        }
    }
    Ok(ran)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::subject::fake::{Fake, Prepared, scratch_log};
    use crate::test::subject::{Heard, PANIC, SUCCESS};

    const GOOD: &str = "\
[    0.1] cpu0 info: boot: ready
# bench: release build, no debug checks; rounds=5 cpus=1
# run: a
BENCH a cpus=1 ops=1 ns_per_op=2.0
# bench: 1 measured, 0 skipped, 0 failed";

    /// What comes of a guest, and what was shown.
    fn run(guest: Fake) -> (Ran, Vec<(Show, String)>) {
        let start = Prepared::new([guest]);
        let mut shown = Vec::new();
        let ran = measure(
            &start,
            "bench=a",
            Collector::new(5, 1),
            &mut scratch_log(),
            |place, line| shown.push((place, line.to_owned())),
        )
        .unwrap();
        assert_eq!(*start.cmdlines.borrow(), ["bench=a"]);
        (ran, shown)
    }

    #[test]
    fn a_good_guest() {
        let (ran, shown) = run(Fake::new(GOOD, Heard::Ended(Some(SUCCESS))));
        assert_eq!(ran.problems, [""; 0]);
        let results = shown.iter().filter(|(place, _)| *place == Show::Result);
        assert_eq!(results.count(), 2);
        assert!(!shown.iter().any(|(_, line)| line.contains("boot: ready")));
    }

    #[test]
    fn a_guest_that_hangs_is_made_to_show_where() {
        let text = GOOD.lines().take(3).collect::<Vec<_>>().join("\n");
        let report = "=== KERNEL PANIC\n  #0 kernel_main+0x0";
        let guest = Fake::new(&text, Heard::Silence).on_nmi(report, Heard::Ended(Some(PANIC)));
        let done = guest.done.clone();
        let (ran, shown) = run(guest);
        assert_eq!(done.borrow().nmis, 1);
        assert!(ran.problems[0].contains("in a: the guest hangs"), "{ran:?}");
        let last = &shown.last().unwrap().1;
        assert!(last.contains("main.rs:1"), "{last}");
    }
}
