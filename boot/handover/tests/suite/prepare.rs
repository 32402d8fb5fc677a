//! The kernel's address space, as the processor would see it.

use crate::{
    common::{BASE, Elf, Program, R, W},
    machine::{
        ADDRESS, DYNAMIC, FILLER, MIB, Memory, NO_EXECUTE, PHYSICAL, RAM, RAMDISK, STUB, WRITABLE,
        build, config, firmware, raw, refused,
    },
};
use boot_handover::{Error, KernelImage, Machine, PAGE, prepare};
use bootloader_api::{
    BootloaderConfig,
    config::Mapping,
    info::MemoryRegionKind::{Bootloader, UnknownBios, Usable},
};
use std::ops::Range;

#[test]
fn kernel_is_mapped_with_its_rights_and_contents() {
    let elf = Elf::new(&config());
    let (memory, handover) = build(&elf, &firmware(), false).unwrap();
    assert_eq!(handover.entry, elf.entry);
    for program in &elf.programs {
        let rights = match program.flags {
            f if f & W != 0 => WRITABLE | NO_EXECUTE,
            R => NO_EXECUTE,
            _ => 0,
        };
        for offset in (0..program.size).step_by(PAGE as usize) {
            let address = program.address + offset;
            let (frame, flags, size) = memory.translate(handover.level_4, address).unwrap();
            assert_eq!((flags, size), (rights, PAGE), "{address:#x}");
            let mut expected = program.data.clone();
            // The rest of the last page is zero too.
            expected.resize((program.size + PAGE) as usize, 0);
            let page = &expected[offset as usize..][..PAGE as usize];
            assert_eq!(memory.frame(frame), page, "{address:#x}");
        }
    }
}

#[test]
fn read_only_after_relocation_is_read_only() {
    let mut elf = Elf::new(&config());
    let mut relro = Program::load(R, BASE + 0x3000, vec![], 0x1000);
    relro.kind = 0x6474_e552;
    elf.programs.push(relro);
    let (memory, handover) = build(&elf, &firmware(), false).unwrap();
    let flags = |address| memory.translate(handover.level_4, address).unwrap().1;
    assert_eq!(flags(BASE + 0x3000), NO_EXECUTE);
    assert_eq!(flags(BASE + 0x4000), NO_EXECUTE | WRITABLE);
}

#[test]
fn stack_ramdisk_and_switch_page_are_where_they_should_be() {
    let (memory, handover) = build(&Elf::new(&config()), &firmware(), false).unwrap();
    let translate = |address| memory.translate(handover.level_4, address);

    assert_eq!(handover.stack_size, 64 << 10);
    assert_eq!(handover.stack_bottom, DYNAMIC + PAGE);
    assert_eq!(handover.stack_top, handover.stack_bottom + (64 << 10));
    assert_eq!(translate(handover.stack_bottom - 1), None, "guard page");
    assert_eq!(translate(handover.stack_top), None);
    for offset in (0..64 << 10).step_by(PAGE as usize) {
        let (_, flags, _) = translate(handover.stack_bottom + offset).unwrap();
        assert_eq!(flags, WRITABLE | NO_EXECUTE);
    }

    assert_eq!(handover.ramdisk_address, DYNAMIC + (1 << 39));
    for offset in 0..RAMDISK.end - RAMDISK.start {
        let (physical, flags, _) = translate(handover.ramdisk_address + offset).unwrap();
        assert_eq!(physical, RAMDISK.start + offset);
        assert_eq!(flags, WRITABLE | NO_EXECUTE);
    }

    assert_eq!(translate(STUB.start), Some((STUB.start, 0, PAGE)));

    // All that is mapped in the lower half is that page.
    let pages = memory.pages(handover.level_4, 3, 0);
    let low: Vec<_> = pages.iter().filter(|page| page.0 >> 63 == 0).collect();
    assert_eq!(low, [&(STUB.start, PAGE)]);
    // And nothing may be written and executed.
    for (address, _) in pages {
        let flags = translate(address).unwrap().1;
        assert!(flags & WRITABLE == 0 || flags & NO_EXECUTE != 0);
    }
}

