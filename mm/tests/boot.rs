//! Boot memory against a plain row of bytes, and the map of a real machine.

use mm::PAGE_SIZE;
use mm::boot::{BootFrames, FirmwareKind, FirmwareMap, FrameError, Purpose, Request, State};
use mm::region::{Full, Region};
use proptest::prelude::*;

fn region(start: u64, end: u64) -> Region {
    Region::new(start, end).unwrap()
}

/// What QEMU's `q35` reports with 128 MiB.
fn q35() -> BootFrames<32> {
    let mut map = FirmwareMap::new();
    for (start, end, kind) in [
        (0, 0x9_fc00, FirmwareKind::Usable),
        (0x9_fc00, 0xa_0000, FirmwareKind::Reserved),
        (0xf_0000, 0x10_0000, FirmwareKind::Reserved),
        (0x10_0000, 0x7fe_0000, FirmwareKind::Usable),
        (0x7fe_0000, 0x800_0000, FirmwareKind::Reserved),
    ] {
        map.add(region(start, end), kind).unwrap();
    }
    BootFrames::new(map).unwrap()
}

#[test]
fn hands_out_from_the_top_and_below_limits() {
    let mut frames = q35();
    assert!(
        frames
            .free()
            .eq([region(0x1000, 0x9_f000), region(0x10_0000, 0x7fe_0000)])
    );
    let total = frames.total();
    assert_eq!(
        frames.alloc(Request::pages(2), Purpose::PageTables),
        Ok(0x7fd_e000)
    );
    assert_eq!(
        frames.alloc(Request::pages(1), Purpose::PageTables),
        Ok(0x7fd_d000)
    );
    // Neighbours of one purpose are one region.
    assert_eq!(
        frames.regions_of(State::Used(Purpose::PageTables)).count(),
        1
    );
    let low = Request::pages(1).below(1 << 20);
    assert_eq!(frames.alloc(low, Purpose::Trampoline), Ok(0x9_e000));
    let inside = Request::pages(2).within(region(0x20_0000, 0x20_2000));
    assert_eq!(frames.alloc(inside, Purpose::Other), Ok(0x20_0000));
    let both = Request::pages(1)
        .below(0x20_3000)
        .within(region(0x20_0000, 0x20_8000));
    assert_eq!(frames.alloc(both, Purpose::Other), Ok(0x20_2000));
    let large = Request::pages(512).aligned(2 << 20);
    assert_eq!(frames.alloc(large, Purpose::BootHeap), Ok(0x7c0_0000));
    assert_eq!(
        frames.alloc(Request::pages(1), Purpose::Stacks),
        Ok(0x7fd_c000)
    );
    assert_eq!(frames.bytes(State::Used(Purpose::BootHeap)), 2 << 20);
    let sum: u64 = Purpose::ALL
        .iter()
        .map(|&p| frames.bytes(State::Used(p)))
        .sum();
    assert_eq!(
        sum + frames.bytes(State::Free) + frames.bytes(State::Reserved),
        total
    );
    let text = frames.to_string();
    assert!(text.contains("page tables             12 KiB\n"), "{text}");
    assert!(text.contains("total"), "{text}");
    assert!(!text.contains("ramdisk"), "{text}");
}

#[test]
fn requests_that_cannot_be_met() {
    let mut frames = q35();
    for request in [
        Request::pages(1 << 20),
        Request::pages(u64::MAX),
        Request::pages(1).below(0x1000),
        Request::pages(1).below(0),
        Request::pages(2).within(region(0x20_0000, 0x20_1fff)),
        Request::pages(1).within(region(0x9_f000, 0x10_0000)),
        Request::pages(1).aligned(1 << 63),
    ] {
        assert_eq!(
            frames.alloc(request, Purpose::Other),
            Err(FrameError::NoMemory)
        );
    }
    for request in [Request::pages(0), Request::pages(1).aligned(3 << 12)] {
        assert_eq!(
            frames.alloc(request, Purpose::Other),
            Err(FrameError::BadRequest)
        );
    }
    // Smaller alignments than a page are those of a page.
    assert_eq!(
        frames.alloc(Request::pages(1).aligned(0), Purpose::Other),
        Ok(0x7fd_f000)
    );
}

