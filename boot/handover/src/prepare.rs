//! Puts it together: from a checked kernel to an address space it can run in.

use crate::{
    Error, KernelImage, PAGE, REACH, RawRegion, Regions,
    address_space::{AddressSpace, DATA},
    frames::Frames,
    memory::{MAX_CLAIMS, MAX_FIRMWARE_REGIONS, merge},
    slots::{Slots, check_range},
};
use arrayvec::ArrayVec;
use bootloader_api::{
    BootInfo, BootloaderConfig,
    config::{Mapping, Mappings},
    info::{MemoryRegion, MemoryRegionKind, TlsTemplate},
};
use core::{alloc::Layout, ops::Range};
use x86_64::PhysAddr;
use x86_64::structures::paging::{PageTableFlags, PhysFrame};

/// log2 of the bytes one level 4 entry covers.
const ENTRY_SHIFT: u32 = 39;
const MIB_2: u64 = 2 << 20;

/// What the stub knows of the machine and of itself. Addresses are physical.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The firmware's memory map.
    pub memory_map: &'a [RawRegion],
    /// The running stub, page-aligned.
    pub stub: Range<u64>,
    /// The stub's page that holds the last instructions before the kernel's first
    /// and the descriptor table, page-aligned.
    pub switch_page: u64,
    /// The initial ramdisk.
    pub ramdisk: Range<u64>,
    /// Whether the processor has pages of 1 GiB.
    pub gib_pages: bool,
    /// What to add to a physical address to reach it from here.
    pub physical_offset: u64,
}

/// What is left to do: write a [`BootInfo`] with these contents to
/// [`Self::boot_info`], load the page tables and the stack, and jump.
#[derive(Debug)]
pub struct Handover {
    /// Physical address of the kernel's level 4 table.
    pub level_4: u64,
    /// The level 4 entry that maps [`Self::boot_info`] and the regions: putting it into
    /// the active table makes both reachable at their final addresses.
    pub boot_info_entry: u64,
    /// Index of that entry; never 0, where the stub's identity map is.
    pub boot_info_index: usize,
    /// Virtual address for the `BootInfo`.
    pub boot_info: u64,
    /// Virtual address for the memory regions.
    pub regions_address: u64,
    /// The memory regions.
    pub regions: Regions,
    /// Address of the kernel's first instruction.
    pub entry: u64,
    /// Initial stack pointer, aligned to 16.
    pub stack_top: u64,
    /// `BootInfo::kernel_stack_bottom`: the lowest address of the stack proper.
    pub stack_bottom: u64,
    /// `BootInfo::kernel_stack_len`.
    pub stack_size: u64,
    /// `BootInfo::physical_memory_offset`.
    pub physical_memory: Option<u64>,
    /// `BootInfo::recursive_index`.
    pub recursive_index: Option<u16>,
    /// `BootInfo::ramdisk_addr`: virtual.
    pub ramdisk_address: u64,
    /// `BootInfo::tls_template`.
    pub tls: Option<TlsTemplate>,
}

/// Builds the kernel's address space.
///
/// # Safety
///
/// What the memory map calls usable, other than `machine.stub` and
/// `machine.ramdisk`, must be unused memory up to [`REACH`], readable and writable
/// at its physical address plus `machine.physical_offset`.
pub unsafe fn prepare(machine: &Machine<'_>, kernel: &KernelImage<'_>) -> Result<Handover, Error> {
    let (claims, regions) = claim_memory(machine)?;
    let top = machine.memory_map.iter().map(|region| region.memory_end());
    let physical_end = top.max().unwrap_or(0).max(REACH).next_multiple_of(MIB_2);

    let config = &kernel.config;
    let mut slots = reserve_fixed(kernel, physical_end)?;
    // SAFETY: the frames are usable memory apart from the stub and the ramdisk, for
    // which the caller vouches.
    let mut space = unsafe { AddressSpace::new(Frames::new(&regions), machine.physical_offset)? };

    load_segments(&mut space, kernel)?;
    let mut handover = Handover {
        level_4: space.level_4(),
        boot_info_entry: 0,
        boot_info_index: 0,
        boot_info: 0,
        regions_address: 0,
        regions: Regions::new(),
        entry: kernel.entry,
        stack_top: 0,
        stack_bottom: 0,
        stack_size: config.kernel_stack_size,
        physical_memory: None,
        recursive_index: None,
        ramdisk_address: 0,
        tls: kernel.tls,
    };
    map_stack(&mut space, &mut slots, config, &mut handover)?;
    space.map_range(
        "context switch",
        machine.switch_page..machine.switch_page + PAGE,
        machine.switch_page,
        PageTableFlags::PRESENT,
    )?;
    map_ramdisk(&mut space, &mut slots, config, machine, &mut handover)?;
    if let Some(mapping) = config.mappings.physical_memory {
        let address = slots.place("physical memory", mapping, physical_end, MIB_2)?;
        space.map_physical(address, physical_end, machine.gib_pages)?;
        handover.physical_memory = Some(address);
    }
    map_recursive(&mut space, &mut slots, config, &mut handover)?;
    // What is taken from a region splits it into three at most.
    let room = regions.len() + 2 * space.frames.source_count();
    map_boot_info(&mut space, &mut slots, config, room, &mut handover)?;

    // From here on no frame may be taken.
    let mut claims = claims;
    for range in space.frames.used() {
        add_claim(&mut claims, range)?;
    }
    handover.regions = merge(&claims)?;
    if handover.regions.len() > room {
        return Err(Error::MemoryMap("no room for it in the boot info"));
    }
    Ok(handover)
}

