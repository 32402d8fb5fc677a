//! Running the workloads of the portable crates as a program of this host.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;

use super::{Collector, Ran, Show};
use crate::process::{self, Group};
use crate::test::subject::{End, FAILURE, Log, SUCCESS};
use crate::ui;

/// The program's package, below the root.
const MANIFEST: &str = "mm/bench/Cargo.toml";
/// What the allocators of others need.
const COMPILERS: [&str; 2] = ["cc", "c++"];

/// The program, with the rounds and patterns that it takes. It is a workspace of its own. The
/// allocators of others are compiled from C and C++, and left out where that cannot be.
pub fn program(root: &Path, target: &Path, rounds: u32, patterns: &str) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--release", "--locked"]);
    command.arg("--manifest-path").arg(root.join(MANIFEST));
    command.arg("--target-dir").arg(target.join("mm-bench"));
    if COMPILERS.iter().all(|name| which::which(name).is_ok()) {
        command.args(["--features", "others"]);
        // The build of snmalloc does not say so itself, and is three times as slow.
        command.env("CXXFLAGS", "-DNDEBUG");
    } else {
        ui::say("without mimalloc and snmalloc, which need cc and c++");
    }
    command.args(["--", &rounds.to_string(), patterns]);
    command
}

/// Runs `command` and hands the lines that are to be shown to `show`. Everything that it
/// prints goes to `log`; what it says on standard error is seen as it is.
///
/// # Errors
///
/// If it cannot be started; all else is in [`Ran::problems`].
pub fn measure(
    mut command: Command,
    mut collector: Collector,
    log: &mut Log,
    mut show: impl FnMut(Show, &str),
) -> anyhow::Result<Ran> {
    log.remark(&format!("{command:?}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = process::spawn(command, Group::Shared).context("cannot start cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        log.line(&line);
        let place = collector.line(&line);
        if place != Show::Nowhere {
            show(place, &line);
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    // In the words of a guest, which the collector knows.
    let end = End::Exited(if status.success() { SUCCESS } else { FAILURE });
    let mut ran = collector.finish(&end);
    if !ran.complete {
        ran.problems
            .push(format!("the program ended with {status}"));
    }
    Ok(ran)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::subject::fake::scratch_log;

    /// What comes of a program that prints `text` and ends with `status`.
    fn run(text: &str, status: i32) -> (Ran, Vec<(Show, String)>) {
        let mut command = Command::new("sh");
        let script = "printf '%s\\n' \"$1\"; exit \"$2\"";
        command.args(["-c", script, "sh", text, &status.to_string()]);
        let mut shown = Vec::new();
        let collector = Collector::new(5, 1);
        let ran = measure(command, collector, &mut scratch_log(), |place, line| {
            shown.push((place, line.to_owned()));
        });
        (ran.unwrap(), shown)
    }

    const GOOD: &str = "\
# bench: release build, no debug checks; rounds=5 cpus=1
# run: page/0
BENCH page/0 cpus=1 ops=50000 ns_per_op=30.0 min=29.0 max=31.5
# bench: 1 measured, 0 skipped, 0 failed";

    #[test]
    fn figures_are_those_of_the_program() {
        let (ran, shown) = run(GOOD, 0);
        assert_eq!(ran.problems, [""; 0]);
        assert_eq!(ran.rows[0].name, "page/0");
        let results = shown.iter().filter(|(place, _)| *place == Show::Result);
        assert_eq!(results.count(), 2);
    }

    #[test]
    fn a_program_that_dies_is_a_problem() {
        let begun = GOOD.lines().take(2).collect::<Vec<_>>().join("\n");
        let (ran, _) = run(&begun, 134);
        assert!(ran.problems[0].contains("in page/0"), "{ran:?}");
        assert!(ran.problems[1].contains("134"), "{ran:?}");
        let (ran, _) = run("error: could not compile", 101);
        assert!(ran.problems[0].contains("did not begin"), "{ran:?}");
        let (ran, _) = run(GOOD, 1);
        assert_eq!(ran.problems.len(), 1, "{ran:?}");
    }
}
