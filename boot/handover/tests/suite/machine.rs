//! A piece of host memory that plays the machine's, and a kernel prepared in it.

use crate::common::Elf;
use boot_handover::{Error, Handover, KernelImage, Machine, PAGE, RawRegion, prepare};
use bootloader_api::{BootloaderConfig, config::Mapping};
use std::ops::Range;

pub const MIB: u64 = 1 << 20;
pub const RAM: u64 = 16 * MIB;
pub const STUB: Range<u64> = MIB..MIB + 0x2_8000;
pub const RAMDISK: Range<u64> = RAM - 0x5_0000..RAM - 0x4_3210;
pub const PHYSICAL: u64 = 0xffff_8880_0000_0000;
pub const DYNAMIC: u64 = 0xffff_f000_0000_0000;
pub const FILLER: u8 = 0xa5;

pub const WRITABLE: u64 = 1 << 1;
const HUGE: u64 = 1 << 7;
pub const NO_EXECUTE: u64 = 1 << 63;
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Frame([u8; PAGE as usize]);

/// Physical memory from 0 to [`RAM`], full of a pattern.
pub struct Memory(Vec<Frame>);

impl Memory {
    pub fn new() -> Self {
        Self(vec![Frame([FILLER; PAGE as usize]); (RAM / PAGE) as usize])
    }

    pub fn base(&mut self) -> u64 {
        self.0.as_mut_ptr().expose_provenance() as u64
    }

    pub fn frame(&self, address: u64) -> &[u8; PAGE as usize] {
        &self.0[(address / PAGE) as usize].0
    }

    pub fn entry(&self, table: u64, index: u64) -> u64 {
        let at = index as usize * 8;
        let bytes = self.frame(table)[at..at + 8].try_into().unwrap();
        u64::from_le_bytes(bytes)
    }

    /// Physical address and flags of `address`, and the size of the page.
    pub fn translate(&self, level_4: u64, address: u64) -> Option<(u64, u64, u64)> {
        let mut table = level_4;
        // Writable only if every level says so, not executable if any does.
        let (mut writable, mut no_execute) = (WRITABLE, 0);
        for level in [3, 2, 1, 0] {
            let shift = 12 + 9 * level;
            let entry = self.entry(table, (address >> shift) & 511);
            if entry & 1 == 0 {
                return None;
            }
            writable &= entry;
            no_execute |= entry & NO_EXECUTE;
            if level == 0 || entry & HUGE != 0 {
                let size = 1 << shift;
                let physical = (entry & ADDRESS) + (address & (size - 1));
                return Some((physical, writable | no_execute, size));
            }
            table = entry & ADDRESS;
        }
        unreachable!()
    }

    /// Every page mapped: virtual address and size.
    pub fn pages(&self, table: u64, level: u32, base: u64) -> Vec<(u64, u64)> {
        let mut pages = Vec::new();
        for index in 0..512 {
            let entry = self.entry(table, index);
            let size = 1 << (12 + 9 * level);
            let mut address = base + index * size;
            if level == 3 && index >= 256 {
                address |= 0xffff << 48;
            }
            if entry & 1 == 0 {
            } else if level == 0 || entry & HUGE != 0 {
                pages.push((address, size));
            } else {
                pages.extend(self.pages(entry & ADDRESS, level - 1, address));
            }
        }
        pages
    }
}

/// An entry of a firmware's memory map.
pub fn raw(start: u64, end: u64, kind: u32) -> RawRegion {
    RawRegion {
        start,
        size: end - start,
        kind,
    }
}

/// As QEMU's, in disorder.
pub fn firmware() -> Vec<RawRegion> {
    vec![
        raw(0xfd_0000_0000, 0x100_0000_0000, 2),
        raw(MIB, RAM - 0x2_1000, 1),
        raw(0, 0x9_fc00, 1),
        raw(0x9_fc00, 0xa_0000, 2),
        raw(0xf_0000, MIB, 2),
        raw(RAM - 0x2_1000, RAM, 2),
    ]
}

/// What the kernel asks for.
pub fn config() -> BootloaderConfig {
    let mut config = BootloaderConfig::new_default();
    config.kernel_stack_size = 64 << 10;
    config.mappings.physical_memory = Some(Mapping::FixedAddress(PHYSICAL));
    config.mappings.dynamic_range_start = Some(DYNAMIC);
    config.mappings.dynamic_range_end = Some(0xffff_f800_0000_0000);
    config
}

/// Builds the address space of `elf` in new memory.
pub fn build(elf: &Elf, memory_map: &[RawRegion], gib: bool) -> Result<(Memory, Handover), Error> {
    let mut memory = Memory::new();
    let file = elf.build();
    let kernel = KernelImage::parse(&file)?;
    let machine = Machine {
        memory_map,
        stub: STUB,
        switch_page: STUB.start,
        ramdisk: RAMDISK,
        gib_pages: gib,
        physical_offset: memory.base(),
    };
    // SAFETY: all usable memory of the maps below 4 GiB is within `memory`, which
    // nobody else refers to.
    let handover = unsafe { prepare(&machine, &kernel)? };
    Ok((memory, handover))
}

/// The error of a kernel with this configuration.
pub fn refused(config: &BootloaderConfig) -> Error {
    build(&Elf::new(config), &firmware(), false)
        .err()
        .expect("must be refused")
}
