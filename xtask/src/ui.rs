//! What xtask itself says, always on standard error.

use std::io::{IsTerminal, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::process::{self, Group};

/// Says something worth knowing.
pub fn say(text: &str) {
    eprintln!("xtask: {text}");
}

/// Says why it failed.
pub fn error(text: &str) {
    eprintln!("xtask: error: {}", text.trim_end());
}

/// Whether a person is watching.
pub fn interactive() -> bool {
    std::io::stderr().is_terminal()
}

/// Steps shorter than this are not worth a second line.
const LONG_STEP: Duration = Duration::from_secs(5);

/// Runs one long step, named by what it does ("building the kernel").
///
/// On a terminal its own progress is shown; elsewhere one line says that it
/// began, one how long it took, and its output only comes if it fails.
pub fn step(doing: &str, mut command: Command) -> anyhow::Result<()> {
    let watched = interactive();
    let begun = Instant::now();
    say(&format!("{doing} ..."));
    command.stdin(Stdio::null());
    // Standard output is for results: a step's goes where its errors go.
    command.stdout(std::io::stderr());
    let mut said = String::new();
    let program = command.get_program().display().to_string();
    if watched {
        command.stderr(Stdio::inherit());
    } else {
        command.stderr(Stdio::piped());
        command.stdout(Stdio::null());
    }
    let mut child = process::spawn(command, Group::Shared)
        .with_context(|| format!("cannot start {program}"))?;
    if let Some(mut stderr) = child.stderr.take() {
        let mut bytes = Vec::new();
        stderr
            .read_to_end(&mut bytes)
            .context("cannot read what it says")?;
        said = String::from_utf8_lossy(&bytes).into_owned();
    }
    let status = child.wait()?;
    if !status.success() {
        eprint!("{said}");
        bail!("{doing} failed ({program}: {status})");
    }
    let took = begun.elapsed();
    if took >= LONG_STEP {
        say(&format!("{doing} took {:.0} s", took.as_secs_f64()));
    }
    Ok(())
}
