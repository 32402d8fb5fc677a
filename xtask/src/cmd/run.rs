//! `cargo xtask run`: a shell in the guest, or commands and their status.

use std::io::{Read, Write, stdin, stdout};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::Context;

use crate::build::{self, Build, Images};
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
    let images = images_for(&machine, args.machine.build())?;
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
pub fn images_for(machine: &Machine, build: Build) -> anyhow::Result<Images> {
    let toolchain = Toolchain::require()?;
    let mut images = build::images(&toolchain, build)?;
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
    // A person sees when the shell is there. A file does not, and what comes before is lost
    // on a serial port.
    let mut prompt = None;
    if interactive {
        let (seen, ready) = channel();
        prompt = Some(Prompt::new(seen));
        feed(guest, raw.is_some(), ready)?;
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
                if prompt.as_mut().is_some_and(|prompt| prompt.passes(&bytes)) {
                    prompt = None;
                }
            }
            Output::Ended(end) => {
                out.finish()?;
                return Ok(end);
            }
        }
    }
}

/// Feeds standard input to the guest from a thread of its own, which ends with the process.
/// Unless it comes from a terminal (`keys`), it is held back until the guest is `ready`.
fn feed(guest: &mut Guest, keys: bool, ready: Receiver<()>) -> anyhow::Result<()> {
    const PREFIX: u8 = 1;
    let mut input = guest
        .take_input()
        .context("the guest's input was given away")?;
    thread::Builder::new().name("input".into()).spawn(move || {
        // An error means that the guest has ended without a prompt.
        if !keys && ready.recv().is_err() {
            return;
        }
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

/// Looks for the shell's prompt in what the guest prints.
struct Prompt {
    seen: Sender<()>,
    /// The end of what was printed, shorter than the prompt.
    tail: Vec<u8>,
}

impl Prompt {
    const TEXT: &[u8] = b"granary> ";

    fn new(seen: Sender<()>) -> Self {
        Self {
            seen,
            tail: Vec::new(),
        }
    }

    /// Whether the prompt is complete with these bytes; then says so to who waits for it.
    fn passes(&mut self, bytes: &[u8]) -> bool {
        self.tail.extend_from_slice(bytes);
        let found = self
            .tail
            .windows(Self::TEXT.len())
            .any(|window| window == Self::TEXT);
        self.tail
            .drain(..self.tail.len().saturating_sub(Self::TEXT.len() - 1));
        if found {
            // Nobody waits when the input is a terminal.
            let _ = self.seen.send(());
        }
        found
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_is_found_however_it_is_cut() {
        let text = b"[    0.1] cpu0 info: boot: ready\r\ngranary> ";
        for cut in 1..text.len() {
            let (seen, ready) = channel();
            let mut prompt = Prompt::new(seen);
            let found: Vec<bool> = text.chunks(cut).map(|piece| prompt.passes(piece)).collect();
            assert_eq!(
                found.iter().filter(|found| **found).count(),
                1,
                "cut every {cut}"
            );
            assert!(found.last() == Some(&true) && ready.try_recv().is_ok());
        }
    }
}
