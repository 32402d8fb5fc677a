//! `granary-image` puts a kernel and its ramdisk on a disk image that UEFI machines
//! boot. The `bootloader` crate does the work, here and on the machine.
//!
//! ```text
//! granary-image --kernel granary --ramdisk ramdisk.tar --out granary.img
//! ```
//!
//! # Building it
//!
//! `cargo xtask image` does this. `bootloader` compiles the part that runs on the
//! machine in its build script, by a `cargo install -Zbuild-std` of its own, so the
//! build needs more than a stable toolchain and a C linker:
//!
//! - a compiler with the source of its own standard library (rustup: component
//!   `rust-src`; Debian: `rust-web-src`), and `rust-lld`, to be found in the sysroot
//!   or in `PATH`;
//! - `RUSTC_BOOTSTRAP=1` in the environment, because `-Zbuild-std` is not stable;
//! - the package registry, or a cache of it that is warm;
//! - no `CARGO_TARGET_DIR` and no `CARGO_BUILD_TARGET_DIR` in the environment: the
//!   inner cargo would wait for ever for the lock that the outer one holds on that
//!   folder. Use `--target-dir` instead, which the inner one does not see;
//! - no `RUSTUP_TOOLCHAIN` that names another compiler than the one that is to be used.
//!
//! With Debian's toolchain, from this folder:
//!
//! ```text
//! env -u CARGO_TARGET_DIR -u CARGO_BUILD_TARGET_DIR -u RUSTUP_TOOLCHAIN \
//!     -u RUSTFLAGS PATH="/usr/bin:$PATH:<folder of rust-lld>" RUSTC_BOOTSTRAP=1 \
//!     /usr/bin/cargo build --release --locked --target-dir <folder>
//! ```
//!
//! It takes a minute or two, once. Versions of `bootloader` after 0.11.15 want a newer
//! compiler than ours; the version must equal that of `bootloader_api` in the kernel.

use anyhow::{Context, bail};
use boot_handover::{Error, KernelImage, PAGE, find_kernel};
use bootloader::UefiBoot;
use clap::Parser;
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Makes a disk image that UEFI machines boot.
#[derive(Parser)]
#[command(name = "granary-image", version)]
struct Options {
    /// The kernel's ELF file
    #[arg(long)]
    kernel: PathBuf,
    /// The initial ramdisk, a tar archive
    #[arg(long)]
    ramdisk: PathBuf,
    /// Where to write the image; an old one is replaced
    #[arg(long)]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("granary-image: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    check_kernel(&options.kernel)?;
    check_ramdisk(&options.ramdisk)?;

    // Written beside its place and moved there whole: an image is complete or absent.
    let Some(name) = options.out.file_name() else {
        bail!("--out {}: not a file name", options.out.display());
    };
    let mut unfinished = name.to_os_string();
    unfinished.push(".unfinished");
    let unfinished = options.out.with_file_name(unfinished);
    UefiBoot::new(&options.kernel)
        .set_ramdisk(&options.ramdisk)
        .create_disk_image(&unfinished)
        .and_then(|()| Ok(fs::rename(&unfinished, &options.out)?))
        .with_context(|| format!("cannot make {}", options.out.display()))
        .inspect_err(|_| {
            // What remains, if anything, is of no use; the error is what counts.
            let _ = fs::remove_file(&unfinished);
        })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Finds here what would end in a panic on the machine.
fn check_kernel(path: &Path) -> anyhow::Result<()> {
    let file = read(path)?;
    let kernel = KernelImage::parse(&file).with_context(|| path.display().to_string())?;
    // `bootloader` maps the pages of the file itself.
    for segment in &kernel.segments {
        let offset = segment.data.as_ptr().addr() - file.as_ptr().addr();
        if !(offset as u64).is_multiple_of(PAGE) {
            let address = segment.address;
            bail!(
                "{}: segment at {address:#x} is not page-aligned in the file",
                path.display()
            );
        }
    }
    Ok(())
}

/// A sound archive; on this road the kernel need not be in it.
fn check_ramdisk(path: &Path) -> anyhow::Result<()> {
    let file = read(path)?;
    match find_kernel(&file) {
        Ok(_) | Err(Error::NoKernel) => Ok(()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}
