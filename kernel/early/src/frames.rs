//! The first frame allocator: takes pages from the top of one region and never gives back.
//! The kernel's boot accounting takes over the rest of the region, and what was used.

use bootloader_api::info::{MemoryRegion, MemoryRegionKind};

use crate::layout::{PAGE_SIZE, page_down, page_up, phys_to_virt};

/// Physical addresses that 32-bit start-up code of other CPUs can name.
const BELOW_4G: u64 = 1 << 32;

/// # Invariants
///
/// `start..next` is usable memory that nobody else has; `next..end` was handed out.
#[derive(Debug)]
pub struct Frames {
    start: u64,
    next: u64,
    end: u64,
}

impl Frames {
    /// Chooses the largest usable region below 4 GiB (and above 1 MiB, which is left for
    /// real-mode start-up code). `None` when there is none.
    pub fn choose(regions: &[MemoryRegion]) -> Option<Self> {
        regions
            .iter()
            .filter(|region| region.kind == MemoryRegionKind::Usable)
            .map(|region| {
                let start = page_up(region.start.max(1 << 20));
                (start, page_down(region.end.min(BELOW_4G)))
            })
            .filter(|(start, end)| start < end)
            .max_by_key(|(start, end)| end - start)
            .map(|(start, end)| Self {
                start,
                next: end,
                end,
            })
    }

    /// Takes `pages` adjacent pages and returns their physical address; not zeroed.
    pub fn take(&mut self, pages: u64) -> Option<u64> {
        let bytes = pages.checked_mul(PAGE_SIZE)?;
        let next = self.next.checked_sub(bytes)?;
        if next < self.start {
            return None;
        }
        self.next = next;
        Some(next)
    }

    /// Takes one page, zeroed. Needs the physical map in the current page tables.
    pub fn take_zeroed(&mut self) -> Option<u64> {
        let frame = self.take(1)?;
        let page = phys_to_virt(frame) as *mut u64;
        // SAFETY: by the type's invariant the page is ours alone; the loader's and our own
        // tables both map physical memory at PHYS_MAP (the hand-over check saw to it).
        unsafe { core::ptr::write_bytes(page, 0, (PAGE_SIZE / 8) as usize) };
        Some(frame)
    }

    /// What was handed out so far: physical `start..end`.
    pub fn taken(&self) -> (u64, u64) {
        (self.next, self.end)
    }
}
