//! Has cargo build the test binaries and finds out where they are.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::{self, Group};

/// A built test binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// The package.
    pub package: String,
    /// The name of the target: of the library, the binary or the file in `tests/`.
    pub target: String,
    /// Whether it holds the unit tests of a library or binary.
    pub unit: bool,
    /// The executable.
    pub path: PathBuf,
    /// The folder of the package, in which tests run.
    pub folder: PathBuf,
}

impl Binary {
    /// The group of its results.
    pub fn group(&self) -> String {
        format!("host/{}", self.package)
    }

    /// The name of a test in results: those of a file in `tests/` begin with its name.
    pub fn test_name(&self, name: &str) -> String {
        if self.unit {
            name.into()
        } else {
            format!("{}::{name}", self.target)
        }
    }

    /// A command that runs it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}

/// Builds all test binaries of the default members, or what `targets` say. `status` is told what is
/// being compiled. The error is cargo's own, line by line.
pub fn build<'a>(
    mut cargo: Command,
    targets: impl Iterator<Item = &'a str>,
    mut status: impl FnMut(&str),
) -> Result<Vec<Binary>, Vec<String>> {
    cargo.args([
        "test",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ]);
    cargo.args(targets);
    cargo
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = process::spawn(cargo, Group::Shared)
        .map_err(|error| vec![format!("cannot start cargo: {error}")])?;
    let messages = child.stdout.take().map(|mut stdout| {
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            text
        })
    });
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            status(line.trim());
            said.push(line);
        }
    }
    let messages = messages
        .and_then(|thread| thread.join().ok())
        .unwrap_or_default();
    match child.wait() {
        Ok(status) if status.success() => {
            let mut binaries: Vec<_> = messages.lines().filter_map(binary).collect();
            binaries.sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
            Ok(binaries)
        }
        Ok(_) => Err(errors(said)),
        Err(error) => Err(vec![format!("cannot wait for cargo: {error}")]),
    }
}

/// Cargo's output from the first error on, under a line that says what happened.
fn errors(said: Vec<String>) -> Vec<String> {
    let first = said
        .iter()
        .position(|line| line.starts_with("error"))
        .unwrap_or(0);
    std::iter::once("the host tests do not compile".to_owned())
        .chain(said.into_iter().skip(first))
        .collect()
}

/// The test binary that a message of cargo tells of, if it does.
fn binary(message: &str) -> Option<Binary> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let target = &message["target"];
    let is_unit = |kind: &Value| {
        kind.as_str()
            .is_some_and(|kind| kind == "bin" || kind.ends_with("lib") || kind == "proc-macro")
    };
    Some(Binary {
        package: package_name(message["package_id"].as_str()?).to_owned(),
        target: target["name"].as_str()?.to_owned(),
        unit: target["kind"].as_array()?.iter().any(is_unit),
        path: message["executable"].as_str()?.into(),
        folder: Path::new(message["manifest_path"].as_str()?)
            .parent()?
            .to_owned(),
    })
}

/// The name in a package id, `path+file:///a/b#name@1.0.0`, where the name is
/// left out if it is that of the folder.
fn package_name(id: &str) -> &str {
    let (place, version) = id.rsplit_once('#').unwrap_or((id, ""));
    match version.split_once('@') {
        Some((name, _)) => name,
        None => place.rsplit('/').next().unwrap_or(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_packages() {
        assert_eq!(
            package_name("path+file:///src/granary/xtask#0.1.0"),
            "xtask"
        );
        assert_eq!(
            package_name("path+file:///src/granary/mm#granary-mm@0.1.0"),
            "granary-mm"
        );
    }

    #[test]
    fn binaries_are_found_in_messages() {
        let message = r#"{"reason":"compiler-artifact","package_id":"path+file:///g/mm#granary-mm@0.1.0",
            "manifest_path":"/g/mm/Cargo.toml","target":{"kind":["lib"],"name":"granary_mm"},
            "profile":{"test":true},"executable":"/t/granary_mm-1"}"#;
        let unit = binary(message).expect("a binary");
        assert_eq!(unit.group(), "host/granary-mm");
        assert_eq!(unit.test_name("a::b"), "a::b");
        assert_eq!(unit.folder, Path::new("/g/mm"));
        let other = message
            .replace(r#"["lib"]"#, r#"["test"]"#)
            .replace("granary_mm", "storm");
        assert_eq!(
            binary(&other).expect("a binary").test_name("a::b"),
            "storm::a::b"
        );
    }

    #[test]
    fn other_messages_are_passed_over() {
        assert_eq!(binary("{}"), None);
        assert_eq!(binary("no json"), None);
        assert_eq!(
            binary(r#"{"reason":"compiler-artifact","profile":{"test":false}}"#),
            None
        );
        let library = r#"{"reason":"compiler-artifact","package_id":"a#1","manifest_path":"/a/Cargo.toml",
            "target":{"kind":["lib"],"name":"a"},"profile":{"test":true},"executable":null}"#;
        assert_eq!(binary(library), None);
    }

    #[test]
    fn errors_begin_with_the_first_one() {
        let said = [
            "   Compiling a",
            "warning: w",
            "error[E0425]: no x",
            " --> a.rs",
        ]
        .map(String::from);
        let lines = errors(said.to_vec());
        assert_eq!(
            lines,
            [
                "the host tests do not compile",
                "error[E0425]: no x",
                " --> a.rs"
            ]
        );
    }
}
