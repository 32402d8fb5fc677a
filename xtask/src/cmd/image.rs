//! `cargo xtask image`: a disk image that UEFI firmware boots.

use std::fs;
use std::process::ExitCode;

use anyhow::Context;

use crate::build::{self, Build};
use crate::cli::ImageArgs;
use crate::toolchain::Toolchain;
use crate::{ui, workspace};

/// Runs it.
pub fn run(args: &ImageArgs) -> anyhow::Result<ExitCode> {
    let toolchain = Toolchain::require()?;
    let images = build::images(
        &toolchain,
        Build {
            release: args.release,
            ..Build::default()
        },
    )?;
    let mut image = build::disk(&toolchain, &images, &args.cmdline)?;
    if let Some(output) = &args.output {
        fs::copy(&image, output).with_context(|| format!("cannot write {}", output.display()))?;
        image = output.clone();
    }
    println!("{}", image.display());
    ui::say(&format!(
        "to write it to a USB stick at /dev/sdX (all on it is lost): sudo dd if={} of=/dev/sdX bs=4M conv=fsync",
        workspace::short(&image)
    ));
    Ok(ExitCode::SUCCESS)
}
