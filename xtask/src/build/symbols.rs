//! The compact symbol table that goes into the ramdisk.

use anyhow::Context;
use kernel_base::symbols::encode;
use object::{Object, ObjectSymbol, SymbolKind};

/// Where the kernel image is linked; addresses in the table count from here.
const BASE: u64 = 0xffff_ffff_8020_0000;

/// Makes the table of all functions of an ELF file, names demangled and without hash.
///
/// # Errors
///
/// A file that is no ELF, or addresses outside what the table can express.
pub fn table(elf: &[u8]) -> anyhow::Result<Vec<u8>> {
    let file = object::File::parse(elf).context("the kernel is no ELF file")?;
    let functions = file
        .symbols()
        .filter(|symbol| symbol.is_definition() && symbol.kind() == SymbolKind::Text);
    let named = functions.filter_map(|symbol| {
        let name = format!("{:#}", rustc_demangle::demangle(symbol.name().ok()?));
        (symbol.address() >= BASE && !name.is_empty()).then_some((
            symbol.address(),
            symbol.size(),
            name,
        ))
    });
    encode(BASE, named).map_err(|error| anyhow::anyhow!("{error}"))
}
