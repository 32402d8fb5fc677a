//! Programs and files beside the compiler: QEMU, GDB, OVMF.

use std::path::{Path, PathBuf};

use crate::packages;

/// A program that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its name in `PATH`.
    pub program: &'static str,
    /// Debian's package that has it.
    pub package: &'static str,
    /// What it is for.
    pub purpose: &'static str,
}

/// The machine.
pub const QEMU: Tool = Tool {
    program: crate::qemu::PROGRAM,
    package: "qemu-system-x86",
    purpose: "run, test, gdb",
};
/// The debugger.
pub const GDB: Tool = Tool {
    program: "gdb",
    package: "gdb",
    purpose: "gdb, and its test",
};

impl Tool {
    /// Where it is.
    pub fn find(self) -> Option<PathBuf> {
        which::which(self.program).ok()
    }

    /// Where it is, after installing it if need be.
    ///
    /// # Errors
    ///
    /// How to install it.
    pub fn require(self) -> anyhow::Result<PathBuf> {
        if let Some(path) = self.find() {
            return Ok(path);
        }
        packages::install(&[self.package], self.program)?;
        self.find().ok_or_else(|| {
            anyhow::anyhow!(
                "{} is not in PATH, though {} is installed",
                self.program,
                self.package
            )
        })
    }
}

/// UEFI firmware for QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ovmf {
    /// The program.
    pub code: PathBuf,
    /// The template of its variables.
    pub vars: PathBuf,
}

impl Ovmf {
    /// Debian's package that has it.
    pub const PACKAGE: &'static str = "ovmf";

    /// Looks in the places where distributions put it.
    pub fn look() -> Option<Self> {
        const PAIRS: [(&str, &str); 4] = [
            (
                "/usr/share/OVMF/OVMF_CODE_4M.fd",
                "/usr/share/OVMF/OVMF_VARS_4M.fd",
            ),
            (
                "/usr/share/OVMF/OVMF_CODE.fd",
                "/usr/share/OVMF/OVMF_VARS.fd",
            ),
            (
                "/usr/share/edk2/ovmf/OVMF_CODE.fd",
                "/usr/share/edk2/ovmf/OVMF_VARS.fd",
            ),
            (
                "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
                "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
            ),
        ];
        PAIRS
            .into_iter()
            .find(|(code, vars)| Path::new(code).exists() && Path::new(vars).exists())
            .map(|(code, vars)| Self {
                code: code.into(),
                vars: vars.into(),
            })
    }

    /// Where it is, after installing it if need be.
    ///
    /// # Errors
    ///
    /// How to install it.
    pub fn find() -> anyhow::Result<Self> {
        if let Some(found) = Self::look() {
            return Ok(found);
        }
        packages::install(&[Self::PACKAGE], "OVMF, the UEFI firmware for QEMU,")?;
        Self::look().ok_or_else(|| {
            anyhow::anyhow!("OVMF is not where it is expected, though it is installed")
        })
    }
}
