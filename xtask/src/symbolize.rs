//! Files and lines for the addresses of a backtrace.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use addr2line::Loader;
use regex::Regex;

use crate::workspace;

/// Adds ` at file:line` to backtrace lines, from the debug information of one ELF file.
/// Usable from several threads; each reads the file for itself.
#[derive(Clone, Debug)]
pub struct Symbolizer {
    elf: PathBuf,
}

thread_local! {
    /// The file that this thread has open. (The loader cannot be shared.)
    static LOADER: RefCell<Option<(PathBuf, Loader)>> = const { RefCell::new(None) };
}

/// `  #3 0xffffffff80212345 name+0x12`
static FRAME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s*#\d+ 0x([0-9a-f]{16}) \S.*?(?:\+0x([0-9a-f]{1,8}))?$")
        .expect("the pattern is well-formed")
});

impl Symbolizer {
    /// For addresses in `elf`.
    pub fn new(elf: &Path) -> Self {
        Self {
            elf: elf.to_owned(),
        }
    }

    /// The line with file and line number added if it is one of a backtrace, and for
    /// inlined functions further lines with where they were inlined into; else as it is.
    pub fn line(&self, line: &str) -> String {
        let places = FRAME.captures(line).and_then(|found| {
            let number = |index| u64::from_str_radix(found.get(index)?.as_str(), 16).ok();
            self.places(number(1)?, number(2).unwrap_or(0))
        });
        places.map_or_else(
            || line.to_owned(),
            |places| format!("{}{places}", line.trim_end()),
        )
    }

    fn places(&self, address: u64, offset: u64) -> Option<String> {
        LOADER.with_borrow_mut(|loader| {
            if loader.as_ref().is_none_or(|(path, _)| *path != self.elf) {
                *loader = Some((self.elf.clone(), Loader::new(&self.elf).ok()?));
            }
            let (_, loader) = loader.as_ref()?;
            // Some instructions belong to no line; then what stands before them, in the same
            // function, tells most.
            (address.saturating_sub(offset.min(NEAR))..=address)
                .rev()
                .find_map(|address| places(loader, address))
        })
    }
}

/// How far back a line is looked for, in bytes.
const NEAR: u64 = 48;

fn places(loader: &Loader, address: u64) -> Option<String> {
    let mut frames = loader.find_frames(address).ok()?;
    let mut text = String::new();
    let mut inlined: Option<String> = None;
    while let Ok(Some(frame)) = frames.next() {
        let location = frame.location?;
        let place = format!(
            "{}:{}",
            short(location.file?),
            location.line.filter(|line| *line > 0)?
        );
        match inlined {
            None => text = format!(" at {place}"),
            Some(name) => text.push_str(&format!("\n        ({name} inlined at {place})")),
        }
        let name = frame
            .function
            .as_ref()
            .and_then(|function| function.raw_name().ok());
        inlined = Some(name.map_or_else(
            || "?".into(),
            |name| format!("{:#}", rustc_demangle::demangle(&name)),
        ));
    }
    (!text.is_empty()).then_some(text)
}

/// A path as short as it says where to look: in the workspace, or from a crate's folder on.
fn short(file: &str) -> String {
    // .../registry/src/<index>/<crate>-<version>/src/lib.rs
    if let Some((_, rest)) = file.split_once("/registry/src/")
        && let Some((_, rest)) = rest.split_once('/')
    {
        return rest.to_owned();
    }
    let path = Path::new(file);
    path.strip_prefix(workspace::root())
        .map_or(file.into(), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn landmark() -> u32 {
        line!()
    }

    #[test]
    fn only_backtrace_lines_change() {
        let symbolizer = Symbolizer::new(Path::new("/no/such/file"));
        for line in [
            "",
            "hello",
            "  #1 0x12 short",
            "  #0 0xffffffff80212345 name+0x12",
        ] {
            assert_eq!(symbolizer.line(line), line);
        }
    }

    #[test]
    fn a_function_of_this_program_is_found() {
        let program = std::env::current_exe().unwrap();
        // The program is loaded somewhere else than it was linked: ask for the linked address.
        let bytes = std::fs::read(&program).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        use object::{Object, ObjectSymbol};
        let symbol = file
            .symbols()
            .find(|symbol| symbol.name().is_ok_and(|name| name.contains("landmark")))
            .unwrap();
        let line =
            Symbolizer::new(&program).line(&format!("  #0 {:#018x} landmark", symbol.address()));
        assert!(line.contains("symbolize.rs:"), "{line}");
        assert!(landmark() > 0);
    }
}
