//! The kernel's one entry point, whichever road the loader came by.
//!
//! The state that `bootloader_api` promises on entry: long mode, interrupts off, the
//! loader's page tables with the kernel image, a stack with a guard page, and physical
//! memory mapped where [`CONFIG`] asks. It leaves with the kernel's own page tables and the
//! boot CPU's own stack, in `granary_main`.

use core::{cell::UnsafeCell, fmt::Write, mem::MaybeUninit};

use bootloader_api::{
    BootInfo, BootloaderConfig,
    config::Mapping as LoaderMapping,
    entry_point,
    info::{MemoryRegion, MemoryRegionKind},
};
use x86_64::{
    registers::control::{Cr0, Cr0Flags, Cr3, Cr4, Cr4Flags, Efer, EferFlags},
    structures::paging::PageTableFlags as Flags,
};

use crate::{
    exit,
    frames::Frames,
    handover::{Handover, Refusal, Taken},
    layout::{
        LOADER, LOADER_END, PAGE_SIZE, PHYS_MAP, STACK_SLOT, STACKS, page_down, page_up,
        phys_to_virt,
    },
    serial::{self, RawSerial},
    tables::AddressSpace,
};

/// What the kernel asks of a loader.
pub const CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = Some(LoaderMapping::FixedAddress(PHYS_MAP));
    config.mappings.dynamic_range_start = Some(LOADER);
    config.mappings.dynamic_range_end = Some(LOADER_END);
    config.mappings.aslr = false;
    config.kernel_stack_size = 64 * 1024;
    config
};

entry_point!(start, config = &CONFIG);

/// Pages of a CPU's own stack.
pub const STACK_PAGES: u64 = 16;
/// Virtual address of the boot CPU's stack (slot 0), one past its last byte.
pub const BOOT_STACK_TOP: u64 = STACKS + STACK_SLOT;

unsafe extern "C" {
    /// Loads CR3 with `root`, switches to the stack that ends at `stack_top` and calls
    /// `granary_main(handover)`. Given by the architecture code.
    ///
    /// # Safety
    ///
    /// `root` must map the kernel image and the stack; nothing on the old stack may be
    /// needed again.
    #[expect(
        improper_ctypes,
        reason = "a Rust pointer that only Rust code looks into"
    )]
    pub fn granary_switch(root: u64, stack_top: u64, handover: &'static Handover) -> !;

    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __data_end: u8;
}

struct Once(UnsafeCell<MaybeUninit<Handover>>);
// SAFETY: written once by the boot CPU in `start`, before any other CPU runs; read after.
unsafe impl Sync for Once {}
static HANDOVER: Once = Once(UnsafeCell::new(MaybeUninit::uninit()));

/// A range of the kernel image, virtual: `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Permissions that the kernel gives it.
    pub flags: Flags,
}

/// The three parts of the kernel image with their permissions: text may be executed,
/// rodata only read, data (with the per-CPU template and bss) written. No part is both
/// writable and executable.
pub fn image_sections() -> [Section; 3] {
    let section = |start: *const u8, end: *const u8, flags| Section {
        start: start as u64,
        end: page_up(end as u64),
        flags: flags | Flags::GLOBAL,
    };
    [
        section(
            &raw const __text_start,
            &raw const __text_end,
            Flags::empty(),
        ),
        section(
            &raw const __rodata_start,
            &raw const __rodata_end,
            Flags::NO_EXECUTE,
        ),
        section(
            &raw const __data_start,
            &raw const __data_end,
            Flags::NO_EXECUTE | Flags::WRITABLE,
        ),
    ]
}

fn start(info: &'static mut BootInfo) -> ! {
    serial::init();
    match prepare(info) {
        Ok(handover) => {
            // SAFETY: `prepare` mapped image and stack in `root_table`; the loader's stack
            // holds nothing that is used after this.
            unsafe { granary_switch(handover.root_table, BOOT_STACK_TOP, handover) }
        }
        Err(refusal) => refuse(refusal),
    }
}

/// Says why the kernel does not start, and stops.
fn refuse(refusal: Refusal) -> ! {
    let mut out = RawSerial::new();
    let _ = writeln!(out, "granary: cannot start: {}", refusal.text());
    // No command line has said yet where the device is; its usual port is unused elsewhere.
    exit::set_port(exit::USUAL_PORT);
    exit::debug_exit(exit::PANIC);
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

fn prepare(info: &BootInfo) -> Result<&'static Handover, Refusal> {
    enable_processor_features()?;
    let mut handover = Handover::check(info)?;
    // SAFETY: CR3 holds the loader's table, which nobody else changes, and `check` saw
    // that the physical map is where AddressSpace expects it.
    let loader = unsafe { AddressSpace::new(Cr3::read().0.start_address().as_u64()) };
    handover.ramdisk = ramdisk(info, &loader)?;
    let mut frames = Frames::choose(handover.regions()).ok_or(Refusal::NoMemory)?;

    let stack = frames.take(STACK_PAGES).ok_or(Refusal::NoMemory)?;
    handover.stack = Taken {
        start: stack,
        end: stack + STACK_PAGES * PAGE_SIZE,
    };
    let root = frames.take_zeroed().ok_or(Refusal::NoMemory)?;
    // SAFETY: a zeroed frame of our own is a valid empty table.
    let mut own = unsafe { AddressSpace::new(root) };
    build(&mut own, &loader, &handover, stack, &mut frames).map_err(|_| Refusal::Tables)?;
    handover.root_table = root;
    handover.tables = Taken {
        start: frames.taken().0,
        end: stack,
    };
    // SAFETY: only the boot CPU runs, and `start` comes here once.
    Ok(unsafe { (*HANDOVER.0.get()).write(handover) })
}