/// The firmware's regions and what the stub claims.
type Claims = ArrayVec<MemoryRegion, MAX_CLAIMS>;

/// Checks that a ramdisk lies in usable memory where the stub can read it.
pub fn check_ramdisk(memory_map: &[RawRegion], ramdisk: &Range<u64>) -> Result<(), Error> {
    if ramdisk.is_empty() {
        return Err(Error::Ramdisk("empty"));
    }
    let regions = merge(&firmware_claims(memory_map)?)?;
    let holds_it = |region: &MemoryRegion| {
        region.kind == MemoryRegionKind::Usable
            && region.start <= ramdisk.start
            && ramdisk.end <= region.end
    };
    if ramdisk.start == 0 || ramdisk.end > REACH || !regions.iter().any(holds_it) {
        return Err(Error::Ramdisk("not in usable memory below 4 GiB"));
    }
    Ok(())
}

fn firmware_claims(memory_map: &[RawRegion]) -> Result<Claims, Error> {
    if memory_map.len() > MAX_FIRMWARE_REGIONS {
        return Err(Error::MemoryMap("too many entries"));
    }
    Ok(memory_map.iter().filter_map(|raw| raw.to_pages()).collect())
}

fn add_claim(claims: &mut Claims, range: Range<u64>) -> Result<(), Error> {
    claims
        .try_push(MemoryRegion {
            start: range.start,
            end: range.end,
            kind: MemoryRegionKind::Bootloader,
        })
        .map_err(|_| Error::MemoryMap("too many entries"))
}

/// Collects who claims which memory before any is taken; also the regions that
/// follow from it.
fn claim_memory(machine: &Machine<'_>) -> Result<(Claims, Regions), Error> {
    let mut claims = firmware_claims(machine.memory_map)?;
    let ramdisk = &machine.ramdisk;
    check_ramdisk(machine.memory_map, ramdisk)?;
    if ramdisk.start < machine.stub.end && machine.stub.start < ramdisk.end {
        return Err(Error::Ramdisk("overlaps the boot stub"));
    }
    let pages = ramdisk.start & !(PAGE - 1)..ramdisk.end.next_multiple_of(PAGE);
    add_claim(&mut claims, pages)?;
    add_claim(&mut claims, machine.stub.clone())?;
    let regions = merge(&claims)?;
    Ok((claims, regions))
}

/// Checks the mappings with fixed addresses and keeps the dynamic ones off them.
fn reserve_fixed(kernel: &KernelImage<'_>, physical_end: u64) -> Result<Slots, Error> {
    let config = &kernel.config;
    let Mappings {
        kernel_stack,
        kernel_base,
        boot_info,
        physical_memory,
        page_table_recursive,
        aslr,
        ramdisk_memory,
        ..
    } = config.mappings;
    if aslr {
        return Err(Error::Config("randomised addresses are not supported"));
    }
    if kernel_base != Mapping::Dynamic {
        let problem = "kernel_base is set, but the kernel is linked at a fixed address";
        return Err(Error::Config(problem));
    }
    let mut slots = Slots::new(&config.mappings);
    // The stub's own identity map, of which a page remains.
    slots.mark(&(0..physical_end));
    for segment in &kernel.segments {
        slots.mark(&segment.pages());
    }
    let fixed = [
        ("physical memory", physical_memory, physical_end, MIB_2),
        ("kernel stack", Some(kernel_stack), PAGE, PAGE),
        ("boot info", Some(boot_info), PAGE, 8),
        ("ramdisk", Some(ramdisk_memory), PAGE, PAGE),
        (
            "recursive page table",
            page_table_recursive,
            PAGE,
            1 << ENTRY_SHIFT,
        ),
    ];
    for (what, mapping, size, align) in fixed {
        if let Some(Mapping::FixedAddress(address)) = mapping {
            check_range(what, address, size, align)?;
            slots.mark(&(address..address + (size - 1)));
        }
    }
    Ok(slots)
}

