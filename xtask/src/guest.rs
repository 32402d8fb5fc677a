//! A running guest: what it prints, how it ends, and ending it.
//!
//! Three threads stand behind a [`Guest`]: one reads its serial port, one QEMU's
//! standard error, and the process itself was started by the thread of
//! [`process`]. The owner calls [`Guest::next_event`] (lines) or
//! [`Guest::next_output`] (bytes as they come) until it gets an [`End`].

mod lines;
mod qmp;

use std::fmt;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::build::Images;
use crate::machine::Machine;
use crate::process::{self, Group};
use crate::qemu::{self, Console, Debugger};
use crate::status::Status;

use lines::Lines;
use qmp::Qmp;

/// Which guest, and for how long.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    /// The machine.
    pub machine: Machine,
    /// The kernel command line, without what xtask adds.
    pub cmdline: String,
    /// What it boots.
    pub images: Images,
    /// How long it may take in all.
    pub deadline: Duration,
    /// How long it may print nothing.
    pub silence: Duration,
    /// A stub for GDB.
    pub debugger: Option<Debugger>,
}

impl GuestConfig {
    /// The QEMU command line that does the same by hand, quoted for a shell.
    pub fn command_line(&self) -> anyhow::Result<String> {
        Ok(qemu::quoted(&self.arguments(&Console::ByHand)?))
    }

    fn arguments(&self, console: &Console) -> anyhow::Result<Vec<String>> {
        qemu::arguments(
            &self.machine,
            &self.images,
            &self.cmdline,
            console,
            self.debugger.as_ref(),
        )
    }
}

/// What happened, in lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// One complete line, without its end.
    Line(String),
    /// An unfinished line after which nothing came for a moment: a prompt, say.
    /// All of it comes again as part of the [`Line`](Event::Line).
    Partial(String),
    /// The guest is over, or its time is.
    Ended(End),
}

/// What happened, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes from the serial port.
    Bytes(Vec<u8>),
    /// The guest is over, or its time is.
    Ended(End),
}

/// How it ended, or why it should be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// QEMU exited with this status; see [`Status`].
    Exited(i32),
    /// QEMU was killed.
    Killed {
        /// By this signal.
        signal: i32,
    },
    /// Its time is over, and it still runs. Said once; then one may go on reading.
    DeadlinePassed,
    /// It has printed nothing for too long, and still runs. Said once; then one
    /// may go on reading.
    Silent,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => Status::from_code(*code).fmt(f),
            Self::Killed { signal } => write!(f, "QEMU was killed by signal {signal}"),
            Self::DeadlinePassed => f.write_str("the guest did not end in its time"),
            Self::Silent => f.write_str("the guest printed nothing for too long"),
        }
    }
}

/// An unfinished line counts as [`Event::Partial`] when nothing followed for so long.
const PAUSE: Duration = Duration::from_millis(50);
/// How long QEMU may take to end after it has closed its output.
const WIND_UP: Duration = Duration::from_secs(10);
/// Unread pieces of output at which QEMU has to wait.
const BACKLOG: usize = 64;

enum Got {
    Bytes(Vec<u8>),
    End(End),
    Pause,
}

/// A running QEMU. Dropping it kills it.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    errors: Arc<Mutex<String>>,
    qmp: Qmp,
    lines: Lines,
    /// The unfinished line has been reported already.
    partial_told: bool,
    started: Instant,
    last_output: Instant,
    printed: bool,
    deadline: Option<Instant>,
    silence: Option<Duration>,
    limits: (Duration, Duration),
    ended: Option<End>,
    by_hand: String,
}

impl Guest {
    /// Starts QEMU and waits until it has made the machine.
    ///
    /// # Errors
    ///
    /// If QEMU is not there, or dies at once, with what it said.
    pub fn start(config: &GuestConfig) -> anyhow::Result<Self> {
        Self::start_on(config, |qmp| Console::Piped { qmp })
    }

    /// The same with the serial port on a console of the caller's choice, made
    /// from the number of the socket for QMP.
    pub fn start_on(
        config: &GuestConfig,
        console: impl FnOnce(i32) -> Console,
    ) -> anyhow::Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("cannot make a socket")?;
        let arguments = config.arguments(&console(theirs.as_raw_fd()))?;
        let mut command = Command::new(qemu::PROGRAM);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        hand_over(&mut command, theirs.into());

