//! Physical frames for everything the stub makes: taken upwards from the first
//! usable memory above 1 MiB, so that what is used stays in one piece. Memory
//! below 1 MiB is left to the kernel, which starts its other processors there.

use crate::{PAGE, REACH};
use arrayvec::ArrayVec;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind};
use core::ops::Range;
use x86_64::{
    PhysAddr,
    structures::paging::{FrameAllocator, PhysFrame, Size4KiB},
};

/// The most memory regions frames are taken from; later ones stay untouched.
const MAX_SOURCES: usize = 16;

const LOW_MEMORY_END: u64 = 1 << 20;

/// Hands out frames, none twice.
pub struct Frames {
    sources: ArrayVec<Range<u64>, MAX_SOURCES>,
    current: usize,
    next: u64,
}

impl Frames {
    /// Frames come from the usable ones among `regions`, which must be disjoint.
    pub fn new(regions: &[MemoryRegion]) -> Self {
        let sources: ArrayVec<_, MAX_SOURCES> = regions
            .iter()
            .filter(|region| region.kind == MemoryRegionKind::Usable)
            .map(|region| region.start.max(LOW_MEMORY_END)..region.end.min(REACH))
            .filter(|range| !range.is_empty())
            .take(MAX_SOURCES)
            .collect();
        let next = sources.first().map_or(0, |range| range.start);
        Self {
            sources,
            current: 0,
            next,
        }
    }

    /// The ranges handed out so far.
    pub fn used(&self) -> impl Iterator<Item = Range<u64>> {
        let whole = self.sources.iter().take(self.current).cloned();
        let part = self.sources.get(self.current);
        whole
            .chain(part.map(|range| range.start..self.next))
            .filter(|range| !range.is_empty())
    }

    /// How many ranges [`Self::used`] can ever return.
    pub fn source_count(&self) -> usize {
        self.sources.len()
    }
}

// SAFETY: `next` only ever grows within a source and the sources are disjoint, so
// no frame is handed out twice; the caller of `prepare` vouches that usable
// memory is unused.
unsafe impl FrameAllocator<Size4KiB> for Frames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        loop {
            let source = self.sources.get(self.current)?;
            if self.next < source.end {
                let frame = PhysFrame::containing_address(PhysAddr::new(self.next));
                self.next += PAGE;
                return Some(frame);
            }
            self.current += 1;
            self.next = self.sources.get(self.current)?.start;
        }
    }
}
