//! Granary's boot stub: what QEMU's `-kernel` starts, by way of the PVH entry.
//!
//! It finds the kernel in the initial ramdisk and hands over to it exactly as the
//! `bootloader` crate does on UEFI machines, so that the kernel has one entry and
//! does not know which road it came by. The work is in `boot-handover`; here is what
//! touches the machine.
#![no_std]
#![no_main]

mod entry;
mod serial;

use arrayvec::ArrayVec;
use boot_handover::{
    Error, Handover, KernelImage, MAX_FIRMWARE_REGIONS, Machine, Module, REACH, RawRegion,
    StartInfo, check_ramdisk, find_kernel, prepare,
};
use bootloader_api::{BootInfo, info::MemoryRegion};
use core::{
    arch::x86_64::__cpuid,
    fmt::{self, Write},
    ops::Range,
    panic::PanicInfo,
    slice,
};
use serial::Serial;
use x86_64::{
    instructions::{hlt, interrupts, port::Port},
    registers::model_specific::{Efer, EferFlags},
    structures::paging::PageTable,
};

/// QEMU's isa-debug-exit device, if there is one, ends the guest with this value.
const DEBUG_EXIT_PORT: u16 = 0xf4;
const DEBUG_EXIT_PANIC: u32 = 0x12;

/// Bits of EDX of CPUID leaf 0x8000_0001.
const FEATURE_NX: u32 = 1 << 20;
const FEATURE_GIB_PAGES: u32 = 1 << 26;

unsafe extern "C" {
    static stub_start: u8;
    static stub_end: u8;
    static switch_page: u8;
    static mut early_level_4: PageTable;
}

/// Called once, on the boot processor, with the address of `hvm_start_info`.
extern "sysv64" fn boot_main(start_info: u64) -> ! {
    let Err(error) = boot(start_info);
    fail(format_args!("{error}"))
}

fn boot(start_info: u64) -> Result<core::convert::Infallible, Error> {
    // The entry code made sure that this leaf exists.
    let features = __cpuid(0x8000_0001).edx;
    if features & FEATURE_NX == 0 {
        fail(format_args!(
            "this processor cannot forbid execution of pages"
        ));
    }
    // SAFETY: the bit exists, and no page is marked with it yet.
    unsafe { Efer::update(|efer| *efer |= EferFlags::NO_EXECUTE_ENABLE) };

    // All that the start info points to is copied before any memory is taken.
    let info = StartInfo::parse(&read(start_info)?)?;
    if info.memory_map_count as usize > MAX_FIRMWARE_REGIONS {
        return Err(Error::MemoryMap("too many entries"));
    }
    let mut memory_map = ArrayVec::<RawRegion, MAX_FIRMWARE_REGIONS>::new();
    for i in 0..u64::from(info.memory_map_count) {
        let entry = read(info.memory_map.saturating_add(i * RawRegion::SIZE as u64))?;
        memory_map.push(RawRegion::parse(&entry));
    }
    if info.module_count == 0 {
        return Err(Error::Ramdisk("none was given (QEMU: -initrd)"));
    }
    let module = Module::parse(&read(info.modules)?);
    let ramdisk = module.address..module.address.saturating_add(module.size);

    let kernel_file = find_kernel(ramdisk_bytes(&ramdisk, &memory_map)?)?;
    let kernel = KernelImage::parse(kernel_file)?;
    let machine = Machine {
        memory_map: &memory_map,
        stub: (&raw const stub_start).addr() as u64..(&raw const stub_end).addr() as u64,
        switch_page: (&raw const switch_page).addr() as u64,
        ramdisk,
        gib_pages: features & FEATURE_GIB_PAGES != 0,
        physical_offset: 0,
    };
    // SAFETY: the first 4 GiB are mapped at their own addresses; apart from the stub
    // and the ramdisk nothing in usable memory is needed any more.
    let handover = unsafe { prepare(&machine, &kernel)? };
    let boot_info = write_boot_info(&handover, &machine, &kernel, info.rsdp);
    // SAFETY: `prepare` mapped the switch page, the kernel, its stack and the boot info.
    unsafe {
        entry::enter_kernel(
            boot_info,
            handover.level_4,
            handover.stack_top,
            handover.entry,
        )
    }
}

/// Copies `N` bytes from a physical address that the start info names.
fn read<const N: usize>(address: u64) -> Result<[u8; N], Error> {
    let end = address.checked_add(N as u64);
    if address == 0 || end.is_none_or(|end| end > REACH) {
        return Err(Error::StartInfo("points beyond 4 GiB, or nowhere"));
    }
    // SAFETY: the range is mapped, nothing writes to it, and any bytes will do.
    Ok(unsafe { (address as *const [u8; N]).read_unaligned() })
}

fn ramdisk_bytes(ramdisk: &Range<u64>, memory_map: &[RawRegion]) -> Result<&'static [u8], Error> {
    check_ramdisk(memory_map, ramdisk)?;
    let length = (ramdisk.end - ramdisk.start) as usize;
    // SAFETY: the range was checked to be memory within the identity map, and
    // `prepare`, the only one to write to memory, leaves it alone.
    Ok(unsafe { slice::from_raw_parts(ramdisk.start as *const u8, length) })
}

/// Writes the `BootInfo` at its final address, and returns that.
fn write_boot_info(
    handover: &Handover,
    machine: &Machine<'_>,
    kernel: &KernelImage<'_>,
    rsdp: u64,
) -> u64 {
    let level_4 = &raw mut early_level_4;
    // SAFETY: this is the active level 4 table, of which nobody holds a reference. The
    // entry, which was not present, makes the pages for the boot info visible where
    // the kernel will see them.
    unsafe {
        let entry = level_4.cast::<u64>().add(handover.boot_info_index);
        entry.write_volatile(handover.boot_info_entry);
    }
    let regions = handover.regions_address as *mut MemoryRegion;
    // SAFETY: `prepare` made room for that many regions there, and for nothing else.
    let regions: &'static mut [MemoryRegion] = unsafe {
        regions.copy_from_nonoverlapping(handover.regions.as_ptr(), handover.regions.len());
        slice::from_raw_parts_mut(regions, handover.regions.len())
    };
    let mut info = BootInfo::new(regions.into());
    info.physical_memory_offset = handover.physical_memory.into();
    info.recursive_index = handover.recursive_index.into();
    info.rsdp_addr = Some(rsdp).filter(|&address| address != 0).into();
    info.tls_template = handover.tls.into();
    info.ramdisk_addr = Some(handover.ramdisk_address).into();
    info.ramdisk_len = machine.ramdisk.end - machine.ramdisk.start;
    info.kernel_addr = kernel.file.as_ptr().addr() as u64;
    info.kernel_len = kernel.file.len() as u64;
    // The kernel runs where it was linked.
    info.kernel_image_offset = 0;
    info.kernel_stack_bottom = handover.stack_bottom;
    info.kernel_stack_len = handover.stack_size;
    // SAFETY: `prepare` made room for it there, suitably aligned.
    unsafe { (handover.boot_info as *mut BootInfo).write(info) };
    handover.boot_info
}

/// Says why there is no kernel, and ends the guest.
fn fail(message: fmt::Arguments<'_>) -> ! {
    // The serial port accepts everything.
    let _ = writeln!(Serial::new(), "granary-boot: {message}");
    // SAFETY: without the device nothing listens at this port.
    unsafe { Port::new(DEBUG_EXIT_PORT).write(DEBUG_EXIT_PANIC) };
    loop {
        interrupts::disable();
        hlt();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    fail(format_args!("{info}"))
}
