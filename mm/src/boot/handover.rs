//! What the page allocator is given: the machine's pages by kind and node.
//!
//! The accounts know bytes, and the firmware's tables give nodes to bytes; descriptors are
//! of pages. [`blocks`] cuts the one by the other, and each page that has memory becomes
//! part of exactly one [`Block`]:
//!
//! | bytes of the page | the page |
//! |---|---|
//! | one is used | boot |
//! | none is used, one is reserved | reserved |
//! | all are free | free |
//! | there is no memory | in no block: a hole |
//!
//! A page belongs to the node of its first byte.

use platform::NodeId;

use super::State;
use crate::{
    PAGE_SIZE,
    frame::{MAX_FRAMES, Pfn},
    mm::{Block, BlockKind},
    region::Region,
};

/// One past the last page that needs a descriptor: behind all memory that is free or used.
/// Reserved ranges above that are device windows and the like, some of them terabytes away.
/// Pages that have no number ([`MAX_FRAMES`]) are beyond the end.
pub fn end_of_memory(regions: &[(Region, State)]) -> Pfn {
    let last = regions
        .iter()
        .rev()
        .find(|(_, state)| *state != State::Reserved);
    let end = last.map_or(0, |(region, _)| region.end().div_ceil(PAGE_SIZE));
    Pfn(end.min(MAX_FRAMES) as u32)
}

/// The pages below `end` that have memory, by ascending number. `regions` are those of the
/// accounts: sorted, without overlap, the free ones whole pages. `node_at` says to which node a byte belongs, and up to
/// which address that holds.
pub fn blocks<'a, F>(
    regions: &'a [(Region, State)],
    end: Pfn,
    node_at: F,
) -> impl Iterator<Item = Block> + Clone + use<'a, F>
where
    F: Fn(u64) -> (NodeId, u64) + Clone,
{
    let mut at = 0;
    core::iter::from_fn(move || {
        let (start, until, kind) = next_run(regions, at, u64::from(end.0))?;
        let first_byte = start * PAGE_SIZE;
        let (node, holds_to) = node_at(first_byte);
        // The page in which the answer ends belongs to this node, too.
        let until = until.min(holds_to.div_ceil(PAGE_SIZE).max(start + 1));
        at = until;
        Some(Block {
            // Below `end`, which is a page's number.
            start: Pfn(start as u32),
            end: Pfn(until as u32),
            node,
            kind,
        })
    })
}

/// The first pages from `at` on, below `end`, that have memory and are of one kind. (Not all
/// of them: what follows may be of the same kind.)
fn next_run(regions: &[(Region, State)], at: u64, end: u64) -> Option<(u64, u64, BlockKind)> {
    let first = regions.partition_point(|(region, _)| region.end() <= at * PAGE_SIZE);
    let &(region, state) = regions.get(first)?;
    let start = at.max(region.start() / PAGE_SIZE);
    if start >= end {
        return None;
    }
    let whole_end = region.end() / PAGE_SIZE;
    if whole_end > start {
        // No other region that counts has bytes of the first page: one before this would
        // have been found instead. (And free regions begin and end at pages.)
        let kind = match state {
            State::Free => BlockKind::Free,
            State::Reserved => BlockKind::Reserved,
            State::Used(_) => BlockKind::Boot,
        };
        return Some((start, whole_end.min(end), kind));
    }
    // The page that the region ends in; others may follow in it.
    let page = Region::with_size(start * PAGE_SIZE, PAGE_SIZE)?;
    let in_page = regions[first..]
        .iter()
        .take_while(|(region, _)| region.overlaps(page));
    let used = in_page
        .clone()
        .any(|(_, state)| matches!(state, State::Used(_)));
    let kind = if used {
        BlockKind::Boot
    } else {
        BlockKind::Reserved
    };
    Some((start, start + 1, kind))
}

/// Whether there is memory of any kind in `start..end`.
pub fn has_memory(regions: &[(Region, State)], start: Pfn, end: Pfn) -> bool {
    let first = regions.partition_point(|(region, _)| region.end() <= start.phys());
    regions
        .get(first)
        .is_some_and(|(region, _)| region.start() < end.phys())
}
