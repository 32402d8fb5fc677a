//! Ctrl-C and requests to end.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::terminal;

static IGNORE_INTERRUPT: AtomicBool = AtomicBool::new(false);
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Makes `SIGINT`, `SIGTERM` and `SIGHUP` end xtask with the terminal as it was.
/// Children die with it (see [`process`](crate::process)).
pub fn install() -> anyhow::Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot watch for signals")?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                // Relaxed: a flag of its own, that guards no other data.
                if signal == SIGINT && IGNORE_INTERRUPT.load(Ordering::Relaxed) {
                    continue;
                }
                end(128 + signal);
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}

/// Leaves Ctrl-C to a child on the same terminal, which knows what to do with it.
pub fn ignore_interrupt() {
    IGNORE_INTERRUPT.store(true, Ordering::Relaxed);
}

/// Has `folder` removed if a signal ends xtask, when no destructor will run.
pub fn remove_at_end(folder: PathBuf) {
    FOLDERS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .push(folder);
}

fn end(status: i32) -> ! {
    terminal::restore();
    for folder in FOLDERS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .drain(..)
    {
        // It is on the way out: what cannot be removed stays.
        let _ = std::fs::remove_dir_all(folder);
    }
    std::process::exit(status);
}
