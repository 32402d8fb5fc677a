//! Physical memory during boot: the firmware's map, who has what, and pages for the
//! structures that the kernel needs before its page allocator runs.

pub mod frame_map;
mod summary;

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
use platform::{CpuId, NodeId};
pub use summary::print_summary;

use crate::{
    boot,
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
    let request = match purpose {
        Purpose::PageTables => Request::pages(pages).below(BELOW_4G),
        _ => Request::pages(pages),
    };
    take(
        request,
        purpose,
        near.map(|cpu| boot::topology().node_of(cpu)),
    )
}

/// Takes memory from the accounts, on `near` if it has some.
fn take(request: Request, purpose: Purpose, near: Option<NodeId>) -> Option<u64> {
    let mut frames = FRAMES.lock();
    let frames = frames.as_mut()?;
    let on_node = near.and_then(|node| {
        boot::acpi()
            .memory
            .iter()
            .rev()
            .filter(|range| range.node == node)
            .filter_map(|range| Region::new(range.start, range.end))
            .find_map(|range| frames.alloc(request.within(range), purpose).ok())
    });
    on_node.or_else(|| frames.alloc(request, purpose).ok())
}

/// The node of the memory at `address`, and the address up to which that answer holds.
/// Memory that the firmware's tables give to no node is node 0's.
pub fn node_at(address: u64) -> (NodeId, u64) {
    let (node, until) = boot::acpi().node_at(address);
    if node.index() < boot::topology().node_count() {
        (node, until)
    } else {
        (NodeId::FIRST, until)
    }
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

/// Calls `f` with the accounts: for tests and `mem`.
pub fn with_frames<R>(f: impl FnOnce(&BootFrames<RANGES>) -> R) -> R {
    f(FRAMES.lock().as_ref().expect("memory::init has run"))
}

/// Bytes that are memory and not reserved.
pub fn usable_bytes() -> u64 {
    with_frames(|frames| frames.total() - frames.bytes(State::Reserved))
}
