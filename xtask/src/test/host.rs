//! Runs the host tests of the default members: unit and integration tests as
//! binaries that cargo builds, then the documentation tests.
//!
//! The binaries are run from here and not by `cargo test`, so that every result
//! is known to belong to a crate, and a binary that dies or hangs is told apart
//! from a test that fails.

mod build;
mod libtest;
mod sanitize;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use self::build::Binary;
pub use self::sanitize::{Sanitized, Sanitizer};

use super::filter::Filter;
use super::outcome::{CaseResult, Outcome, full_name};
use super::process::{Lines, Next};
use super::report::Reporter;
use super::subject::Log;
use super::tier::Tier;

/// The variable that tells an `xtask` started by a test that it must not run that test
/// again. Its value is the folder for what it writes.
pub const RECURSION_GUARD: &str = "GRANARY_TESTING";

/// The variable that tells long tests how much of their stated rounds they do, in percent. Not
/// set in the quick tier: then they do as many as they think quick.
const PERCENT: &str = "GRANARY_PERCENT";

/// How long a test binary may print nothing before it counts as hung.
const SILENCE: Duration = Duration::from_secs(15 * 60);

/// What to run.
pub struct Host<'a> {
    /// The folder of the workspace.
    pub root: &'a Path,
    /// Which tests.
    pub filter: &'a Filter,
    /// The folder for logs.
    pub logs: PathBuf,
    /// How long the long ones run.
    pub tier: Tier,
    /// Under a sanitizer: only what it makes sense for, and no documentation tests.
    pub sanitized: Option<Sanitized>,
}