fn load_segments(space: &mut AddressSpace, kernel: &KernelImage<'_>) -> Result<(), Error> {
    for segment in &kernel.segments {
        let mut data = segment.data;
        for address in segment.pages().step_by(PAGE as usize) {
            let mut flags = PageTableFlags::PRESENT;
            if !segment.executable {
                flags |= PageTableFlags::NO_EXECUTE;
            }
            if segment.writable && !kernel.is_relro(address) {
                flags |= PageTableFlags::WRITABLE;
            }
            space.map_new("kernel", address, data, flags)?;
            data = data.get(PAGE as usize..).unwrap_or_default();
        }
    }
    Ok(())
}

/// The lowest page of the range is the guard page and stays unmapped.
fn map_stack(
    space: &mut AddressSpace,
    slots: &mut Slots,
    config: &BootloaderConfig,
    handover: &mut Handover,
) -> Result<(), Error> {
    let what = "kernel stack";
    let size = config.kernel_stack_size;
    if size == 0 || size > REACH {
        return Err(Error::Config("kernel_stack_size is 0 or beyond 4 GiB"));
    }
    let pages = size.next_multiple_of(PAGE);
    let guard = slots.place(what, config.mappings.kernel_stack, PAGE + pages, PAGE)?;
    handover.stack_bottom = guard + PAGE;
    handover.stack_top = (handover.stack_bottom + size) & !15;
    for offset in (0..pages).step_by(PAGE as usize) {
        space.map_uninit(what, handover.stack_bottom + offset, DATA)?;
    }
    Ok(())
}

fn map_ramdisk(
    space: &mut AddressSpace,
    slots: &mut Slots,
    config: &BootloaderConfig,
    machine: &Machine<'_>,
    handover: &mut Handover,
) -> Result<(), Error> {
    let what = "ramdisk";
    let first = machine.ramdisk.start & !(PAGE - 1);
    let size = machine.ramdisk.end.next_multiple_of(PAGE) - first;
    let address = slots.place(what, config.mappings.ramdisk_memory, size, PAGE)?;
    space.map_range(what, address..address + size, first, DATA)?;
    handover.ramdisk_address = address + (machine.ramdisk.start - first);
    Ok(())
}

fn map_recursive(
    space: &mut AddressSpace,
    slots: &mut Slots,
    config: &BootloaderConfig,
    handover: &mut Handover,
) -> Result<(), Error> {
    let Some(mapping) = config.mappings.page_table_recursive else {
        return Ok(());
    };
    let what = "recursive page table";
    // Size of a page for all that it is 512 GiB: it may be the last entry.
    let address = slots.place(what, mapping, PAGE, 1 << ENTRY_SHIFT)?;
    let index = (address >> ENTRY_SHIFT) as u16 % 512;
    let frame = PhysFrame::containing_address(PhysAddr::new(space.level_4()));
    let entry = space.level_4_entry(usize::from(index));
    if !entry.is_unused() {
        return Err(Error::Mapping {
            what,
            address,
            problem: "overlaps another mapping",
        });
    }
    entry.set_frame(frame, DATA);
    handover.recursive_index = Some(index);
    Ok(())
}

/// Makes room for the `BootInfo` and `room` memory regions.
fn map_boot_info(
    space: &mut AddressSpace,
    slots: &mut Slots,
    config: &BootloaderConfig,
    room: usize,
    handover: &mut Handover,
) -> Result<(), Error> {
    let what = "boot info";
    let layout = Layout::array::<MemoryRegion>(room)
        .and_then(|regions| Layout::new::<BootInfo>().extend(regions));
    let (layout, offset) = layout.map_err(|_| Error::MemoryMap("too many entries"))?;
    let size = layout.size() as u64;
    let align = layout.align() as u64;
    let address = slots.place(what, config.mappings.boot_info, size, align)?;
    let index = (address >> ENTRY_SHIFT) as usize % 512;
    let last = (address + (size - 1)) >> ENTRY_SHIFT;
    if index == 0 || last as usize % 512 != index {
        return Err(Error::Mapping {
            what,
            address,
            problem: "in the lowest 512 GiB, or across a multiple of 512 GiB",
        });
    }
    let first = address & !(PAGE - 1);
    for page in (first..address + size).step_by(PAGE as usize) {
        space.map_uninit(what, page, DATA)?;
    }
    let entry = space.level_4_entry(index);
    handover.boot_info_entry = entry.addr().as_u64() | entry.flags().bits();
    handover.boot_info_index = index;
    handover.boot_info = address;
    handover.regions_address = address + offset as u64;
    Ok(())
}
