//! Names, which share prefixes with the names before them in their block.

use core::fmt;

use super::BLOCK;

/// The longest name in bytes; the encoder cuts longer ones.
pub const MAX_NAME: usize = 512;

/// Room to spell out one name.
pub type NameBuffer = [u8; MAX_NAME];

/// The name of a symbol, spelled out only when it is printed or copied.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    /// The names of the block, from its first.
    block: &'a [u8],
    /// The place of this name in the block, below [`BLOCK`].
    place: usize,
}

impl<'a> Name<'a> {
    pub(super) fn new(block: &'a [u8], place: usize) -> Self {
        Self { block, place }
    }

    /// Spells the name out into `buffer`. A damaged table may give a shorter
    /// name than was written.
    pub fn copy_to(self, buffer: &mut NameBuffer) -> &str {
        let mut reader = BlockReader::new(self.block, buffer);
        for _ in 0..self.place {
            if reader.next().is_none() {
                return "";
            }
        }
        let length = reader.next().map_or(0, |entry| entry.length);
        let name = &buffer[..length];
        match core::str::from_utf8(name) {
            Ok(name) => name,
            Err(error) => core::str::from_utf8(&name[..error.valid_up_to()]).unwrap_or(""),
        }
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.copy_to(&mut [0; MAX_NAME]))
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.copy_to(&mut [0; MAX_NAME]), f)
    }
}

impl PartialEq<str> for Name<'_> {
    fn eq(&self, other: &str) -> bool {
        self.copy_to(&mut [0; MAX_NAME]) == other
    }
}

impl PartialEq<&str> for Name<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

/// One name, as found by a [`BlockReader`], which holds its bytes.
pub(super) struct Entry {
    /// The length of the name in bytes.
    pub(super) length: usize,
    /// The symbol's place among the offsets.
    pub(super) place: u32,
}

/// Spells out the names of a block one after the other, at most [`BLOCK`].
pub(super) struct BlockReader<'a, 'b> {
    rest: &'a [u8],
    buffer: &'b mut NameBuffer,
    length: usize,
    left: usize,
}

impl<'a, 'b> BlockReader<'a, 'b> {
    pub(super) fn new(block: &'a [u8], buffer: &'b mut NameBuffer) -> Self {
        Self {
            rest: block,
            buffer,
            length: 0,
            left: BLOCK,
        }
    }

    /// The next name; `None` after the last and where the block is damaged.
    pub(super) fn next(&mut self) -> Option<Entry> {
        self.left = self.left.checked_sub(1)?;
        let shared = take_number(&mut self.rest)? as usize;
        let added = take_number(&mut self.rest)? as usize;
        let place = take_number(&mut self.rest)?;
        let (suffix, rest) = self.rest.split_at_checked(added)?;
        let length = shared.checked_add(added)?;
        if shared > self.length || length > MAX_NAME {
            return None;
        }
        self.buffer[shared..length].copy_from_slice(suffix);
        self.rest = rest;
        self.length = length;
        Some(Entry { length, place })
    }

    /// The bytes of the name found last.
    pub(super) fn name(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    /// Whether nothing follows the name found last.
    pub(super) fn at_end(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Takes an unsigned LEB128 number of at most 32 bits off the front of `bytes`.
fn take_number(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0u32;
    for shift in [0u32, 7, 14, 21, 28] {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u32::from(byte & 0x7f);
        if shift == 28 && bits > 0xf {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
