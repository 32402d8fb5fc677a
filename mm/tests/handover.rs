//! The hand-over to the page allocator: against a plain row of pages, and on the maps of real
//! machines.

use mm::PAGE_SIZE;
use mm::boot::handover;
use mm::boot::{BootFrames, FirmwareKind, FirmwareMap, Purpose, State};
use mm::frame::{MAX_FRAMES, Pfn};
use mm::region::Region;
use mm::{Block, BlockKind};
use platform::NodeId;
use proptest::prelude::*;

const FREE: State = State::Free;
const RESERVED: State = State::Reserved;
const USED: State = State::Used(Purpose::Kernel);

fn node(index: usize) -> NodeId {
    NodeId::from_index(index).unwrap()
}

fn region(start: u64, end: u64) -> Region {
    Region::new(start, end).unwrap()
}

/// As the kernel's ACPI tables answer: ranges sorted, without overlap; node 0 elsewhere.
fn node_at(ranges: &[(u64, u64, usize)], address: u64) -> (NodeId, u64) {
    match ranges.iter().find(|range| range.1 > address) {
        Some(&(start, end, of)) if start <= address => (node(of), end),
        Some(&(start, ..)) => (node(0), start),
        None => (node(0), u64::MAX),
    }
}

fn all(regions: &[(Region, State)], ranges: &[(u64, u64, usize)]) -> Vec<Block> {
    let end = handover::end_of_memory(regions);
    handover::blocks(regions, end, |address| node_at(ranges, address)).collect()
}

fn block(start: u32, end: u32, of: usize, kind: BlockKind) -> Block {
    Block {
        start: Pfn(start),
        end: Pfn(end),
        node: node(of),
        kind,
    }
}

#[test]
fn one_node_without_tables() {
    let regions = [
        (region(0, 0x1000), RESERVED),
        (region(0x1000, 0x9_f000), FREE),
        (region(0x9_f000, 0xa_0000), RESERVED),
        (region(0xf_0000, 0x10_0000), RESERVED),
        (region(0x10_0000, 0x20_0000), USED),
        (region(0x20_0000, 0x7fe_0000), FREE),
        (region(0x7fe_0000, 0x800_0000), RESERVED),
        (region(0xfd_0000_0000, 0x100_0000_0000), RESERVED),
    ];
    // Not the reserved memory behind the last that can be used.
    assert_eq!(handover::end_of_memory(&regions), Pfn(0x7fe0));
    assert_eq!(
        all(&regions, &[]),
        [
            block(0, 1, 0, BlockKind::Reserved),
            block(1, 0x9f, 0, BlockKind::Free),
            block(0x9f, 0xa0, 0, BlockKind::Reserved),
            block(0xf0, 0x100, 0, BlockKind::Reserved),
            block(0x100, 0x200, 0, BlockKind::Boot),
            block(0x200, 0x7fe0, 0, BlockKind::Free),
        ]
    );
}

#[test]
fn nodes_cut_what_is_of_one_kind() {
    let regions = [(region(0x1000, 0x40_0000), FREE)];
    let ranges = [
        // Memory below has no node in the tables; a range ends within a page.
        (0x10_0000, 0x20_0800, 1),
        (0x20_0800, 0x30_0000, 2),
        // No memory at all on this node here.
        (0x50_0000, 0x60_0000, 3),
    ];
    assert_eq!(
        all(&regions, &ranges),
        [
            block(0x1, 0x100, 0, BlockKind::Free),
            block(0x100, 0x201, 1, BlockKind::Free),
            block(0x201, 0x300, 2, BlockKind::Free),
            block(0x300, 0x400, 0, BlockKind::Free),
        ]
    );
}

#[test]
fn pages_that_are_shared_or_not_all_there() {
    let regions = [
        (region(0x800, 0x1200), RESERVED),
        (region(0x1200, 0x1400), USED),
        (region(0x2400, 0x2800), RESERVED),
        (region(0x3000, 0x4000), FREE),
        (region(0x4000, 0x4010), USED),
        (region(0x9ff0, 0xa010), USED),
    ];
    assert_eq!(
        all(&regions, &[]),
        [
            block(0, 1, 0, BlockKind::Reserved),
            block(1, 2, 0, BlockKind::Boot),
            block(2, 3, 0, BlockKind::Reserved),
            block(3, 4, 0, BlockKind::Free),
            block(4, 5, 0, BlockKind::Boot),
            block(9, 10, 0, BlockKind::Boot),
            block(10, 11, 0, BlockKind::Boot),
        ]
    );
    let memory = |start, end| handover::has_memory(&regions, Pfn(start), Pfn(end));
    assert!(memory(0, 1) && memory(4, 5) && memory(5, 10) && memory(10, 11));
    assert!(!memory(5, 9) && !memory(11, 400));
}

