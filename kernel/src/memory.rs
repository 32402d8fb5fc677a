//! Physical memory during boot: the firmware's map, who has what, and pages for the
//! structures that the kernel needs before its page allocator runs.

use core::fmt::{self, Write};

use bootloader_api::info::MemoryRegionKind;
use kernel_early::{
    entry,
    handover::{Handover, Taken},
    layout::{PAGE_SIZE, page_down, page_up},
    tables::AddressSpace,
};
pub use mm::boot::Purpose;
use mm::{
    boot::{BootFrames, FirmwareKind, FirmwareMap, Request, State},
    region::Region,
};
use platform::CpuId;

use crate::{
    boot, heap, percpu_area,
    sync::{Frames, IrqLock},
};

/// Different ranges that can be told apart; the loader hands over 256 at most.
const RANGES: usize = 384;
/// Where 32-bit start-up code can point to.
const BELOW_4G: u64 = 1 << 32;

static FRAMES: IrqLock<Option<BootFrames<RANGES>>, Frames> = IrqLock::new(None);

/// Takes the firmware's map over, and what early code and the loader's gifts occupy of it.
pub fn init(handover: &Handover) {
    let mut map = FirmwareMap::<RANGES>::new();
    for region in handover.regions() {
        let Some(range) = Region::new(region.start, region.end) else {
            continue;
        };
        // What the loader used for itself is free now, but for what is claimed below.
        let usable = matches!(
            region.kind,
            MemoryRegionKind::Usable | MemoryRegionKind::Bootloader
        );
        let kind = if usable {
            FirmwareKind::Usable
        } else {
            FirmwareKind::Reserved
        };
        if map.add(range, kind).is_err() {
            // Memory that is not in the map is not used; one that is reserved must be.
            assert!(usable, "the memory map has too many pieces");
            log::warn!("memory: {range:?} is left out: the map is full");
        }
    }
    let mut frames = BootFrames::new(map).expect("the memory map has too many pieces");
    let mut claim = |start: u64, end: u64, purpose| {
        let range = Region::new(page_down(start), page_up(end)).expect("a range of memory");
        if let Err(error) = frames.claim(range, purpose) {
            panic!("memory: {purpose} at {range:?}: {error:?}");
        }
    };
    let Taken { start, end } = handover.tables;
    claim(start, end, Purpose::PageTables);
    let Taken { start, end } = handover.stack;
    claim(start, end, Purpose::Stacks);
    if let Some((start, len)) = handover.ramdisk {
        claim(start, start + len, Purpose::Ramdisk);
    }
    for_each_image_run(handover, |start, end| claim(start, end, Purpose::Kernel));
    if handover.regions_dropped > 0 {
        log::warn!(
            "memory: {} regions of the firmware's map are ignored",
            handover.regions_dropped
        );
    }
    let mib = |state| frames.bytes(state) >> 20;
    log::info!(
        "memory: {} MiB free, {} MiB reserved, {} ranges",
        mib(State::Free),
        mib(State::Reserved),
        frames.regions().len()
    );
    *FRAMES.lock() = Some(frames);
}

/// Calls `each` with the physically adjacent pieces of the kernel image.
fn for_each_image_run(handover: &Handover, mut each: impl FnMut(u64, u64)) {
    // SAFETY: the kernel's own tables, which nobody changes this early.
    let space = unsafe { AddressSpace::new(handover.root_table) };
    let mut run: Option<(u64, u64)> = None;
    for section in entry::image_sections() {
        for page in (section.start..section.end).step_by(PAGE_SIZE as usize) {
            let phys = space.lookup(page).expect("the image is mapped").phys;
            run = match run {
                Some((start, end)) if end == phys => Some((start, phys + PAGE_SIZE)),
                other => {
                    if let Some((start, end)) = other {
                        each(start, end);
                    }
                    Some((phys, phys + PAGE_SIZE))
                }
            };
        }
    }
    if let Some((start, end)) = run {
        each(start, end);
    }
}

