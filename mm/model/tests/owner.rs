//! An entry of the owners' table under the model checker: a block that is allocated and
//! freed, and readers that come at any time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use mm::{
    Gfp, Use,
    owner::{Entry, Event, Record},
};
use platform::model::{self, Model, Setup};

/// An event whose words all name it.
fn event(number: u32) -> Event {
    Event {
        at_ns: number.into(),
        thread: number,
        cpu: number,
        stack: [number as usize],
    }
}

fn alloc(entry: &Entry, number: u32) -> bool {
    let gfp = Gfp::from_bits_retain(number);
    entry.note_alloc::<Model>(&event(number), number as usize, Use::Slab, gfp)
}

fn free(entry: &Entry, number: u32) -> bool {
    entry.note_free::<Model>(&event(number), number as usize, Use::Slab)
}

/// The event that a record is of; panics if it is not of one moment.
fn moment(record: &Record) -> u32 {
    let number = u32::from(record.order);
    let (last, before) = if record.in_use {
        assert_eq!(record.gfp.bits(), number);
        (record.allocated, record.freed)
    } else {
        (record.freed, record.allocated)
    };
    assert_eq!(last, Some(event(number)));
    assert_eq!(before, (number > 1).then(|| event(number - 1)));
    number
}

#[test]
fn a_record_is_of_one_moment() {
    let seen: &'static [AtomicUsize; 4] = Box::leak(Box::default());
    Setup::new(2).preemptions(3).check(move || {
        let entry = Arc::new(Entry::default());
        let there = Arc::clone(&entry);
        let reader = model::cpu(1, move || {
            let read = there.read().map_or(0, |record| moment(&record));
            seen[read as usize].fetch_add(1, SeqCst);
        });
        assert!(alloc(&entry, 1));
        assert!(free(&entry, 2));
        reader.join();
        assert_eq!(moment(&entry.read().unwrap()), 2);
    });
    // Nothing (not yet, or not whole), the first, the second; nothing else.
    let seen = seen.each_ref().map(|times| times.load(SeqCst) > 0);
    assert_eq!(seen, [true, true, true, false]);
}

#[test]
fn of_two_who_free_a_block_one_writes_at_a_time() {
    let lost: &'static AtomicUsize = Box::leak(Box::default());
    Setup::new(2).preemptions(3).check(move || {
        let entry = Arc::new(Entry::default());
        let there = Arc::clone(&entry);
        let failed = Arc::new(AtomicUsize::new(0));
        let failed_there = Arc::clone(&failed);
        let free_here = |failed: &AtomicUsize, entry: &Entry| {
            if !free(entry, 1) {
                failed.fetch_add(1, SeqCst);
            }
        };
        let other = model::cpu(1, move || free_here(&failed_there, &there));
        free_here(&failed, &entry);
        other.join();
        let failed = failed.load(SeqCst);
        assert!(failed < 2);
        lost.fetch_add(failed, SeqCst);
        let record = entry.read().unwrap();
        assert_eq!(record.freed, Some(event(1)));
    });
    assert!(lost.load(SeqCst) > 0);
}

/// Whatever brought the block from one to the other: here, nothing but the entry.
#[test]
fn the_next_writer_sees_the_words_of_the_one_before() {
    Setup::new(2).preemptions(3).check(|| {
        let entry = Arc::new(Entry::default());
        let there = Arc::clone(&entry);
        let freed = Arc::new(AtomicUsize::new(0));
        let freed_there = Arc::clone(&freed);
        let other = model::cpu(1, move || {
            freed_there.fetch_add(free(&there, 1).into(), SeqCst);
        });
        let allocated = alloc(&entry, 2);
        other.join();
        let record = entry.read().unwrap();
        if allocated && freed.load(SeqCst) == 1 {
            assert_eq!(record.allocated, Some(event(2)));
            assert_eq!(record.freed, Some(event(1)));
        }
    });
}