#[test]
fn what_has_no_number_is_beyond_the_end() {
    let limit = MAX_FRAMES * PAGE_SIZE;
    let regions = [
        (region(limit - 0x4000, limit + 0x4000), FREE),
        (region(limit + 0x4000, limit + 0x8000), USED),
    ];
    let end = MAX_FRAMES as u32;
    assert_eq!(handover::end_of_memory(&regions), Pfn(end));
    assert_eq!(
        all(&regions, &[]),
        [block(end - 4, end, 0, BlockKind::Free)]
    );
}

#[test]
fn nothing_usable_means_no_descriptors() {
    assert_eq!(handover::end_of_memory(&[]), Pfn(0));
    let regions = [(region(0, 0x8000), RESERVED)];
    assert_eq!(handover::end_of_memory(&regions), Pfn(0));
    assert_eq!(all(&regions, &[]), []);
}

/// Bytes of the small machine of the property test.
const TOTAL: u64 = 24 * PAGE_SIZE;
/// Ranges begin and end at multiples of this.
const STEP: u64 = PAGE_SIZE / 4;

fn range() -> impl Strategy<Value = (u64, u64)> {
    let steps = TOTAL / STEP;
    (0..steps, 1..steps).prop_map(move |(start, size)| {
        let end = (start + size / 2 + 1).min(steps);
        (start * STEP, end * STEP)
    })
}

proptest! {
    /// Every page by what its bytes are, and by the node of its first byte.
    #[test]
    fn blocks_are_the_pages(
        firmware in prop::collection::vec((range(), any::<bool>()), 0..8),
        claims in prop::collection::vec(range(), 0..6),
        nodes in prop::collection::vec((range(), 0..4_usize), 0..6),
    ) {
        let mut map = FirmwareMap::<64>::new();
        for ((start, end), usable) in firmware {
            let kind = if usable { FirmwareKind::Usable } else { FirmwareKind::Reserved };
            map.add(region(start, end), kind).unwrap();
        }
        let mut frames = BootFrames::new(map).unwrap();
        for (start, end) in claims {
            // Refused where there is no memory; that is all right here.
            let _ = frames.claim(region(start, end), Purpose::Kernel);
        }
        // Sorted, the earlier one wins: as the ACPI reader hands them on.
        let mut bytes_of = [None; (TOTAL / STEP) as usize];
        for ((start, end), of) in nodes {
            for step in &mut bytes_of[(start / STEP) as usize..(end / STEP) as usize] {
                step.get_or_insert(of);
            }
        }
        let mut ranges: Vec<(u64, u64, usize)> = Vec::new();
        for (step, of) in bytes_of.iter().enumerate() {
            let start = step as u64 * STEP;
            if let Some(of) = *of {
                match ranges.last_mut() {
                    Some((_, end, last)) if *end == start && *last == of => *end += STEP,
                    _ => ranges.push((start, start + STEP, of)),
                }
            }
        }

        let end = handover::end_of_memory(frames.regions());
        let mut wanted = Vec::new();
        let mut last_usable = 0;
        for page in 0..TOTAL / PAGE_SIZE {
            let states: Vec<_> = (0..PAGE_SIZE / STEP)
                .map(|step| frames.state_at(page * PAGE_SIZE + step * STEP))
                .collect();
            let some = |wanted: &dyn Fn(State) -> bool| states.iter().flatten().any(|s| wanted(*s));
            if some(&|state| state != RESERVED) {
                last_usable = page + 1;
            }
            let kind = if some(&|state| matches!(state, State::Used(_))) {
                Some(BlockKind::Boot)
            } else if some(&|state| state == RESERVED) {
                Some(BlockKind::Reserved)
            } else if some(&|_| true) {
                prop_assert!(states.iter().all(|state| *state == Some(FREE)));
                Some(BlockKind::Free)
            } else {
                None
            };
            let of = bytes_of[(page * PAGE_SIZE / STEP) as usize].unwrap_or(0);
            let numbers = (Pfn(page as u32), Pfn(page as u32 + 1));
            prop_assert_eq!(
                handover::has_memory(frames.regions(), numbers.0, numbers.1),
                kind.is_some()
            );
            wanted.push(kind.map(|kind| (kind, of)));
        }
        prop_assert_eq!(end, Pfn(last_usable as u32));
        wanted.truncate(last_usable as usize);

        let mut got = vec![None; last_usable as usize];
        let mut behind = Pfn(0);
        for block in handover::blocks(frames.regions(), end, |at| node_at(&ranges, at)) {
            prop_assert!(behind <= block.start && block.start < block.end && block.end <= end);
            behind = block.end;
            got[block.start.index()..block.end.index()]
                .fill(Some((block.kind, block.node.index())));
        }
        prop_assert_eq!(got, wanted);
    }
}
