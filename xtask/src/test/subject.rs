//! A guest as the tests see it, and listening to one until it ends.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::status::Status;

/// What a machine was heard to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A line of serial output, without its end.
    Line(String),
    /// It has printed nothing for long, and still runs.
    Silence,
    /// Its time is over, and it still runs.
    Deadline,
    /// It has ended with this status; none if it was killed by a signal.
    Ended(Option<i32>),
}

/// A guest, or something that behaves like one.
pub trait Subject {
    /// Waits for what comes next. After [`Heard::Silence`] and
    /// [`Heard::Deadline`] it goes on, for as long as `grace` says in all.
    fn next(&mut self) -> Heard;

    /// Sends every CPU into its NMI handler, and gives it until `grace` is over.
    fn inject_nmi(&mut self, grace: Duration) -> anyhow::Result<()>;

    /// Sends bytes to the serial line.
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()>;

    /// Ends it at once.
    fn kill(&mut self);

    /// What QEMU itself has said.
    fn stderr(&mut self) -> String;
}

/// Starts machines of one kind. Used by several threads, for one machine each.
pub trait Start {
    /// Starts a machine with this kernel command line.
    fn start(&self, cmdline: &str) -> anyhow::Result<Box<dyn Subject>>;

    /// Adds file and line to a line of a backtrace; others come back as they are.
    fn symbolize(&self, line: &str) -> String;
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// QEMU exited with this status.
    Exited(i32),
    /// QEMU was ended by a signal that did not come from here.
    Signalled,
    /// It stopped printing, and had to be killed.
    Silent {
        /// Whether it had printed anything at all.
        printed: bool,
    },
    /// It did not end in its time, and had to be killed.
    OutOfTime,
}

impl End {
    /// Whether the machine had to be killed.
    pub fn is_hang(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::OutOfTime)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => Status::from_code(*code).fmt(f),
            Self::Signalled => f.write_str("QEMU was ended by a signal"),
            Self::Silent { printed: false } => f.write_str("the kernel never printed anything"),
            Self::Silent { printed: true } => f.write_str("the guest hangs: it stopped printing"),
            Self::OutOfTime => f.write_str("the guest did not end in its time"),
        }
    }
}

/// QEMU's status for `isa-debug-exit` when all went well.
pub const SUCCESS: i32 = exit_status(0x10);
/// The status when a command or a case failed.
pub const FAILURE: i32 = exit_status(0x11);
/// The status after a kernel panic.
pub const PANIC: i32 = exit_status(0x12);
/// The status after a reset or ACPI power-off.
pub const RESET: i32 = 0;

/// QEMU's status when `run=` ended with status `status` (1 to 31).
pub const fn run_status(status: i32) -> i32 {
    exit_status(0x20 + status)
}

const fn exit_status(value: i32) -> i32 {
    (value << 1) | 1
}

/// The whole serial output of one or several guests, kept in a file.
pub struct Log {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Log {
    /// Begins a log; an older one of the same name is replaced.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line. A full disk must not end the tests: what cannot be written is lost.
    pub fn line(&mut self, line: &str) {
        let _ = writeln!(self.file, "{line}");
    }

    /// Adds a line that does not come from the guest.
    pub fn remark(&mut self, text: &str) {
        self.line(&format!("--- xtask: {text}"));
        let _ = self.file.flush();
    }
}

/// Listens to `machine` until it ends, and makes it end when it hangs: an NMI
/// first, upon which the kernel shows where every CPU is, then force. Every line
/// goes, symbolised, to the log and to `on_line`.
pub fn listen(
    machine: &mut dyn Subject,
    start: &dyn Start,
    nmi_grace: Duration,
    log: &mut Log,
    mut on_line: impl FnMut(&str, &mut dyn Subject),
) -> End {
    let mut hang = None;
    let mut printed = false;
    loop {
        match machine.next() {
            Heard::Line(line) => {
                printed |= !line.trim().is_empty();
                // Inlined functions have lines of their own.
                for line in start.symbolize(&line).split('\n') {
                    log.line(line);
                    on_line(line, machine);
                }
            }
            Heard::Ended(status) => {
                let own = status.map_or(End::Signalled, End::Exited);
                let end = hang.unwrap_or(own);
                log.remark(&end.to_string());
                return end;
            }
            heard @ (Heard::Silence | Heard::Deadline) => {
                let end = match heard {
                    Heard::Silence => End::Silent { printed },
                    _ => End::OutOfTime,
                };
                // A second time means that the NMI did not help.
                let helped = hang.is_none() && printed && {
                    log.remark(&format!("{end}; sending an NMI"));
                    machine
                        .inject_nmi(nmi_grace)
                        .inspect_err(|error| log.remark(&format!("{error:#}")))
                        .is_ok()
                };
                let end = hang.unwrap_or(end);
                if !helped {
                    machine.kill();
                    log.remark(&end.to_string());
                    return end;
                }
                hang = Some(end);
            }
        }
    }
}

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod tests;
