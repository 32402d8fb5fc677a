//! Host tests under a sanitizer: `cargo xtask test --sanitize`.
//!
//! Stable compilers have none, so a nightly one builds the tests, and all of the standard library with them: what was
//! compiled without a sanitizer is not seen by it, and the thread sanitizer would take locks in there for none. All
//! else stays with the pinned toolchain.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::{toolchain, workspace};

/// What is built: all that has threads, or memory of its own. Not the crates for the model checker, whose
/// threads are coroutines.
const PACKAGES: [&str; 3] = ["granary-platform", "granary-rcu", "granary-mm"];

/// The target, which is said so that build scripts and macros are built without.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What a process ends with for which a sanitizer has reported something.
pub const STATUS: i32 = 66;

/// Lines of a report that are shown, without those about the standard library; all are in the file.
const SHOWN: usize = 60;
/// What the latter have in them.
const LIBRARY: &str = "/rustlib/src/rust/";

/// A sanitizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sanitizer {
    /// Accesses that nothing orders.
    Thread,
    /// Accesses to memory that is not there, or not any more.
    Address,
}

impl Sanitizer {
    /// Its name, as the compiler has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Thread => "thread",
            Self::Address => "address",
        }
    }
}

/// A sanitizer, and a toolchain that has it.
#[derive(Clone, Debug)]
pub struct Sanitized {
    sanitizer: Sanitizer,
    /// As rustup calls it.
    toolchain: String,
}

impl Sanitized {
    /// Finds a toolchain.
    ///
    /// # Errors
    ///
    /// What is missing, and how to get it.
    pub fn find(sanitizer: Sanitizer) -> anyhow::Result<Self> {
        let listed = Command::new("rustup").args(["toolchain", "list"]).output();
        let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let found = nightlies(&listed.unwrap_or_default()).find(|name| has_source(name));
        let toolchain = found.with_context(|| {
            format!(
                "the {} sanitizer needs a nightly toolchain with the source of Rust's library, and there is none: \
                 rustup toolchain install nightly --profile minimal --component rust-src",
                sanitizer.name()
            )
        })?;
        Ok(Self {
            sanitizer,
            toolchain,
        })
    }

    /// A cargo that builds with it.
    pub fn cargo(&self) -> Command {
        let name = self.sanitizer.name();
        let mut command = Command::new("rustup");
        command.args(["run", &self.toolchain, "cargo"]);
        toolchain::without_leaks(&mut command);
        command
            .env("RUSTFLAGS", format!("-Zsanitizer={name}"))
            .env("CARGO_BUILD_TARGET", TARGET)
            .env("CARGO_UNSTABLE_BUILD_STD", "std,panic_unwind,test")
            .env(
                "CARGO_TARGET_DIR",
                workspace::target().join(format!("sanitize-{name}")),
            );
        command
    }

    /// What cargo is to build.
    pub fn targets(&self) -> impl Iterator<Item = &'static str> {
        let packages = PACKAGES.into_iter().flat_map(|name| ["-p", name]);
        packages.chain(["--lib", "--tests"])
    }

    /// Makes a test binary write what is found to a file beside `log`.
    pub fn prepare(&self, command: &mut Command, log: &Path) {
        let reports = reports(log);
        for old in files(&reports) {
            let _ = std::fs::remove_file(old);
        }
        let (variable, more) = match self.sanitizer {
            Sanitizer::Thread => ("TSAN_OPTIONS", ""),
            // Tests leak what is to be there for ever. What machines have given out is looked after at their end.
            Sanitizer::Address => ("ASAN_OPTIONS", "detect_leaks=0:"),
        };
        let mut options = OsString::from(format!("{more}exitcode={STATUS}:log_path="));
        options.push(&reports);
        command.env(variable, options);
        // One test after the other: memory of hosted machines is mapped past the sanitizer, which does not see
        // that what another test did at the same address is over.
        command.env("RUST_TEST_THREADS", "1");
    }

    /// What was found, for a failure.
    pub fn found(&self, log: &Path) -> Vec<String> {
        let mut lines = vec![format!("the {} sanitizer reports", self.sanitizer.name())];
        for file in files(&reports(log)) {
            let text = std::fs::read(&file).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            lines.push(format!("all of it: {}", workspace::short(&file)));
            let own = text.lines().filter(|line| !line.contains(LIBRARY));
            lines.extend(own.take(SHOWN).map(str::to_owned));
        }
        lines
    }
}

/// The names of nightly toolchains in rustup's list.
fn nightlies(list: &str) -> impl Iterator<Item = String> {
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly"))
        .map(str::to_owned)
}

/// Whether a toolchain has the source of its library.
fn has_source(toolchain: &str) -> bool {
    let mut command = Command::new("rustup");
    command.args(["run", toolchain, "rustc", "--print", "sysroot"]);
    toolchain::without_leaks(&mut command);
    let Ok(output) = command.output() else {
        return false;
    };
    let folder = String::from_utf8_lossy(&output.stdout);
    Path::new(folder.trim())
        .join("lib/rustlib/src/rust/library/Cargo.lock")
        .exists()
}

/// Where reports of a run go, but for the number of the process.
fn reports(log: &Path) -> PathBuf {
    log.with_extension("sanitizer")
}

/// The files of reports that are there.
fn files(reports: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (reports.parent(), reports.file_name()) else {
        return Vec::new();
    };
    let mut start = name.to_os_string();
    start.push(".");
    let start = start.to_string_lossy().into_owned();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&start))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nightly_toolchains_are_found_in_rustups_list() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default)\n\
                    nightly-x86_64-unknown-linux-gnu\nnightly-2026-05-01-x86_64 (override)\n";
        let found: Vec<_> = nightlies(list).collect();
        let expected = [
            "nightly-x86_64-unknown-linux-gnu",
            "nightly-2026-05-01-x86_64",
        ];
        assert_eq!(found, expected);
        assert_eq!(nightlies("no toolchains").count(), 0);
    }

    #[test]
    fn reports_are_found_beside_the_log() {
        let folder = std::env::temp_dir().join(format!("granary-sanitize-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let log = folder.join("host-mm-a.log");
        let sanitized = Sanitized {
            sanitizer: Sanitizer::Thread,
            toolchain: "nightly".into(),
        };
        std::fs::write(folder.join("host-mm-ab.sanitizer.1"), "other").unwrap();
        std::fs::write(
            folder.join("host-mm-a.sanitizer.12"),
            "WARNING\n#0 x /a/rustlib/src/rust/b.rs\nrace",
        )
        .unwrap();
        let found = sanitized.found(&log);
        assert_eq!(found[0], "the thread sanitizer reports");
        assert_eq!(found[2..], ["WARNING", "race"]);
        sanitized.prepare(&mut Command::new("true"), &log);
        assert_eq!(sanitized.found(&log).len(), 1);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