        let started = Instant::now();
        let mut child = process::spawn(command, Group::Own).with_context(|| {
            format!(
                "cannot start {}; `cargo xtask doctor` says how to get it",
                qemu::PROGRAM
            )
        })?;
        let input = child.stdin.take();
        let (sender, output) = sync_channel(BACKLOG);
        if let Some(mut stdout) = child.stdout.take() {
            reader(move || {
                let mut bytes = vec![0; 4096];
                while let Ok(count @ 1..) = stdout.read(&mut bytes) {
                    if sender.send(bytes[..count].to_vec()).is_err() {
                        break;
                    }
                }
            })?;
        }
        let errors = Arc::new(Mutex::new(String::new()));
        if let Some(mut stderr) = child.stderr.take() {
            let errors = Arc::clone(&errors);
            reader(move || {
                let mut bytes = vec![0; 4096];
                while let Ok(count @ 1..) = stderr.read(&mut bytes) {
                    lock(&errors).push_str(&String::from_utf8_lossy(&bytes[..count]));
                }
            })?;
        }
        let mut guest = Self {
            child,
            input,
            output,
            errors,
            qmp: Qmp::new(ours),
            lines: Lines::default(),
            partial_told: false,
            started,
            last_output: started,
            printed: false,
            deadline: Some(started + config.deadline),
            silence: Some(config.silence),
            limits: (config.deadline, config.silence),
            ended: None,
            by_hand: config.command_line()?,
        };
        if let Err(error) = guest.qmp.greet() {
            guest.refuse(&error)?;
        }
        Ok(guest)
    }

    /// QEMU gave no sign of life on QMP. A guest that is simply quick to end is
    /// no error; a QEMU that has failed is.
    fn refuse(&mut self, error: &anyhow::Error) -> anyhow::Result<()> {
        match self.wait_for_exit() {
            End::Exited(code) if !matches!(Status::from_code(code), Status::Qemu(_)) => Ok(()),
            end => {
                // Its reader may be a little behind.
                thread::sleep(PAUSE);
                let said = self.stderr();
                let said = if said.trim().is_empty() {
                    format!("it said nothing ({error:#})")
                } else {
                    said
                };
                bail!(
                    "QEMU did not start ({end}): {}\nto try by hand: {}",
                    said.trim(),
                    self.by_hand
                )
            }
        }
    }

    /// Waits for what comes next, in lines. After an end that is final, the same
    /// end again.
    pub fn next_event(&mut self) -> Event {
        loop {
            if let Some(line) = self.lines.next() {
                self.partial_told = false;
                return Event::Line(line);
            }
            let pause = (!self.partial_told && self.lines.partial().is_some()).then_some(PAUSE);
            match self.wait(pause) {
                Got::Bytes(bytes) => {
                    self.lines.push(&bytes);
                    self.partial_told = false;
                }
                Got::Pause => {
                    self.partial_told = true;
                    if let Some(partial) = self.lines.partial() {
                        return Event::Partial(partial);
                    }
                }
                Got::End(end) => {
                    let over = matches!(end, End::Exited(_) | End::Killed { .. });
                    return match over.then(|| self.lines.finish()).flatten() {
                        Some(rest) => Event::Line(rest),
                        None => Event::Ended(end),
                    };
                }
            }
        }
    }

    /// Waits for what comes next, in bytes as they come.
    pub fn next_output(&mut self) -> Output {
        match self.wait(None) {
            Got::Bytes(bytes) => Output::Bytes(bytes),
            Got::End(end) => Output::Ended(end),
            Got::Pause => Output::Bytes(Vec::new()),
        }
    }

    fn wait(&mut self, pause: Option<Duration>) -> Got {
        if let Some(end) = self.ended {
            return Got::End(end);
        }
        loop {
            let now = Instant::now();
            if self.deadline.is_some_and(|deadline| deadline <= now) {
                self.deadline = None;
                return Got::End(End::DeadlinePassed);
            }
            let quiet_at = self.silence.map(|silence| self.last_output + silence);
            if quiet_at.is_some_and(|at| at <= now) {
                self.silence = None;
                return Got::End(End::Silent);
            }
            let pause_at = pause
                .map(|pause| self.last_output.max(now - pause.min(now - self.started)) + pause);
            let until = [self.deadline, quiet_at, pause_at]
                .into_iter()
                .flatten()
                .min();
            // Without any limit: look up once in a while, which costs nothing.
            let wait = until.map_or(Duration::from_secs(3600), |until| {
                until.saturating_duration_since(now)
            });
            match self.output.recv_timeout(wait) {
                Ok(bytes) => {
                    self.last_output = Instant::now();
                    self.printed = true;
                    return Got::Bytes(bytes);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let end = self.wait_for_exit();
                    return Got::End(end);
                }
                Err(RecvTimeoutError::Timeout)
                    if pause_at.is_some_and(|at| at <= Instant::now()) =>
                {
                    return Got::Pause;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits for a QEMU that is about to end; ends one that is not.
    fn wait_for_exit(&mut self) -> End {
        if let Some(end) = self.ended {
            return end;
        }
        let patience = Instant::now() + WIND_UP;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < patience => thread::sleep(Duration::from_millis(1)),
                Ok(None) | Err(_) => {
                    // Killed or gone, waiting for it is brief.
                    let _ = self.child.kill();
                    break self.child.wait().ok();
                }
            }
        };
        let end = match status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => End::Exited(code),
            Some((None, Some(signal))) => End::Killed { signal },
            _ => End::Killed { signal: 0 },
        };
        *self.ended.insert(end)
    }

    /// Sends every CPU a non-maskable interrupt; the kernel answers with a panic
    /// that shows where each is. Gives it `grace` from now, before the deadline
    /// passes again.
    pub fn inject_nmi(&mut self, grace: Duration) -> anyhow::Result<()> {
        self.qmp
            .execute("inject-nmi")
            .context("QEMU did not send the NMI")?;
        self.set_deadline(Some(grace));
        Ok(())
    }

    /// Where QEMU has put a character device, such as the pseudo-terminal of
    /// [`Console::Apart`].
    pub fn device(&mut self, label: &str) -> anyhow::Result<String> {
        let devices = self.qmp.execute("query-chardev")?;
        let device = devices
            .as_array()
            .into_iter()
            .flatten()
            .find(|device| device["label"] == label);
        let name = device.and_then(|device| device["filename"].as_str());
        Ok(name
            .with_context(|| format!("QEMU has no device `{label}`"))?
            .to_owned())
    }

    /// Sets a deadline from now, or none.
    pub fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.deadline = deadline.map(|deadline| Instant::now() + deadline);
    }

    /// Sets how long it may print nothing, counted from its last output; `None`
    /// for ever.
    pub fn set_silence(&mut self, silence: Option<Duration>) {
        self.silence = silence;
    }

    /// Whether it has printed anything.
    pub fn printed(&self) -> bool {
        self.printed
    }

    /// Since when it runs.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Sends bytes to the guest's serial port.
    pub fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let input = self
            .input
            .as_mut()
            .context("the guest's input was given away")?;
        input
            .write_all(bytes)
            .and_then(|()| input.flush())
            .context("cannot write to the guest's serial port")
    }

    /// The way to the guest's serial port, for a thread that feeds it.
    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.input.take()
    }

    /// Ends it, and waits until it is gone.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            // Fails if it has ended by itself, which is as good.
            let _ = self.child.kill();
            self.wait_for_exit();
        }
    }

    /// What QEMU itself has said so far.
    pub fn stderr(&self) -> String {
        lock(&self.errors).clone()
    }

    /// The QEMU command line that does the same by hand.
    pub fn command_line(&self) -> &str {
        &self.by_hand
    }

    /// What to tell the user about an end that is a failure; `None` if the guest
    /// itself has said enough.
    pub fn explain(&self, end: End) -> Option<String> {
        let (deadline, silence) = self.limits;
        let hint = |text: String| Some(format!("{text}\nto try by hand: {}", self.by_hand));
        match end {
            End::Exited(code) => match Status::from_code(code) {
                status @ Status::Qemu(_) => {
                    let said = self.stderr();
                    hint(format!(
                        "{status}{}{}",
                        if said.trim().is_empty() { "" } else { ": " },
                        said.trim()
                    ))
                }
                _ => None,
            },
            End::Killed { .. } => hint(format!("{end}")),
            End::DeadlinePassed => Some(format!(
                "the guest did not end within {:.0} s",
                deadline.as_secs_f64()
            )),
            End::Silent => hint(format!(
                "the guest printed nothing for {:.0} s",
                silence.as_secs_f64()
            )),
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.kill();
    }
}

fn lock(text: &Mutex<String>) -> std::sync::MutexGuard<'_, String> {
    text.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn reader(body: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    thread::Builder::new()
        .name("guest output".into())
        .spawn(body)
        .context("cannot start a thread")?;
    Ok(())
}

/// Lets the child keep `fd`, under the same number, across exec.
fn hand_over(command: &mut Command, fd: OwnedFd) {
    let keep = move || fcntl_setfd(&fd, FdFlags::empty()).map_err(std::io::Error::from);
    // SAFETY: the closure runs in the forked child before exec and makes one
    // system call, on a descriptor that it owns.
    unsafe { command.pre_exec(keep) };
}
