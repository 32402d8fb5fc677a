//! `cargo xtask gdb`: the kernel under GDB.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context;

use crate::build::{self, Images};
use crate::cli::GdbArgs;
use crate::guest::{Guest, GuestConfig, Output};
use crate::machine::{DEFAULT_CPUS, Machine};
use crate::process::{self, Group};
use crate::qemu::{Console, Debugger};
use crate::toolchain::Toolchain;
use crate::{signals, tools, ui, workspace};

/// As long as anybody debugs.
const FOR_EVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Runs it.
pub fn run(args: &GdbArgs) -> anyhow::Result<ExitCode> {
    tools::GDB.require()?;
    match &args.attach {
        Some(address) => {
            let images = build::images(&Toolchain::require()?, args.machine.build())?;
            let remote = if address.starts_with(':') {
                format!("127.0.0.1{address}")
            } else {
                address.clone()
            };
            debug(args, &images, &remote, false)
        }
        None => boot(args),
    }
}

fn boot(args: &GdbArgs) -> anyhow::Result<ExitCode> {
    let machine = Machine::from_args(&args.machine, DEFAULT_CPUS)?;
    tools::QEMU.require()?;
    let images = super::run::images_for(&machine, args.machine.build())?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    signals::remove_at_end(folder.path().to_owned());
    let socket = folder.path().join("gdb");
    let log = workspace::output().join("gdb-serial.log");
    let config = GuestConfig {
        machine,
        cmdline: args.machine.cmdline.clone(),
        images: images.clone(),
        deadline: args.machine.timeout.map_or(FOR_EVER, Duration::from_secs),
        silence: FOR_EVER,
        debugger: Some(Debugger::Paused(socket.clone())),
    };
    if args.machine.dry_run {
        println!("{}", config.command_line()?);
        return Ok(ExitCode::SUCCESS);
    }
    let console_log = log.clone();
    let mut guest = Guest::start_on(&config, |qmp| Console::Apart {
        qmp,
        log: console_log,
    })?;
    let terminal = guest.device("serial")?;
    ui::say(&format!(
        "the guest's serial port is at {}, and copied to {}",
        terminal.trim_start_matches("pty:"),
        workspace::short(&log)
    ));
    // QEMU's own output has to be read, or it would stop.
    let status = std::thread::scope(|scope| {
        let debugger = scope.spawn(|| {
            let status = debug(args, &images, &socket.display().to_string(), true);
            (status, ())
        });
        while !debugger.is_finished() {
            guest.set_deadline(Some(Duration::from_millis(200)));
            if let Output::Ended(crate::guest::End::Exited(_) | crate::guest::End::Killed { .. }) =
                guest.next_output()
            {
                break;
            }
        }
        debugger.join().map_or_else(
            |_| Err(anyhow::anyhow!("waiting for GDB failed")),
            |(status, ())| status,
        )
    });
    guest.kill();
    status
}

/// Runs GDB on a remote stub; `paused`: the machine has not begun, go to the kernel's main.
fn debug(args: &GdbArgs, images: &Images, remote: &str, paused: bool) -> anyhow::Result<ExitCode> {
    let mut gdb = Command::new(tools::GDB.program);
    gdb.args([
        "-q",
        "-iex",
        "set debuginfod enabled off",
        "-iex",
        "set confirm off",
    ]);
    gdb.arg(&images.kernel);
    // Paths in the debug information are relative to the workspace.
    gdb.args(["-ex", &format!("directory {}", workspace::root().display())]);
    let commands = workspace::root().join("kernel/gdb/granary.py");
    if commands.exists() {
        gdb.args(["-ex", &format!("source {}", commands.display())]);
    }
    gdb.args(["-ex", &format!("target remote {remote}")]);
    if paused {
        gdb.args(["-ex", "thbreak kernel_main", "-ex", "continue"]);
    }
    gdb.args(&args.gdb);
    // Ctrl-C stops the guest; GDB knows how.
    signals::ignore_interrupt();
    let mut child = process::spawn(gdb, Group::Shared).context("cannot start gdb")?;
    let status = child.wait()?;
    let Some(code) = status.code() else {
        anyhow::bail!("GDB did not end by itself: {status}");
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