#[test]
fn boot_info_has_room_and_one_level_4_entry() {
    let (memory, handover) = build(&Elf::new(&config()), &firmware(), false).unwrap();
    let end = handover.regions_address + 24 * handover.regions.len() as u64;
    assert!(handover.regions_address > handover.boot_info);
    assert_eq!(handover.regions_address % 8, 0);
    for address in [handover.boot_info, handover.regions_address, end - 1] {
        assert_eq!((address >> 39) & 511, handover.boot_info_index as u64);
        let (_, flags, size) = memory.translate(handover.level_4, address).unwrap();
        assert_eq!((flags, size), (WRITABLE | NO_EXECUTE, PAGE));
    }
    let entry = memory.entry(handover.level_4, handover.boot_info_index as u64);
    assert_eq!(entry, handover.boot_info_entry);
}

#[test]
fn physical_memory_is_mapped_up_to_its_end_and_at_least_to_4_gib() {
    let elf = Elf::new(&config());
    let mut large = firmware();
    large.push(raw(4 << 30, (10 << 30) + 12345, 1));
    for (map, gib, end) in [
        (firmware(), false, 4 << 30),
        (firmware(), true, 4 << 30),
        (large.clone(), false, (10 << 30) + 2 * MIB),
        (large, true, (10 << 30) + 2 * MIB),
    ] {
        let (memory, handover) = build(&elf, &map, gib).unwrap();
        assert_eq!(handover.physical_memory, Some(PHYSICAL));
        for frame in (0..12 << 30).step_by(2 << 20) {
            let found = memory.translate(handover.level_4, PHYSICAL + frame);
            let size = if gib && (4 << 30..10 << 30).contains(&frame) {
                1 << 30
            } else {
                2 * MIB
            };
            // A map that ends within 2 MiB is rounded up; `12345` is cut to pages.
            let expected = (frame < end).then_some((frame, WRITABLE | NO_EXECUTE, size));
            assert_eq!(found, expected, "{frame:#x}");
        }
    }
    let mut without = config();
    without.mappings.physical_memory = None;
    let (_, handover) = build(&Elf::new(&without), &firmware(), false).unwrap();
    assert_eq!(handover.physical_memory, None);
}

#[test]
fn regions_name_everything_in_use_and_the_rest_is_untouched() {
    let (memory, handover) = build(&Elf::new(&config()), &firmware(), false).unwrap();
    let kind_of = |address: u64| {
        let mut found = handover
            .regions
            .iter()
            .filter(|r| (r.start..r.end).contains(&address));
        let kind = found.next().map(|region| region.kind);
        assert!(found.next().is_none());
        kind
    };
    for region in &handover.regions {
        assert!(region.start < region.end);
        assert!(region.start % PAGE == 0 && region.end % PAGE == 0);
    }
    assert!(handover.regions.is_sorted_by(|a, b| a.end <= b.start));

    for address in (0..RAM).step_by(PAGE as usize) {
        let kind = kind_of(address);
        let ramdisk = RAMDISK.start & !(PAGE - 1)..RAMDISK.end;
        if STUB.contains(&address) || ramdisk.contains(&address) {
            assert_eq!(kind, Some(Bootloader), "{address:#x}");
        }
        // What is not Bootloader's, and what was given, was not written to.
        if kind != Some(Bootloader) || STUB.contains(&address) || ramdisk.contains(&address) {
            assert_eq!(
                memory.frame(address),
                &[FILLER; PAGE as usize],
                "{address:#x}"
            );
        }
    }
    assert_eq!(kind_of(0), Some(Usable));
    assert_eq!(
        kind_of(0x9_e000),
        Some(Usable),
        "low memory is left to the kernel"
    );
    assert_eq!(kind_of(0x9_f000), Some(UnknownBios(2)));
    assert_eq!(kind_of(0xa_0000), None);
    assert_eq!(kind_of(RAM - 1), Some(UnknownBios(2)));
    assert_eq!(kind_of(0xfd_0000_0000), Some(UnknownBios(2)));

    // Frames behind every mapping but the physical map are marked.
    for (address, size) in memory.pages(handover.level_4, 3, 0) {
        if size == PAGE {
            let (frame, ..) = memory.translate(handover.level_4, address).unwrap();
            assert_eq!(kind_of(frame), Some(Bootloader), "{address:#x}");
        }
    }
    assert_eq!(kind_of(handover.level_4), Some(Bootloader));
}

