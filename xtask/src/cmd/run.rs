//! `cargo xtask run`: a shell in the guest, or commands and their status.

use std::io::{Read, Write, stdin, stdout};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context;

use crate::build::{self, Images};
use crate::cli::RunArgs;
use crate::guest::{End, Guest, GuestConfig, Output};
use crate::machine::{DEFAULT_CPUS, Firmware, Machine};
use crate::qemu::{Debugger, assignment};
use crate::status::Status;
use crate::symbolize::Symbolizer;
use crate::terminal::RawMode;
use crate::toolchain::Toolchain;
use crate::{tools, ui};

/// A guest that has printed nothing by then never will.
const SILENCE: Duration = Duration::from_secs(30);
/// How long commands may run without a limit of the user's.
const COMMANDS: Duration = Duration::from_secs(24 * 3600);

/// Runs it.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let machine = Machine::from_args(&args.machine, DEFAULT_CPUS)?;
    tools::QEMU.require()?;
    let images = images_for(&machine, args.machine.release)?;
    let commands = args.commands.join(" ");
    let interactive = args.commands.is_empty();
    let mut cmdline = args.machine.cmdline.clone();
    if !interactive {
        cmdline = format!("{cmdline} {}", assignment("run", &commands));
    }
    let limit = args.machine.timeout.map(Duration::from_secs);
    let config = GuestConfig {
        machine,
        cmdline,
        images,
        deadline: limit.unwrap_or(COMMANDS),
        // Before a limit of the user's, so that a mute guest is called by its name.
        silence: limit.map_or(SILENCE, |limit| SILENCE.min(limit * 3 / 4)),
        debugger: args.gdb_port.map(Debugger::Port),
    };
    if args.machine.dry_run {
        println!("{}", config.command_line()?);
        return Ok(ExitCode::SUCCESS);
    }
    let symbolizer = Symbolizer::new(&config.images.kernel);
    let mut guest = Guest::start(&config)?;
    let end = relay(&mut guest, interactive, &symbolizer)?;
    if let Some(text) = guest.explain(end) {
        ui::error(&text);
    }
    Ok(ExitCode::from(match end {
        End::Exited(code) => Status::from_code(code).for_run(!interactive),
        _ => 1,
    }))
}

/// Builds what such a machine boots, its disk image included.
pub fn images_for(machine: &Machine, release: bool) -> anyhow::Result<Images> {
    let toolchain = Toolchain::require()?;
    let mut images = build::images(&toolchain, release)?;
    if machine.firmware == Firmware::Uefi {
        images.disk = Some(build::disk(&toolchain, &images, "")?);
    }
    Ok(images)
}

/// Passes bytes both ways until the guest ends.
fn relay(guest: &mut Guest, interactive: bool, symbolizer: &Symbolizer) -> anyhow::Result<End> {
    let raw = if interactive { RawMode::enter()? } else { None };
    if raw.is_some() {
        ui::say("Ctrl-A x ends QEMU");
    }
    if interactive {
        feed(guest, raw.is_some())?;
    }
    let mut out = Backtraces {
        symbolizer,
        held: Vec::new(),
        at_start: true,
    };
    loop {
        match guest.next_output() {
            Output::Bytes(bytes) => {
                // It lives: from now on it may be silent for as long as it likes.
                guest.set_silence(None);
                out.write(&bytes)?;
            }
            Output::Ended(end) => {
                out.finish()?;
                return Ok(end);
            }
        }
    }
}

/// Feeds standard input to the guest from a thread of its own, which ends with the process.
fn feed(guest: &mut Guest, keys: bool) -> anyhow::Result<()> {
    const PREFIX: u8 = 1;
    let mut input = guest
        .take_input()
        .context("the guest's input was given away")?;
    thread::Builder::new().name("input".into()).spawn(move || {
        let mut escaped = false;
        for byte in stdin().lock().bytes() {
            let Ok(byte) = byte else { return };
            if keys && !escaped && byte == PREFIX {
                escaped = true;
                continue;
            }
            if escaped && matches!(byte, b'x' | b'X') {
                // QEMU dies with this process, and the terminal is put back.
                crate::terminal::restore();
                std::process::exit(0);
            }
            escaped = false;
            if input
                .write_all(&[byte])
                .and_then(|()| input.flush())
                .is_err()
            {
                return;
            }
        }
    })?;
    Ok(())
}

/// Standard output, with file and line added to backtraces. A line is held back only while
/// it may be one of a backtrace; all else comes out at once.
struct Backtraces<'a> {
    symbolizer: &'a Symbolizer,
    held: Vec<u8>,
    at_start: bool,
}

impl Backtraces<'_> {
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        const START: &[u8] = b"  #";
        let mut out = stdout().lock();
        for &byte in bytes {
            if self.at_start {
                self.held.push(byte);
                let compared = self.held.len().min(START.len());
                if self.held[..compared] != START[..compared] {
                    out.write_all(&self.held)?;
                    self.held.clear();
                    self.at_start = byte == b'\n';
                } else if byte == b'\n' {
                    let line = String::from_utf8_lossy(&self.held).trim_end().to_owned();
                    self.held.clear();
                    write!(
                        out,
                        "{}\r\n",
                        self.symbolizer.line(&line).replace('\n', "\r\n")
                    )?;
                }
            } else {
                out.write_all(&[byte])?;
                self.at_start = byte == b'\n';
            }
        }
        out.flush()?;
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        let mut out = stdout().lock();
        out.write_all(&self.held)?;
        out.flush()?;
        Ok(())
    }
}
