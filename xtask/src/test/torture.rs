//! `cargo xtask test --torture`: one guest that tortures RCU, and its verdict.

use std::process::ExitCode;
use std::time::Duration;

use super::qemu::Qemu;
use super::random_seed;
use super::scenario::{Absent, Limits, NMI_GRACE, World};
use super::subject::{End, Log, SUCCESS, listen};
use super::tier::Tier;
use crate::cli::TestArgs;
use crate::machine::Machine;
use crate::{ui, workspace};

/// CPUs where none are asked for.
const CPUS: u32 = 8;
/// How long a grace period may last, in guest milliseconds.
const STALL_MS: u32 = 10_000;
/// What the kernel's lines of the torture begin with.
const MARK: &str = "rcu-torture: ";
/// The line of a run without failures.
const GOOD: &str = "rcu-torture: End of test: SUCCESS";
/// How many lines of the guest's output a failure shows.
const SHOWN_LINES: usize = 60;

/// Tortures RCU for `duration`.
pub(super) fn run(args: &TestArgs, duration: Duration) -> anyhow::Result<ExitCode> {
    let machine = Machine::from_args(&args.machine, CPUS)?;
    let cmdline = cmdline(args, duration, args.torture.seed.unwrap_or_else(seed));
    let logs = workspace::target().join("test-logs");
    let world = Qemu::prepare(&args.machine, Tier::Long, logs)?;
    if args.machine.dry_run {
        println!("{}", world.command_line(&machine, &cmdline)?);
        return Ok(ExitCode::SUCCESS);
    }
    let starter = world
        .starter(&machine, limits(args.machine.timeout, duration))
        .map_err(|absent| match absent {
            Absent::Skip(reason) | Absent::Fail(reason) => anyhow::Error::msg(reason),
        })?;
    let mut log = Log::create(&world.logs().join("torture.log"))?;
    log.remark(&format!("command line: {cmdline}"));
    ui::say(&format!("command line of the kernel: {cmdline}"));
    let mut guest = starter.start(&cmdline)?;
    let mut heard = Heard::default();
    let end = listen(&mut *guest, &*starter, NMI_GRACE, &mut log, |line, _| {
        if heard.line(line) {
            println!("{line}");
        }
    });
    if heard.is_good(&end) {
        return Ok(ExitCode::SUCCESS);
    }
    for line in heard.last() {
        eprintln!("{line}");
    }
    ui::error(&format!(
        "the torture failed: {end}; the whole output: {}",
        workspace::short(log.path())
    ));
    Ok(ExitCode::FAILURE)
}

/// Short, since somebody may type it.
fn seed() -> u64 {
    random_seed().max(1)
}

fn cmdline(args: &TestArgs, duration: Duration, seed: u64) -> String {
    let seconds = duration.as_secs();
    let fanout = args.torture.fanout;
    let mut words = format!(
        "rcutorture={seconds} rcutorture.seed={seed} rcu.fanout={fanout} \
         rcu.fanout_leaf={fanout} rcu.stall_timeout_ms={STALL_MS}"
    );
    if let Some(fault) = &args.torture.fault {
        words += &format!(" rcutorture.fault={fault}");
    }
    // What the user says comes last, and counts.
    format!("{words} {}", args.machine.cmdline)
        .trim_end()
        .to_owned()
}

/// The guest says how far it is every 15 s of its time; where instructions are counted that
/// is minutes of ours.
fn limits(timeout: Option<u64>, duration: Duration) -> Limits {
    Limits {
        silence: Duration::from_secs(20 * 60),
        deadline: match timeout {
            Some(seconds) => Duration::from_secs(seconds),
            None => Duration::from_secs(3600) + duration * 50,
        },
    }
}

/// What the guest has said.
#[derive(Debug, Default)]
struct Heard {
    lines: Vec<String>,
    good: bool,
}

impl Heard {
    /// Takes in a line; whether it is shown at once.
    fn line(&mut self, line: &str) -> bool {
        self.good |= line == GOOD;
        self.lines.push(line.to_owned());
        line.starts_with(MARK)
    }

    fn is_good(&self, end: &End) -> bool {
        self.good && *end == End::Exited(SUCCESS)
    }

    /// The last lines, without those that were shown.
    fn last(&self) -> impl Iterator<Item = &String> {
        let from = self.lines.len().saturating_sub(SHOWN_LINES);
        self.lines[from..]
            .iter()
            .filter(|line| !line.starts_with(MARK))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> TestArgs {
        let words = format!("xtask test {line}");
        let cli = Cli::try_parse_from(words.split_whitespace()).expect("a right line");
        let Command::Test(args) = cli.command else {
            panic!("not test");
        };
        args
    }

    #[test]
    fn options_reach_the_kernel() {
        let args = parse("--torture 10m --fault lose_qs --cmdline rcu.fanout=4 --seed 7");
        let duration = args.torture.torture.unwrap();
        assert_eq!(
            cmdline(&args, duration, 7),
            "rcutorture=600 rcutorture.seed=7 rcu.fanout=2 rcu.fanout_leaf=2 \
             rcu.stall_timeout_ms=10000 rcutorture.fault=lose_qs rcu.fanout=4"
        );
        let args = parse("--torture 5 --fanout 16");
        assert!(cmdline(&args, Duration::from_secs(5), 1).ends_with(
            "rcutorture=5 rcutorture.seed=1 rcu.fanout=16 rcu.fanout_leaf=16 \
             rcu.stall_timeout_ms=10000"
        ));
    }

    #[test]
    fn only_verdict_and_status_together_are_good() {
        let heard = |lines: &[&str]| {
            let mut heard = Heard::default();
            for line in lines {
                heard.line(line);
            }
            heard
        };
        let (good, bad) = (End::Exited(SUCCESS), End::Exited(35));
        assert!(heard(&["rcu-torture: Start", GOOD]).is_good(&good));
        assert!(!heard(&["rcu-torture: Start", GOOD]).is_good(&bad));
        assert!(!heard(&["rcu-torture: Start"]).is_good(&good));
        assert!(!heard(&["rcu-torture: End of test: FAILURE: x"]).is_good(&good));
        assert_eq!(heard(&["a", GOOD, "b"]).last().count(), 2);
    }

    #[test]
    fn only_with_torture() {
        for line in [
            "--seed 1",
            "--fault lose_qs",
            "--fanout 3",
            "--torture 5 x.*",
        ] {
            let words = format!("xtask test {line}");
            assert!(
                Cli::try_parse_from(words.split_whitespace()).is_err(),
                "{line}"
            );
        }
    }
}
