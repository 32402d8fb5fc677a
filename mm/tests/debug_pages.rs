//! The checks in the page allocator: what it does with what they find.

use mm::{
    Block, BlockKind, Config, Gfp, Mm, Pfn, State, Use,
    debug::Debug,
    fault::Knobs,
    frame::PAGE_SIZE,
    hosted::{Memory, Reports, called_from},
    owner::{Entry, Group},
    report::Kind,
};
use platform::{
    CpuId, NodeId, Platform,
    hosted::{Hosted, Machine},
};

/// Runs `f` on CPU 0 of a machine of two with a page allocator whose checks `switch_on` has
/// switched on.
fn run(switch_on: impl FnOnce(&Debug<Hosted>, Pfn), f: impl FnOnce(&Mm<Hosted>)) {
    let memory = Memory::builder().node(8 << 20).build();
    let machine = Machine::builder().cpus(2).build();
    machine.run(|| {
        let debug = Debug::off();
        switch_on(&debug, memory.end());
        let config = Config {
            min_free: Some(16),
            debug,
        };
        let blocks = memory.pieces().iter().map(|piece| Block {
            start: Pfn::of_phys(piece.region.start()).unwrap(),
            end: Pfn::of_phys(piece.region.end()).unwrap(),
            node: piece.node,
            kind: BlockKind::Free,
        });
        // SAFETY: all of the memory has descriptors of its own and is free, and it outlives
        // the allocator.
        let map = unsafe { mm::frame::FrameMap::new(memory.layout(), memory.end()) };
        // SAFETY: as above.
        let mm = unsafe { Mm::new(map, config, blocks) }.unwrap();
        f(&mm);
        mm.drain_all();
        mm.audit().unwrap();
    });
}

fn poison(debug: &Debug<Hosted>, _: Pfn) {
    debug.set_poison(true);
}

fn owners(debug: &Debug<Hosted>, end: Pfn) {
    let entries = (0..end.index()).map(|_| Entry::default());
    assert!(debug.start_owners(Vec::leak(entries.collect())));
}

fn free(mm: &Mm<Hosted>, pfn: Pfn, order: usize, usage: Use) {
    // SAFETY: the tests free what they allocated, or what is refused.
    unsafe { mm.free_pages(pfn, order, usage) };
}

fn write(mm: &Mm<Hosted>, pfn: Pfn, offset: usize, value: u8) {
    // SAFETY: memory of the machine; who uses it while it is free is what is tested.
    unsafe { mm.frames().address_of(pfn).add(offset).write(value) };
}

fn read(mm: &Mm<Hosted>, pfn: Pfn) -> Vec<u8> {
    // SAFETY: a frame that the test has allocated.
    unsafe { std::slice::from_raw_parts(mm.frames().address_of(pfn), PAGE_SIZE).to_vec() }
}

#[test]
fn damaged_pages_are_reported_and_kept_out_of_use() {
    run(poison, |mm| {
        let free_before = mm.counts().free + mm.counts().listed;
        for (order, gfp) in [
            (0, Gfp::KERNEL),
            (0, Gfp::NOLOCK),
            (2, Gfp::ATOMIC),
            (5, Gfp::KERNEL),
        ] {
            let pfn = mm.alloc_pages(gfp, order, Use::Slab).unwrap();
            free(mm, pfn, order, Use::Slab);
            let culprit = pfn.add((1 << order) - 1);
            write(mm, culprit, 77, 0xab);
            // Until the damaged one comes again.
            let mut got = Vec::new();
            let state = || mm.frames().get(pfn).unwrap().word().state();
            while state() != State::Bad {
                got.push(mm.alloc_pages(gfp, order, Use::Pages).unwrap());
            }
            let said = Reports::here().expect(Kind::Poison);
            assert_eq!(said.frame, Some(culprit));
            assert!(
                said.text
                    .contains("1 byte is not, the first at offset 0x4d"),
                "{said}"
            );
            assert!(said.text.contains("a single bit, 0, is flipped"), "{said}");
            assert!(said.text.contains(file!()), "{said}");
            assert!(!got.contains(&pfn), "a damaged block was handed out");
            got.into_iter()
                .for_each(|pfn| free(mm, pfn, order, Use::Pages));
        }
        mm.drain_all();
        let counts = mm.counts();
        assert_eq!(counts.bad, 1 + 1 + 4 + 32);
        assert_eq!(counts.free, free_before - counts.bad);
        assert_eq!(counts.used_frames(), 0);
    });
}

