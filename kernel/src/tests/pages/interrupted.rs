//! Allocation and free, interrupted at every instruction by interrupts and NMIs that do the
//! same.

use core::sync::atomic::{AtomicU64, Ordering};

use mm::{Gfp, Pfn, Use};

use super::{all_came_back, used};
use crate::kunit::{Ctx, Outcome, kassert, kassert_eq, knote, kunit_suite, rounds};
use crate::memory::mm;
use crate::sweep::sweep;
use crate::timer::RawKind;
use crate::{smp, time};

kunit_suite! {
    name: "pages_interrupted",
    cases: [
        by_interrupts => { over: ORDERS },
        by_nmis => { over: ORDERS },
        in_calls_between_cpus,
    ],
}

/// Of a list, of the zone, and one that cuts and merges much.
const ORDERS: &[(&str, usize)] = &[("0", 0), ("3", 3), ("5", 5)];

/// More instructions than an allocation and a free of one block have, mostly.
const LENGTH: u64 = 6_000;

/// What a handler met.
#[derive(Default)]
struct Met {
    got: AtomicU64,
    nothing: AtomicU64,
    damaged: AtomicU64,
}

/// Marks a block as ours, in its first and its last page.
fn mark(pfn: Pfn, order: usize, value: u64) {
    for page in [pfn, pfn.add((1 << order) - 1)] {
        // SAFETY: the block is the caller's.
        unsafe {
            mm().frames()
                .address_of(page)
                .cast::<u64>()
                .write_volatile(value);
        }
    }
}

/// Whether a block is still marked so.
fn is_marked(pfn: Pfn, order: usize, value: u64) -> bool {
    [pfn, pfn.add((1 << order) - 1)].into_iter().all(|page| {
        // SAFETY: the block is the caller's.
        let found = unsafe { mm().frames().address_of(page).cast::<u64>().read_volatile() };
        found == value
    })
}

/// One allocation and free of each of two orders.
fn use_pages(gfp: Gfp, order: usize, value: u64, met: &Met) {
    // Relaxed: read when everything has ended.
    let add = |count: &AtomicU64| {
        count.fetch_add(1, Ordering::Relaxed);
    };
    match mm().alloc_pages(gfp, order, Use::Pages) {
        None => add(&met.nothing),
        Some(pfn) => {
            add(&met.got);
            mark(pfn, order, value);
            if !is_marked(pfn, order, value) {
                add(&met.damaged);
            }
            // SAFETY: ours, allocated so.
            unsafe {
                if gfp.contains(Gfp::NOLOCK) {
                    mm().free_pages_nolock(pfn, order, Use::Pages);
                } else {
                    mm().free_pages(pfn, order, Use::Pages);
                }
            }
        }
    }
}

fn swept(kind: RawKind, order: usize, gfp: Gfp) -> Outcome {
    let before = used(mm());
    let (inside, outside) = (Met::default(), Met::default());
    let held = AtomicU64::new(0);
    let handler = || {
        // Another order too, so that lists and zone are both in use.
        use_pages(gfp, order, 0x1111, &inside);
        use_pages(gfp, 5 - order, 0x2222, &inside);
    };
    // At every place on the exact machines; elsewhere they are met by chance.
    let length = if time::is_exact() {
        LENGTH
    } else {
        rounds(LENGTH, LENGTH / 4)
    };
    let swept = sweep(kind, 1, length as u32, &handler, || {
        // The timer is taken, so nobody sleeps here.
        let Some(pfn) = mm().alloc_pages(Gfp::ATOMIC, order, Use::Pages) else {
            outside.nothing.fetch_add(1, Ordering::Relaxed);
            return;
        };
        mark(pfn, order, 0x3333);
        held.fetch_add(1, Ordering::Relaxed);
        if !is_marked(pfn, order, 0x3333) {
            outside.damaged.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: ours, allocated so.
        unsafe { mm().free_pages(pfn, order, Use::Pages) };
    });
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    knote!(
        "{swept:?}: {} blocks in handlers, {} times none",
        read(&inside.got),
        read(&inside.nothing)
    );
    kassert_eq!(read(&inside.damaged) + read(&outside.damaged), 0);
    kassert_eq!(read(&outside.nothing), 0);
    kassert_eq!(
        read(&inside.got) + read(&inside.nothing),
        2 * swept.interrupts
    );
    kassert!(read(&inside.got) > 0);
    if !gfp.contains(Gfp::NOLOCK) {
        // An interrupt may wait for locks, so there is memory.
        kassert_eq!(read(&inside.nothing), 0);
    }
    all_came_back(before)
}

fn by_interrupts(_: &mut Ctx, order: usize) -> Outcome {
    swept(RawKind::Irq, order, Gfp::ATOMIC)
}

fn by_nmis(_: &mut Ctx, order: usize) -> Outcome {
    swept(RawKind::Nmi, order, Gfp::NOLOCK)
}

/// Every CPU allocates and frees in an interrupt, whatever it was doing.
fn in_calls_between_cpus(_: &mut Ctx) -> Outcome {
    let before = used(mm());
    let met = Met::default();
    let calls = rounds(20_000, 200);
    for round in 0..calls {
        let order = (round % 6) as usize;
        smp::call_all(&|| use_pages(Gfp::ATOMIC, order, round, &met));
    }
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    kassert_eq!((read(&met.damaged), read(&met.nothing)), (0, 0));
    kassert_eq!(read(&met.got), calls * smp::online().count() as u64);
    all_came_back(before)
}
