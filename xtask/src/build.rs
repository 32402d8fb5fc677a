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

/// Which kernel is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Build {
    /// Without overflow checks and debug assertions.
    pub release: bool,
    /// RCU's read-side sections may be preempted.
    pub preemptible: bool,
}

impl Build {
    /// Cargo's profile.
    fn profile(self) -> &'static str {
        if self.release { "release" } else { "checked" }
    }

    /// Features of the kernel.
    fn features(self) -> Vec<&'static str> {
        let all = [
            (self.preemptible, "kernel/rcu_preemptible"),
            // What is measured does not count.
            (!self.release, "kernel/slab_stats"),
        ];
        all.into_iter()
            .filter_map(|(wanted, feature)| wanted.then_some(feature))
            .collect()
    }

    /// Tells it from the others: in names of folders, and of figures.
    pub fn name(self) -> String {
        let preemptible = if self.preemptible { "-preemptible" } else { "" };
        format!("{}{preemptible}", self.profile())
    }
}

/// Builds kernel, boot stub and ramdisk.
///
/// # Errors
///
/// A compiler that is missing and cannot be had, or what it complains of.
pub fn images(toolchain: &Toolchain, build: Build) -> anyhow::Result<Images> {
    let (profile, name) = (build.profile(), build.name());
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
    let features = build.features();
    if !features.is_empty() {
        command.args(["--features", &features.join(",")]);
    }
    ui::step(&format!("building the kernel ({name})"), command)?;

    let built = workspace::target().join("bare").join(TARGET).join(profile);
    let folder = workspace::output().join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // Apart, since the next build of the same profile may be another one.
    let kernel = folder.join("granary");
    let elf = read(&built.join("granary"))?;
    put(&kernel, &elf)?;
    let images = Images {
        boot: folder.join("granary-boot"),
        stripped: folder.join("kernel"),
        ramdisk: folder.join("ramdisk.tar"),
        kernel,
        disk: None,
    };
    put(&images.boot, &read(&built.join("granary-boot"))?)?;
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
