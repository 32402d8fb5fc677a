//! A compiler for bare metal: found, or installed.
//!
//! There are two roads. *Rustup*: the pinned toolchain has the target's libraries, or can
//! fetch them. *Distribution*: Debian's compiler comes with the source of the libraries, and
//! they are built along with the kernel. Both use the linker that rustup's compiler brings.

mod fetch;
mod road;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

pub use road::{DISTRIBUTION_CLIPPY, DISTRIBUTION_PACKAGES, Facts, Road};

use crate::{packages, workspace};

/// The target of everything that runs in the guest.
pub const TARGET: &str = "x86_64-unknown-none";

/// What the bare-metal crates are compiled with: no relocations, addresses in the top 2 GiB
/// (the boot stub's low ones suit this model as well), frame pointers for backtraces.
const FLAGS: &str = "-Crelocation-model=static -Ccode-model=kernel -Cforce-frame-pointers=yes";

/// Variables by which the cargo that runs xtask would lead another cargo astray.
const LEAKS: [&str; 14] = [
    "CARGO",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MANIFEST_DIR",
    "CARGO_TARGET_DIR",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUST_RECURSION_COUNT",
];

/// Keeps another cargo from being led astray.
pub fn without_leaks(command: &mut Command) {
    for name in LEAKS {
        command.env_remove(name);
    }
}

/// A usable compiler for bare metal.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Which road.
    pub road: Road,
    /// The linker.
    pub lld: PathBuf,
    facts: Facts,
}

impl Toolchain {
    /// Finds one; installs what is missing where that is allowed.
    ///
    /// # Errors
    ///
    /// What is missing, and the command that gets it.
    pub fn require() -> anyhow::Result<Self> {
        let mut facts = Facts::gather();
        if facts.road().is_none() && facts.may_fetch {
            fetch::rustup(&facts, &["target", "add", TARGET]);
            facts = Facts::gather();
        }
        if facts.road().is_none() {
            packages::install(DISTRIBUTION_PACKAGES, &format!("a compiler for {TARGET}")).with_context(|| {
                format!("the pinned toolchain has no {TARGET} either (with access to its server: rustup target add {TARGET})")
            })?;
            facts = Facts::gather();
        }
        let road = facts.road().with_context(|| {
            format!(
                "there is no compiler for {TARGET}: {}",
                facts.shortcomings()
            )
        })?;
        let lld = match facts.lld.clone() {
            Some(lld) => lld,
            None => {
                packages::install(&["lld"], "the linker")?;
                which::which("ld.lld").context("there is no linker: neither rust-lld nor ld.lld")?
            }
        };
        Ok(Self { road, lld, facts })
    }

    /// A toolchain with the source of its libraries: this one, or the other road's.
    ///
    /// # Errors
    ///
    /// The commands that get it.
    pub fn with_source(&self) -> anyhow::Result<Self> {
        let with = |road| Self {
            road,
            ..self.clone()
        };
        if self.road == Road::Rustup && self.facts.rustup_has_source() {
            return Ok(self.clone());
        }
        if self.facts.has_distribution() {
            return Ok(with(Road::Distribution));
        }
        if self.facts.may_fetch {
            fetch::rustup(&self.facts, &["component", "add", "rust-src"]);
        }
        if self.facts.rustup_has_source() {
            return Ok(with(Road::Rustup));
        }
        packages::install(DISTRIBUTION_PACKAGES, "the source of Rust's library").context(
            "rustup's toolchain lacks it too (with access to its server: rustup component add rust-src)",
        )?;
        let facts = Facts::gather();
        if !facts.has_distribution() {
            bail!(
                "there is no source of Rust's library: {}",
                facts.shortcomings()
            );
        }
        Ok(with(Road::Distribution))
    }

    /// A cargo command for the bare-metal target: `sub` is `build`, `clippy` or `doc`.
    pub fn bare(&self, sub: &str) -> Command {
        let mut command = self.cargo();
        command
            .args([sub, "--target", TARGET, "--target-dir"])
            .arg(workspace::target().join("bare"))
            .env("RUSTFLAGS", FLAGS)
            .current_dir(workspace::root());
        if self.road == Road::Distribution {
            command.args([
                "-Zbuild-std=core,alloc,compiler_builtins",
                "-Zbuild-std-features=compiler-builtins-mem",
            ]);
        }
        command
    }

    /// The road's cargo with a clean environment.
    pub fn cargo(&self) -> Command {
        let mut command = match self.road {
            Road::Rustup => Command::new("cargo"),
            Road::Distribution => Command::new(road::DISTRIBUTION_CARGO),
        };
        without_leaks(&mut command);
        command.env("CARGO_TARGET_X86_64_UNKNOWN_NONE_LINKER", &self.lld);
        if self.road == Road::Distribution {
            // Debian's stable compiler builds its own library: that is what the variable is for.
            command
                .env_remove("RUSTUP_TOOLCHAIN")
                .env("RUSTC_BOOTSTRAP", "1")
                .env("PATH", self.path());
        }
        command
    }

    /// `PATH` with the distribution's programs first and the linker's folder last.
    fn path(&self) -> std::ffi::OsString {
        let given = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(PathBuf::from("/usr/bin"))
            .chain(std::env::split_paths(&given))
            .chain(self.lld.parent().map(Path::to_owned));
        std::env::join_paths(folders).unwrap_or(given)
    }
}
