//! Physical memory: the firmware's map, and who has what of it.
//!
//! Until [`hand_over`] the accounts of boot hand pages out; then all that they have left is
//! the page allocator's ([`mm()`]). The accounts stay: what they call *free* is the
//! allocator's, which says more about it.

mod allocator;
pub mod debug;
pub mod frame_map;
pub mod heap_walk;
pub mod slab;
mod summary;
pub mod vmalloc;

pub use allocator::{hand_over, mm, try_mm};
use bootloader_api::info::MemoryRegionKind;
use kernel_early::{
    entry,
    handover::{Handover, Taken},
    layout::{PAGE_SIZE, page_down, page_up},
    tables::AddressSpace,
};
pub use mm::boot::Purpose;
use mm::{Gfp, Pfn, Use};
use mm::{
    boot::{BootFrames, FirmwareKind, FirmwareMap, Request, State},
    region::Region,
};
use platform::{CpuId, NodeId, Platform};
use spin::Once;
pub use summary::{Shares, print_summary};

use crate::{
    boot,
    machine::Kernel,
    sync::{Frames, IrqLock},
};

/// Different ranges that can be told apart; the loader hands over 256 at most.
const RANGES: usize = 384;
/// Where 32-bit start-up code can point to.
const BELOW_4G: u64 = 1 << 32;

static LOW_PAGE: Once<Option<u64>> = Once::new();
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
    let low = Request::pages(1).below(1 << 20);
    LOW_PAGE.call_once(|| frames.alloc(low, Purpose::Trampoline).ok());
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

/// Takes adjacent pages, near `near` as far as possible, and returns their physical address.
/// Not zeroed. `None`: no memory. May sleep where that is allowed; any context but NMI.
///
/// From the page allocator they come in powers of two: what is above the number is not used.
pub fn take_pages(pages: u64, purpose: Purpose, near: Option<CpuId>) -> Option<u64> {
    let node = near.map(|cpu| boot::topology().node_of(cpu));
    match try_mm() {
        None => take(Request::pages(pages), purpose, node),
        Some(mm) => {
            let (order, usage) = (order_of(pages), use_of(purpose));
            let pfn = match node {
                None => mm.alloc_pages(gfp_here(), order, usage),
                Some(node) => mm.alloc_pages_node(node, gfp_here(), order, usage),
            };
            pfn.map(Pfn::phys)
        }
    }
}

/// [`take_pages`], one page, where 32-bit code can name it.
pub fn take_page_below_4g(purpose: Purpose) -> Option<u64> {
    match try_mm() {
        None => take(Request::pages(1).below(BELOW_4G), purpose, None),
        Some(mm) => {
            let pfn = mm.alloc_pages(gfp_here() | Gfp::DMA32, 0, use_of(purpose));
            pfn.map(Pfn::phys)
        }
    }
}

/// Gives pages back. Any context but NMI.
///
/// # Safety
///
/// They came from [`take_pages`] with this number and purpose after the hand-over, are the
/// caller's, and nobody uses them any more.
pub unsafe fn give_pages(phys: u64, pages: u64, purpose: Purpose) {
    let pfn = Pfn::of_phys(phys).expect("pages that were taken have numbers");
    // SAFETY: as the caller promises.
    unsafe { mm().free_pages(pfn, order_of(pages), use_of(purpose)) };
}

/// What an allocation may do here.
fn gfp_here() -> Gfp {
    if Kernel::may_sleep() {
        Gfp::KERNEL
    } else {
        Gfp::ATOMIC
    }
}

fn order_of(pages: u64) -> usize {
    pages.next_power_of_two().ilog2() as usize
}

/// What memory for a purpose counts as in the page allocator.
fn use_of(purpose: Purpose) -> Use {
    match purpose {
        Purpose::PageTables => Use::PageTable,
        Purpose::PerCpu => Use::PerCpu,
        Purpose::Stacks => Use::Stack,
        Purpose::FrameMap => Use::Meta,
        Purpose::BootHeap
        | Purpose::Ramdisk
        | Purpose::Kernel
        | Purpose::Trampoline
        | Purpose::Other => Use::Pages,
    }
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

/// The page below 1 MiB where CPUs start in real mode. `None`: there is no memory there. It
/// was taken before the hand-over, and is kept, since CPUs may start again.
pub fn low_page() -> Option<u64> {
    LOW_PAGE.get().copied().flatten()
}

/// Calls `f` with the accounts: for tests and `mem`.
pub fn with_frames<R>(f: impl FnOnce(&BootFrames<RANGES>) -> R) -> R {
    f(FRAMES.lock().as_ref().expect("memory::init has run"))
}

/// Bytes that are memory and not reserved.
pub fn usable_bytes() -> u64 {
    with_frames(|frames| frames.total() - frames.bytes(State::Reserved))
}
