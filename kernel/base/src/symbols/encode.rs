//! Writing a symbol table, on the host.

use core::fmt;
use std::string::String;
use std::vec::Vec;

use super::name::MAX_NAME;
use super::{BLOCK, MAGIC, VERSION};

/// Why symbols cannot be put into one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The symbol starts below the base, or ends 4 GiB or more above it.
    OutOfRange {
        /// The name of the symbol.
        name: String,
        /// Its address.
        address: u64,
    },
    /// More symbols or bytes of names than a `u32` counts.
    TooMany,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { name, address } => {
                write!(
                    f,
                    "symbol {name} at {address:#x} does not fit into 4 GiB above the base"
                )
            }
            Self::TooMany => f.write_str("more symbols than the format can hold"),
        }
    }
}

impl std::error::Error for EncodeError {}

/// A symbol while the table is made.
struct Record {
    offset: u32,
    name: String,
}

/// Makes the table of `symbols`, each given as address, size and name, in any
/// order. `base` is the address that offsets count from: the start of the
/// kernel image. The result depends on nothing but the set of symbols.
///
/// Names longer than [`MAX_NAME`] bytes are cut. Of symbols that agree in
/// address and name one is kept. A size of 0 counts as 1.
///
/// ```
/// use kernel_base::symbols::{SymbolTable, encode};
/// let bytes = encode(0x1000, [(0x1000, 16, "start"), (0x1010, 64, "main")]).unwrap();
/// let table = SymbolTable::new(&bytes).unwrap();
/// assert_eq!(table.resolve(0x1014).unwrap().to_string(), "main+0x4");
/// assert_eq!(table.lookup_name("start"), Some(0x1000));
/// ```
pub fn encode<S: AsRef<str>>(
    base: u64,
    symbols: impl IntoIterator<Item = (u64, u64, S)>,
) -> Result<Vec<u8>, EncodeError> {
    let mut extent = 0;
    let mut records = Vec::new();
    for (address, size, name) in symbols {
        let name = name.as_ref();
        let out_of_range = || EncodeError::OutOfRange {
            name: name.into(),
            address,
        };
        let offset = address.checked_sub(base).ok_or_else(out_of_range)?;
        let end = offset.checked_add(size.max(1)).ok_or_else(out_of_range)?;
        let end = u32::try_from(end).map_err(|_| out_of_range())?;
        base.checked_add(u64::from(end)).ok_or_else(out_of_range)?;
        extent = extent.max(end);
        let name = name[..name.floor_char_boundary(MAX_NAME)].into();
        // The end fits, so the start does.
        records.push(Record {
            offset: offset as u32,
            name,
        });
    }
    records.sort_by(|a, b| (a.offset, &a.name).cmp(&(b.offset, &b.name)));
    records.dedup_by(|a, b| a.offset == b.offset && a.name == b.name);

    let mut by_name: Vec<usize> = (0..records.len()).collect();
    by_name.sort_by(|&a, &b| (&records[a].name, a).cmp(&(&records[b].name, b)));
    let mut ranks = std::vec![0u32; records.len()];
    for (rank, &place) in by_name.iter().enumerate() {
        ranks[place] = u32::try_from(rank).map_err(|_| EncodeError::TooMany)?;
    }
    let (blocks, names) = encode_names(&records, &by_name)?;

    let count = u32::try_from(records.len()).map_err(|_| EncodeError::TooMany)?;
    let names_size = u32::try_from(names.len()).map_err(|_| EncodeError::TooMany)?;
    let mut out = Vec::from(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(base.to_le_bytes());
    out.extend(extent.to_le_bytes());
    out.extend(names_size.to_le_bytes());
    out.extend(records.iter().flat_map(|r| r.offset.to_le_bytes()));
    out.extend(ranks.iter().flat_map(|r| r.to_le_bytes()));
    out.extend(blocks.iter().flat_map(|b| b.to_le_bytes()));
    out.extend(names);
    Ok(out)
}

/// The names in the order of `by_name`, and where each block of them starts.
fn encode_names(records: &[Record], by_name: &[usize]) -> Result<(Vec<u32>, Vec<u8>), EncodeError> {
    let mut blocks = Vec::new();
    let mut names = Vec::new();
    let mut earlier: &[u8] = &[];
    for (rank, &place) in by_name.iter().enumerate() {
        if rank % BLOCK == 0 {
            blocks.push(u32::try_from(names.len()).map_err(|_| EncodeError::TooMany)?);
            earlier = &[];
        }
        let name = records[place].name.as_bytes();
        let shared = earlier.iter().zip(name).take_while(|(a, b)| a == b).count();
        push_number(&mut names, shared);
        push_number(&mut names, name.len() - shared);
        push_number(&mut names, place);
        names.extend(&name[shared..]);
        earlier = name;
    }
    Ok((blocks, names))
}

/// Appends an unsigned LEB128 number.
fn push_number(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
