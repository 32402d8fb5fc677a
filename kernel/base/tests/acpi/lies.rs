//! Tables whose form is right and whose content is not.

use kernel_base::acpi::{Platform, ProblemKind, TableName};
use proptest::prelude::*;

use crate::builder::{
    BASE, Image, Machine, cpu_affinity, local_apic, local_x2apic, memory_affinity, slit,
    source_override, srat_start,
};
use crate::check_invariants;

fn discover(machine: &Machine) -> (Platform, Vec<ProblemKind>) {
    let platform = machine.write().discover();
    check_invariants(&platform);
    let kinds = platform
        .problems
        .iter()
        .map(|problem| problem.kind)
        .collect();
    (platform, kinds)
}

fn with_srat(entries: &[Vec<u8>]) -> (Platform, Vec<ProblemKind>) {
    let mut machine = Machine::q35();
    *machine.body("SRAT") = [srat_start(), entries.concat()].concat();
    discover(&machine)
}

#[test]
fn no_root_no_tables() {
    let image = Machine::q35().write();
    for (rsdp, problem) in [
        (0, ProblemKind::Unreadable(0)),
        (u64::MAX - 8, ProblemKind::Unreadable(u64::MAX - 8)),
        (BASE, ProblemKind::WrongName),
    ] {
        let platform = Platform::discover(rsdp, &|address, length| image.read(address, length));
        check_invariants(&platform);
        assert_eq!(platform.problems[0].kind, problem);
        assert_eq!(platform.problems[0].table, TableName::RSDP);
        assert!(platform.cpus.is_empty() && platform.node_count() == 1);
    }
}

#[test]
fn a_root_pointer_at_the_end_of_memory_is_read() {
    // 20 bytes are readable, and not one more.
    let image = Machine::q35().write();
    assert_eq!(image.rsdp + 20, BASE + image.bytes.len() as u64);
    assert_eq!(image.discover().cpus.len(), 4);
}

#[test]
fn wrong_checksums_are_reported_and_survived() {
    for name in [
        "RSDP", "RSDT", "APIC", "SRAT", "SLIT", "FACP", "HPET", "DSDT",
    ] {
        let mut image = Machine::q35().write();
        let sum = image.place(name).0 + if name == "RSDP" { 8 } else { 9 };
        image.bytes[sum] ^= 0x55;
        let platform = image.discover();
        assert_eq!(platform.problems.len(), 1, "{name}");
        assert_eq!(platform.problems[0].kind, ProblemKind::Checksum);
        assert_eq!((platform.cpus.len(), platform.node_count()), (4, 2));
        assert!(platform.s5.is_some());
    }
}

