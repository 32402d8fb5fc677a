//! No memory, at every possible point.

use std::sync::atomic::Ordering;

use mm::percpu::UNIT;

use crate::memory::{Memory, PAGE, audited, layout, machine};

/// A sequence of sizes that grows three times. What could be allocated, in order.
fn sequence(memory: &Memory) -> Vec<(usize, usize)> {
    let sizes = [100, UNIT, 5_000, UNIT - 64, 16, 20_000, 20_000, 1];
    sizes
        .into_iter()
        .filter_map(|size| Some((memory.alloc(layout(size, 16))?, size)))
        .collect()
}

fn free(memory: &Memory, all: Vec<(usize, usize)>) {
    for (offset, size) in all {
        // SAFETY: allocated so.
        unsafe { memory.free(offset, layout(size, 16)) };
    }
}

/// The n-th page cannot be had, for every n: nothing leaks, and what was allocated before is
/// as it was.
#[test]
fn every_page_may_be_missing() {
    let (machine, memory) = machine(3, 1, 0);
    machine.run(|| {
        let all = sequence(&memory);
        let (full, wanted) = (memory.backing().pages(), all.len());
        assert!(wanted == 8 && full > 3 * 4 * UNIT / PAGE);
        free(&memory, all);
        memory.trim();
        for left in 0..=full {
            let pages = &memory.backing().pages_left;
            pages.store(left, Ordering::Relaxed);
            let all = sequence(&memory);
            assert_eq!(all.len() == wanted, left == full, "{left} of {full} pages");
            for (offset, size) in &all {
                memory.backing().write(*offset..offset + size, *size as u8);
            }
            for (offset, size) in &all {
                memory.backing().check(*offset..offset + size, *size as u8);
            }
            audited(&memory).unwrap();
            free(&memory, all);
            memory.trim();
            assert_eq!(audited(&memory).unwrap().chunks, 1);
            assert_eq!(memory.backing().pages(), 0, "pages leak");
            assert_eq!(pages.load(Ordering::Relaxed), left);
        }
    });
}

/// What a reclaim yields is used; and it is asked only while that makes sense.
#[test]
fn reclaims_and_tries_again() {
    let (machine, memory) = machine(1, 1, UNIT);
    machine.run(|| {
        let backing = memory.backing();
        backing.pages_left.store(3, Ordering::Relaxed);
        assert_eq!(memory.alloc(layout(8, 8)), None);
        backing.reclaimable.store(1_000, Ordering::Relaxed);
        let offset = memory.alloc(layout(8, 8)).expect("there is memory now");
        assert_eq!(backing.reclaimable.load(Ordering::Relaxed), 0);
        // SAFETY: allocated so.
        unsafe { memory.free(offset, layout(8, 8)) };
        audited(&memory).unwrap();
    });
}
