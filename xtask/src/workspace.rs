//! Where things are.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The workspace: the folder of the root `Cargo.toml`.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        // Cargo says at run time where the package is now; a program started by
        // hand falls back on where it was built.
        let package = std::env::var_os("CARGO_MANIFEST_DIR")
            .map(PathBuf::from)
            .filter(|path| path.ends_with("xtask"))
            .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
        package.parent().map(Path::to_owned).unwrap_or(package)
    })
}

/// Cargo's target folder, which may lie elsewhere by `CARGO_TARGET_DIR`.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        // As cargo does: relative to where the command was given.
        Some(folder) if !folder.is_empty() => std::path::absolute(&folder).unwrap_or(folder.into()),
        _ => root().join("target"),
    }
}

/// Where what xtask makes is put: images, logs, reports.
pub fn output() -> PathBuf {
    target().join("granary")
}

/// A path as short as it can be said: relative to the workspace or to the
/// current folder, if it lies in one of these.
pub fn short(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let relative = here
        .as_deref()
        .and_then(|here| path.strip_prefix(here).ok());
    relative.unwrap_or(path).display().to_string()
}
