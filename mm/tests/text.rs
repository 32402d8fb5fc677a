//! The text that Linux's tools read: layouts taken from a running Linux 7.2.

use mm::{
    Block, BlockKind, Config, Gfp, Machine as _, Mm, Pages, Pfn, Use,
    debug::Debug,
    frame::FrameMap,
    hosted::Memory,
    text::{Beside, BuddyInfo, MemInfo, PageTypeInfo, ZoneInfo},
};
use platform::{
    NodeId, Platform,
    hosted::{Hosted, Machine},
};

/// Runs `f` on a machine of two CPUs: node 0 has 64 MiB on both sides of 4 GiB, node 1 has
/// 16 MiB below, a reserved page among them.
fn run(f: impl FnOnce(&Mm<Hosted>)) {
    let second = NodeId::from_index(1).unwrap();
    let memory = Memory::builder()
        .start((4 << 30) - (48 << 20))
        .piece(second, 16 << 20)
        .piece(NodeId::FIRST, 64 << 20)
        .build();
    let machine = Machine::builder().cpus(2).nodes(2).build();
    machine.run(|| {
        let mut blocks = Vec::new();
        for piece in memory.pieces() {
            let (start, end) = (piece.region.start(), piece.region.end());
            let reserved = if piece.node == second { 4096 } else { 0 };
            for (start, end, kind) in [
                (start, start + reserved, BlockKind::Reserved),
                (start + reserved, end, BlockKind::Free),
            ] {
                if start < end {
                    blocks.push(Block {
                        start: Pfn::of_phys(start).unwrap(),
                        end: Pfn::of_phys(end).unwrap(),
                        node: piece.node,
                        kind,
                    });
                }
            }
        }
        let config = Config {
            min_free: Some(512),
            debug: Debug::off(),
        };
        // SAFETY: all of the memory has descriptors of its own and is free, and it outlives
        // the allocator.
        let mm = unsafe {
            let map = FrameMap::new(memory.layout(), memory.end());
            Mm::new(map, config, blocks.iter().copied()).unwrap()
        };
        f(&mm);
    });
}

#[test]
fn buddyinfo() {
    run(|mm| {
        assert_eq!(
            BuddyInfo(mm).to_string(),
            "Node 0, zone    DMA32      0      0      0      0      0      0      0      0      0      0      8 \n\
             Node 0, zone   Normal      0      0      0      0      0      0      0      0      0      0      8 \n\
             Node 1, zone    DMA32      1      1      1      1      1      1      1      1      1      1      3 \n"
        );
        let five = Pages::alloc(mm, Gfp::KERNEL, 5, Use::Pages).unwrap();
        let text = BuddyInfo(mm).to_string();
        assert!(
            text.contains(
                "zone   Normal      0      0      0      0      0      1      1      1      1      1      7 \n"
            ),
            "{text}"
        );
        drop(five);
    });
}

#[test]
fn pagetypeinfo() {
    run(|mm| {
        let text = PageTypeInfo(mm).to_string();
        let (first, second) = text.split_at(text.rfind("Page block").unwrap());
        assert_eq!(
            first,
            "Page block order: 10\n\
             Pages per block:  1024\n\
             \n\
             Free pages count per migrate type at order       0      1      2      3      4      5      6      7      8      9     10 \n\
             Node    0, zone    DMA32, type    Unmovable      0      0      0      0      0      0      0      0      0      0      8 \n\
             Node    0, zone   Normal, type    Unmovable      0      0      0      0      0      0      0      0      0      0      8 \n\
             \n\
             Number of blocks type     Unmovable \n\
             Node 0, zone    DMA32            8 \n\
             Node 0, zone   Normal            8 \n"
        );
        assert!(
            second.ends_with("Node 1, zone    DMA32            4 \n"),
            "{second}"
        );
    });
}

/// The value of a line, in KiB.
fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    assert_eq!((words[0].strip_suffix(':'), words[2]), (Some(name), "kB"));
    words[1].parse().unwrap()
}