#[test]
fn frames_come_from_several_regions_when_one_is_too_small() {
    let mut map = vec![raw(0, 0x9_f000, 1), raw(RAMDISK.start & !4095, RAM, 1)];
    for i in 0..12 {
        let start = 2 * MIB + i * 0x2_0000;
        map.push(raw(start, start + 0x5000, 1));
    }
    let (memory, handover) = build(&Elf::new(&config()), &map, false).unwrap();
    for (address, size) in memory.pages(handover.level_4, 3, 0) {
        let (frame, ..) = memory.translate(handover.level_4, address).unwrap();
        let mut regions = handover.regions.iter();
        if size == PAGE {
            assert!(regions.any(|r| r.kind == Bootloader && (r.start..r.end).contains(&frame)));
        }
    }
}

#[test]
fn lack_of_memory_is_reported_at_any_point() {
    let elf = Elf::new(&config());
    let mut sizes = 0..;
    let enough = sizes.find(|pages| {
        let map = [
            raw(0, 0x9_f000, 1),
            raw(2 * MIB, 2 * MIB + pages * PAGE, 1),
            raw(RAMDISK.start & !4095, RAMDISK.end.next_multiple_of(4096), 1),
        ];
        match build(&elf, &map, false) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error, Error::OutOfMemory, "{pages} pages");
                false
            }
        }
    });
    assert!((20..100).contains(&enough.unwrap()), "{enough:?}");
}

#[test]
fn fixed_addresses_are_honoured() {
    let mut config = config();
    let mappings = &mut config.mappings;
    mappings.kernel_stack = Mapping::FixedAddress(0xffff_c000_0000_0000);
    mappings.boot_info = Mapping::FixedAddress(0xffff_c100_0000_0008);
    mappings.ramdisk_memory = Mapping::FixedAddress(0xffff_c200_0000_0000);
    mappings.page_table_recursive = Some(Mapping::FixedAddress(0xffff_ff00_0000_0000));
    mappings.physical_memory = Some(Mapping::Dynamic);
    config.kernel_stack_size = 10_001;
    let (memory, handover) = build(&Elf::new(&config), &firmware(), false).unwrap();
    assert_eq!(handover.stack_bottom, 0xffff_c000_0000_1000);
    assert_eq!(handover.stack_top, (handover.stack_bottom + 10_001) & !15);
    assert_eq!(handover.stack_size, 10_001);
    let last = memory.translate(handover.level_4, handover.stack_bottom + 10_000);
    assert!(last.is_some());
    assert_eq!(handover.boot_info, 0xffff_c100_0000_0008);
    let unaligned = RAMDISK.start % PAGE;
    assert_eq!(handover.ramdisk_address, 0xffff_c200_0000_0000 + unaligned);
    assert_eq!(handover.recursive_index, Some(510));
    let entry = memory.entry(handover.level_4, 510);
    assert_eq!(entry & ADDRESS, handover.level_4);
    assert_eq!(handover.physical_memory, Some(DYNAMIC));
}

#[test]
fn defaults_go_to_the_lowest_free_entries() {
    // As with the `bootloader` crate: above the identity map, below the kernel.
    let config = BootloaderConfig::new_default();
    let (_, handover) = build(&Elf::new(&config), &firmware(), false).unwrap();
    assert_eq!(handover.stack_bottom, (1 << 39) + PAGE);
    assert_eq!(handover.ramdisk_address & !(PAGE - 1), 2 << 39);
    assert_eq!(handover.boot_info, 3 << 39);
}

