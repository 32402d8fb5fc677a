//! The compact symbol table: names for the addresses of a backtrace.
//!
//! `xtask` writes it from the kernel's ELF and puts it into the ramdisk; the
//! kernel looks names up by address (panics, traces) and addresses by name
//! (modules, tests). Both take O(log n) steps, allocate nothing and lock
//! nothing, so they work in a panic.
//!
//! # Format, version 1
//!
//! All numbers are little-endian.
//!
//! | part | size | meaning |
//! |---|---|---|
//! | magic | 8 | `GRNYSYMS` |
//! | version | u32 | 1 |
//! | count | u32 | number of symbols, n |
//! | base | u64 | the address that offsets count from |
//! | extent | u32 | offset of the end of the last symbol |
//! | names | u32 | bytes of the names part |
//! | offsets | n × u32 | offset of each symbol, ascending |
//! | ranks | n × u32 | for each symbol, in that order: its place among the names |
//! | blocks | ⌈n/16⌉ × u32 | where in the names part each block of 16 starts |
//! | names | | the names, sorted, in blocks of 16 |
//!
//! A name is: the number of bytes it shares with the name before it in its
//! block (0 for the first), the number of bytes that follow, its symbol's place
//! among the offsets (three LEB128 numbers), then those bytes. Sorting and
//! sharing prefixes brings paths like `kernel::arch::x86_64::apic::timer` to a
//! third of their size.
//!
//! There is no checksum: reading is bounds-checked throughout, so that a
//! damaged table gives a wrong name or none, never a panic;
//! [`SymbolTable::verify`] finds damage at the price of a walk over everything.

#[cfg(feature = "std")]
mod encode;
mod name;
mod table;

#[cfg(feature = "std")]
pub use encode::{EncodeError, encode};
pub use name::{MAX_NAME, Name, NameBuffer};
pub use table::{Symbol, SymbolTable, SymbolsError};

/// What every table starts with.
const MAGIC: [u8; 8] = *b"GRNYSYMS";
/// The version this code reads and writes.
const VERSION: u32 = 1;
/// Bytes before the offsets.
const HEADER: usize = 32;
/// Names in a block.
const BLOCK: usize = 16;
