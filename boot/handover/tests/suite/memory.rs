//! The memory map: sorted, disjoint and page-aligned whatever the firmware says.

use crate::common::Random;
use boot_handover::{Error, MAX_FIRMWARE_REGIONS, RawRegion, merge};
use bootloader_api::info::{
    MemoryRegion,
    MemoryRegionKind::{self, Bootloader, UnknownBios, Usable},
};

fn raw(start: u64, size: u64, kind: u32) -> RawRegion {
    RawRegion { start, size, kind }
}

fn region(start: u64, end: u64, kind: MemoryRegionKind) -> MemoryRegion {
    MemoryRegion { start, end, kind }
}

#[test]
fn usable_memory_shrinks_to_pages_and_the_rest_grows() {
    let usable = raw(0, 0x9_fc00, 1).to_pages();
    assert_eq!(usable, Some(region(0, 0x9_f000, Usable)));
    let reserved = raw(0x9_fc00, 0x400, 2).to_pages();
    let expected = region(0x9_f000, 0xa_0000, UnknownBios(2));
    assert_eq!(reserved, Some(expected));
    assert_eq!(raw(0x1001, 0x1ffe, 1).to_pages(), None);
    assert_eq!(raw(0x1000, 0, 1).to_pages(), None);
    let acpi = raw(0x1800, 1, 3).to_pages();
    assert_eq!(acpi, Some(region(0x1000, 0x2000, UnknownBios(3))));
}

#[test]
fn impossible_addresses_are_cut_off() {
    let end = 1 << 52;
    let lying = raw(0x1000, u64::MAX, 1).to_pages();
    assert_eq!(lying, Some(region(0x1000, end, Usable)));
    assert_eq!(raw(u64::MAX - 4095, 4096, 1).to_pages(), None);
    assert_eq!(raw(u64::MAX, u64::MAX, 2).to_pages(), None);
    let last = raw(end - 1, 1, 2).to_pages();
    assert_eq!(last, Some(region(end - 4096, end, UnknownBios(2))));
}

#[test]
fn reserved_ranges_do_not_count_as_memory() {
    assert_eq!(raw(0xfd_0000_0000, 3 << 32, 2).memory_end(), 0);
    assert_eq!(raw(0x1000, 0x2800, 1).memory_end(), 0x3000);
    assert_eq!(raw(0x1000, 0x2800, 4).memory_end(), 0x4000);
}

#[test]
fn overlaps_are_settled_and_neighbours_joined() {
    let merged = merge(&[
        region(0x8000, 0x9000, UnknownBios(2)),
        region(0x1000, 0x4000, Usable),
        region(0x3000, 0x6000, Usable),
        region(0x2000, 0x3000, Bootloader),
        region(0x5000, 0x7000, UnknownBios(4)),
        region(0x9000, 0xa000, UnknownBios(2)),
        region(0x6000, 0x6000, Usable),
    ]);
    let expected = [
        region(0x1000, 0x2000, Usable),
        region(0x2000, 0x3000, Bootloader),
        region(0x3000, 0x5000, Usable),
        region(0x5000, 0x7000, UnknownBios(4)),
        region(0x8000, 0xa000, UnknownBios(2)),
    ];
    assert_eq!(merged.unwrap()[..], expected);
    assert!(merge(&[]).unwrap().is_empty());
}

#[test]
fn the_most_restrictive_claim_wins_everywhere() {
    let rank = |kind| match kind {
        Usable => 0,
        Bootloader => 1,
        UnknownBios(tag) => 2 + tag,
        _ => u32::MAX,
    };
    let mut random = Random(7);
    for _ in 0..2000 {
        let claims: Vec<_> = (0..random.below(12))
            .map(|_| {
                let start = random.below(40);
                let end = start + random.below(20);
                let kind = match random.below(4) {
                    0 | 1 => Usable,
                    2 => Bootloader,
                    _ => UnknownBios(2 + random.below(3) as u32),
                };
                region(start * 4096, end * 4096, kind)
            })
            .collect();
        let merged = merge(&claims).unwrap();
        for pair in merged.windows(2) {
            assert!(pair[0].end <= pair[1].start);
            assert!(pair[0].end < pair[1].start || pair[0].kind != pair[1].kind);
        }
        for page in (0..60 * 4096).step_by(4096) {
            let covers = |r: &&MemoryRegion| r.start <= page && page < r.end;
            let claimed = claims.iter().filter(covers).map(|r| rank(r.kind)).max();
            let found = merged.iter().find(covers).map(|r| rank(r.kind));
            assert_eq!(claimed, found, "{claims:x?}");
        }
    }
}

#[test]
fn too_many_claims_are_an_error() {
    let claims: Vec<_> = (0..MAX_FIRMWARE_REGIONS as u64 + 40)
        .map(|i| region(i * 0x2000, i * 0x2000 + 0x1000, Usable))
        .collect();
    assert_eq!(merge(&claims), Err(Error::MemoryMap("too many entries")));
}