#[test]
fn allocated_pages_are_the_users_to_write() {
    run(poison, |mm| {
        for round in 0..300 {
            let order = round % 6;
            let pfn = mm.alloc_pages(Gfp::KERNEL, order, Use::Pages).unwrap();
            for frame in 0..1 << order {
                write(mm, pfn.add(frame), round, 1);
            }
            free(mm, pfn, order, Use::Pages);
        }
        // Zeros are zeros.
        let pfn = mm
            .alloc_pages(Gfp::KERNEL | Gfp::ZERO, 0, Use::Pages)
            .unwrap();
        assert_eq!(read(mm, pfn), [0; PAGE_SIZE]);
        free(mm, pfn, 0, Use::Pages);
        // What is free holds the pattern.
        assert_eq!(read(mm, pfn), [0xaa; PAGE_SIZE]);
    });
}

#[test]
fn poison_is_switched_while_pages_come_and_go() {
    run(
        |_, _| {},
        |mm| {
            let mut held = Vec::new();
            for round in 0..2_000_usize {
                if round % 7 == 0 {
                    mm.debug().set_poison(round % 2 == 0);
                }
                if round % 3 == 2 && !held.is_empty() {
                    let (pfn, order) = held.swap_remove(round % held.len());
                    free(mm, pfn, order, Use::Pages);
                } else if let Some(pfn) = mm.alloc_pages(Gfp::NOWAIT, round % 4, Use::Pages) {
                    write(mm, pfn, round, 1);
                    held.push((pfn, round % 4));
                }
            }
            held.iter()
                .for_each(|(pfn, order)| free(mm, *pfn, *order, Use::Pages));
        },
    );
}

#[test]
fn reports_of_wrong_frees_name_the_owner() {
    run(owners, |mm| {
        let reports = Reports::here();
        let pfn = called_from(0xa1, || mm.alloc_pages(Gfp::KERNEL, 2, Use::Slab).unwrap());
        let wrong = |kind, pfn, order, usage| {
            free(mm, pfn, order, usage);
            let said = reports.expect(kind);
            let owner = said.owner.expect("who has the block is known");
            assert_eq!(owner.allocated.unwrap().stack[0], 0xa1, "{said}");
            assert!(said.caller.unwrap().file().ends_with("debug_pages.rs"));
            owner
        };
        assert!(wrong(Kind::WrongOrder, pfn, 1, Use::Slab).in_use);
        assert!(wrong(Kind::WrongUse, pfn, 2, Use::Pages).in_use);
        assert!(wrong(Kind::NotHead, pfn.add(3), 0, Use::Slab).in_use);
        called_from(0xf1, || free(mm, pfn, 2, Use::Slab));
        let record = wrong(Kind::DoubleFree, pfn, 2, Use::Slab);
        assert!(!record.in_use);
        assert_eq!(record.freed.unwrap().stack[0], 0xf1);
        // The second free is not recorded over the first.
        assert_eq!(mm.debug().record(pfn), Some(record));
    });
}

#[test]
fn poison_reports_name_the_last_owner() {
    let both = |debug: &Debug<Hosted>, end| {
        poison(debug, end);
        owners(debug, end);
    };
    run(both, |mm| {
        let pfn = called_from(0xa1, || mm.alloc_pages(Gfp::KERNEL, 0, Use::Stack).unwrap());
        called_from(0xf1, || free(mm, pfn, 0, Use::Stack));
        write(mm, pfn, 0, 1);
        let other = mm.alloc_pages(Gfp::KERNEL, 0, Use::Pages).unwrap();
        let owner = Reports::here().expect(Kind::Poison).owner.unwrap();
        assert_eq!(owner.usage, Some(Use::Stack));
        assert_eq!(owner.allocated.unwrap().stack[0], 0xa1);
        assert_eq!(owner.freed.unwrap().stack[0], 0xf1);
        free(mm, other, 0, Use::Pages);
    });
}