fn with_length(name: &str, length: u32) -> Image {
    let mut image = Machine::q35().write();
    let (start, _) = image.place(name);
    image.bytes[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    image
}

#[test]
fn wrong_lengths_cost_the_table_only() {
    for length in [0, 1, 35, 5 << 20, u32::MAX] {
        let platform = with_length("SRAT", length).discover();
        check_invariants(&platform);
        assert_eq!(platform.problems[0].kind, ProblemKind::Length(length));
        assert_eq!((platform.cpus.len(), platform.node_count()), (4, 1));
    }
    let platform = with_length("APIC", 1 << 20).discover();
    assert!(matches!(
        platform.problems[0].kind,
        ProblemKind::Unreadable(_)
    ));
    assert!(platform.cpus.is_empty() && platform.s5.is_some());
}

#[test]
fn root_entries_that_lead_nowhere() {
    let mut image = Machine::q35().write();
    let (rsdt, _) = image.place("RSDT");
    // The first entry, the FADT's: to nothing, to nowhere, to the root itself.
    for (address, problems) in [(0, 0), (0xffff_fff0, 1), (BASE as u32 + rsdt as u32, 0)] {
        image.bytes[rsdt + 36..rsdt + 40].copy_from_slice(&u32::to_le_bytes(address));
        image.fix_checksum("RSDT");
        let platform = image.discover();
        // Without FADT, nothing says how to power off.
        assert_eq!(platform.problems.len(), problems + 1);
        assert_eq!((platform.fixed, platform.s5), (None, None));
        assert_eq!(platform.cpus.len(), 4);
    }
}

#[test]
fn duplicate_and_countless_tables() {
    let mut machine = Machine::q35();
    machine.tables.push(("APIC", 3, crate::builder::madt(9)));
    let (platform, kinds) = discover(&machine);
    assert_eq!(
        (platform.cpus.len(), kinds),
        (4, vec![ProblemKind::DuplicateTable])
    );

    let mut machine = Machine::q35();
    machine
        .tables
        .extend((0..300).map(|_| ("SSDT", 1, vec![0; 4])));
    let (_, kinds) = discover(&machine);
    assert_eq!(kinds, [ProblemKind::TooManyTables]);
}

#[test]
fn s5_may_stand_in_an_ssdt() {
    let mut machine = Machine::q35();
    let aml = machine.body("DSDT").split_off(0);
    assert_eq!(discover(&machine).1, [ProblemKind::NoS5]);
    machine.tables.push(("SSDT", 1, aml));
    assert!(discover(&machine).0.s5.is_some());
}

#[test]
fn s5_that_only_looks_right() {
    for (aml, found) in [
        (b"\x08_S5_\x12\x06\x04\x01\x00\0\0".as_slice(), true),
        (b"\x08\\_S5_\x12\x06\x04\x01\x00\0\0", true),
        (b"\x08_S5_\x12\x47\0\x02\x0b\x07\0\x0c\x05\0\0\0", true),
        (b"\x08_S5_\x12\x04\x01\x01", true),
        (b"\x08_S5_\x12\x04\x00\x01\x01", false),
        (b"\x08_S5_\x12\x04\x02\x01", false),
        (b"\x08_S5_\x12\x05\x02\x0a\x08\x00", false),
        (b"\x08_S5_\x12\x05\x02\x0b\x01\x01\x00", false),
        (b"\x08_S5_\x11\x05\x02\x01\x01", false),
        (b"\x08_S5_\x12", false),
        (b"\x08_S5_", false),
        (b"_S5_\x12\x06\x04\x01\x00\0\0", false),
    ] {
        let mut machine = Machine::q35();
        *machine.body("DSDT") = aml.to_vec();
        assert_eq!(discover(&machine).0.s5.is_some(), found, "{aml:x?}");
    }
}

#[test]
fn entries_of_impossible_length_end_the_list() {
    for (length, kind) in [(0, 0), (1, 0), (200, 0), (0, 77), (255, 1)] {
        let mut machine = Machine::q35();
        machine.body("APIC").truncate(8);
        machine.body("APIC").extend(local_apic(0, 0, 1));
        machine.body("APIC").extend([kind, length]);
        machine.body("APIC").extend(local_apic(1, 1, 1));
        let (platform, kinds) = discover(&machine);
        assert_eq!(platform.cpus.len(), 1);
        assert_eq!(kinds, [ProblemKind::EntryLength { offset: 52 }]);
    }
    // One byte too many at the end of the list.
    let mut machine = Machine::q35();
    machine.body("APIC").push(0);
    assert!(matches!(
        discover(&machine).1[..],
        [ProblemKind::EntryLength { .. }]
    ));
}

#[test]
fn short_entries_are_passed_over() {
    let mut machine = Machine::q35();
    for kind in [0, 1, 2, 4, 5, 9, 10] {
        machine.body("APIC").extend([kind, 3, 0]);
    }
    // Unknown kinds of any length are fine.
    machine.body("APIC").extend([0x10, 2, 0x7f, 3, 0]);
    let (platform, kinds) = discover(&machine);
    assert_eq!(platform.cpus.len(), 4);
    assert_eq!(kinds.len(), 7);
    assert!(
        kinds
            .iter()
            .all(|kind| matches!(kind, ProblemKind::EntryShort { .. }))
    );

    let short: Vec<_> = [(0, 15), (1, 39), (2, 23), (3, 2)]
        .map(|(kind, length): (u8, u8)| [vec![kind, length], vec![1; length as usize - 2]].concat())
        .into();
    let (_, kinds) = with_srat(&short);
    assert_eq!(kinds.len(), 3);
}

#[test]
fn cpus_that_cannot_be() {
    let mut machine = Machine::q35();
    let body = machine.body("APIC");
    body.extend(local_apic(9, 0xff, 1));
    body.extend(local_x2apic(9, u32::MAX, 1));
    body.extend(local_apic(9, 2, 1));
    body.extend(local_x2apic(9, 3, 1));
    body.extend(local_apic(9, 0xff, 0));
    body.extend(local_apic(9, 50, 2));
    let (platform, kinds) = discover(&machine);
    assert_eq!((platform.cpus.len(), platform.disabled_cpus), (4, 2));
    assert_eq!(
        kinds,
        [
            ProblemKind::BroadcastCpu,
            ProblemKind::BroadcastCpu,
            ProblemKind::DuplicateCpu(2),
            ProblemKind::DuplicateCpu(3),
        ]
    );

    let machine = Machine {
        tables: vec![("APIC", 3, crate::builder::madt(80))],
        xsdt: false,
    };
    let (platform, kinds) = discover(&machine);
    assert_eq!((platform.cpus.len(), platform.dropped_cpus), (64, 16));
    assert_eq!(kinds, [ProblemKind::TooManyCpus, ProblemKind::NoS5]);
}

#[test]
fn overrides_that_cannot_be() {
    let mut machine = Machine::q35();
    let body = machine.body("APIC");
    body.extend(source_override(0, 7, 0));
    body.extend(source_override(16, 7, 0));
    body.extend(source_override(3, 3, 2));
    body.extend([2, 10, 1, 3, 0, 0, 0, 0, 0, 0]);
    body.extend([4, 6, 0, 0, 0, 2]);
    let (platform, kinds) = discover(&machine);
    assert_eq!(platform.isa_interrupt(0).global_interrupt, 2);
    assert_eq!(platform.isa_interrupt(3).global_interrupt, 3);
    assert_eq!(kinds[0], ProblemKind::DuplicateOverride { irq: 0 });
    let bad = |irq| ProblemKind::BadOverride { irq };
    assert_eq!(kinds[1..], [bad(16), bad(3), bad(3), bad(2)]);
}

#[test]
fn countless_entries() {
    let mut machine = Machine::q35();
    for _ in 0..100 {
        machine
            .body("APIC")
            .extend([1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        machine.body("APIC").extend([4, 6, 0, 0, 0, 0]);
    }
    let (platform, _) = discover(&machine);
    assert!(platform.io_apics.is_full() && platform.local_nmis.is_full());
    assert!(platform.problems.is_full() && platform.problems_dropped > 0);

    let ranges: Vec<_> = (0..70)
        .map(|i| memory_affinity(i << 24, 1 << 20, 0, 1))
        .collect();
    assert!(with_srat(&ranges).0.memory.is_full());
}

#[test]
fn cpus_in_no_node_and_in_two() {
    let entries = [
        cpu_affinity(0, 1, 1),
        cpu_affinity(1, 0, 1),
        cpu_affinity(1, 1, 1),
        cpu_affinity(2, 1, 0),
        cpu_affinity(99, 5, 1),
    ];
    let (platform, kinds) = with_srat(&entries);
    assert_eq!(platform.domains.as_slice(), [0, 1]);
    assert!(
        platform
            .cpus
            .iter()
            .map(|cpu| cpu.node.number())
            .eq([1, 0, 0, 0])
    );
    let lost = ProblemKind::CpuWithoutNode;
    assert_eq!(kinds, [ProblemKind::CpuInTwoNodes(1), lost(2), lost(3)]);
}

#[test]
fn more_nodes_than_there_can_be() {
    let ranges: Vec<_> = (0..10u64)
        .map(|i| memory_affinity(i << 30, 1 << 30, i as u32 * 10, 1))
        .collect();
    let (platform, kinds) = with_srat(&ranges);
    assert_eq!(platform.node_count(), 8);
    assert_eq!(platform.node_at(9 << 30).0.number(), 0);
    assert!(kinds.contains(&ProblemKind::TooManyNodes(90)));
}

#[test]
fn memory_that_cannot_be() {
    let entries = [
        memory_affinity(0x1000, 0, 1, 1),
        memory_affinity(u64::MAX, 2, 1, 1),
        memory_affinity(u64::MAX - 1, u64::MAX, 1, 1),
        memory_affinity(0x4000, 0x2000, 0, 1),
        memory_affinity(0x8000, 0x2000, 0, 1),
        memory_affinity(0x0, 0x10000, 1, 1),
        memory_affinity(0x5000, 0x1000, 1, 1),
    ];
    let (platform, kinds) = with_srat(&entries);
    let ranges: Vec<_> = platform
        .memory
        .iter()
        .map(|r| (r.start, r.end, r.node.number()))
        .collect();
    assert_eq!(
        ranges,
        [
            (0, 0x4000, 1),
            (0x4000, 0x6000, 0),
            (0x6000, 0x8000, 1),
            (0x8000, 0xa000, 0),
            (0xa000, 0x10000, 1),
        ]
    );
    let bad = ProblemKind::BadMemoryRange;
    assert_eq!(kinds[..3], [bad(0x1000), bad(u64::MAX), bad(u64::MAX - 1)]);
    assert_eq!(
        kinds[3..5],
        [
            ProblemKind::MemoryOverlap(0),
            ProblemKind::MemoryOverlap(0x5000)
        ]
    );
}

#[test]
fn slits_that_cannot_be() {
    for (body, expected) in [
        (vec![], ProblemKind::SlitSize(0)),
        (slit(&[]), ProblemKind::SlitSize(0)),
        (slit(&[&[10, 20], &[20]]), ProblemKind::SlitSize(2)),
        (
            u64::MAX.to_le_bytes().to_vec(),
            ProblemKind::SlitSize(u64::MAX),
        ),
        (
            (1u64 << 32).to_le_bytes().to_vec(),
            ProblemKind::SlitSize(1 << 32),
        ),
        (
            slit(&[&[10, 20], &[9, 10]]),
            ProblemKind::SlitDistance {
                from: 1,
                to: 0,
                distance: 9,
            },
        ),
        (
            slit(&[&[10, 10], &[20, 10]]),
            ProblemKind::SlitDistance {
                from: 0,
                to: 1,
                distance: 10,
            },
        ),
        (
            slit(&[&[10, 20], &[20, 11]]),
            ProblemKind::SlitDistance {
                from: 1,
                to: 1,
                distance: 11,
            },
        ),
    ] {
        let mut machine = Machine::q35();
        *machine.body("SLIT") = body;
        let (platform, kinds) = discover(&machine);
        assert_eq!(kinds, [expected]);
        assert_eq!(platform.distances, platform::Topology::default_distances());
    }
}

#[test]
fn registers_that_cannot_be() {
    let mut machine = Machine::q35();
    let body = machine.body("FACP");
    body[116 - 36] = 0x60;
    body[172 - 36] = 0x0b;
    // A control register of 32 bytes or more overflows a count of bits.
    body[89 - 36] = 0xff;
    let (platform, kinds) = discover(&machine);
    let fixed = platform.fixed.unwrap();
    assert_eq!(fixed.reset, None);
    assert_eq!(fixed.pm1a_control.unwrap().port(), Some(0x604));
    assert_eq!(kinds, [ProblemKind::BadRegister; 2]);

    let mut machine = Machine::q35();
    machine.body("HPET")[4] = 1;
    let (platform, kinds) = discover(&machine);
    assert_eq!(
        (platform.hpet, kinds),
        (None, vec![ProblemKind::BadRegister])
    );
}

proptest! {
    #[test]
    fn any_srat_and_slit_keep_the_invariants(
        cpus in prop::collection::vec((0u8..6, 0u8..12, 0u32..2), 0..12),
        memory in prop::collection::vec((0u64..64, 0u64..16, 0u32..12, 0u32..4), 0..80),
        distances in prop::collection::vec(any::<u8>(), 0..100),
        count in 0u64..11,
    ) {
        let mut machine = Machine::q35();
        let mut srat = srat_start();
        srat.extend(cpus.iter().flat_map(|&(id, domain, flags)| cpu_affinity(id, domain, flags)));
        srat.extend(memory.iter().flat_map(|&(start, length, domain, flags)| {
            memory_affinity(start << 20, length << 20, domain, flags)
        }));
        *machine.body("SRAT") = srat;
        *machine.body("SLIT") = [&count.to_le_bytes()[..], &distances].concat();
        let platform = machine.write().discover();
        check_invariants(&platform);
        // Every byte belongs to the first range that has it.
        if !platform.memory.is_full() && platform.domains.len() < 8 {
            for megabyte in 0..80 {
                let owner = memory.iter().find(|&&(start, length, domain, flags)| {
                    flags & 1 != 0
                        && (start..start + length).contains(&megabyte)
                        && (flags & 2 == 0 || platform.domains.contains(&domain))
                });
                let node = owner.map_or(0, |owner| {
                    platform.domains.iter().position(|&d| d == owner.2).unwrap()
                });
                prop_assert_eq!(platform.node_at(megabyte << 20).0.index(), node);
            }
        }
    }
}
