//! The record of owners: what is kept, how it is shown, and that nobody reads half of it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::{fmt, sync::Arc};

use mm::{
    Gfp, Pfn, Use,
    hosted::called_from,
    owner::{DEPTH, Entry, Group, Owners, bytes_for},
};
use platform::{
    CpuId, Platform,
    hosted::{Hosted, Machine},
};

type Table = Owners<Hosted>;

const FRAMES: usize = 256;

fn table() -> Table {
    let table = Table::new();
    assert!(table.start(entries(FRAMES)));
    table
}

fn entries(frames: usize) -> &'static [Entry] {
    Vec::leak((0..frames).map(|_| Entry::default()).collect())
}

fn run(f: impl FnOnce()) {
    Machine::builder().build().run(f);
}

fn hex(out: &mut dyn fmt::Write, address: usize) -> fmt::Result {
    write!(out, "{address:#x}")
}

fn plain(table: &Table, pfn: u32, order: usize) {
    table.note_alloc(Pfn(pfn), order, Use::Pages, Gfp::KERNEL);
}

#[test]
fn nothing_is_recorded_until_there_is_a_table() {
    run(|| {
        let table = Table::new();
        assert!(!table.is_on());
        plain(&table, 1, 0);
        table.note_free(Pfn(1), 0, Use::Pages);
        assert_eq!(table.record(Pfn(1)), None);
        assert_eq!(table.blocks().count(), 0);
        assert!(!table.start(&[]));
        assert!(table.start(entries(2)));
        assert!(!table.start(entries(4)), "there is one already");
        assert!(table.is_on());
        plain(&table, 1, 0);
        // Beyond the table.
        plain(&table, 2, 0);
        assert_eq!(table.record(Pfn(2)), None);
        assert!(table.record(Pfn(1)).is_some());
        assert_eq!(bytes_for(3), 3 * size_of::<Entry>());
    });
}

#[test]
fn both_events_are_kept() {
    run(|| {
        let table = table();
        let before = Hosted::now_ns();
        called_from(0x10, || {
            called_from(0x20, || {
                table.note_alloc(Pfn(4), 2, Use::Slab, Gfp::ATOMIC | Gfp::ZERO);
            });
        });
        let record = table.record(Pfn(4)).unwrap();
        assert_eq!((record.order, record.pages()), (2, 4));
        assert_eq!(record.usage, Some(Use::Slab));
        assert_eq!(record.gfp, Gfp::ATOMIC | Gfp::ZERO);
        assert!(record.in_use && record.freed.is_none());
        let allocated = record.allocated.unwrap();
        assert_eq!(allocated.stack[..3], [0x20, 0x10, 0]);
        assert_eq!(allocated.thread, Hosted::current_thread().number());
        assert_eq!(allocated.cpu, 0);
        assert!((before..=Hosted::now_ns()).contains(&allocated.at_ns));

        called_from(0x30, || table.note_free(Pfn(4), 2, Use::Slab));
        let record = table.record(Pfn(4)).unwrap();
        assert!(!record.in_use && record.allocated == Some(allocated));
        let freed = record.freed.unwrap();
        assert_eq!(freed.stack[..2], [0x30, 0]);
        assert_eq!(record.gfp, Gfp::ATOMIC | Gfp::ZERO);

        // The next allocation keeps the free before it.
        plain(&table, 4, 0);
        let record = table.record(Pfn(4)).unwrap();
        assert!(record.in_use && record.order == 0);
        assert_eq!(record.freed, Some(freed));
        assert_ne!(record.allocated, Some(allocated));
    });
}

#[test]
fn deep_stacks_are_cut() {
    fn deep(depth: usize, f: &dyn Fn()) {
        match depth {
            0 => f(),
            _ => called_from(0x1000 + depth, || deep(depth - 1, f)),
        }
    }
    run(|| {
        let table = table();
        deep(DEPTH + 5, &|| plain(&table, 0, 0));
        let stack = table.record(Pfn(0)).unwrap().allocated.unwrap().stack;
        assert_eq!(stack, core::array::from_fn(|depth| 0x1001 + depth));
    });
}

