//! Names for addresses, from the compact table in the ramdisk.

use core::fmt;

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

/// Return addresses, by name: a line for each.
#[derive(Debug)]
pub struct Stack<'a>(pub &'a [usize]);

impl fmt::Display for Stack<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, address) in self.0.iter().enumerate() {
            // A return address is behind its call; the call itself names the right line.
            let inside = *address as u64 - 1;
            match resolve(inside) {
                Some(symbol) => writeln!(f, "    #{number} {inside:#018x} {symbol}")?,
                None => writeln!(f, "    #{number} {inside:#018x} ?")?,
            }
        }
        Ok(())
    }
}

/// The address of a symbol.
pub fn lookup(name: &str) -> Option<u64> {
    TABLE.get()?.lookup_name(name)
}
