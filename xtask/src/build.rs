//! Building what a guest boots.

mod disk;
mod ramdisk;
mod strip;
mod symbols;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

pub use disk::disk;

use crate::toolchain::{TARGET, Toolchain};
use crate::{ui, workspace};

/// What a guest boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// The boot stub, for QEMU's `-kernel`.
    pub boot: PathBuf,
    /// The kernel with all symbols, for debuggers.
    pub kernel: PathBuf,
    /// The kernel without symbols, which is what boots.
    pub stripped: PathBuf,
    /// The ramdisk for the boot stub, kernel included.
    pub ramdisk: PathBuf,
    /// A disk image for UEFI, if one was made.
    pub disk: Option<PathBuf>,
}

/// Builds kernel, boot stub and ramdisk; `release` without overflow checks and debug
/// assertions.
///
/// # Errors
///
/// A compiler that is missing and cannot be had, or what it complains of.
pub fn images(toolchain: &Toolchain, release: bool) -> anyhow::Result<Images> {
    let profile = if release { "release" } else { "checked" };
    let mut command = toolchain.bare("build");
    command.args([
        "-p",
        "boot",
        "-p",
        "kernel",
        "--locked",
        "--profile",
        profile,
    ]);
    ui::step(&format!("building the kernel ({profile})"), command)?;

    let built = workspace::target().join("bare").join(TARGET).join(profile);
    let folder = workspace::output().join(profile);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let kernel = built.join("granary");
    let images = Images {
        boot: folder.join("granary-boot"),
        stripped: folder.join("kernel"),
        ramdisk: folder.join("ramdisk.tar"),
        kernel,
        disk: None,
    };
    put(&images.boot, &read(&built.join("granary-boot"))?)?;
    let elf = read(&images.kernel)?;
    let symbols = symbols::table(&elf).context("cannot make the symbol table")?;
    put(&folder.join("symbols"), &symbols)?;
    let stripped = strip::strip(&elf).context("cannot strip the kernel")?;
    put(&images.stripped, &stripped)?;
    put(
        &images.ramdisk,
        &ramdisk::pack(&[("kernel", &stripped), ("symbols", &symbols)])?,
    )?;
    Ok(images)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file in one step, so that a guest which starts meanwhile sees the old or the
/// new one; leaves it alone if it is the same.
fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let folder = path.parent().context("a file lies in a folder")?;
    let write = || -> anyhow::Result<()> {
        let file = tempfile::NamedTempFile::new_in(folder)?;
        fs::write(file.path(), bytes)?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
