//! The descriptors of page frames ([`mm::frame`]): memory for them, mapped where
//! [`FRAME_MAP`] says.
//!
//! Every number below the end of memory has a descriptor that can be read. Those of memory
//! lie on the node that they describe, as far as it has room, in large pages where nearly all
//! of one is needed. A page of descriptors none of which is of memory is a page of zeros,
//! the same for all, which nobody can write to: all zeros is [`mm::State::Hole`].

use kernel_early::layout::{FRAME_MAP, FRAME_MAP_END, PAGE_SIZE, phys_to_virt};
use kernel_early::tables::{LARGE_PAGE, MapError};
use mm::boot::{Purpose, Request, handover};
use mm::frame::{Frame, MAX_FRAMES, Pfn};
use platform::NodeId;
use spin::Once;

use super::{node_at, take, with_frames};
use crate::arch::paging;

/// Frames that a page of descriptors describes.
const PER_PAGE: u32 = (PAGE_SIZE as usize / size_of::<Frame>()) as u32;
/// Pages of descriptors in a large page.
const LARGE: usize = (LARGE_PAGE / PAGE_SIZE) as usize;
/// Frames that a large page of descriptors describes.
const PER_LARGE: u32 = PER_PAGE * LARGE as u32;
/// A large page is taken if at most this many pages of it are for holes.
const WASTE: usize = LARGE / 8;

const _: () = assert!(FRAME_MAP + MAX_FRAMES * size_of::<Frame>() as u64 <= FRAME_MAP_END);
const _: () = assert!(FRAME_MAP.is_multiple_of(LARGE_PAGE));

static END: Once<Pfn> = Once::new();

/// Frames with numbers below this have descriptors.
pub fn end() -> Pfn {
    *END.get().expect("the frame map is used before it is built")
}

/// Where the descriptor of a frame is.
pub fn address_of(pfn: Pfn) -> u64 {
    FRAME_MAP + u64::from(pfn.0) * size_of::<Frame>() as u64
}

/// Makes the descriptors: of holes, all of them. Boot CPU, once, when the nodes are known.
pub fn build() {
    let end = with_frames(|frames| handover::end_of_memory(frames.regions()));
    let mut map = Builder {
        large: 0,
        small: 0,
        zeros: None,
    };
    map.build(end)
        .expect("no memory for the descriptors of page frames");
    log::info!(
        "memory: {} page frames, {} KiB of descriptors ({} KiB in large pages)",
        end.0,
        (map.large * LARGE_PAGE + map.small * PAGE_SIZE) >> 10,
        (map.large * LARGE_PAGE) >> 10,
    );
    END.call_once(|| end);
}

struct Builder {
    /// Large pages and pages that were taken.
    large: u64,
    small: u64,
    /// The page of zeros.
    zeros: Option<u64>,
}

/// A page of descriptors: whose memory it describes first, if any's.
type Wanted = Option<NodeId>;

impl Builder {
    fn build(&mut self, end: Pfn) -> Result<(), MapError> {
        let mut start = Pfn(0);
        while start < end {
            let mut behind = piece_end(start, end);
            if has_memory(start, behind) {
                self.map_piece(start, behind)?;
            } else {
                while behind < end && !has_memory(behind, piece_end(behind, end)) {
                    behind = piece_end(behind, end);
                }
                self.map_hole(start, behind)?;
            }
            start = behind;
        }
        Ok(())
    }

    /// Makes the descriptors of some frames that fit a large page, or less at the end.
    fn map_piece(&mut self, start: Pfn, end: Pfn) -> Result<(), MapError> {
        let pages = (end.0 - start.0).div_ceil(PER_PAGE) as usize;
        let page = |index: usize| Pfn(start.0 + index as u32 * PER_PAGE);
        let mut wanted: [Wanted; LARGE] = [None; LARGE];
        for (index, wanted) in wanted[..pages].iter_mut().enumerate() {
            *wanted = first_node(page(index), end);
        }
        let wanted = &wanted[..pages];
        let mut nodes = wanted.iter().flatten();
        let first = nodes.next().copied().unwrap_or(NodeId::FIRST);
        let holes = wanted.iter().filter(|wanted| wanted.is_none()).count();
        if pages == LARGE && holes <= WASTE && nodes.all(|node| *node == first) {
            let request = Request::pages(LARGE as u64).aligned(LARGE_PAGE);
            if let Some(phys) = take(request, Purpose::FrameMap, Some(first)) {
                self.large += 1;
                return map_zeroed(start, phys, LARGE_PAGE);
            }
        }
        let mut index = 0;
        while index < pages {
            let same = wanted[index..]
                .iter()
                .take_while(|other| **other == wanted[index])
                .count();
            match wanted[index] {
                None => self.map_hole(page(index), page(index + same))?,
                Some(node) => self.map_small(page(index), same as u64, node)?,
            }
            index += same;
        }
        Ok(())
    }

    /// Maps pages of descriptors, in as few pieces of memory as there are.
    fn map_small(&mut self, start: Pfn, pages: u64, node: NodeId) -> Result<(), MapError> {
        let (mut done, mut most) = (0, pages);
        while done < pages {
            let size = most.min(pages - done);
            match take(Request::pages(size), Purpose::FrameMap, Some(node)) {
                Some(phys) => {
                    let at = start.add(done as u32 * PER_PAGE);
                    map_zeroed(at, phys, size * PAGE_SIZE)?;
                    done += size;
                }
                None if size == 1 => return Err(MapError::OutOfFrames),
                None => most = size / 2,
            }
        }
        self.small += pages;
        Ok(())
    }

    fn map_hole(&mut self, start: Pfn, end: Pfn) -> Result<(), MapError> {
        let zeros = match self.zeros {
            Some(zeros) => zeros,
            None => {
                let zeros = take(Request::pages(1), Purpose::FrameMap, None)
                    .ok_or(MapError::OutOfFrames)?;
                zero(zeros, PAGE_SIZE);
                self.small += 1;
                *self.zeros.insert(zeros)
            }
        };
        let pages = u64::from((end.0 - start.0).div_ceil(PER_PAGE));
        paging::map_to_one(address_of(start), pages * PAGE_SIZE, zeros)
    }
}

/// The end of the piece that begins at `start`: a large page of descriptors, or less at the
/// end of all.
fn piece_end(start: Pfn, end: Pfn) -> Pfn {
    Pfn(start.0.saturating_add(PER_LARGE).min(end.0))
}

fn has_memory(start: Pfn, end: Pfn) -> bool {
    with_frames(|frames| handover::has_memory(frames.regions(), start, end))
}

/// The node of the first memory that a page of descriptors describes.
fn first_node(page: Pfn, end: Pfn) -> Wanted {
    let end = Pfn(page.0.saturating_add(PER_PAGE).min(end.0));
    with_frames(|frames| {
        let regions = frames.regions();
        let first = regions.partition_point(|(region, _)| region.end() <= page.phys());
        handover::blocks(&regions[first..], end, node_at)
            .find(|block| block.end > page)
            .map(|block| block.node)
    })
}

fn map_zeroed(first: Pfn, phys: u64, len: u64) -> Result<(), MapError> {
    zero(phys, len);
    paging::map_memory(address_of(first), phys, len)
}

fn zero(phys: u64, len: u64) {
    // SAFETY: called with memory that was just taken from the accounts; the physical map
    // shows it.
    unsafe { core::ptr::write_bytes(phys_to_virt(phys) as *mut u8, 0, len as usize) };
}
