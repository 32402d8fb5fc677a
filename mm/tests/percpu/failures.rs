//! No memory, at every possible point.

use std::sync::{Arc, atomic::Ordering};

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

/// While a thread wanted to grow somebody else freed: there is room without a page more.
#[test]
fn room_that_comes_meanwhile_is_used() {
    let (machine, memory) = machine(1, 1, UNIT - 64);
    let memory = Arc::new(memory);
    machine.run(|| {
        let offset = memory.alloc_atomic(layout(64, 16)).expect("the last room");
        let backing = memory.backing();
        backing.pages_left.store(0, Ordering::Relaxed);
        let there = Arc::clone(&memory);
        // SAFETY: allocated so.
        let free = move || unsafe { there.free(offset, layout(64, 16)) };
        *backing.in_reclaim.lock().unwrap() = Some(Box::new(free));
        assert_eq!(memory.alloc(layout(64, 16)), Some(offset));
        audited(&memory).unwrap();
    });
}

/// Frees that come while a thread grows leave chunks to it that are too many.
#[test]
fn surplus_that_comes_meanwhile_is_given_back() {
    let (machine, memory) = machine(1, 1, UNIT);
    let memory = Arc::new(memory);
    machine.run(|| {
        let unit = layout(UNIT, PAGE);
        let all = [(); 3].map(|()| memory.alloc(unit).unwrap());
        let there = Arc::clone(&memory);
        let free = move || {
            for offset in all {
                // SAFETY: allocated so.
                unsafe { there.free(offset, unit) };
            }
            let stats = there.stats();
            assert_eq!((stats.chunks, stats.empty), (4, 3), "the mutex is taken");
        };
        *memory.backing().in_populate.lock().unwrap() = Some(Box::new(free));
        memory.alloc(unit).expect("memory");
        let stats = audited(&memory).unwrap();
        assert_eq!((stats.chunks, stats.empty), (3, 1));
    });
}