/// Turns on what the page tables rely on; loaders differ in what they leave on.
fn enable_processor_features() -> Result<(), Refusal> {
    let has_nx = raw_cpuid::CpuId::new()
        .get_extended_processor_and_feature_identifiers()
        .is_some_and(|features| features.has_execute_disable());
    if !has_nx {
        return Err(Refusal::Processor);
    }
    // SAFETY: NX was just found; write protection and global pages only make the
    // permissions in our own tables count. The loader's tables stay valid under them.
    unsafe {
        Efer::update(|efer| efer.insert(EferFlags::NO_EXECUTE_ENABLE));
        Cr0::update(|cr0| cr0.insert(Cr0Flags::WRITE_PROTECT));
        Cr4::update(|cr4| cr4.insert(Cr4Flags::PAGE_GLOBAL));
    }
    Ok(())
}

fn ramdisk(info: &BootInfo, loader: &AddressSpace) -> Result<Option<(u64, u64)>, Refusal> {
    let Some(virt) = info.ramdisk_addr.into_option() else {
        return Ok(None);
    };
    if info.ramdisk_len == 0 {
        return Ok(None);
    }
    let phys = loader.lookup(virt).ok_or(Refusal::Ramdisk)?.phys;
    // The kernel reads it through the physical map, so it must lie in one piece there.
    let mut offset = 0;
    while offset < info.ramdisk_len {
        let page = loader.lookup(virt + offset).ok_or(Refusal::Ramdisk)?;
        if page.phys != phys + offset {
            return Err(Refusal::Ramdisk);
        }
        offset += PAGE_SIZE - (virt + offset) % PAGE_SIZE;
    }
    Ok(Some((phys, info.ramdisk_len)))
}

fn build(
    own: &mut AddressSpace,
    loader: &AddressSpace,
    handover: &Handover,
    stack: u64,
    frames: &mut Frames,
) -> Result<(), crate::tables::MapError> {
    let mut source = || frames.take_zeroed();
    let memory = Flags::WRITABLE | Flags::NO_EXECUTE | Flags::GLOBAL;

    for run in memory_runs(handover.regions()) {
        let (start, end) = run;
        own.map(phys_to_virt(start), start, end - start, memory, &mut source)?;
    }
    for section in image_sections() {
        let mut page = page_down(section.start);
        while page < section.end {
            let loaded = loader
                .lookup(page)
                .ok_or(crate::tables::MapError::Missing(page))?;
            own.map(page, loaded.phys, PAGE_SIZE, section.flags, &mut source)?;
            // The same frame must not be writable through the physical map either.
            if !section.flags.contains(Flags::WRITABLE) {
                let alias = phys_to_virt(loaded.phys);
                own.protect(
                    alias,
                    PAGE_SIZE,
                    Flags::NO_EXECUTE | Flags::GLOBAL,
                    &mut source,
                )?;
            }
            page += PAGE_SIZE;
        }
    }
    let stack_len = STACK_PAGES * PAGE_SIZE;
    own.map(
        BOOT_STACK_TOP - stack_len,
        stack,
        stack_len,
        memory,
        &mut source,
    )
}

/// The parts of physical memory that the physical map shows: every region of the memory
/// map (firmware tables among them), adjacent ones joined, rounded out to pages.
fn memory_runs(regions: &[MemoryRegion]) -> impl Iterator<Item = (u64, u64)> + '_ {
    let mut rest = regions.iter().filter(|region| shown(region)).peekable();
    let mut floor = 0;
    core::iter::from_fn(move || {
        loop {
            let first = rest.next()?;
            let start = page_down(first.start).max(floor);
            let mut end = page_up(first.end);
            while let Some(next) = rest.peek() {
                if page_down(next.start) > end {
                    break;
                }
                end = end.max(page_up(next.end));
                rest.next();
            }
            floor = end;
            if start < end {
                return Some((start, end));
            }
        }
    })
}

/// Firmware reports device windows as regions too, some of them at the very top of the
/// address space; those are not memory. RAM beyond the map's range cannot be shown.
fn shown(region: &MemoryRegion) -> bool {
    const LARGE_WINDOW: u64 = 256 << 20;
    let is_memory = matches!(
        region.kind,
        MemoryRegionKind::Usable | MemoryRegionKind::Bootloader
    );
    region.end <= crate::layout::PHYS_MAP_END - PHYS_MAP
        && region.start < region.end
        && (is_memory || region.end - region.start <= LARGE_WINDOW)
}
