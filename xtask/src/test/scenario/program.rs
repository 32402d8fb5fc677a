//! Scenarios that run `xtask` as a user does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::check::{Check, Transcript};
use super::{NMI_GRACE, conclude};
use crate::test::host::RECURSION_GUARD;
use crate::test::outcome::Outcome;
use crate::test::process::{Lines, Next};
use crate::test::subject::{End, Log};

/// How long xtask may say nothing: it may have to build the kernel first.
const SILENCE: Duration = Duration::from_secs(20 * 60);

/// A run of xtask.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its arguments.
    pub args: Vec<&'static str>,
    /// Programs whose names begin so are kept out of its `PATH`.
    pub without: &'static [&'static str],
    /// What it has to say, and its status.
    pub checks: Vec<Check>,
}

/// Runs xtask and looks at what it says.
pub fn run(program: &Program, xtask: &Path, log: &mut Log) -> Outcome {
    match try_run(program, xtask, log) {
        Ok(transcript) => {
            let ended = vec![ended(&transcript.end)];
            conclude(&program.checks, transcript, Vec::new(), ended)
        }
        Err(error) => Outcome::Failed(vec![format!("{error:#}")]),
    }
}

/// How xtask ended, in words.
fn ended(end: &End) -> String {
    match end {
        End::Exited(status) => format!("xtask ended with status {status}"),
        End::Signalled => "xtask was ended by a signal".into(),
        End::Silent { .. } | End::OutOfTime => {
            let minutes = SILENCE.as_secs() / 60;
            format!("xtask said nothing for {minutes} minutes, and was ended")
        }
    }
}

fn try_run(program: &Program, xtask: &Path, log: &mut Log) -> anyhow::Result<Transcript> {
    let mut command = command(xtask, &program.args, log);
    let folder = if program.without.is_empty() {
        None
    } else {
        Some(path_without(program.without)?)
    };
    if let Some(folder) = &folder {
        command.env("PATH", folder.path());
    }
    let mut running = Lines::start(command)?;
    let mut lines = Vec::new();
    loop {
        let end = match running.next(SILENCE) {
            Next::Line(line) => {
                log.line(&line);
                lines.push(line);
                continue;
            }
            Next::Ended(Some(status)) => End::Exited(status),
            Next::Ended(None) => End::Signalled,
            Next::Silence => {
                running.kill();
                End::OutOfTime
            }
        };
        return Ok(Transcript { lines, end });
    }
}

/// The command for xtask. What it writes if it runs tests goes beside the log.
fn command(xtask: &Path, args: &[&str], log: &Log) -> Command {
    let mut command = Command::new(xtask);
    command
        .args(args)
        .env(RECURSION_GUARD, log.path().with_extension("d"));
    command
}

/// A folder with links to all programs of `PATH` except those whose names begin
/// with one of `without`.
fn path_without(without: &[&str]) -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    for place in std::env::split_paths(&path) {
        // What `PATH` names need not exist.
        let Ok(entries) = std::fs::read_dir(&place) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let text = name.to_string_lossy();
            let link = folder.path().join(&name);
            // The first of a name counts.
            if !without.iter().any(|start| text.starts_with(start))
                && link.symlink_metadata().is_err()
            {
                std::os::unix::fs::symlink(entry.path(), &link)
                    .with_context(|| format!("cannot link {}", link.display()))?;
            }
        }
    }
    Ok(folder)
}

/// Starts `xtask run`, kills it when the guest is up, and waits for the end of QEMU.
pub fn run_orphan(xtask: &Path, log: &mut Log) -> Outcome {
    match orphan(xtask, log) {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(vec![format!("{error:#}")]),
    }
}

fn orphan(xtask: &Path, log: &mut Log) -> anyhow::Result<()> {
    let mut running = Lines::start(command(xtask, &["run", "--cpus", "1", "--nodes", "1"], log))?;
    let mut said = Vec::new();
    loop {
        match running.next(SILENCE) {
            Next::Line(line) => {
                log.line(&line);
                if line.contains("boot: ready in ") {
                    break;
                }
                said.push(line);
            }
            Next::Ended(status) => {
                bail!("xtask ended with {status:?} before the kernel was ready: {said:?}")
            }
            Next::Silence => bail!("the kernel was not ready: {said:?}"),
        }
    }
    let qemus = children(running.id(), "qemu");
    if qemus.is_empty() {
        bail!("xtask has no child called qemu");
    }
    log.remark(&format!("killing xtask; its QEMU: {qemus:?}"));
    running.kill();
    let since = Instant::now();
    loop {
        let left: Vec<_> = qemus.iter().filter(|process| process.is_alive()).collect();
        if left.is_empty() {
            return Ok(());
        }
        // The signal is sent at once; only the end of a large process takes a while.
        if since.elapsed() > NMI_GRACE {
            bail!("QEMU outlived xtask: {left:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process, known by its id and its start, since ids are used again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    id: u32,
    start: String,
}

impl Process {
    /// Whether it still runs; a zombie does not.
    fn is_alive(&self) -> bool {
        stat(self.id).is_some_and(|stat| stat.start == self.start && stat.state != "Z")
    }
}

struct Stat {
    name: String,
    state: String,
    parent: u32,
    start: String,
}

/// What `/proc/<id>/stat` says.
fn stat(id: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name stands in brackets and may itself contain some.
    let (_, rest) = text.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        name: name.into(),
        state: (*fields.first()?).into(),
        parent: fields.get(1)?.parse().ok()?,
        start: (*fields.get(19)?).into(),
    })
}

/// The children of process `parent` whose names begin with `name`.
fn children(parent: u32, name: &str) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let ids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(|id| {
        let stat = stat(id)?;
        (stat.parent == parent && stat.name.starts_with(name)).then_some(Process {
            id,
            start: stat.start,
        })
    })
    .collect()
}

/// This program, which the scenarios run as a child.
pub fn this_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find out where this program is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_with_a_strange_name() {
        let text = "12 (a) b (c) S 7 12 12 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        let stat = parse_stat(text).expect("it is well-formed");
        assert_eq!(
            (stat.name.as_str(), stat.state.as_str(), stat.parent),
            ("a) b (c", "S", 7)
        );
        assert_eq!(stat.start, "98765");
        assert!(parse_stat("12 (a").is_none());
        assert!(parse_stat("12 (a) S").is_none());
    }

    #[test]
    fn a_limit_that_struck_is_named() {
        assert_eq!(ended(&End::Exited(1)), "xtask ended with status 1");
        assert_eq!(
            ended(&End::OutOfTime),
            "xtask said nothing for 20 minutes, and was ended"
        );
    }

    #[test]
    fn children_are_found_and_seen_to_end() {
        let mut command = Command::new("sleep");
        command.arg("600");
        let mut running = Lines::start(command).expect("there is `sleep`");
        let found = children(std::process::id(), "sleep");
        let own = found
            .iter()
            .find(|process| process.id == running.id())
            .expect("it is a child");
        assert!(own.is_alive());
        running.kill();
        assert!(!own.is_alive());
    }

    #[test]
    fn a_path_lacks_what_is_kept_out() {
        let folder = path_without(&["qemu", "sh"]).expect("can be made");
        assert!(folder.path().join("cat").exists());
        assert!(!folder.path().join("sh").exists());
    }
}
