//! Frees that find the zone's lock taken, and what interrupts do in the middle of things.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use mm::{Gfp, State, Use, hosted::Memory};
use platform::{
    CpuId, Mark, Platform,
    hosted::{Hosted, Machine},
};

use super::world::{MIB, World, alloc, free, free_nolock, rounds};

/// A CPU frees without waiting while another one holds the zone's lock most of the time:
/// blocks are left for it, and are all there at the end.
#[test]
fn frees_that_may_not_wait_are_taken_in_later() {
    let wanted = rounds(20_000, 100);
    let world = World::new(Machine::builder().cpus(2), Memory::builder().node(16 * MIB));
    let done = AtomicBool::new(false);
    world.run_on_all(|mm, cpu| {
        if cpu == CpuId::BOOT {
            let mut left = 0;
            while left < wanted {
                // An order that no list has.
                let Some(held) = alloc(mm, Gfp::KERNEL, 4, Use::Slab) else {
                    continue;
                };
                free_nolock(mm, held);
                let word = mm.frames().get(held.pfn).unwrap().word();
                left += u64::from(word.state() == State::Later);
                Hosted::mark(Mark::Step);
            }
            done.store(true, Relaxed);
        } else {
            while !done.load(Relaxed) {
                // Such a large block is marked frame by frame, under the lock.
                let held = alloc(mm, Gfp::KERNEL, 10, Use::Pages);
                held.into_iter().for_each(|held| free(mm, held));
                Hosted::mark(Mark::Step);
            }
        }
    });
    world.assert_all_back();
}

/// An NMI after every step of allocations and frees, which does the same without locks.
#[test]
fn an_nmi_at_every_step() {
    let world = World::new(Machine::builder(), Memory::builder().node(6 * MIB));
    let counts: Arc<[AtomicU64; 2]> = Arc::default();
    let (mm, counted) = (Arc::clone(world.mm()), Arc::clone(&counts));
    let nmi = world.machine.on_nmi(1, move || {
        let order = counted[0].fetch_add(1, Relaxed) as usize % 5;
        if let Some(held) = alloc(&mm, Gfp::NOLOCK, order, Use::Kmalloc) {
            counted[1].fetch_add(1, Relaxed);
            free_nolock(&mm, held);
        }
    });
    world.run(|mm| {
        for round in 0..rounds(100_000, 1_000) {
            let order = round as usize % 6;
            let held = alloc(mm, Gfp::KERNEL, order, Use::Pages).unwrap();
            assert_eq!(mm.counts().used[Use::Kmalloc as usize], 0);
            free(mm, held);
        }
    });
    drop(nmi);
    let [tried, got] = [0, 1].map(|index| counts[index].load(Relaxed));
    assert!(got > tried / 2, "of {tried} NMIs {got} got memory");
    world.assert_all_back();
}
