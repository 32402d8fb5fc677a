//! What the loader handed over, checked, copied out of the loader's memory, and given to
//! the kernel in the kernel's own terms.

use bootloader_api::{
    BootInfo,
    info::{MemoryRegion, MemoryRegionKind},
};

use crate::layout::{PAGE_SIZE, PHYS_MAP};

/// Regions kept of the memory map. QEMU gives about 10, large UEFI machines some 200.
pub const MAX_REGIONS: usize = 256;

/// A physical range that early code took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// The kernel's view of what it was given. It borrows nothing from the loader but the
/// ramdisk's bytes.
#[derive(Debug)]
pub struct Handover {
    regions: [MemoryRegion; MAX_REGIONS],
    region_count: usize,
    /// Regions that did not fit [`MAX_REGIONS`]; treated as reserved.
    pub regions_dropped: usize,
    /// Physical address of the ACPI root pointer.
    pub rsdp: Option<u64>,
    /// Physical address and length of the ramdisk.
    pub ramdisk: Option<(u64, u64)>,
    /// Physical address and length of the kernel's ELF file, as far as the loader knows.
    pub kernel_file: (u64, u64),
    /// Physical address of the kernel's own level 4 table.
    pub root_table: u64,
    /// What was taken for page tables so far.
    pub tables: Taken,
    /// The boot CPU's stack, physical.
    pub stack: Taken,
}

/// Why the kernel cannot go on with what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The loader speaks another version of the protocol.
    ApiVersion,
    /// Physical memory is not mapped where the configuration asked for it.
    PhysicalMap,
    /// The memory map is empty, overlapping or not page-aligned.
    MemoryMap,
    /// There is no usable memory below 4 GiB.
    NoMemory,
    /// The ramdisk's memory is not mapped or not contiguous.
    Ramdisk,
    /// The processor lacks what the kernel is built on (NX).
    Processor,
    /// The kernel's page tables could not be built.
    Tables,
}

impl Refusal {
    /// What to tell the operator.
    pub const fn text(self) -> &'static str {
        match self {
            Self::ApiVersion => "the loader's bootloader_api version differs from the kernel's",
            Self::PhysicalMap => "physical memory is not mapped where the kernel asked for it",
            Self::MemoryMap => "the memory map is empty, overlapping or unaligned",
            Self::NoMemory => "no usable memory between 1 MiB and 4 GiB",
            Self::Ramdisk => "the ramdisk is not mapped in one piece",
            Self::Processor => "the processor has no NX bit",
            Self::Tables => "not enough memory for the kernel's page tables",
        }
    }
}

impl Handover {
    /// Checks and copies `info`; page tables and stack are still to come.
    ///
    /// # Errors
    ///
    /// [`Refusal`] says what the kernel cannot live with.
    pub fn check(info: &BootInfo) -> Result<Self, Refusal> {
        let wanted = bootloader_api::config::ApiVersion::default();
        let got = &info.api_version;
        if (got.version_major(), got.version_minor())
            != (wanted.version_major(), wanted.version_minor())
        {
            return Err(Refusal::ApiVersion);
        }
        if info.physical_memory_offset.into_option() != Some(PHYS_MAP) {
            return Err(Refusal::PhysicalMap);
        }
        let mut this = Self {
            regions: [MemoryRegion::empty(); MAX_REGIONS],
            region_count: 0,
            regions_dropped: 0,
            rsdp: info.rsdp_addr.into_option(),
            ramdisk: None,
            kernel_file: (info.kernel_addr, info.kernel_len),
            root_table: 0,
            tables: Taken { start: 0, end: 0 },
            stack: Taken { start: 0, end: 0 },
        };
        for region in info.memory_regions.iter() {
            if this.region_count < MAX_REGIONS {
                this.regions[this.region_count] = *region;
                this.region_count += 1;
            } else {
                this.regions_dropped += 1;
            }
        }
        // UEFI firmware gives them in any order.
        this.regions[..this.region_count].sort_unstable_by_key(|region| region.start);
        if !sound(this.regions()) {
            return Err(Refusal::MemoryMap);
        }
        Ok(this)
    }

    /// The memory map: sorted, without overlap.
    pub fn regions(&self) -> &[MemoryRegion] {
        &self.regions[..self.region_count]
    }
}

/// Whether sorted regions do not overlap, and the usable ones are whole pages.
fn sound(regions: &[MemoryRegion]) -> bool {
    let mut last_end = 0;
    !regions.is_empty()
        && regions.iter().all(|region| {
            let aligned = (region.start | region.end).is_multiple_of(PAGE_SIZE);
            let usable = region.kind == MemoryRegionKind::Usable;
            let fits = region.start >= last_end && region.end >= region.start;
            last_end = region.end;
            fits && (aligned || !usable)
        })
}