#[test]
fn meminfo() {
    run(|mm| {
        let beside = Beside {
            slab_reclaimable: 8 << 10,
            stacks: 3 << 10,
            page_tables: 5 << 10,
            percpu: 7 << 10,
            vmalloc_used: 1600 << 10,
            vmalloc_chunk: 0,
        };
        let slab = Pages::alloc(mm, Gfp::KERNEL, 2, Use::Slab).unwrap();
        let stack = Pages::alloc(mm, Gfp::KERNEL, 3, Use::Stack).unwrap();
        let text = MemInfo(mm, beside).to_string();
        assert!(
            text.starts_with("MemTotal:          81916 kB\nMemFree:           81"),
            "{text}"
        );
        for (name, value) in [
            ("KReclaimable", 8),
            ("Slab", 16),
            ("SReclaimable", 8),
            ("SUnreclaim", 8),
            ("KernelStack", 35),
            ("PageTables", 5),
            ("Percpu", 7),
            ("VmallocUsed", 1600),
            ("HardwareCorrupted", 0),
            ("Pages", 0),
        ] {
            assert_eq!(kib(&text, name), value, "{name}:\n{text}");
        }
        assert!(text.contains("\nVmallocUsed:        1600 kB\n"), "{text}");
        assert!(text.contains("\nHardwareCorrupted:     0 kB\n"), "{text}");
        let free = kib(&text, "MemFree") + kib(&text, "PageLists");
        assert_eq!(free + 16 + 32, 81916, "{text}");
        let kept: u64 = mm
            .zones()
            .map(|zone| 4 * (zone.watermarks().high + zone.protection()))
            .sum();
        assert_eq!(kib(&text, "MemAvailable"), free - kept + 8, "{text}");
        drop((slab, stack));
    });
}

#[test]
fn zoneinfo() {
    run(|mm| {
        let two = Pages::alloc(mm, Gfp::KERNEL, 1, Use::PageTable).unwrap();
        let text = ZoneInfo(mm).to_string();
        let zones: Vec<&str> = text.split("Node ").skip(1).collect();
        assert_eq!(zones.len(), 3, "{text}");
        let node = Hosted::node_here();
        assert_eq!(node, NodeId::FIRST);
        let zone = mm.zones().next().unwrap();
        let marks = zone.watermarks();
        assert_eq!(
            zones[0],
            format!(
                "0, zone    DMA32\
                 \n  per-node stats\
                 \n      nr_slab_unreclaimable 0\
                 \n      nr_kernel_stack 0\
                 \n      nr_page_table_pages 2\
                 \n      nr_vmalloc   0\
                 \n  pages free     8192\
                 \n        boost    0\
                 \n        min      {}\
                 \n        low      {}\
                 \n        high     {}\
                 \n        spanned  8192\
                 \n        present  8192\
                 \n        managed  8192\
                 \n        cma      0\
                 \n        protection: (0, 32)\
                 \n      nr_free_pages 8192\
                 \n      nr_bad_pages 0\
                 \n  pagesets\
                 \n  node_unreclaimable:  0\
                 \n  start_pfn:           1040384\n",
                marks.min, marks.low, marks.high
            )
        );
        // The home of node 0's CPUs is its higher zone.
        let lists = mm.page_lists().next().unwrap().1;
        let sets = format!(
            "\n        protection: (0, 0)\
             \n      nr_free_pages {}\
             \n      nr_bad_pages 0\
             \n  pagesets\
             \n    cpu: 0\
             \n              count:    {}\
             \n              high:     {high}\
             \n              batch:    {}\
             \n              high_min: {high}\
             \n              high_max: {high}",
            mm.zones().nth(1).unwrap().free(),
            lists.frames(),
            lists.sizes.batch[0],
            high = lists.sizes.high[0],
        );
        assert!(zones[1].contains(&sets), "{sets}\n{text}");
        assert!(!zones[1].contains("per-node"), "{text}");
        assert!(zones[2].starts_with("1, zone    DMA32\n  per-node stats"));
        assert!(
            zones[2].contains(
                "\n        spanned  4096\n        present  4096\n        managed  4095\n"
            )
        );
        let count = zones.iter().map(|zone| zone.matches("cpu: ").count());
        assert_eq!(count.sum::<usize>(), Hosted::online_cpus().count());
        drop(two);
    });
}