#[test]
fn impossible_requests_are_refused() {
    let problem = |change: fn(&mut BootloaderConfig)| {
        let mut config = config();
        change(&mut config);
        match refused(&config) {
            Error::Mapping { what, problem, .. } => (what, problem),
            Error::Config(problem) => ("config", problem),
            error => panic!("{error}"),
        }
    };
    fn fixed(address: u64) -> Mapping {
        Mapping::FixedAddress(address)
    }
    let overlaps = "overlaps another mapping";
    assert_eq!(
        problem(|c| c.mappings.kernel_stack = fixed(BASE - 0x1000)),
        ("kernel stack", overlaps)
    );
    assert_eq!(
        problem(|c| c.mappings.ramdisk_memory = fixed(STUB.start)),
        ("ramdisk", overlaps)
    );
    assert_eq!(
        problem(|c| c.mappings.boot_info = fixed(PHYSICAL)),
        ("boot info", overlaps)
    );
    assert_eq!(
        problem(|c| c.mappings.page_table_recursive = Some(fixed(0xffff_ff80_0000_0000))),
        ("recursive page table", overlaps)
    );
    let unaligned = "not sufficiently aligned";
    assert_eq!(
        problem(|c| c.mappings.physical_memory = Some(fixed(PHYSICAL + PAGE))),
        ("physical memory", unaligned)
    );
    assert_eq!(
        problem(|c| c.mappings.kernel_stack = fixed(DYNAMIC + 8)),
        ("kernel stack", unaligned)
    );
    assert_eq!(
        problem(|c| c.mappings.boot_info = fixed(DYNAMIC + 1)),
        ("boot info", unaligned)
    );
    assert_eq!(
        problem(|c| c.mappings.boot_info = fixed(0x4000_0000)).0,
        "boot info"
    );
    let canonical = "not canonical";
    assert_eq!(
        problem(|c| c.mappings.kernel_stack = fixed(0x7fff_ffff_f000)),
        ("kernel stack", canonical)
    );
    assert_eq!(
        problem(|c| c.mappings.physical_memory = Some(fixed(0x8000_0000_0000))),
        ("physical memory", canonical)
    );
    assert_eq!(
        problem(|c| c.mappings.kernel_stack = fixed(0xffff_ffff_ffff_f000)).0,
        "kernel stack"
    );
    assert_eq!(
        problem(|c| c.mappings.dynamic_range_end = Some(DYNAMIC)).1,
        "no free level 4 entry in the dynamic range"
    );
    assert_eq!(problem(|c| c.kernel_stack_size = 0).0, "config");
    assert_eq!(problem(|c| c.kernel_stack_size = u64::MAX).0, "config");
    assert_eq!(problem(|c| c.mappings.aslr = true).0, "config");
    assert_eq!(
        problem(|c| c.mappings.kernel_base = fixed(BASE)).0,
        "config"
    );
}

#[test]
fn ramdisks_in_wrong_places_are_refused() {
    let file = Elf::new(&config()).build();
    let kernel = KernelImage::parse(&file).unwrap();
    let mut memory = Memory::new();
    let base = memory.base();
    let refused = |ramdisk: Range<u64>| {
        let machine = Machine {
            memory_map: &firmware(),
            stub: STUB,
            switch_page: STUB.start,
            ramdisk,
            gib_pages: false,
            physical_offset: base,
        };
        // SAFETY: as in `build`.
        unsafe { prepare(&machine, &kernel) }.unwrap_err()
    };
    let elsewhere = Error::Ramdisk("not in usable memory below 4 GiB");
    assert_eq!(refused(5..5), Error::Ramdisk("empty"));
    assert_eq!(refused(RAM - 0x3_0000..RAM), elsewhere);
    assert_eq!(refused(2 * MIB..u64::MAX), elsewhere);
    assert_eq!(refused(0..4096), elsewhere);
    assert_eq!(refused(5 << 30..6 << 30), elsewhere);
    let overlap = Error::Ramdisk("overlaps the boot stub");
    assert_eq!(refused(STUB.end - 1..2 * MIB), overlap);
}
