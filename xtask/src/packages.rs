//! Debian's packages: installed without asking as root, named otherwise.

use std::process::Command;
use std::sync::Once;

use anyhow::{Context, bail};

use crate::ui;

/// The command that installs `packages`, to be shown to a person.
pub fn command_for(packages: &[&str]) -> String {
    let sudo = if is_root() { "" } else { "sudo " };
    format!(
        "{sudo}apt-get install --no-install-recommends {}",
        packages.join(" ")
    )
}

/// Gets `packages`, which `what` needs.
///
/// # Errors
///
/// The exact command to type, if this is not root or there is no apt.
pub fn install(packages: &[&str], what: &str) -> anyhow::Result<()> {
    let by_hand = command_for(packages);
    if which::which("apt-get").is_err() {
        bail!("{what} is missing, and there is no apt-get here; on Debian it comes by: {by_hand}");
    }
    if !is_root() {
        bail!("{what} is missing; install it with: {by_hand}");
    }
    static UPDATED: Once = Once::new();
    let mut updated = Ok(());
    UPDATED.call_once(|| updated = ui::step("updating the list of packages", apt(&["update"])));
    updated?;
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    ui::step(
        &format!("installing {} (for {what})", packages.join(", ")),
        apt(&arguments),
    )
    .with_context(|| format!("{what} is missing; by hand: {by_hand}"))
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
