//! Looking symbols up.

use core::fmt;

use crate::bytes::{u32_at, u64_at};

use super::name::{BlockReader, MAX_NAME, Name};
use super::{BLOCK, HEADER, MAGIC, VERSION};

/// Why the bytes are not a symbol table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolsError {
    /// Shorter than a header, or does not start with the magic number.
    NotASymbolTable,
    /// A version this kernel does not read.
    Version(u32),
    /// The length does not agree with the sizes in the header.
    Length {
        /// The length the header calls for, in bytes.
        expected: usize,
        /// The length there is, in bytes.
        actual: usize,
    },
    /// The symbols reach past the end of the address space.
    Addresses,
    /// A block of names starts outside the names or before the block ahead of it.
    Blocks,
    /// The symbol at this place breaks the order of addresses or of names, or
    /// its name cannot be read. Only [`SymbolTable::verify`] looks for it.
    Symbol(u32),
}

impl fmt::Display for SymbolsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASymbolTable => f.write_str("not a symbol table"),
            Self::Version(version) => {
                write!(f, "symbol table of version {version}, expected {VERSION}")
            }
            Self::Length { expected, actual } => {
                write!(f, "symbol table of {actual} bytes, expected {expected}")
            }
            Self::Addresses => f.write_str("symbols reach past the end of the address space"),
            Self::Blocks => f.write_str("damaged index of names"),
            Self::Symbol(place) => write!(f, "symbol {place} is damaged or out of order"),
        }
    }
}

impl core::error::Error for SymbolsError {}

/// What an address belongs to. Prints as in a backtrace: `name+0x12`.
#[derive(Clone, Copy, Debug)]
pub struct Symbol<'a> {
    /// The name of the symbol.
    pub name: Name<'a>,
    /// The first address of the symbol.
    pub address: u64,
    /// How far into the symbol the address looked up lies, in bytes.
    pub offset: u64,
}

impl fmt::Display for Symbol<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}", self.name, self.offset)
    }
}

/// A table of symbols, read where it lies. See the [module](super) for its form.
///
/// # Invariants
/// The four parts have the sizes that `count` calls for, and `base + extent`
/// does not overflow. What the parts *contain* is not trusted.
#[derive(Clone, Copy, Debug)]
pub struct SymbolTable<'a> {
    base: u64,
    extent: u32,
    count: usize,
    offsets: &'a [u8],
    ranks: &'a [u8],
    blocks: &'a [u8],
    names: &'a [u8],
}