#[test]
fn claims_of_what_is_there() {
    let mut frames = q35();
    frames
        .claim(region(0x20_0800, 0x20_2800), Purpose::Kernel)
        .unwrap();
    assert_eq!(frames.bytes(State::Used(Purpose::Kernel)), 3 * PAGE_SIZE);
    // In reserved memory nothing is rounded: the rest is not the kernel's.
    frames
        .claim(region(0x7fe_0800, 0x7fe_0900), Purpose::Ramdisk)
        .unwrap();
    assert_eq!(frames.bytes(State::Used(Purpose::Ramdisk)), 0x100);
    // Across the border of free and reserved.
    frames
        .claim(region(0x7fd_f800, 0x7fe_0010), Purpose::Other)
        .unwrap();
    assert_eq!(frames.bytes(State::Used(Purpose::Other)), PAGE_SIZE + 0x10);
    let claim = |frames: &mut BootFrames<32>, start, end| {
        frames
            .claim(region(start, end), Purpose::Other)
            .unwrap_err()
    };
    assert_eq!(
        claim(&mut frames, 0x9_0000, 0xb_0000),
        FrameError::NotInMap(0xa_0000)
    );
    let error = claim(&mut frames, 0x10_0000, 0x20_0801);
    assert_eq!(error, FrameError::InUse(0x20_0000, Purpose::Kernel));
    assert_eq!(error.to_string(), "0x200000 is used for kernel");
    assert_eq!(frames.total(), q35().total());
}

#[test]
fn released_pages_are_free_again() {
    let mut frames = q35();
    frames
        .claim(region(0x300_0000, 0x380_0123), Purpose::Ramdisk)
        .unwrap();
    frames
        .claim(region(0x7fd_f000, 0x7fe_0010), Purpose::Ramdisk)
        .unwrap();
    assert_eq!(frames.release(Purpose::Ramdisk), Ok(0x80_2000));
    assert_eq!(frames.bytes(State::Used(Purpose::Ramdisk)), 0);
    assert_eq!(frames.bytes(State::Free), q35().bytes(State::Free));
    assert_eq!(frames.release(Purpose::Ramdisk), Ok(0));
}

#[test]
fn reserved_wins_in_either_order() {
    for flip in [false, true] {
        let mut entries = [
            (region(0x1000, 0x9000), FirmwareKind::Usable),
            (region(0x3000, 0x4800), FirmwareKind::Reserved),
        ];
        if flip {
            entries.reverse();
        }
        let mut map = FirmwareMap::<8>::new();
        for (region, kind) in entries {
            map.add(region, kind).unwrap();
        }
        let frames = BootFrames::new(map).unwrap();
        assert!(
            frames
                .free()
                .eq([region(0x1000, 0x3000), region(0x5000, 0x9000)])
        );
        assert_eq!(frames.state_at(0x4fff), Some(State::Reserved));
        assert_eq!(frames.state_at(0x9000), None);
    }
}

#[test]
fn a_full_table_is_an_error() {
    let mut map = FirmwareMap::<1>::new();
    map.add(region(0x1800, 0x9000), FirmwareKind::Usable)
        .unwrap();
    assert_eq!(
        map.add(region(0x3000, 0x4000), FirmwareKind::Reserved),
        Err(Full)
    );
    assert_eq!(BootFrames::new(map).unwrap_err(), Full);

    let mut map = FirmwareMap::<1>::new();
    map.add(region(0x1000, 0x9000), FirmwareKind::Usable)
        .unwrap();
    let mut frames = BootFrames::new(map).unwrap();
    assert_eq!(
        frames.alloc(Request::pages(1), Purpose::Other),
        Err(FrameError::Full)
    );
    assert_eq!(frames.bytes(State::Free), 0x8000);
    assert_eq!(frames.alloc(Request::pages(8), Purpose::Other), Ok(0x1000));
}

const PAGES: usize = 24;
const SPACE: usize = PAGES * PAGE_SIZE as usize;

/// Bytes in units of a quarter of a page, which is as fine as the tests go.
const UNIT: u64 = PAGE_SIZE / 4;
const UNITS: usize = SPACE / UNIT as usize;

#[derive(Clone, Debug)]
enum Step {
    Alloc(Request),
    Claim(u64, u64),
    Release,
}