impl Host<'_> {
    /// Builds and runs the selected tests.
    pub fn run(&self, reporter: &Reporter) {
        let Some(binaries) = self.build(reporter) else {
            return;
        };
        for package in binaries.chunk_by(|a, b| a.package == b.package) {
            let since = Instant::now();
            let before = reporter.totals();
            for binary in package {
                self.binary(binary, reporter);
            }
            if reporter.totals() != before {
                reporter.group_ended(&package[0].group(), since.elapsed());
            }
        }
        if self.sanitized.is_none() {
            self.doc_tests(&Packages::of(&binaries, self.root), reporter);
        }
    }

    /// The full names of all selected tests.
    pub fn list(&self) -> anyhow::Result<Vec<String>> {
        let binaries = build::build(self.cargo(), self.targets(), |_| {})
            .map_err(|lines| anyhow::Error::msg(lines.join("\n")))?;
        let packages = Packages::of(&binaries, self.root);
        let mut names = Vec::new();
        for binary in binaries {
            let own = self.selected(&binary).into_iter();
            names.extend(own.map(|name| full_name(&binary.group(), &binary.test_name(&name))));
        }
        if self.sanitized.is_some() {
            return Ok(names);
        }
        let docs = self.listed_doc_tests().into_iter().map(|name| {
            let (group, name) = packages.doc_test(&name);
            full_name(&group, &name)
        });
        names.extend(docs.filter(|name| self.filter.selects(name)));
        Ok(names)
    }

    fn cargo(&self) -> Command {
        let mut command = match &self.sanitized {
            Some(sanitized) => sanitized.cargo(),
            None => Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
        };
        command
            .current_dir(self.root)
            .env(RECURSION_GUARD, self.logs.join("host.d"))
            .env("CARGO_TERM_COLOR", "never");
        command
    }

    /// What cargo is told to build; nothing: all.
    fn targets(&self) -> impl Iterator<Item = &'static str> {
        self.sanitized.iter().flat_map(Sanitized::targets)
    }

    fn build(&self, reporter: &Reporter) -> Option<Vec<Binary>> {
        reporter.status("host: building the tests");
        match build::build(self.cargo(), self.targets(), |text| {
            reporter.status(format!("host: {text}"))
        }) {
            Ok(binaries) => Some(binaries),
            Err(lines) => {
                reporter.case(CaseResult::new("host", "(build)", Outcome::Failed(lines)));
                None
            }
        }
    }

    /// The selected tests of a binary, by their names in it.
    fn selected(&self, binary: &Binary) -> Vec<String> {
        let output = binary
            .command()
            .args(["--list", "--format", "terse"])
            .output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let mut names = libtest::listed(&text.unwrap_or_default());
        names.retain(|name| {
            self.filter
                .selects(&full_name(&binary.group(), &binary.test_name(name)))
        });
        names
    }

    fn binary(&self, binary: &Binary, reporter: &Reporter) {
        let names = self.selected(binary);
        if names.is_empty() {
            return;
        }
        let group = binary.group();
        let mut command = binary.command();
        command.env(RECURSION_GUARD, self.logs.join("host.d"));
        if let Some(percent) = self.tier.percent() {
            command.env(PERCENT, percent.to_string());
        }
        if !self.filter.is_everything() {
            command.arg("--exact").args(&names);
        }
        let log = self
            .logs
            .join(format!("host-{}-{}.log", binary.package, binary.target));
        if let Some(sanitized) = &self.sanitized {
            sanitized.prepare(&mut command, &log);
        }
        let mut run = Output::new(&log);
        let ended = run.follow(command, |parser, name| {
            let (done, all) = (parser.done(), parser.announced());
            reporter.status(format!("{group}: {done}/{all} {name}"));
        });
        let complete = run.parser.is_complete();
        let results = run.parser.into_results();
        let missing: Vec<_> = names
            .iter()
            .filter(|name| results.iter().all(|(done, _)| done != *name))
            .cloned()
            .collect();
        let failed = results.iter().any(|(_, outcome)| outcome.is_failure());
        for (name, outcome) in results {
            reporter.case(CaseResult::new(&group, binary.test_name(&name), outcome).with_log(&log));
        }
        let complete = complete && missing.is_empty();
        let outcome = match &self.sanitized {
            Some(sanitized) if ended == Ended::Status(Some(sanitize::STATUS)) => {
                Some(Outcome::Failed(sanitized.found(&log)))
            }
            _ => verdict(&ended, complete, failed, &missing, &run.tail),
        };
        if let Some(outcome) = outcome {
            reporter.case(
                CaseResult::new(&group, format!("({})", binary.target), outcome).with_log(&log),
            );
        }
    }

    /// The documentation tests as rustdoc names them.
    fn listed_doc_tests(&self) -> Vec<String> {
        let mut command = self.cargo();
        command.args([
            "test", "--doc", "--quiet", "--", "--list", "--format", "terse",
        ]);
        let Ok(output) = command.output() else {
            return Vec::new();
        };
        libtest::listed(&String::from_utf8_lossy(&output.stdout))
    }

    fn doc_tests(&self, packages: &Packages, reporter: &Reporter) {
        reporter.status("host: documentation tests");
        let selects = |name: &str| {
            let (group, name) = packages.doc_test(name);
            self.filter.selects(&full_name(&group, &name))
        };
        let mut command = self.cargo();
        command.args(["test", "--doc", "--no-fail-fast"]);
        if !self.filter.is_everything() {
            // A name has blanks, which rustdoc takes for separators: the files
            // are selected, and the results once more.
            let mut files: Vec<String> = self.listed_doc_tests();
            files.retain(|name| selects(name));
            for name in &mut files {
                name.truncate(name.find(' ').unwrap_or(name.len()));
            }
            files.dedup();
            if files.is_empty() {
                return;
            }
            command.arg("--").args(files);
        }
        let log = self.logs.join("host-doc.log");
        let since = Instant::now();
        let mut run = Output::new(&log);
        let ended = run.follow(command, |_, name| {
            reporter.status(format!("host: {name}"));
        });
        let results = run.parser.into_results();
        let failed = results.iter().any(|(_, outcome)| outcome.is_failure());
        let mut groups: Vec<String> = Vec::new();
        for (name, outcome) in results {
            if !selects(&name) {
                continue;
            }
            let (group, name) = packages.doc_test(&name);
            if !groups.contains(&group) {
                groups.push(group.clone());
            }
            reporter.case(CaseResult::new(group, name, outcome).with_log(&log));
        }
        if let Some(outcome) = verdict(&ended, true, failed, &[], &run.tail) {
            reporter.case(CaseResult::new("host", "(doc)", outcome).with_log(&log));
        }
        for group in groups {
            reporter.group_ended(&group, since.elapsed());
        }
    }
}

