//! Names of tests, for `--list`.

use super::scenario::NMI_GRACE;
use super::subject::{End, Log, SUCCESS, Start, listen};

/// The in-kernel cases that match `globs`, as `suite.case`.
pub fn kernel_cases(
    globs: &[String],
    start: &dyn Start,
    log: &mut Log,
) -> anyhow::Result<Vec<String>> {
    let cmdline = format!("kunit={} kunit.list", globs.join(","));
    let mut machine = start.start(&cmdline)?;
    let mut names = Vec::new();
    let end = listen(&mut *machine, start, NMI_GRACE, log, |line, _| {
        if is_case(line) {
            names.push(line.to_owned());
        }
    });
    if end != End::Exited(SUCCESS) {
        anyhow::bail!(
            "cannot list the tests inside the kernel: {end} {}",
            machine.stderr().trim()
        );
    }
    Ok(names)
}

/// Whether a line is the name of a case; log lines and the like are not.
fn is_case(line: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    };
    line.split_once('.')
        .is_some_and(|(suite, case)| is_word(suite) && is_word(case))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::subject::Heard;
    use crate::test::subject::fake::{Fake, Prepared, scratch_log};

    #[test]
    fn names_are_taken_from_among_the_log() {
        let text = "[    0.1] cpu0 info: a.b\nipi.all_pairs\nheap.grow\nHello. World\n";
        let start = Prepared::new([Fake::new(text, Heard::Ended(Some(SUCCESS)))]);
        let names =
            kernel_cases(&["i*".into(), "h*".into()], &start, &mut scratch_log()).expect("a list");
        assert_eq!(names, ["ipi.all_pairs", "heap.grow"]);
        assert_eq!(start.cmdlines.take(), ["kunit=i*,h* kunit.list"]);
    }

    #[test]
    fn a_kernel_that_cannot_list_is_an_error() {
        let start = Prepared::new([Fake::new("a.b\n", Heard::Ended(Some(37)))]);
        let error =
            kernel_cases(&["*".into()], &start, &mut scratch_log()).expect_err("it panicked");
        assert!(error.to_string().contains("the kernel panicked"), "{error}");
    }
}