impl<'a> SymbolTable<'a> {
    /// A table without symbols, to start with before the ramdisk is there.
    pub const EMPTY: SymbolTable<'static> = SymbolTable {
        base: 0,
        extent: 0,
        count: 0,
        offsets: &[],
        ranks: &[],
        blocks: &[],
        names: &[],
    };

    /// Checks the header and the index of `bytes`; takes O(n/16) steps.
    pub fn new(bytes: &'a [u8]) -> Result<Self, SymbolsError> {
        if bytes.len() < HEADER || !bytes.starts_with(&MAGIC) {
            return Err(SymbolsError::NotASymbolTable);
        }
        let number = |at| u32_at(bytes, at).ok_or(SymbolsError::NotASymbolTable);
        let version = number(8)?;
        if version != VERSION {
            return Err(SymbolsError::Version(version));
        }
        let count = number(12)? as usize;
        let base = u64_at(bytes, 16).ok_or(SymbolsError::NotASymbolTable)?;
        let extent = number(24)?;
        let names = number(28)? as usize;

        let blocks = count.div_ceil(BLOCK);
        let actual = bytes.len();
        // In u128 nothing can overflow, whatever the header says.
        let expected = HEADER as u128 + count as u128 * 8 + blocks as u128 * 4 + names as u128;
        if expected != actual as u128 {
            let expected = usize::try_from(expected).unwrap_or(usize::MAX);
            return Err(SymbolsError::Length { expected, actual });
        }
        if base.checked_add(u64::from(extent)).is_none() {
            return Err(SymbolsError::Addresses);
        }
        // INVARIANT: the sum of the parts is the length, checked above.
        let (offsets, rest) = bytes[HEADER..].split_at(count * 4);
        let (ranks, rest) = rest.split_at(count * 4);
        let (blocks, names) = rest.split_at(blocks * 4);
        let table = Self {
            base,
            extent,
            count,
            offsets,
            ranks,
            blocks,
            names,
        };
        table.check_blocks()?;
        Ok(table)
    }

    fn check_blocks(&self) -> Result<(), SymbolsError> {
        let mut earlier = 0;
        for index in 0..self.block_count() {
            let start = self.block_start(index).ok_or(SymbolsError::Blocks)?;
            let first = index == 0;
            if start >= self.names.len() || (first && start != 0) || (!first && start <= earlier) {
                return Err(SymbolsError::Blocks);
            }
            earlier = start;
        }
        Ok(())
    }

    /// The number of symbols.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no symbol.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The addresses from the first symbol to the end of the last; empty for an
    /// empty table.
    pub fn range(&self) -> core::ops::Range<u64> {
        let first = self.offset_at(0).unwrap_or(0);
        self.base + u64::from(first)..self.base + u64::from(self.extent)
    }

    /// The symbol that `address` lies in: the one with the highest start at or
    /// below it. `None` before the first and after the end of the last.
    pub fn resolve(&self, address: u64) -> Option<Symbol<'a>> {
        let offset = u32::try_from(address.checked_sub(self.base)?).ok()?;
        if offset >= self.extent {
            return None;
        }
        let after = partition_point(self.count, |place| {
            self.offset_at(place).is_some_and(|start| start <= offset)
        });
        let mut place = after.checked_sub(1)?;
        let start = self.offset_at(place)?;
        // Aliases share an address: take the first, always the same one.
        while place > 0 && self.offset_at(place - 1) == Some(start) {
            place -= 1;
        }
        let address = self.base + u64::from(start);
        Some(Symbol {
            name: self.name_at(place)?,
            address,
            offset: u64::from(offset - start),
        })
    }

    /// The address of the symbol called `name`; of several, the lowest.
    pub fn lookup_name(&self, name: &str) -> Option<u64> {
        let name = name.as_bytes();
        let mut buffer = [0; MAX_NAME];
        // The first of several equal names may be the last of the block before
        // the one that starts with it, hence "less", not "less or equal".
        let after = partition_point(self.block_count(), |index| {
            let mut reader = BlockReader::new(self.block(index).unwrap_or(&[]), &mut buffer);
            reader.next().is_some() && reader.name() < name
        });
        for index in after.saturating_sub(1)..(after + 1).min(self.block_count()) {
            let mut reader = BlockReader::new(self.block(index)?, &mut buffer);
            while let Some(entry) = reader.next() {
                if reader.name() == name {
                    let offset = self.offset_at(usize::try_from(entry.place).ok()?)?;
                    return Some(self.base + u64::from(offset));
                }
            }
        }
        None
    }

    /// All symbols in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Name<'a>)> + '_ {
        (0..self.count).filter_map(|place| {
            Some((
                self.base + u64::from(self.offset_at(place)?),
                self.name_at(place)?,
            ))
        })
    }

    /// Checks everything: the order of addresses and names, and that each
    /// address leads to its name and back. O(n).
    pub fn verify(&self) -> Result<(), SymbolsError> {
        let mut earlier = 0;
        for place in 0..self.count {
            let broken = SymbolsError::Symbol(place as u32);
            let offset = self.offset_at(place).ok_or(broken)?;
            if offset < earlier {
                return Err(broken);
            }
            earlier = offset;
        }
        let mut earlier = ([0; MAX_NAME], 0);
        for index in 0..self.block_count() {
            let mut buffer = [0; MAX_NAME];
            let mut reader = BlockReader::new(self.block(index).unwrap_or(&[]), &mut buffer);
            for rank in index * BLOCK..((index + 1) * BLOCK).min(self.count) {
                let broken = SymbolsError::Symbol(rank as u32);
                let entry = reader.next().ok_or(broken)?;
                let leads_back = self.rank_at(entry.place as usize) == Some(rank);
                let ordered = reader.name() >= &earlier.0[..earlier.1];
                if !leads_back || !ordered || core::str::from_utf8(reader.name()).is_err() {
                    return Err(broken);
                }
                earlier.0[..entry.length].copy_from_slice(reader.name());
                earlier.1 = entry.length;
            }
            if !reader.at_end() {
                return Err(SymbolsError::Blocks);
            }
        }
        Ok(())
    }

    fn block_count(&self) -> usize {
        self.blocks.len() / 4
    }

    /// The offset of the symbol at `place`. A damaged one past `extent` counts
    /// as absent, so adding any other to `base` cannot overflow.
    fn offset_at(&self, place: usize) -> Option<u32> {
        u32_at(self.offsets, place.checked_mul(4)?).filter(|&offset| offset < self.extent)
    }

    fn rank_at(&self, place: usize) -> Option<usize> {
        usize::try_from(u32_at(self.ranks, place.checked_mul(4)?)?).ok()
    }

    fn block_start(&self, index: usize) -> Option<usize> {
        usize::try_from(u32_at(self.blocks, index.checked_mul(4)?)?).ok()
    }

    /// The names of block `index`, to the start of the next or the end.
    fn block(&self, index: usize) -> Option<&'a [u8]> {
        let end = self.block_start(index + 1).unwrap_or(self.names.len());
        self.names.get(self.block_start(index)?..end)
    }

    fn name_at(&self, place: usize) -> Option<Name<'a>> {
        let rank = self.rank_at(place)?;
        if rank >= self.count {
            return None;
        }
        Some(Name::new(self.block(rank / BLOCK)?, rank % BLOCK))
    }
}

/// The first of `0..count` for which `before` is false, if it is true up to
/// some place and false from there; some number up to `count` if it is not.
fn partition_point(count: usize, mut before: impl FnMut(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