fn step() -> impl Strategy<Value = (Step, Purpose)> {
    let limit = prop_oneof![Just(u64::MAX), (0..SPACE as u64)];
    let from = prop_oneof![Just(0), (0..SPACE as u64)];
    let alloc = (1u64..4, 0u32..4, from, limit).prop_map(|(pages, align, from, below)| {
        Step::Alloc(Request {
            pages,
            align: 4096 << align,
            from,
            below,
        })
    });
    let claim = (0..UNITS as u64, 1u64..10).prop_map(|(start, size)| Step::Claim(start, size));
    let step = prop_oneof![4 => alloc, 2 => claim, 1 => Just(Step::Release)];
    (step, prop::sample::select(Purpose::ALL.to_vec()))
}

fn is_free_page(model: &[Option<State>], page: usize) -> bool {
    model[page * 4..page * 4 + 4]
        .iter()
        .all(|&s| s == Some(State::Free))
}

proptest! {
    #[test]
    fn every_byte_has_one_state(
        ranges in prop::collection::vec((0..UNITS as u64, 1u64..40, any::<bool>()), 0..10),
        steps in prop::collection::vec(step(), 0..30),
    ) {
        let mut map = FirmwareMap::<128>::new();
        let mut model = [None; UNITS + 64];
        for (start, size, usable) in ranges {
            let range = region(start * UNIT, (start + size) * UNIT);
            let kind = if usable { FirmwareKind::Usable } else { FirmwareKind::Reserved };
            map.add(range, kind).unwrap();
            for state in &mut model[start as usize..(start + size) as usize] {
                *state = match (*state, usable) {
                    (None, true) => Some(State::Free),
                    (known, true) => known,
                    (_, false) => Some(State::Reserved),
                };
            }
        }
        for (number, page) in model.chunks_mut(4).enumerate() {
            if number == 0 || !page.iter().all(|&s| s == Some(State::Free)) {
                page.iter_mut().filter(|s| **s == Some(State::Free)).for_each(|s| *s = Some(State::Reserved));
            }
        }
        let mut frames = BootFrames::new(map).unwrap();
        let total = frames.total();
        for (step, purpose) in steps {
            match step {
                Step::Alloc(request) => {
                    // The highest place that fits, found the slow way.
                    let pages = request.pages as usize;
                    let place = (0..model.len() / 4 - pages).rev().find(|&first| {
                        let (start, end) = (first as u64 * PAGE_SIZE, (first + pages) as u64 * PAGE_SIZE);
                        start.is_multiple_of(request.align)
                            && start >= request.from
                            && end <= request.below
                            && (first..first + pages).all(|page| is_free_page(&model, page))
                    });
                    let expected = place.map(|first| first as u64 * PAGE_SIZE).ok_or(FrameError::NoMemory);
                    prop_assert_eq!(frames.alloc(request, purpose), expected);
                    if let Some(first) = place {
                        model[first * 4..(first + pages) * 4].fill(Some(State::Used(purpose)));
                    }
                }
                Step::Claim(start, size) => {
                    let (first, last) = (start as usize, (start + size) as usize);
                    let possible = model[first..last]
                        .iter()
                        .all(|s| matches!(s, Some(State::Free | State::Reserved)));
                    let result = frames.claim(region(start * UNIT, (start + size) * UNIT), purpose);
                    prop_assert_eq!(result.is_ok(), possible);
                    if possible {
                        for page in [first / 4, (last - 1) / 4] {
                            if is_free_page(&model, page) {
                                model[page * 4..page * 4 + 4].fill(Some(State::Used(purpose)));
                            }
                        }
                        model[first..last].fill(Some(State::Used(purpose)));
                    }
                }
                Step::Release => {
                    let before = frames.bytes(State::Free);
                    let freed = frames.release(purpose).unwrap();
                    prop_assert_eq!(frames.bytes(State::Free), before + freed);
                    for page in model.chunks_mut(4) {
                        let whole = page.iter().all(|&s| s == Some(State::Used(purpose)));
                        let next = if whole { State::Free } else { State::Reserved };
                        page.iter_mut().filter(|s| **s == Some(State::Used(purpose))).for_each(|s| *s = Some(next));
                    }
                }
            }
            for (unit, state) in model.iter().enumerate() {
                prop_assert_eq!(frames.state_at(unit as u64 * UNIT), *state);
                prop_assert_eq!(frames.state_at(unit as u64 * UNIT + UNIT - 1), *state);
            }
            prop_assert_eq!(frames.total(), total);
            prop_assert!(frames.free().all(|free| free.page_align_inwards() == Some(free)));
        }
    }
}
