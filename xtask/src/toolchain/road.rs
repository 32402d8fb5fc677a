//! Which compiler there is, as facts about this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::TARGET;
use crate::workspace;

/// Debian's cargo.
pub const DISTRIBUTION_CARGO: &str = "/usr/bin/cargo";
/// Debian's packages with a compiler, cargo, and the source of the libraries.
pub const DISTRIBUTION_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];
/// Debian's package with clippy for that compiler.
pub const DISTRIBUTION_CLIPPY: &str = "rust-web-clippy";
/// The oldest compiler that this project is written for.
const OLDEST: (u32, u32) = (1, 95);

/// Where the compiler for bare metal comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// Rustup's pinned toolchain, with the target's libraries.
    Rustup,
    /// Debian's compiler, which builds the libraries from their source.
    Distribution,
}

/// What is on this machine.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The compiler that runs xtask: version line and folder.
    pub rustup: Option<(String, PathBuf)>,
    /// Its name for rustup.
    pub rustup_toolchain: Option<String>,
    /// It has the target's libraries.
    pub has_target: bool,
    /// Rustup is there and may fetch things.
    pub may_fetch: bool,
    /// Debian's compiler: version line and folder.
    pub distribution: Option<(String, PathBuf)>,
    /// It is new enough.
    pub distribution_is_new: bool,
    /// The source of its libraries is there.
    pub has_source: bool,
    /// A linker.
    pub lld: Option<PathBuf>,
}

impl Facts {
    /// Looks.
    pub fn gather() -> Self {
        let rustup = compiler("rustc");
        let distribution =
            compiler("/usr/bin/rustc").filter(|_| Path::new(DISTRIBUTION_CARGO).exists());
        let libraries = |folder: &Path| folder.join("lib/rustlib");
        let lld = rustup
            .iter()
            .chain(&distribution)
            .map(|(_, folder)| libraries(folder).join("x86_64-unknown-linux-gnu/bin/rust-lld"))
            .find(|path| path.exists())
            .or_else(|| which::which("rust-lld").ok())
            .or_else(|| which::which("ld.lld").ok());
        Self {
            has_target: rustup
                .as_ref()
                .is_some_and(|(_, folder)| libraries(folder).join(TARGET).join("lib").exists()),
            rustup_toolchain: std::env::var("RUSTUP_TOOLCHAIN").ok(),
            may_fetch: which::which("rustup").is_ok()
                && std::env::var("RUSTUP_AUTO_INSTALL").as_deref() != Ok("0"),
            distribution_is_new: distribution
                .as_ref()
                .is_some_and(|(text, _)| version(text).is_some_and(|found| found >= OLDEST)),
            has_source: distribution
                .as_ref()
                .is_some_and(|(_, folder)| has_source(folder)),
            rustup,
            distribution,
            lld,
        }
    }

    /// The road that these facts allow; rustup's, where both are open.
    pub fn road(&self) -> Option<Road> {
        if self.has_target {
            Some(Road::Rustup)
        } else if self.has_distribution() {
            Some(Road::Distribution)
        } else {
            None
        }
    }

    /// The distribution's compiler can build all that is wanted.
    pub fn has_distribution(&self) -> bool {
        self.distribution.is_some() && self.distribution_is_new && self.has_source
    }

    /// Rustup's toolchain has the source of its libraries. Looks now: it may just have come.
    pub fn rustup_has_source(&self) -> bool {
        self.rustup
            .as_ref()
            .is_some_and(|(_, folder)| has_source(folder))
    }

    /// Why there is no road, in words.
    pub fn shortcomings(&self) -> String {
        let distribution = match &self.distribution {
            None => "there is no /usr/bin/rustc and cargo".to_owned(),
            Some((text, _)) if !self.distribution_is_new => {
                format!("{text} in /usr/bin is older than {}.{}", OLDEST.0, OLDEST.1)
            }
            Some((text, _)) => format!("{text} in /usr/bin lacks the source of its libraries"),
        };
        format!("rustup's toolchain has no {TARGET}, and {distribution}")
    }
}

/// The toolchain in this folder has the source of its libraries.
fn has_source(folder: &Path) -> bool {
    folder
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .exists()
}

/// The version line and folder of a compiler.
fn compiler(program: &str) -> Option<(String, PathBuf)> {
    let ask = |what: &[&str]| {
        let mut command = Command::new(program);
        command
            .args(what)
            .current_dir(workspace::root())
            .env_remove("LD_LIBRARY_PATH");
        if program.starts_with('/') {
            command.env_remove("RUSTUP_TOOLCHAIN");
        }
        let output = command.output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    Some((
        ask(&["--version"])?,
        PathBuf::from(ask(&["--print", "sysroot"])?),
    ))
}

/// The numbers in `rustc 1.95.0 (...)`.
fn version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line
        .split_whitespace()
        .nth(1)?
        .split('.')
        .map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(
            version("rustc 1.95.0 (59807616e 2026-04-14)"),
            Some((1, 95))
        );
        assert_eq!(
            version("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"),
            Some((1, 96))
        );
        assert_eq!(version("rustc"), None);
        assert_eq!(version("rustc nightly"), None);
    }

    #[test]
    fn the_road_follows_from_the_facts() {
        let some = Some(("rustc 1.96.0".to_owned(), PathBuf::from("/usr")));
        let all = Facts {
            has_target: true,
            distribution: some,
            distribution_is_new: true,
            has_source: true,
            ..Facts::default()
        };
        assert_eq!(all.road(), Some(Road::Rustup));
        let no_target = Facts {
            has_target: false,
            ..all.clone()
        };
        assert_eq!(no_target.road(), Some(Road::Distribution));
        assert_eq!(
            Facts {
                has_source: false,
                ..no_target.clone()
            }
            .road(),
            None
        );
        assert_eq!(
            Facts {
                distribution_is_new: false,
                ..no_target.clone()
            }
            .road(),
            None
        );
        let none = Facts {
            distribution: None,
            ..no_target
        };
        assert_eq!(none.road(), None);
        assert!(none.shortcomings().contains("no /usr/bin/rustc"));
    }
}
