//! `hvm_start_info`, the structure a PVH guest finds behind `ebx`. All fields
//! are little-endian; addresses are physical.

use crate::{Error, RawRegion};

/// The parts of `hvm_start_info` that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartInfo {
    /// Number of entries of the module list.
    pub module_count: u32,
    /// Address of the module list.
    pub modules: u64,
    /// Address of the ACPI root pointer, or 0.
    pub rsdp: u64,
    /// Address of the memory map.
    pub memory_map: u64,
    /// Number of entries of the memory map.
    pub memory_map_count: u32,
}

/// A file the monitor loaded beside the stub (QEMU's `-initrd` is the first).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// Address of its first byte.
    pub address: u64,
    /// Length in bytes.
    pub size: u64,
}

fn u32_at<const N: usize>(bytes: &[u8; N], offset: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(field)
}

fn u64_at<const N: usize>(bytes: &[u8; N], offset: usize) -> u64 {
    u64::from(u32_at(bytes, offset)) | (u64::from(u32_at(bytes, offset + 4)) << 32)
}

impl StartInfo {
    /// Size in bytes of the structure, version 1.
    pub const SIZE: usize = 56;
    const MAGIC: u32 = 0x336e_c578;

    /// Reads the structure and checks that it is one, with a memory map.
    pub fn parse(bytes: &[u8; Self::SIZE]) -> Result<Self, Error> {
        if u32_at(bytes, 0) != Self::MAGIC {
            return Err(Error::StartInfo("wrong magic number"));
        }
        // Later versions only append fields.
        if u32_at(bytes, 4) < 1 {
            return Err(Error::StartInfo("version 0 carries no memory map"));
        }
        let info = Self {
            module_count: u32_at(bytes, 12),
            modules: u64_at(bytes, 16),
            rsdp: u64_at(bytes, 32),
            memory_map: u64_at(bytes, 40),
            memory_map_count: u32_at(bytes, 48),
        };
        if info.memory_map == 0 || info.memory_map_count == 0 {
            return Err(Error::StartInfo("no memory map"));
        }
        if info.module_count != 0 && info.modules == 0 {
            return Err(Error::StartInfo("modules without a module list"));
        }
        Ok(info)
    }
}

impl Module {
    /// Size in bytes of an entry of the module list.
    pub const SIZE: usize = 32;

    /// Reads an entry of the module list.
    pub fn parse(bytes: &[u8; Self::SIZE]) -> Self {
        Self {
            address: u64_at(bytes, 0),
            size: u64_at(bytes, 8),
        }
    }
}

impl RawRegion {
    /// Size in bytes of an entry of the memory map.
    pub const SIZE: usize = 24;

    /// Reads an entry of the memory map.
    pub fn parse(bytes: &[u8; Self::SIZE]) -> Self {
        Self {
            start: u64_at(bytes, 0),
            size: u64_at(bytes, 8),
            kind: u32_at(bytes, 16),
        }
    }
}