#[test]
fn the_last_user_of_a_tail_is_found() {
    run(|| {
        let table = table();
        assert_eq!(table.last_of(Pfn(21)), None);
        plain(&table, 16, 3);
        assert_eq!(table.last_of(Pfn(21)).unwrap().0, Pfn(16));
        assert_eq!(table.last_of(Pfn(16)).unwrap().0, Pfn(16));
        // Frame 24 is not of that block.
        assert_eq!(table.last_of(Pfn(24)), None);
        table.note_free(Pfn(16), 3, Use::Pages);
        std::thread::sleep(std::time::Duration::from_millis(1));
        plain(&table, 20, 1);
        assert_eq!(table.last_of(Pfn(21)).unwrap().0, Pfn(20));
        assert_eq!(table.last_of(Pfn(22)).unwrap().0, Pfn(16));
        // The larger one again: newer than the smaller.
        table.note_free(Pfn(20), 1, Use::Pages);
        std::thread::sleep(std::time::Duration::from_millis(1));
        plain(&table, 16, 3);
        assert_eq!(table.last_of(Pfn(21)).unwrap().0, Pfn(16));
    });
}

#[test]
fn blocks_are_listed_as_linux_does() {
    run(|| {
        let table = table();
        called_from(0xabc, || {
            table.note_alloc(Pfn(7), 0, Use::PageTable, Gfp::KERNEL | Gfp::ZERO);
        });
        plain(&table, 8, 3);
        plain(&table, 16, 0);
        table.note_free(Pfn(16), 0, Use::Pages);
        let listed: Vec<_> = table.blocks().map(|(pfn, _)| pfn.0).collect();
        assert_eq!(listed, [7, 8]);

        let mut text = String::new();
        table.write_blocks(&mut text, &hex).unwrap();
        let blocks: Vec<_> = text
            .split("\n\n")
            .filter(|block| !block.is_empty())
            .collect();
        assert_eq!(blocks.len(), 2);
        let event = table.record(Pfn(7)).unwrap().allocated.unwrap();
        let (head, rest) = blocks[0].split_once(", age ").unwrap();
        assert_eq!(
            head,
            format!(
                "Page allocated via order 0, mask 0x5(RECLAIM | ZERO), pid {}, cpu 0, ts {} ns",
                event.thread, event.at_ns
            )
        );
        let (age, rest) = rest.split_once(" ns\n").unwrap();
        assert!(age.parse::<u64>().unwrap() <= Hosted::now_ns() - event.at_ns);
        assert_eq!(rest, "PFN 0x7 use page table\n 0xabc");
        assert!(blocks[1].starts_with("Page allocated via order 3,"));
        assert!(blocks[1].ends_with("PFN 0x8 use pages"));
    });
}

#[test]
fn blocks_are_grouped_by_their_callers() {
    run(|| {
        let table = table();
        let at = |address, pfn, order| called_from(address, || plain(&table, pfn, order));
        at(0xa, 0, 0);
        at(0xb, 8, 2);
        at(0xa, 1, 0);
        at(0xb, 16, 3);
        at(0xa, 2, 0);
        at(0xc, 32, 0);
        // Another use is another group.
        called_from(0xa, || table.note_alloc(Pfn(3), 0, Use::Stack, Gfp::KERNEL));
        table.note_free(Pfn(2), 0, Use::Pages);

        let mut room = [Group::EMPTY; 8];
        let groups = table.group(0, &mut room);
        let summary: Vec<_> = groups
            .groups
            .iter()
            .map(|group| (group.stack[0], group.blocks, group.pages, group.first.0))
            .collect();
        assert_eq!(
            summary,
            [
                (0xb, 2, 12, 8),
                (0xa, 2, 2, 0),
                (0xa, 1, 1, 3),
                (0xc, 1, 1, 32)
            ]
        );
        assert_eq!((groups.left_out, groups.pages()), (0, 16));
        assert!(groups.groups[0].oldest_ns <= groups.groups[0].newest_ns);

        let mut text = String::new();
        groups.write(&mut text, Hosted::now_ns(), &hex).unwrap();
        let first = text.split("\n\n").next().unwrap();
        assert!(
            first.starts_with(" 0xb\npages in 2 blocks from PFN 0x8, age "),
            "{text}"
        );
        assert!(first.ends_with(" ns\nnr_base_pages: 12"), "{text}");

        // Too little room, or none: what is left out is counted.
        for places in 0..4 {
            let groups = table.group(0, &mut room[..places]);
            assert_eq!(groups.groups.len(), places);
            assert_eq!(groups.pages(), 16);
            assert!(groups.left_out > 0);
            let mut text = String::new();
            groups.write(&mut text, Hosted::now_ns(), &hex).unwrap();
            let rest = format!("and {} pages of more allocators\n", groups.left_out);
            assert!(text.ends_with(&rest), "{text}");
        }
    });
}

