//! A disk image for UEFI.

use std::path::PathBuf;

use anyhow::Context;

use super::{Images, put, ramdisk, read};
use crate::toolchain::Toolchain;
use crate::{ui, workspace};

/// Makes the image from what is built, with a kernel command line inside (for machines
/// whose firmware brings none), and returns where it is.
///
/// # Errors
///
/// What the image builder complains of.
pub fn disk(toolchain: &Toolchain, images: &Images, cmdline: &str) -> anyhow::Result<PathBuf> {
    let target = workspace::target().join("uefi");
    let toolchain = toolchain.with_source()?;
    let mut build = toolchain.cargo();
    // Not by CARGO_TARGET_DIR: the cargo inside bootloader's build script would inherit it
    // and wait for ever on the lock that this one holds.
    build
        .args(["build", "--release", "--locked", "--target-dir"])
        .arg(&target)
        .env("RUSTC_BOOTSTRAP", "1")
        .current_dir(workspace::root().join("boot/uefi"));
    ui::step(
        "building the UEFI image builder (a minute, the first time)",
        build,
    )?;

    let folder = images.stripped.parent().context("images lie in a folder")?;
    let symbols = read(&folder.join("symbols"))?;
    let mut members: Vec<(&str, &[u8])> = vec![("symbols", &symbols)];
    if !cmdline.is_empty() {
        members.push(("cmdline", cmdline.as_bytes()));
    }
    let ramdisk = folder.join("ramdisk-uefi.tar");
    put(&ramdisk, &ramdisk::pack(&members)?)?;

    let image = folder.join("granary.img");
    let fresh = tempfile::NamedTempFile::new_in(folder).context("cannot make a temporary file")?;
    let mut make = std::process::Command::new(target.join("release/granary-image"));
    make.arg("--kernel").arg(&images.stripped);
    make.arg("--ramdisk").arg(&ramdisk);
    make.arg("--out").arg(fresh.path());
    ui::step("making the disk image", make)?;
    fresh
        .persist(&image)
        .with_context(|| format!("cannot write {}", image.display()))?;
    Ok(image)
}
