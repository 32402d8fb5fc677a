//! What a scenario expects of a guest's output and end.

use regex::Regex;

use super::panic_report::{PanicExpected, PanicReport};
use crate::test::subject::End;

/// What was seen of a guest.
#[derive(Clone, Debug)]
pub struct Transcript {
    /// Every line, symbolised.
    pub lines: Vec<String>,
    /// How it ended.
    pub end: End,
}

/// One expectation. Patterns are regular expressions that match within a line.
#[derive(Clone, Debug)]
pub enum Check {
    /// A line matches.
    Has(String),
    /// No line matches.
    HasNot(String),
    /// Lines match, in this order.
    InOrder(Vec<String>),
    /// QEMU ends with this status.
    Status(i32),
    /// A program ends with a status that tells of failure.
    Fails,
    /// The kernel was ready within so many milliseconds of guest time. Only for
    /// machines that count instructions, where guest time is exact.
    ReadyWithinMs(f64),
    /// There is one whole panic report, and it is as expected.
    Panic(PanicExpected),
    /// A panic within a panic was reported.
    NestedPanic,
}

impl Check {
    /// What is wrong, if anything is.
    pub fn apply(&self, transcript: &Transcript) -> Result<(), String> {
        let lines = &transcript.lines;
        match self {
            Self::Has(pattern) => match find(lines, pattern, 0)? {
                Some(_) => Ok(()),
                None => Err(format!("no line matches /{pattern}/")),
            },
            Self::HasNot(pattern) => match find(lines, pattern, 0)? {
                Some(at) => Err(format!("a line matches /{pattern}/: {}", lines[at])),
                None => Ok(()),
            },
            Self::InOrder(patterns) => in_order(lines, patterns),
            Self::Status(status) if transcript.end == End::Exited(*status) => Ok(()),
            Self::Status(status) => {
                let wanted = End::Exited(*status);
                Err(format!(
                    "expected that {wanted} (status {status}), but {}",
                    transcript.end
                ))
            }
            Self::Fails => match transcript.end {
                End::Exited(0) => Err("it ended with status 0, but should have failed".into()),
                End::Exited(_) => Ok(()),
                _ => Err(format!("it did not end by itself: {}", transcript.end)),
            },
            Self::ReadyWithinMs(most) => match ready_ms(lines) {
                Some(ms) if ms < *most => Ok(()),
                Some(ms) => Err(format!(
                    "ready after {ms} ms of guest time; the limit is {most} ms"
                )),
                None => Err("the kernel did not say `boot: ready in`".into()),
            },
            Self::Panic(expected) => PanicReport::find(lines)?.check(expected),
            Self::NestedPanic => in_order(
                lines,
                &[
                    "=== KERNEL PANIC on cpu".into(),
                    "=== PANIC IN PANIC on cpu[0-9]+: .".into(),
                ],
            ),
        }
    }
}

/// The milliseconds of guest time to the end of boot.
pub fn ready_ms(lines: &[String]) -> Option<f64> {
    lines.iter().find_map(|line| {
        let (_, rest) = line.split_once("boot: ready in ")?;
        rest.split_once(" ms")?.0.parse().ok()
    })
}

fn in_order(lines: &[String], patterns: &[String]) -> Result<(), String> {
    let mut from = 0;
    for pattern in patterns {
        from = match find(lines, pattern, from)? {
            Some(at) => at + 1,
            None if from == 0 => return Err(format!("no line matches /{pattern}/")),
            None => {
                return Err(format!(
                    "no line after `{}` matches /{pattern}/",
                    lines[from - 1]
                ));
            }
        };
    }
    Ok(())
}

/// The first line from `from` on that matches.
fn find(lines: &[String], pattern: &str, from: usize) -> Result<Option<usize>, String> {
    let regex = Regex::new(pattern)
        .map_err(|error| format!("/{pattern}/ is no regular expression: {error}"))?;
    Ok(lines
        .iter()
        .enumerate()
        .skip(from)
        .find(|(_, line)| regex.is_match(line))
        .map(|(at, _)| at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str, status: i32) -> Transcript {
        Transcript {
            lines: text.lines().map(str::to_owned).collect(),
            end: End::Exited(status),
        }
    }

    #[test]
    fn lines_are_searched_for() {
        let transcript = seen("a 1\nb 22\nc 3", 33);
        assert_eq!(Check::Has("b [0-9]{2}$".into()).apply(&transcript), Ok(()));
        assert!(Check::Has("d".into()).apply(&transcript).is_err());
        assert_eq!(Check::HasNot("d".into()).apply(&transcript), Ok(()));
        let error = Check::HasNot("c".into())
            .apply(&transcript)
            .expect_err("there is one");
        assert!(error.ends_with("c 3"), "{error}");
        assert!(Check::Has("(".into()).apply(&transcript).is_err());
    }

    #[test]
    fn order_matters() {
        let transcript = seen("a\nb\na\nc", 33);
        let order = |patterns: &[&str]| {
            Check::InOrder(patterns.iter().map(|&p| p.to_owned()).collect()).apply(&transcript)
        };
        assert_eq!(order(&["b", "a", "c"]), Ok(()));
        assert_eq!(
            order(&["c", "b"]),
            Err("no line after `c` matches /b/".into())
        );
        assert_eq!(
            order(&["a", "a", "a"]),
            Err("no line after `a` matches /a/".into())
        );
    }

    #[test]
    fn the_status_is_compared() {
        assert_eq!(Check::Status(33).apply(&seen("", 33)), Ok(()));
        let error = Check::Status(33)
            .apply(&seen("", 37))
            .expect_err("another status");
        assert_eq!(
            error,
            "expected that the guest ended with success (status 33), but the kernel panicked"
        );
    }

    #[test]
    fn a_failure_needs_a_status() {
        assert_eq!(Check::Fails.apply(&seen("", 2)), Ok(()));
        assert!(Check::Fails.apply(&seen("", 0)).is_err());
        let killed = Transcript {
            lines: vec![],
            end: End::Signalled,
        };
        assert!(Check::Fails.apply(&killed).is_err());
    }

    #[test]
    fn guest_time_of_boot() {
        let text = "[    0.09] cpu0 info: boot: ready in 87.5 ms guest time";
        assert_eq!(Check::ReadyWithinMs(100.0).apply(&seen(text, 33)), Ok(()));
        assert!(Check::ReadyWithinMs(80.0).apply(&seen(text, 33)).is_err());
        assert!(
            Check::ReadyWithinMs(80.0)
                .apply(&seen("boot: ready in x ms", 33))
                .is_err()
        );
        assert!(Check::ReadyWithinMs(80.0).apply(&seen("", 33)).is_err());
    }

    #[test]
    fn nested_panics() {
        let text = "=== KERNEL PANIC on cpu0: a\n=== PANIC IN PANIC on cpu0: b";
        assert_eq!(Check::NestedPanic.apply(&seen(text, 37)), Ok(()));
        assert!(
            Check::NestedPanic
                .apply(&seen("=== KERNEL PANIC on cpu0: a", 37))
                .is_err()
        );
    }
}
