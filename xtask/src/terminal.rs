//! The terminal, handed to the guest for a while.

use std::io::{IsTerminal, stdin};
use std::sync::{Mutex, MutexGuard};

use anyhow::Context;
use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// The settings to go back to, while they are changed.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

fn saved() -> MutexGuard<'static, Option<Termios>> {
    SAVED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Raw mode: every key goes to the reader at once, Ctrl-C included. Ends when
/// this is dropped, or by [`restore`].
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Begins raw mode if standard input is a terminal and xtask is in its
    /// foreground; from the background one may not change it.
    pub fn enter() -> anyhow::Result<Option<Self>> {
        let input = stdin();
        if !input.is_terminal() || tcgetpgrp(&input).ok() != Some(getpgrp()) {
            return Ok(None);
        }
        let before = tcgetattr(&input).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        // Our own messages still end lines with a mere newline.
        raw.output_modes |= OutputModes::OPOST;
        let mut saved = saved();
        tcsetattr(&input, OptionalActions::Flush, &raw)
            .context("cannot change the terminal's settings")?;
        saved.get_or_insert(before);
        Ok(Some(Self(())))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back as it was. Does nothing if it was not changed.
pub fn restore() {
    if let Some(before) = saved().take() {
        // The terminal may be gone; then there is nothing to restore.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &before);
    }
}
