//! A child process whose output is read line by line, with a bound on silence.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::Context;

use crate::process::{self, Group};

/// What comes next from a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A line of its output.
    Line(String),
    /// It has ended with this status; none if by a signal.
    Ended(Option<i32>),
    /// It printed nothing for as long as was allowed.
    Silence,
}

/// A running process. It is ended when this is dropped.
pub struct Lines {
    child: Child,
    lines: Receiver<String>,
}

impl Lines {
    /// Starts the command with nothing as input; output and errors come together.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        command.stdin(Stdio::null());
        command
            .stdout(writer.try_clone().context("cannot share a pipe")?)
            .stderr(writer);
        // This drops the command, and with it the writing ends of the pipe: as long
        // as they are open here, the end of the output is not seen.
        let child = process::spawn(command, Group::Shared)
            .with_context(|| format!("cannot start {name}"))?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            while reader
                .read_until(b'\n', &mut line)
                .is_ok_and(|length| length > 0)
            {
                let text = String::from_utf8_lossy(&line)
                    .trim_end_matches(['\r', '\n'])
                    .to_owned();
                if sender.send(text).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Ok(Self { child, lines })
    }

    /// Waits for the next line, for at most `silence`.
    pub fn next(&mut self, silence: Duration) -> Next {
        match self.lines.recv_timeout(silence) {
            Ok(line) => Next::Line(line),
            Err(RecvTimeoutError::Timeout) => Next::Silence,
            Err(RecvTimeoutError::Disconnected) => {
                Next::Ended(self.child.wait().ok().and_then(|status| status.code()))
            }
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        // It may have ended by itself in between.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn shell(script: &str) -> Lines {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Lines::start(command).expect("there is a shell")
    }

    #[test]
    fn lines_of_both_outputs_come_in_order() {
        let mut lines = shell("echo a; echo b >&2; printf 'c\\r\\n'; printf d; exit 3");
        for expected in ["a", "b", "c", "d"] {
            assert_eq!(lines.next(LONG), Next::Line(expected.into()));
        }
        assert_eq!(lines.next(LONG), Next::Ended(Some(3)));
    }

    #[test]
    fn a_signal_has_no_status() {
        let mut lines = shell("kill -9 $$");
        assert_eq!(lines.next(LONG), Next::Ended(None));
    }

    #[test]
    fn silence_is_noticed() {
        let mut lines = shell("exec sleep 600");
        assert_eq!(lines.next(Duration::from_millis(10)), Next::Silence);
        lines.kill();
        assert_eq!(lines.next(LONG), Next::Ended(None));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Lines::start(Command::new("granary-no-such-program"))
            .err()
            .expect("an error");
        assert_eq!(error.to_string(), "cannot start granary-no-such-program");
    }
}
