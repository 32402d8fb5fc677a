//! Interrupts and NMIs in the middle of it, that free, too.

use std::sync::{
    Arc,
    atomic::{
        AtomicPtr, AtomicU64,
        Ordering::{AcqRel, Relaxed},
    },
};

use mm::{Gfp, hosted::Memory, slab::Slabs};
use platform::hosted::{Hosted, Machine};

use crate::{
    Cache, cache, count, end, walk,
    world::{MIB, World, free, rounds, take},
};

/// Puts an object into a slot, or frees the one that is there.
fn turn(slot: &AtomicPtr<u8>, slabs: &Slabs<Hosted>, cache: &Cache, nolock: bool) {
    let object = if nolock {
        cache.alloc_nolock(None)
    } else {
        cache.alloc(Gfp::ATOMIC)
    };
    let object = object.map_or(std::ptr::null_mut(), std::ptr::NonNull::as_ptr);
    let was = slot.swap(object, AcqRel);
    if let Some(was) = std::ptr::NonNull::new(was) {
        // SAFETY: taken out, so nobody else's.
        unsafe {
            was.write_bytes(0x11, 48);
            if nolock {
                slabs.kfree_nolock(was);
            } else {
                cache.free(was);
            }
        }
    }
}

/// Nothing is lost, nothing is in two places, and nobody writes to what is in quarantine.
pub fn meet_the_lock() -> World {
    let world = World::new(
        Machine::builder().cpus(2).seed(11),
        Memory::builder().node(32 * MIB),
    );
    let slabs = world.slabs();
    let cache: &'static Cache = world.run(|slabs| {
        slabs.set_quarantine(40 * 48);
        cache(slabs, "met", 48)
    });
    let slots: Arc<[AtomicPtr<u8>; 6]> = Arc::default();
    let turns: Arc<AtomicU64> = Arc::default();
    let handler = |nolock: bool| {
        let (slots, turns) = (Arc::clone(&slots), Arc::clone(&turns));
        move || {
            let at = turns.fetch_add(1, Relaxed) as usize % 3 + 3 * usize::from(nolock);
            turn(&slots[at], slabs, cache, nolock);
        }
    };
    let interrupt = world.machine.on_interrupt(5, handler(false));
    let nmi = world.machine.on_nmi(7, handler(true));
    world.machine.run_on_all(|_| {
        for round in 0..rounds(2_000, 300) {
            let objects = take(cache, 10);
            for object in &objects {
                // SAFETY: the test's.
                unsafe { object.write_bytes(round as u8, 48) };
            }
            free(cache, objects);
            if round % 50 == 0 {
                cache.shrink();
            }
        }
    });
    drop((interrupt, nmi));
    world.run(|slabs| {
        for slot in slots.iter() {
            let object = slot.swap(std::ptr::null_mut(), AcqRel);
            free(cache, std::ptr::NonNull::new(object).into_iter().collect());
        }
        assert!(count(slabs, "quarantine.busy") > 0);
        for cpu in <Hosted as platform::Platform>::possible_cpus().iter() {
            assert!(slabs.quarantined(cpu).bytes <= 40 * 48);
        }
        assert!(walk(slabs) > 0);
        end(slabs, cache);
        assert_eq!(walk(slabs), 0);
    });
    world
}

#[test]
fn interrupts_find_the_lock_taken_and_go_on() {
    meet_the_lock();
}
