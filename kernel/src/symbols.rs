//! Names for addresses, from the compact table in the ramdisk.

use kernel_base::symbols::{Symbol, SymbolTable};
use spin::Once;

use crate::boot;

static TABLE: Once<SymbolTable<'static>> = Once::new();

/// Finds the table. Without one, addresses are shown as numbers.
pub fn init() {
    let Some(bytes) = boot::ramdisk().and_then(|ramdisk| ramdisk.find("symbols")) else {
        log::warn!("symbols: the ramdisk has no member 'symbols': backtraces without names");
        return;
    };
    match SymbolTable::new(bytes) {
        Ok(table) => {
            log::info!("symbols: {}", table.len());
            TABLE.call_once(|| table);
        }
        Err(error) => log::warn!("symbols: the table is damaged: {error}"),
    }
}

/// The function that `address` is in. Any context.
pub fn resolve(address: u64) -> Option<Symbol<'static>> {
    TABLE.get()?.resolve(address)
}

/// The address of a symbol.
pub fn lookup(name: &str) -> Option<u64> {
    TABLE.get()?.lookup_name(name)
}
