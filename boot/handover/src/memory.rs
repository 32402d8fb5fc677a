//! From the firmware's memory map, which may be unsorted, overlapping and
//! unaligned, to regions the kernel can rely on: sorted, disjoint, page-aligned.

use crate::{Error, PAGE};
use arrayvec::ArrayVec;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind};

/// The most entries of a firmware memory map that are accepted (128 is also the
/// most that an E820 map holds).
pub const MAX_FIRMWARE_REGIONS: usize = 128;

/// The most claims [`merge`] takes: the firmware's, and those of the stub.
pub const MAX_CLAIMS: usize = MAX_FIRMWARE_REGIONS + 32;

/// Every claim adds at most two boundaries.
const MAX_BOUNDARIES: usize = 2 * MAX_CLAIMS;

/// End of what x86_64 can address physically.
const PHYSICAL_END: u64 = 1 << 52;

/// E820 type of ordinary memory.
const E820_RAM: u32 = 1;

/// A list of memory regions.
pub type Regions = ArrayVec<MemoryRegion, MAX_BOUNDARIES>;

/// One entry of the firmware's memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRegion {
    /// Physical address of the first byte.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
    /// E820 type: 1 is usable memory, anything else is not.
    pub kind: u32,
}

impl RawRegion {
    /// The whole pages this entry is about: those wholly usable, or those touched
    /// by something else. `None` if there is no such page.
    pub fn to_pages(self) -> Option<MemoryRegion> {
        let end = self.start.saturating_add(self.size).min(PHYSICAL_END);
        if self.size == 0 || self.start >= end {
            return None;
        }
        let (start, end, kind) = if self.kind == E820_RAM {
            let start = self.start.next_multiple_of(PAGE);
            (start, end & !(PAGE - 1), MemoryRegionKind::Usable)
        } else {
            let end = end.next_multiple_of(PAGE);
            let kind = MemoryRegionKind::UnknownBios(self.kind);
            (self.start & !(PAGE - 1), end, kind)
        };
        (start < end).then_some(MemoryRegion { start, end, kind })
    }

    /// End of the address range if there is memory behind it: "reserved" (2) may be
    /// a mere hole in the address space, far above the last memory.
    pub fn memory_end(self) -> u64 {
        if self.kind == 2 {
            0
        } else {
            self.to_pages().map_or(0, |region| region.end)
        }
    }
}

/// Where claims overlap the most restrictive one wins.
fn rank(kind: MemoryRegionKind) -> u64 {
    match kind {
        MemoryRegionKind::Usable => 0,
        MemoryRegionKind::Bootloader => 1,
        MemoryRegionKind::UnknownBios(tag) | MemoryRegionKind::UnknownUefi(tag) => {
            2 + u64::from(tag)
        }
        // The enum may grow; what is not known must not be used.
        _ => u64::MAX,
    }
}

/// Settles overlapping page-aligned claims, and returns regions that are sorted,
/// disjoint and not empty, with neighbours of one kind joined.
pub fn merge(claims: &[MemoryRegion]) -> Result<Regions, Error> {
    let mut boundaries = ArrayVec::<u64, MAX_BOUNDARIES>::new();
    for claim in claims {
        for boundary in [claim.start, claim.end] {
            boundaries
                .try_push(boundary)
                .map_err(|_| Error::MemoryMap("too many entries"))?;
        }
    }
    boundaries.sort_unstable();

    let mut regions = Regions::new();
    for pair in boundaries.windows(2) {
        let (start, end) = (pair[0], pair[1]);
        if start == end {
            continue;
        }
        let winner = claims
            .iter()
            .filter(|claim| claim.start <= start && end <= claim.end)
            .map(|claim| claim.kind)
            .max_by_key(|&kind| rank(kind));
        let Some(kind) = winner else { continue };
        match regions.last_mut() {
            Some(last) if last.end == start && last.kind == kind => last.end = end,
            // Fewer regions than boundaries: there is room.
            _ => regions.push(MemoryRegion { start, end, kind }),
        }
    }
    Ok(regions)
}
