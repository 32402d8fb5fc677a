//! What Rust's test harness prints: `test <name> ... ok` lines, and after them
//! the output of the tests that failed.

use std::collections::BTreeMap;

use crate::test::outcome::Outcome;

/// A streaming parser for the output of one test binary, or of `rustdoc --test`.
#[derive(Debug, Default)]
pub struct Parser {
    announced: Option<usize>,
    results: Vec<(String, Outcome)>,
    /// The output of failed tests, by name.
    outputs: BTreeMap<String, Vec<String>>,
    section: Option<String>,
    ended: bool,
}

impl Parser {
    /// A parser that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one line; returns the name of the test whose result it is.
    pub fn line(&mut self, line: &str) -> Option<&str> {
        let line = line.trim_end();
        if let Some(count) = announcement(line) {
            // A binary announces once, doc tests once for every edition.
            *self.announced.get_or_insert(0) += count;
            self.section = None;
            return None;
        }
        if line.starts_with("test result: ") {
            self.ended = true;
            self.section = None;
            return None;
        }
        if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" ----"))
        {
            let name = name.strip_suffix(" stdout").unwrap_or(name);
            self.section = Some(name.into());
            return None;
        }
        if line == "failures:" || line == "successes:" {
            self.section = None;
            return None;
        }
        if let Some(section) = &self.section {
            self.outputs
                .entry(section.clone())
                .or_default()
                .push(line.into());
            return None;
        }
        let (name, outcome) = result(line)?;
        self.results.push((name, outcome));
        self.results.last().map(|(name, _)| name.as_str())
    }

    /// How many tests were announced.
    pub fn announced(&self) -> usize {
        self.announced.unwrap_or(0)
    }

    /// How many results have come.
    pub fn done(&self) -> usize {
        self.results.len()
    }

    /// Whether everything that was announced has come.
    pub fn is_complete(&self) -> bool {
        self.ended
            && self
                .announced
                .is_some_and(|announced| announced == self.results.len())
    }

    /// All results, each failure with its output.
    pub fn into_results(mut self) -> Vec<(String, Outcome)> {
        for (name, outcome) in &mut self.results {
            if let Outcome::Failed(lines) = outcome
                && let Some(output) = self.outputs.remove(name)
            {
                *lines = trim(output);
            }
        }
        self.results
    }
}

/// The number in `running <n> tests`.
fn announcement(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("running ")?;
    let count = rest
        .strip_suffix(" tests")
        .or_else(|| rest.strip_suffix(" test"))?;
    count.parse().ok()
}

/// A line `test <name> ... <result>`.
fn result(line: &str) -> Option<(String, Outcome)> {
    let rest = line.strip_prefix("test ")?;
    // What a test prints to standard error may sit between name and result.
    let (name, rest) = rest.split_once(" ... ")?;
    let name = name
        .strip_suffix(" - should panic")
        .unwrap_or(name)
        .to_owned();
    // With `--report-time` a time follows; without it the result ends the line.
    let outcome = if rest == "ok" || rest.starts_with("ok <") || rest.ends_with("ok") {
        Outcome::Passed
    } else if rest.ends_with("FAILED") || rest.contains("FAILED <") {
        Outcome::Failed(vec!["the test failed without output".into()])
    } else if let Some(reason) = rest.strip_prefix("ignored") {
        let reason = reason.trim_start_matches(", ").trim();
        Outcome::Skipped(if reason.is_empty() {
            "marked #[ignore]".into()
        } else {
            reason.into()
        })
    } else {
        return None;
    };
    Some((name, outcome))
}

/// Takes empty lines away at both ends.
fn trim(mut lines: Vec<String>) -> Vec<String> {
    while lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    let start = lines
        .iter()
        .position(|line| !line.trim().is_empty())
        .unwrap_or(0);
    lines.split_off(start)
}

/// The names in the output of `--list --format terse`.
pub fn listed(output: &str) -> Vec<String> {
    output
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 5 tests
test a::passes ... ok
test a::panics - should panic ... ok
test a::slow ... ignored, takes an hour
test a::other ... ignored
test a::fails ... FAILED

failures:

---- a::fails stdout ----

thread 'a::fails' (1) panicked at src/lib.rs:3:5:
assertion `left == right` failed
  left: 1
 right: 2
test not a result ... ok


failures:
    a::fails

test result: FAILED. 2 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s

";

    fn parse(output: &str) -> Parser {
        let mut parser = Parser::new();
        for line in output.lines() {
            parser.line(line);
        }
        parser
    }

    #[test]
    fn all_kinds_of_results() {
        let parser = parse(OUTPUT);
        assert_eq!((parser.announced(), parser.done()), (5, 5));
        assert!(parser.is_complete());
        let results = parser.into_results();
        let names: Vec<_> = results.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["a::passes", "a::panics", "a::slow", "a::other", "a::fails"]
        );
        assert_eq!(results[0].1, Outcome::Passed);
        assert_eq!(results[2].1, Outcome::Skipped("takes an hour".into()));
        let Outcome::Failed(lines) = &results[4].1 else {
            panic!("{results:?}")
        };
        assert_eq!(
            lines[0],
            "thread 'a::fails' (1) panicked at src/lib.rs:3:5:"
        );
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn a_binary_that_dies_is_incomplete() {
        let cut = OUTPUT.split("test a::other").next().unwrap_or_default();
        let parser = parse(cut);
        assert!(!parser.is_complete());
        assert_eq!(parser.done(), 3);
        assert!(!parse("").is_complete());
        assert!(!parse("running 1 test\ntest result: ok. 0 passed").is_complete());
    }

    #[test]
    fn an_empty_binary_is_complete() {
        assert!(parse("\nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed\n").is_complete());
    }

    #[test]
    fn doc_tests_are_named_by_file_and_line() {
        let line = "test mm/src/lib.rs - slab::Cache (line 12) - compile fail ... ok";
        let (name, outcome) = result(line).expect("a result");
        assert_eq!(name, "mm/src/lib.rs - slab::Cache (line 12) - compile fail");
        assert_eq!(outcome, Outcome::Passed);
    }

    #[test]
    fn several_announcements_add_up() {
        let twice = "running 1 test\ntest a ... ok\ntest result: ok.\nrunning 1 test\ntest b ... ok\ntest result: ok.\n";
        let parser = parse(twice);
        assert!(parser.is_complete());
        assert_eq!(parser.announced(), 2);
    }

    #[test]
    fn lists() {
        assert_eq!(
            listed("a::b: test\nc: benchmark\nd: test\n\n1 test\n"),
            ["a::b", "d"]
        );
    }

    #[test]
    fn other_lines_are_no_results() {
        for line in [
            "test",
            "test a",
            "test a ... bench: 3 ns",
            "warning: x",
            "test result: ok.",
        ] {
            assert!(result(line).is_none(), "{line}");
        }
    }
}
