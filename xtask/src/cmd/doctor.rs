//! `cargo xtask doctor`: what is needed, what is there, how to get the rest.

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::machine::Facts as HostFacts;
use crate::packages::command_for;
use crate::toolchain::{DISTRIBUTION_CLIPPY, DISTRIBUTION_PACKAGES, Facts, Road, TARGET};
use crate::tools::{GDB, Ovmf, QEMU, Tool};

/// One thing that is needed.
struct Line {
    name: String,
    /// What was found, or how to get it.
    state: Result<String, String>,
    /// `run` and `test` do not work without it.
    vital: bool,
}

/// Runs it.
pub fn run() -> anyhow::Result<ExitCode> {
    let lines = examine();
    for line in &lines {
        match &line.state {
            Ok(found) => println!("ok       {:<26} {found}", line.name),
            Err(get) if line.vital => println!("MISSING  {:<26} get it with: {get}", line.name),
            Err(get) => println!("absent   {:<26} get it with: {get}", line.name),
        }
    }
    let host = HostFacts::gather();
    println!(
        "note     {:<26} {}",
        "KVM",
        match (host.virtualises, host.device) {
            (true, true) => "usable; --accel auto takes it",
            (false, true) => "/dev/kvm opens, but the CPU does not virtualise: not used",
            _ => "not here; TCG is used",
        }
    );
    let lacking = lines.iter().any(|line| line.vital && line.state.is_err());
    if lacking {
        println!("`run` and `test` install what is missing by themselves as root.");
    }
    Ok(ExitCode::from(u8::from(lacking)))
}

fn examine() -> Vec<Line> {
    let facts = Facts::gather();
    let found = |compiler: &Option<(String, std::path::PathBuf)>| {
        compiler
            .as_ref()
            .map(|(version, folder)| format!("{version}, {}", folder.display()))
    };
    let target = match facts.road() {
        Some(Road::Rustup) => Ok("rustup's libraries".to_owned()),
        Some(Road::Distribution) => Ok(format!(
            "built from source by {}",
            facts
                .distribution
                .as_ref()
                .map_or("", |(version, _)| version)
        )),
        None => Err(format!(
            "rustup target add {TARGET}, or: {}",
            command_for(DISTRIBUTION_PACKAGES)
        )),
    };
    let line = |name: &str, state, vital| Line {
        name: name.into(),
        state,
        vital,
    };
    let clippy = match facts.road() {
        Some(Road::Rustup) => Ok("rustup's".to_owned()),
        _ if Path::new("/usr/bin/cargo-clippy").exists() => Ok("/usr/bin/cargo-clippy".to_owned()),
        _ => Err(command_for(&[DISTRIBUTION_CLIPPY])),
    };
    vec![
        line(
            "host compiler",
            found(&facts.rustup).ok_or_else(|| "rustup".to_owned()),
            true,
        ),
        line(TARGET, target, true),
        line(
            "linker",
            facts
                .lld
                .as_ref()
                .map(|path| path.display().to_string())
                .ok_or_else(|| command_for(&["lld"])),
            true,
        ),
        program(QEMU, true),
        program(GDB, false),
        line(
            "OVMF (--firmware uefi)",
            Ovmf::look()
                .map(|ovmf| ovmf.code.display().to_string())
                .ok_or_else(|| command_for(&[Ovmf::PACKAGE])),
            false,
        ),
        line("clippy for bare metal", clippy, false),
    ]
}

fn program(tool: Tool, vital: bool) -> Line {
    let state = tool.find().map_or_else(
        || Err(command_for(&[tool.package])),
        |path| {
            Ok(format!(
                "{}, {} ({})",
                version(&path),
                path.display(),
                tool.purpose
            ))
        },
    );
    Line {
        name: tool.program.into(),
        state,
        vital,
    }
}

/// The first line of what a program says of its version.
pub(super) fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output().ok();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "version unknown".into())
}