/// Takes adjacent pages, on the node of `near` if it has some, and returns their physical
/// address. Not zeroed. `None`: no memory. They are never given back.
///
/// Page tables come from below 4 GiB, where the start-up code of other CPUs can name them.
pub fn take_pages(pages: u64, purpose: Purpose, near: Option<CpuId>) -> Option<u64> {
    let mut frames = FRAMES.lock();
    let frames = frames.as_mut()?;
    if let Some(cpu) = near
        && let Some(range) = near_range(frames, cpu, pages)
        && frames.claim(range, purpose).is_ok()
    {
        return Some(range.start());
    }
    let request = match purpose {
        Purpose::PageTables => Request::pages(pages).below(BELOW_4G),
        _ => Request::pages(pages),
    };
    frames.alloc(request, purpose).ok()
}

/// Takes a page below 1 MiB, where a CPU starts in real mode.
pub fn take_low_page() -> Option<u64> {
    let request = Request::pages(1).below(1 << 20);
    FRAMES
        .lock()
        .as_mut()?
        .alloc(request, Purpose::Trampoline)
        .ok()
}

/// The highest free piece of that size on the CPU's node.
fn near_range(frames: &BootFrames<RANGES>, cpu: CpuId, pages: u64) -> Option<Region> {
    let node = boot::topology().node_of(cpu);
    let size = pages * PAGE_SIZE;
    boot::acpi()
        .memory
        .iter()
        .rev()
        .filter(|range| range.node == node)
        .filter_map(|range| Region::new(range.start, range.end))
        .find_map(|range| {
            frames.free().rev().find_map(|free| {
                let both = free.intersection(range)?.page_align_inwards()?;
                let start = both.end().checked_sub(size)?;
                (start >= both.start()).then(|| Region::new(start, both.end()))?
            })
        })
}

/// Calls `f` with the accounts: for tests and `mem`.
pub fn with_frames<R>(f: impl FnOnce(&BootFrames<RANGES>) -> R) -> R {
    f(FRAMES.lock().as_ref().expect("memory::init has run"))
}

/// Bytes that are memory and not reserved.
pub fn usable_bytes() -> u64 {
    with_frames(|frames| frames.total() - frames.bytes(State::Reserved))
}

/// What `mem` shows.
pub fn print_summary(out: &mut dyn Write) {
    // The accounts are copied out, so that the console is not written with them locked.
    let (ranges, free, reserved, used, total) = with_frames(|frames| {
        let used: [u64; Purpose::ALL.len()] =
            core::array::from_fn(|i| frames.bytes(State::Used(Purpose::ALL[i])));
        let ranges: alloc::vec::Vec<_> = frames.regions().to_vec();
        (
            ranges,
            frames.bytes(State::Free),
            frames.bytes(State::Reserved),
            used,
            frames.total(),
        )
    });
    let _ = show(out, &ranges, free, reserved, &used, total);
}

fn show(
    out: &mut dyn Write,
    ranges: &[(Region, State)],
    free: u64,
    reserved: u64,
    used: &[u64],
    total: u64,
) -> fmt::Result {
    writeln!(out, "{:<35} {:>14}  what", "physical range", "KiB")?;
    for (range, state) in ranges {
        write!(
            out,
            "{:#016x}-{:#016x}  {:>14}  ",
            range.start(),
            range.end() - 1,
            range.size() >> 10
        )?;
        match state {
            State::Free => writeln!(out, "free")?,
            State::Reserved => writeln!(out, "reserved")?,
            State::Used(purpose) => writeln!(out, "{purpose}")?,
        }
    }
    writeln!(out)?;
    let mut line = |name: &str, bytes: u64| writeln!(out, "{name:<16} {:>12} KiB", bytes >> 10);
    for (purpose, bytes) in Purpose::ALL.iter().zip(used) {
        line(alloc::format!("{purpose}").as_str(), *bytes)?;
    }
    line("free", free)?;
    line("reserved", reserved)?;
    let sum = free + reserved + used.iter().sum::<u64>();
    line("total", total)?;
    if sum != total {
        writeln!(out, "THE PARTS MAKE {} KiB", sum >> 10)?;
    }
    writeln!(
        out,
        "per-CPU, dynamic {:>12} bytes of {} used on each CPU",
        percpu_area::used(),
        percpu_area::SIZE
    )?;
    let (heap_used, heap_free) = heap::usage();
    writeln!(
        out,
        "boot heap        {:>12} KiB used, {} KiB free",
        heap_used >> 10,
        heap_free >> 10
    )
}
