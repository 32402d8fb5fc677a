//! From the root pointer to the tables.

use acpi::AcpiError;
use acpi::rsdp::Rsdp;
use acpi::sdt::SdtHeader;
use arrayvec::ArrayVec;

use super::layout::{HEADER_SIZE, Table, copy_padded};
use super::{Platform, ProblemKind, ReadPhysical, TableName};
use crate::bytes::{u32_at, u64_at};

/// Bytes of the root pointer of ACPI 1.0 and of later versions.
const RSDP_SIZES: (usize, usize) = (20, 36);
/// The longest table that is looked at, so that a lie costs no time: real ones
/// stay below 1 MiB.
const MAX_TABLE: u32 = 4 << 20;
/// How many entries of the root table are looked at.
const MAX_TABLES: usize = 256;
/// How many SSDTs are searched for `\_S5`.
const MAX_SSDTS: usize = 32;

/// The tables that are read.
#[derive(Default)]
pub(super) struct Tables<'m> {
    pub(super) madt: Option<Table<'m>>,
    pub(super) srat: Option<Table<'m>>,
    pub(super) slit: Option<Table<'m>>,
    pub(super) fadt: Option<Table<'m>>,
    pub(super) hpet: Option<Table<'m>>,
    pub(super) ssdts: ArrayVec<Table<'m>, MAX_SSDTS>,
}

/// Finds the tables, from the root pointer on.
pub(super) fn find_tables<'m>(
    rsdp: u64,
    read: ReadPhysical<'_, 'm>,
    platform: &mut Platform,
) -> Option<Tables<'m>> {
    let (root, entry_size) = find_root(rsdp, read, platform)?;
    let mut tables = Tables::default();
    let mut entries = root.body().chunks_exact(entry_size);
    for entry in entries.by_ref().take(MAX_TABLES) {
        let address = u64_at(entry, 0)
            .or(u32_at(entry, 0).map(u64::from))
            .unwrap_or(0);
        // Firmware leaves holes.
        if address != 0 {
            take_table(address, read, &mut tables, platform);
        }
    }
    if entries.next().is_some() {
        platform.report(root.name, ProblemKind::TooManyTables);
    }
    Some(tables)
}

/// The root table, and the size of the addresses in it.
fn find_root<'m>(
    address: u64,
    read: ReadPhysical<'_, 'm>,
    platform: &mut Platform,
) -> Option<(Table<'m>, usize)> {
    let bytes = read_exactly(read, address, RSDP_SIZES.1)
        .or_else(|| read_exactly(read, address, RSDP_SIZES.0));
    let Some(bytes) = bytes else {
        platform.report(TableName::RSDP, ProblemKind::Unreadable(address));
        return None;
    };
    // The old form may stand at the very end of what can be read.
    let rsdp: Rsdp = copy_padded(bytes);
    match rsdp.validate() {
        Err(AcpiError::RsdpIncorrectSignature) => {
            platform.report(TableName::RSDP, ProblemKind::WrongName);
            return None;
        }
        Err(AcpiError::RsdpInvalidChecksum) => {
            platform.report(TableName::RSDP, ProblemKind::Checksum);
        }
        // The name of the maker is nobody's business.
        _ => {}
    }
    let xsdt = rsdp.xsdt_address;
    if rsdp.revision > 1
        && xsdt != 0
        && let Some(table) = named_table(xsdt, read, TableName::XSDT, platform)
    {
        return Some((table, 8));
    }
    let rsdt = u64::from(rsdp.rsdt_address);
    named_table(rsdt, read, TableName::RSDT, platform).map(|table| (table, 4))
}

/// Puts the table at `address` where it belongs, if it is one that is read.
fn take_table<'m>(
    address: u64,
    read: ReadPhysical<'_, 'm>,
    tables: &mut Tables<'m>,
    platform: &mut Platform,
) {
    // Only tables that are read are looked at any closer than this.
    let Some(header) = read_exactly(read, address, HEADER_SIZE) else {
        platform.report(TableName(*b"????"), ProblemKind::Unreadable(address));
        return;
    };
    let name = TableName([header[0], header[1], header[2], header[3]]);
    let slot = match name {
        TableName::MADT => &mut tables.madt,
        TableName::SRAT => &mut tables.srat,
        TableName::SLIT => &mut tables.slit,
        TableName::FADT => &mut tables.fadt,
        TableName::HPET => &mut tables.hpet,
        TableName::SSDT => {
            if !tables.ssdts.is_full() {
                tables
                    .ssdts
                    .extend(named_table(address, read, name, platform));
            }
            return;
        }
        _ => return,
    };
    if slot.is_some() {
        platform.report(name, ProblemKind::DuplicateTable);
    } else {
        *slot = named_table(address, read, name, platform);
    }
}

/// The whole table at `address`, which must have this name. Reports what is
/// odd about it.
pub(super) fn named_table<'m>(
    address: u64,
    read: ReadPhysical<'_, 'm>,
    name: TableName,
    platform: &mut Platform,
) -> Option<Table<'m>> {
    match whole_table(address, read, name) {
        Ok(table) => {
            let sum = table
                .bytes
                .iter()
                .fold(0u8, |sum, &byte| sum.wrapping_add(byte));
            if sum != 0 {
                platform.report(name, ProblemKind::Checksum);
            }
            Some(table)
        }
        Err(problem) => {
            platform.report(name, problem);
            None
        }
    }
}

fn whole_table<'m>(
    address: u64,
    read: ReadPhysical<'_, 'm>,
    name: TableName,
) -> Result<Table<'m>, ProblemKind> {
    let unreadable = ProblemKind::Unreadable(address);
    let header = read_exactly(read, address, HEADER_SIZE).ok_or(unreadable)?;
    if !header.starts_with(&name.0) {
        return Err(ProblemKind::WrongName);
    }
    let length = copy_padded::<SdtHeader>(header).length;
    if (length as usize) < HEADER_SIZE || length > MAX_TABLE {
        return Err(ProblemKind::Length(length));
    }
    let bytes = read_exactly(read, address, length as usize).ok_or(unreadable)?;
    Ok(Table { name, bytes })
}

/// Reads, and does not believe `read` in the length either.
fn read_exactly<'m>(read: ReadPhysical<'_, 'm>, address: u64, length: usize) -> Option<&'m [u8]> {
    address.checked_add(length as u64)?;
    read(address, length)?.get(..length)
}