/// The folders of packages, relative to the workspace, with their names.
struct Packages(Vec<(String, String)>);

impl Packages {
    fn of(binaries: &[Binary], root: &Path) -> Self {
        let named = binaries.iter().filter_map(|binary| {
            let folder = binary.folder.strip_prefix(root).ok()?.to_str()?;
            Some((folder.to_owned(), binary.package.clone()))
        });
        Self(named.collect())
    }

    /// Group and name of a documentation test, which rustdoc calls by its file:
    /// `kernel/base/src/glob.rs - glob::matches (line 3)`.
    fn doc_test(&self, name: &str) -> (String, String) {
        let package = self.0.iter().find_map(|(folder, package)| {
            let file = name.strip_prefix(folder.as_str())?.strip_prefix('/')?;
            // One package may lie in the folder of another.
            file.starts_with("src/").then_some((package, file))
        });
        match package {
            Some((package, file)) => (format!("host/{package}/doc"), file.into()),
            None => ("host/doc".into(), name.into()),
        }
    }
}

/// How a test process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ended {
    Status(Option<i32>),
    Silent,
    NotStarted(String),
}

/// What is wrong with a process beyond the results of its tests.
fn verdict(
    ended: &Ended,
    complete: bool,
    failed: bool,
    missing: &[String],
    tail: &[String],
) -> Option<Outcome> {
    let mut lines = Vec::new();
    if !missing.is_empty() {
        lines.push(format!("without result: {}", missing.join(", ")));
    }
    lines.extend(tail.iter().cloned());
    let explain = |text: String| std::iter::once(text).chain(lines.clone()).collect();
    match ended {
        Ended::NotStarted(error) => Some(Outcome::Failed(explain(error.clone()))),
        Ended::Silent => Some(Outcome::TimedOut(explain(
            "printed nothing for long and was ended".into(),
        ))),
        Ended::Status(Some(0)) if complete && !failed => None,
        // What a test binary ends with after failed tests.
        Ended::Status(Some(101 | 1)) if complete && failed => None,
        Ended::Status(None) => Some(Outcome::Crashed(explain("ended by a signal".into()))),
        Ended::Status(Some(status)) if !complete => Some(Outcome::Crashed(explain(format!(
            "ended with status {status} in the middle"
        )))),
        Ended::Status(Some(status)) => Some(Outcome::Failed(explain(format!(
            "ended with status {status}, which does not fit its results"
        )))),
    }
}

/// The output of one process.
struct Output {
    parser: libtest::Parser,
    log: Option<Log>,
    tail: Vec<String>,
}

impl Output {
    fn new(log: &Path) -> Self {
        Self {
            parser: libtest::Parser::new(),
            log: Log::create(log).ok(),
            tail: Vec::new(),
        }
    }

    fn follow(
        &mut self,
        command: Command,
        mut on_test: impl FnMut(&libtest::Parser, &str),
    ) -> Ended {
        let mut lines = match Lines::start(command) {
            Ok(lines) => lines,
            Err(error) => return Ended::NotStarted(format!("{error:#}")),
        };
        loop {
            match lines.next(SILENCE) {
                Next::Line(line) => {
                    if let Some(log) = &mut self.log {
                        log.line(&line);
                    }
                    if let Some(name) = self.parser.line(&line).map(str::to_owned) {
                        on_test(&self.parser, &name);
                    }
                    if self.tail.len() == 40 {
                        self.tail.remove(0);
                    }
                    self.tail.push(line);
                }
                Next::Ended(status) => return Ended::Status(status),
                Next::Silence => {
                    lines.kill();
                    return Ended::Silent;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