#[test]
fn leaks_are_what_was_allocated_since_the_mark() {
    run(|| {
        let table = table();
        let tick = || std::thread::sleep(std::time::Duration::from_millis(1));
        called_from(1, || plain(&table, 0, 0));
        tick();
        table.mark();
        let mut room = [Group::EMPTY; 4];
        assert_eq!(table.leaks(&mut room).pages(), 0);
        called_from(2, || plain(&table, 1, 0));
        called_from(3, || plain(&table, 2, 1));
        called_from(4, || plain(&table, 4, 0));
        table.note_free(Pfn(4), 0, Use::Pages);
        // What was there before is no leak, even if it is freed.
        table.note_free(Pfn(0), 0, Use::Pages);
        let leaks = table.leaks(&mut room);
        let found: Vec<_> = leaks.groups.iter().map(|group| group.stack[0]).collect();
        assert_eq!((found, leaks.pages()), (vec![3, 2], 3));
        tick();
        table.mark();
        assert_eq!(table.leaks(&mut room).pages(), 0);
    });
}

/// Everything that is written for one block in one go has this number in it.
fn write(table: &Table, number: u32) {
    let order = number as usize % 8;
    called_from(number as usize, || {
        called_from(!(number as usize), || {
            if number.is_multiple_of(2) {
                table.note_alloc(Pfn(0), order, Use::Pages, Gfp::from_bits_retain(number));
            } else {
                table.note_free(Pfn(0), order, Use::Pages);
            }
        });
    });
}

/// Panics if the record is not of one write after the other.
fn assert_whole(record: &mm::owner::Record) {
    let number = |event: &mm::owner::Event| {
        assert_eq!(event.stack[0], !event.stack[1], "{record:?}");
        assert_eq!(event.stack[2..], [0; DEPTH - 2], "{record:?}");
        event.stack[1] as u32
    };
    let allocated = record.allocated.as_ref().map(number);
    let freed = record.freed.as_ref().map(number);
    if record.in_use {
        let allocated = allocated.unwrap();
        assert_eq!(record.gfp.bits(), allocated, "{record:?}");
        assert_eq!(u32::from(record.order), allocated % 8, "{record:?}");
        assert_eq!(freed, allocated.checked_sub(1), "{record:?}");
    } else {
        let freed = freed.unwrap();
        assert_eq!(allocated, freed.checked_sub(1), "{record:?}");
        assert_eq!(u32::from(record.order), freed % 8, "{record:?}");
    }
}

#[test]
fn half_a_record_is_never_read() {
    let rounds = std::env::var("GRANARY_ROUNDS").map_or(10_000, |text| text.parse().unwrap());
    let table = table();
    let machine = Machine::builder().cpus(3).build();
    let over = AtomicBool::new(false);
    let reads = machine.run_on_all(|cpu| {
        if cpu == CpuId::BOOT {
            (0..rounds).for_each(|number| write(&table, number));
            over.store(true, Relaxed);
            return 0;
        }
        let mut reads = 0;
        while !over.load(Relaxed) {
            if let Some(record) = table.record(Pfn(0)) {
                assert_whole(&record);
                reads += 1;
            }
        }
        reads
    });
    assert!(reads[1..].iter().all(|reads| *reads > 0), "{reads:?}");
    assert_eq!(table.lost(), 0);
}

#[test]
fn a_reader_that_stopped_the_writer_does_without() {
    let table = Arc::new(table());
    let machine = Machine::builder().seed(3).build();
    let (seen, missed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let nmi = {
        let (table, seen, missed) = (Arc::clone(&table), Arc::clone(&seen), Arc::clone(&missed));
        move || match table.record(Pfn(0)) {
            None => drop(missed.fetch_add(1, Relaxed)),
            Some(record) => {
                assert_whole(&record);
                seen.fetch_add(1, Relaxed);
                // One that writes there is refused, or it is between two writes.
                table.note_alloc(Pfn(9), 0, Use::Pages, Gfp::NOLOCK);
            }
        }
    };
    let _nmi = machine.on_nmi(4, nmi);
    machine.run(|| (0..2_000).for_each(|number| write(&table, number)));
    // The writer was stopped in the middle.
    assert!(missed.load(Relaxed) > 100, "{missed:?} {seen:?}");
    assert!(table.record(Pfn(0)).is_some());
    assert_eq!(table.lost(), 0);
}

#[test]
fn of_two_writers_one_is_lost_and_counted() {
    let table = Arc::new(table());
    let machine = Machine::builder().seed(3).build();
    let nmi = {
        let table = Arc::clone(&table);
        // A wrong one: it writes to what the interrupted code owns.
        move || table.note_free(Pfn(0), 5, Use::Pages)
    };
    let _nmi = machine.on_nmi(4, nmi);
    machine.run(|| (0..500).for_each(|_| plain(&table, 0, 1)));
    assert!(table.lost() > 0);
    assert!(table.record(Pfn(0)).is_some());
}