#[test]
fn leaks_are_found() {
    run(owners, |mm| {
        let alloc = |address, order, usage| {
            called_from(address, || {
                mm.alloc_pages(Gfp::KERNEL, order, usage).unwrap()
            })
        };
        let old = alloc(1, 0, Use::Pages);
        std::thread::sleep(std::time::Duration::from_millis(1));
        mm.debug().owners().mark();
        let leaks = || {
            let mut room = [Group::EMPTY; 16];
            let leaks = mm.debug().owners().leaks(&mut room);
            let all = leaks.groups.iter();
            all.map(|group| (group.stack[0], group.pages))
                .collect::<Vec<_>>()
        };
        assert_eq!(leaks(), []);
        let kept: Vec<_> = (0..3).map(|_| alloc(2, 1, Use::Slab)).collect();
        let gone = alloc(3, 3, Use::Slab);
        assert_eq!(leaks(), [(3, 8), (2, 6)]);
        free(mm, gone, 3, Use::Slab);
        assert_eq!(leaks(), [(2, 6)]);
        kept.iter().for_each(|pfn| free(mm, *pfn, 1, Use::Slab));
        free(mm, old, 0, Use::Pages);
        assert_eq!(leaks(), []);
        assert_eq!(mm.debug().owners().lost(), 0);
    });
}

#[test]
fn every_allocation_of_a_sequence_can_fail_and_nothing_leaks() {
    run(
        |_, _| {},
        |mm| {
            // Holds several blocks at once, and gives all back wherever it fails.
            let sequence = || {
                let mut held = Vec::new();
                let wanted = [0, 3, 1, 10, 0, 5];
                for order in wanted {
                    let node = (order == 1).then_some(NodeId::FIRST);
                    let pfn = match node {
                        Some(node) => mm.alloc_pages_node(node, Gfp::KERNEL, order, Use::Pages),
                        None => mm.alloc_pages(Gfp::KERNEL, order, Use::Pages),
                    };
                    match pfn {
                        Some(pfn) => held.push((pfn, order)),
                        None => break,
                    }
                }
                let got = held.len();
                held.iter()
                    .for_each(|(pfn, order)| free(mm, *pfn, *order, Use::Pages));
                (got, wanted.len())
            };
            let faults = |nth| mm.debug().faults(|faults| faults.fail_nth(nth));
            let mut nth = 1;
            loop {
                faults(nth);
                let (got, wanted) = sequence();
                assert_eq!(mm.counts().used_frames(), 0);
                if mm.debug().fault_knobs().nth != 0 {
                    assert_eq!((got, nth as usize), (wanted, wanted + 1));
                    break;
                }
                assert_eq!(got, nth as usize - 1);
                nth += 1;
            }
            faults(0);
            assert!(!mm.debug().any());
            assert!(Reports::here().take().is_empty());
        },
    );
}

#[test]
fn linux_knobs_hold_for_allocations() {
    run(
        |_, _| {},
        |mm| {
            mm.debug().faults(|faults| {
                faults.attr.configure(&Knobs {
                    probability: 100,
                    times: 2,
                    space: 5,
                    ..Knobs::OFF
                });
            });
            let gets = |gfp, order| {
                let pfn = mm.alloc_pages(gfp, order, Use::Pages);
                pfn.inspect(|pfn| free(mm, *pfn, order, Use::Pages))
                    .is_some()
            };
            // Single pages and those who may sleep are no points, the space lets 4 pages pass.
            assert!(gets(Gfp::ATOMIC, 0) && gets(Gfp::KERNEL, 3) && gets(Gfp::ATOMIC, 2));
            assert!(!gets(Gfp::ATOMIC, 1) && !gets(Gfp::NOLOCK, 4));
            // Used up.
            assert!(gets(Gfp::ATOMIC, 1));
            assert_eq!(mm.debug().fault_knobs().times, 0);
            assert_eq!(Hosted::current_cpu(), CpuId::BOOT);
        },
    );
}
