//! `cargo xtask bench`: figures, and what got worse.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context;

use crate::bench::{
    BenchMachine, Collector, Filter, JsonFile, Key, Ran, Report, Rule, Show, compare, host, measure,
};
use crate::build::{self, Build};
use crate::cli::{BenchArgs, Usage};
use crate::machine::{Facts as HostFacts, Machine};
use crate::test::qemu::Qemu;
use crate::test::scenario::{Absent, Limits, World};
use crate::test::subject::Log;
use crate::test::tier::Tier;
use crate::toolchain::{Facts, Road, Toolchain};
use crate::{tools, ui, workspace};

/// What benchmarks of the host are built with.
const PROFILE: &str = "release";

/// A workload prints nothing while it is measured, and a slow one on a busy host takes long.
const LIMITS: Limits = Limits {
    silence: Duration::from_secs(20 * 60),
    deadline: Duration::from_secs(4 * 3600),
};

/// Runs it.
pub fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    // First what is wrong with the command, then what takes long.
    let filter = Filter::new(&args.filter)?;
    if args.machine == BenchMachine::Host {
        if args.preemptible {
            let text = "--preemptible is for the kernel, which --machine host does not build";
            return Err(Usage(text.into()).into());
        }
        return run_on_host(args, &filter);
    }
    let machine = args.machine.guest(&HostFacts::gather())?;
    let baseline = args.baseline.as_deref().map(Report::read).transpose()?;
    let json = args.json.as_deref().map(JsonFile::prepare).transpose()?;
    let qemu = tools::QEMU.require()?;
    let toolchain = Toolchain::require()?;
    let build = Build {
        release: true,
        preemptible: args.preemptible,
    };
    let key = Key {
        machine: args.machine.name().into(),
        rustc: compiler(&toolchain).context("the compiler does not tell its version")?,
        qemu: super::doctor::version(&qemu),
        profile: build.name(),
    };
    if let Some(baseline) = &baseline {
        baseline.check_key(&key, args.allow_other_tools)?;
    }
    let images = build::images(&toolchain, build)?;
    let commit = commit();
    let logs = workspace::target().join("bench-logs");
    let world = Qemu::new(toolchain, images, Tier::Quick, logs)?;
    let cmdline = format!("bench={} bench.rounds={}", filter.list(), args.rounds);
    if args.dry_run {
        println!("{}", world.command_line(&machine, &cmdline)?);
        return Ok(ExitCode::SUCCESS);
    }

    let ran = guest(args, &world, &machine, &cmdline)?;
    finish(args, &filter, baseline.as_ref(), json, (key, commit), ran)
}

/// Runs the workloads of the portable crates here.
fn run_on_host(args: &BenchArgs, filter: &Filter) -> anyhow::Result<ExitCode> {
    let baseline = args.baseline.as_deref().map(Report::read).transpose()?;
    let json = args.json.as_deref().map(JsonFile::prepare).transpose()?;
    let key = Key {
        machine: args.machine.name().into(),
        rustc: host_compiler().context("rustc does not tell its version")?,
        qemu: "none".into(),
        profile: PROFILE.into(),
    };
    if let Some(baseline) = &baseline {
        baseline.check_key(&key, args.allow_other_tools)?;
    }
    let (root, target) = (workspace::root(), workspace::target());
    let program = host::program(root, &target, args.rounds, &filter.list());
    if args.dry_run {
        println!("{program:?}");
        return Ok(ExitCode::SUCCESS);
    }
    let commit = commit();
    let logs = workspace::target().join("bench-logs");
    let mut log = Log::create(&logs.join("host.log"))?;
    let collector = Collector::new(args.rounds, 1);
    let ran = host::measure(program, collector, &mut log, print)?;
    tell_problems(&ran, &log);
    finish(args, filter, baseline.as_ref(), json, (key, commit), ran)
}

/// Compares, writes the figures down, and says how it went.
fn finish(
    args: &BenchArgs,
    filter: &Filter,
    baseline: Option<&Report>,
    json: Option<JsonFile>,
    (key, commit): (Key, Option<String>),
    ran: Ran,
) -> anyhow::Result<ExitCode> {
    let mut good = ran.problems.is_empty();
    if let Some(baseline) = baseline {
        good &= judge(baseline, &ran, filter, Rule::of(args.machine));
    }
    if let Some(json) = json {
        if ran.problems.is_empty() {
            json.write(&Report::new(key, commit, args.rounds, ran))?;
        } else {
            ui::say("no JSON is written, since not all went well");
        }
    }
    Ok(ExitCode::from(u8::from(!good)))
}

/// The version line of the compiler that builds for the host.
fn host_compiler() -> Option<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    let output = command
        .arg("--version")
        .current_dir(workspace::root())
        .output();
    let text = String::from_utf8(output.ok()?.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|line| !line.is_empty())
}

/// Prints a line where it belongs.
fn print(place: Show, line: &str) {
    match place {
        Show::Result => println!("{line}"),
        Show::Progress => eprintln!("{line}"),
        Show::Nowhere => {}
    }
}

/// Says what went wrong, and where all of the output is.
fn tell_problems(ran: &Ran, log: &Log) {
    for problem in &ran.problems {
        ui::error(problem);
    }
    if !ran.problems.is_empty() {
        ui::say(&format!(
            "the whole output: {}",
            workspace::short(log.path())
        ));
    }
}

/// Runs the guest and says what was wrong.
fn guest(args: &BenchArgs, world: &Qemu, machine: &Machine, cmdline: &str) -> anyhow::Result<Ran> {
    let starter = world
        .starter(machine, LIMITS)
        .map_err(|absent| match absent {
            Absent::Skip(reason) | Absent::Fail(reason) => anyhow::Error::msg(reason),
        })?;
    let mut log = Log::create(&world.logs().join(format!("{}.log", args.machine.name())))?;
    let collector = Collector::new(args.rounds, machine.cpus);
    let ran = measure(&*starter, cmdline, collector, &mut log, print)?;
    tell_problems(&ran, &log);
    Ok(ran)
}

/// Compares with the baseline and says what came of it; whether nothing got worse.
fn judge(baseline: &Report, ran: &Ran, filter: &Filter, rule: Rule) -> bool {
    let commit = baseline.commit.as_deref().unwrap_or("an unknown commit");
    ui::say(&format!("compared with the baseline of {commit}:"));
    let findings = compare(baseline, ran, filter, rule);
    for finding in &findings {
        eprintln!("  {finding}");
    }
    let worse = findings
        .iter()
        .filter(|finding| finding.is_failure())
        .count();
    if worse > 0 {
        ui::error(&format!(
            "{worse} of {} got worse ({rule}) or cannot run",
            findings.len()
        ));
    }
    worse == 0
}

/// The version line of the compiler that builds the kernel.
fn compiler(toolchain: &Toolchain) -> Option<String> {
    let facts = Facts::gather();
    let compiler = match toolchain.road {
        Road::Rustup => facts.rustup,
        Road::Distribution => facts.distribution,
    };
    compiler.map(|(version, _)| version)
}

/// The commit of the workspace, with `+` if files differ from it.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(workspace::root())
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() {
        commit
    } else {
        commit + "+"
    })
}
