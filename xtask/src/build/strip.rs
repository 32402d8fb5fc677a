//! Taking debug information and symbols out of the kernel.

use anyhow::{Context, bail};
use object::build::elf::Builder;
use object::elf;

/// The ELF file without what is not loaded. Segments stay, and so do the names of
/// sections: by one of them the boot loader finds its configuration.
///
/// Done here, not by a program: rustup's `rust-objcopy` finds its own libraries only
/// where cargo has set the path to them, and binutils need not be installed.
///
/// # Errors
///
/// A file that is no ELF executable.
pub fn strip(file: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut builder = Builder::read(file).context("it is no sound ELF file")?;
    if builder.segments.is_empty() {
        bail!("it has no segments");
    }
    for section in &mut builder.sections {
        let loaded = section.sh_flags.contains(elf::SHF_ALLOC);
        section.delete = !loaded && section.name.as_slice() != b".shstrtab";
    }
    for symbol in &mut builder.symbols {
        symbol.delete = true;
    }
    let mut stripped = Vec::new();
    builder
        .write(&mut stripped)
        .context("it cannot be rewritten")?;
    Ok(stripped)
}

#[cfg(test)]
mod tests {
    use object::{Object, ObjectSection, ObjectSegment};

    use super::*;

    /// Address, size in memory and alignment of all segments.
    fn segments(file: &object::File<'_>) -> Vec<(u64, u64, u64)> {
        file.segments()
            .map(|segment| (segment.address(), segment.size(), segment.align()))
            .collect()
    }

    #[test]
    fn what_is_loaded_stays() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let stripped = strip(&bytes).unwrap();
        assert!(stripped.len() < bytes.len() / 2);
        let before = object::File::parse(&*bytes).unwrap();
        let after = object::File::parse(&*stripped).unwrap();
        assert_eq!(after.entry(), before.entry());
        assert_eq!(segments(&after), segments(&before));
        for name in [".text", ".rodata", ".eh_frame", ".data"] {
            let section = |file: &object::File<'_>| {
                let section = file.section_by_name(name).unwrap();
                (section.address(), section.data().unwrap().to_vec())
            };
            assert!(section(&after) == section(&before), "{name} has changed");
        }
        assert_eq!(after.symbols().count(), 0);
        assert!(before.section_by_name(".debug_info").is_some());
        assert!(after.section_by_name(".debug_info").is_none());
    }

    #[test]
    fn rubbish_is_refused() {
        assert!(strip(b"").is_err());
        assert!(strip(b"#!/bin/sh\n").is_err());
        let mut cut = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        cut.truncate(200);
        assert!(strip(&cut).is_err());
    }
}
