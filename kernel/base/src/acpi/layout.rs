//! Getting structures and entries out of bounds-checked bytes.

use acpi::rsdp::Rsdp;
use acpi::sdt::SdtHeader;
use acpi::sdt::fadt::Fadt;
use acpi::sdt::hpet::HpetTable;
use acpi::sdt::madt::{
    InterruptSourceOverrideEntry, IoApicEntry, LocalApicAddressOverrideEntry, LocalApicEntry,
    LocalApicNmiEntry, LocalX2ApicEntry, X2ApicNmiEntry,
};

use super::{Platform, ProblemKind, TableName};

/// A structure that any bytes make a value of.
///
/// # Safety
/// Packed, and made of integers only (or of types around them without a rule
/// for their values), so that every pattern of bytes is valid.
pub(super) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        $(
            // SAFETY: `repr(C, packed)`, and its fields are integers, arrays of
            // them, or wrappers of them that take any value.
            unsafe impl Plain for $type {}
        )*
    };
}

plain! {
    Rsdp, SdtHeader, Fadt, HpetTable, LocalApicEntry, IoApicEntry, InterruptSourceOverrideEntry,
    LocalApicNmiEntry, LocalApicAddressOverrideEntry, LocalX2ApicEntry, X2ApicNmiEntry,
}

/// Copies a structure from the start of `bytes`. What `bytes` are too short for
/// is 0, which in ACPI means "not there".
pub(super) fn copy_padded<T: Plain>(bytes: &[u8]) -> T {
    let length = bytes.len().min(size_of::<T>());
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: 1. `length` is within `bytes` and within `value`, which do not
    // overlap: `value` is local. 2. All bytes of `value` are initialised, by
    // zero or the copy, and by `Plain` any bytes are a value.
    unsafe {
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), value.as_mut_ptr().cast::<u8>(), length);
        value.assume_init()
    }
}

/// Copies a structure from the start of `bytes`, if they are long enough.
pub(super) fn copy_whole<T: Plain>(bytes: &[u8]) -> Option<T> {
    (bytes.len() >= size_of::<T>()).then(|| copy_padded(bytes))
}

/// The size of a table's header, which every table starts with.
pub(super) const HEADER_SIZE: usize = size_of::<SdtHeader>();

/// A table, at least as long as its header.
#[derive(Clone, Copy)]
pub(super) struct Table<'m> {
    pub(super) name: TableName,
    pub(super) bytes: &'m [u8],
}

impl<'m> Table<'m> {
    pub(super) fn revision(self) -> u8 {
        copy_padded::<SdtHeader>(self.bytes).revision
    }

    /// What follows the header.
    pub(super) fn body(self) -> &'m [u8] {
        self.bytes.get(HEADER_SIZE..).unwrap_or(&[])
    }

    /// Calls `take` with type and bytes of each entry of the list that starts
    /// at `offset` (each begins with a byte for its type and one for its
    /// length, which counts these two). Ends at the first whose length is wrong
    /// and reports it if `platform` is given.
    pub(super) fn entries(
        self,
        mut offset: usize,
        mut report: Option<&mut Platform>,
        mut take: impl FnMut(Entry<'m>, Option<&mut Platform>),
    ) {
        while offset < self.bytes.len() {
            let rest = &self.bytes[offset..];
            let length = rest.get(1).copied().map_or(0, usize::from);
            let entry = if length < 2 { None } else { rest.get(..length) };
            let Some(bytes) = entry else {
                if let Some(platform) = report {
                    let kind = ProblemKind::EntryLength {
                        offset: offset as u32,
                    };
                    platform.report(self.name, kind);
                }
                return;
            };
            let entry = Entry {
                table: self.name,
                offset,
                kind: bytes[0],
                bytes,
            };
            take(entry, report.as_deref_mut());
            // At least 2, so this ends.
            offset += length;
        }
    }
}

/// One entry of a table's list.
#[derive(Clone, Copy)]
pub(super) struct Entry<'m> {
    table: TableName,
    offset: usize,
    /// The type of the entry.
    pub(super) kind: u8,
    /// All of it, at least 2 bytes.
    pub(super) bytes: &'m [u8],
}

impl Entry<'_> {
    /// The entry as a structure; reports one that is too short.
    pub(super) fn get<T: Plain>(self, platform: &mut Platform) -> Option<T> {
        let value = copy_whole(self.bytes);
        if value.is_none() {
            self.report_short(platform);
        }
        value
    }

    /// Reports that the entry is too short for its type.
    pub(super) fn report_short(self, platform: &mut Platform) {
        let kind = ProblemKind::EntryShort {
            kind: self.kind,
            offset: self.offset as u32,
        };
        platform.report(self.table, kind);
    }
}
