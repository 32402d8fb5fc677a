//! Asking rustup for what its toolchain lacks.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Facts;
use crate::process::{self, Group};
use crate::{ui, workspace};

/// How long a download may take. Where the server cannot be reached, some networks refuse at
/// once, others stay silent; and there is another road.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs `rustup <arguments>` for the pinned toolchain, without a word of its own unless
/// somebody watches. A failure is no error here: whether it helped shows when one looks
/// again.
pub fn rustup(facts: &Facts, arguments: &[&str]) {
    let mut command = Command::new("rustup");
    command.args(arguments).current_dir(workspace::root());
    if let Some(name) = &facts.rustup_toolchain {
        command.args(["--toolchain", name]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    if !ui::interactive() {
        command.stderr(Stdio::null());
    }
    let what = arguments.join(" ");
    ui::say(&format!("rustup {what} ..."));
    if !finishes(command, PATIENCE) {
        ui::say(&format!("rustup {what} failed; looking elsewhere"));
    }
}

/// Whether `command` succeeds within `patience`; it is ended if it takes longer.
fn finishes(command: Command, patience: Duration) -> bool {
    let Ok(mut child) = process::spawn(command, Group::Shared) else {
        return false;
    };
    let end = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) | Err(_) => {
                // Killed or gone, waiting for it is brief.
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_has_an_end() {
        let sleep = |seconds: &str| {
            let mut command = Command::new("sleep");
            command.arg(seconds);
            command
        };
        assert!(finishes(sleep("0"), Duration::from_secs(600)));
        assert!(!finishes(sleep("1000"), Duration::from_millis(50)));
        assert!(!finishes(Command::new("false"), Duration::from_secs(600)));
        assert!(!finishes(
            Command::new("/no/such/program"),
            Duration::from_secs(600)
        ));
    }
}
