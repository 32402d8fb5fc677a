//! The page allocator, and how memory gets to it.
//!
//! | state | who moves it | who may use [`mm()`] |
//! |---|---|---|
//! | none | nobody yet | nobody; the accounts of boot hand memory out |
//! | there | [`hand_over`], by the boot CPU alone with interrupts off, once | everybody, for ever |
//!
//! `READY` is written with Release after the allocator, and other CPUs are started after
//! that: whoever runs after the hand-over sees it whole.

use core::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    sync::atomic::{AtomicBool, Ordering},
};

use kernel_early::layout::PAGE_SIZE;
use mm::boot::{State, handover};
use mm::frame::FrameMap;
use mm::{BlockKind, Config, Mm, Pfn};

use super::{debug, frame_map, node_at, with_frames};
use crate::boot;
use crate::machine::{Kernel, memory::AddressLayout};

struct Cell(UnsafeCell<MaybeUninit<Mm<Kernel>>>);

// SAFETY: written once, before `READY` and before other CPUs run; only read after.
unsafe impl Sync for Cell {}

static MM: Cell = Cell(UnsafeCell::new(MaybeUninit::uninit()));
static READY: AtomicBool = AtomicBool::new(false);

/// The page allocator. Only after [`hand_over`], which checked builds look after: boot takes
/// memory with [`take_pages`](super::take_pages) until then, or asks [`try_mm`].
#[inline(always)]
pub fn mm() -> &'static Mm<Kernel> {
    // Relaxed: a check, which orders nothing; see the module.
    debug_assert!(
        READY.load(Ordering::Relaxed),
        "pages are asked for before there is an allocator"
    );
    // SAFETY: written by `hand_over`, which came before (see the module).
    unsafe { (*MM.0.get()).assume_init_ref() }
}

/// The page allocator, once there is one.
pub fn try_mm() -> Option<&'static Mm<Kernel>> {
    // Acquire pairs with the Release in `hand_over`.
    if READY.load(Ordering::Acquire) {
        Some(mm())
    } else {
        None
    }
}

/// Makes the page allocator and gives it all memory that is left. Boot CPU, once, when it
/// has its own per-CPU data, and before anything runs beside it.
pub fn hand_over() {
    assert!(
        !READY.load(Ordering::Relaxed),
        "memory is handed over once only"
    );
    let debug = debug::from_command_line();
    // A copy: the allocator takes locks that come before that of the accounts.
    let regions = with_frames(|frames| frames.regions().to_vec());
    let end = frame_map::end();
    let blocks = handover::blocks(&regions, end, node_at);
    let given: u64 = blocks
        .clone()
        .filter(|block| block.kind == BlockKind::Free)
        .map(|block| u64::from(block.end.0 - block.start.0))
        .sum();
    warn_of_what_has_no_node(blocks.clone());
    // SAFETY: the frame map has a descriptor for each number below its end, and zeroed ones
    // of their own for all that the accounts know.
    let map = unsafe { FrameMap::new(AddressLayout, end) };
    let config = Config {
        min_free: None,
        debug,
    };
    // SAFETY: blocks are disjoint, by the accounts; what is free in them is nobody's, shown by
    // the physical map, and from here on nobody takes anything from the accounts (checked
    // below).
    let mm = unsafe { Mm::new(map, config, blocks) }.expect("no memory for page lists");
    let unchanged = with_frames(|frames| frames.regions() == regions);
    assert!(unchanged, "memory was taken while it was handed over");
    let beyond = regions
        .iter()
        .filter(|(_, state)| *state == State::Free)
        .filter_map(|(region, _)| region.above(end.phys()))
        .map(|region| region.size())
        .sum::<u64>();
    if beyond > 0 {
        log::warn!(
            "memory: {} MiB have too high addresses to be used",
            beyond >> 20
        );
    }
    // SAFETY: nobody reads it before READY, and only the boot CPU comes here, once.
    unsafe { (*MM.0.get()).write(mm) };
    // Release pairs with the Acquire in `try_mm`.
    READY.store(true, Ordering::Release);
    log::info!(
        "memory: {} MiB handed over to the page allocator",
        (given * PAGE_SIZE) >> 20
    );
}

/// Memory that the firmware's tables give to no node is node 0's, but that is odd.
fn warn_of_what_has_no_node(blocks: impl Iterator<Item = mm::Block>) {
    let ranges = &boot::acpi().memory;
    if ranges.is_empty() {
        return;
    }
    let has_node = |pfn: Pfn| {
        ranges
            .iter()
            .any(|range| range.start <= pfn.phys() && pfn.phys() < range.end)
    };
    let pages: u64 = blocks
        .filter(|block| block.kind == BlockKind::Free && !has_node(block.start))
        .map(|block| u64::from(block.end.0 - block.start.0))
        .sum();
    if pages > 0 {
        log::warn!(
            "numa: {} KiB of memory are in no range of the SRAT; node 0 has them",
            (pages * PAGE_SIZE) >> 10
        );
    }
}
