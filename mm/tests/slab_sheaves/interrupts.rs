//! Interrupts and NMIs in the middle of every path, which allocate and free from the same cache.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicPtr, AtomicU64,
        Ordering::{AcqRel, Relaxed},
    },
};

use mm::{Gfp, hosted::Memory, slab::Spec};
use platform::{
    CpuId, Mark, Platform,
    hosted::{Hosted, Machine},
};

use crate::{
    arrows::{Taken, count, taken},
    objects::{
        Cache, Object, alloc, alloc_bulk, alloc_nolock, free, free_bulk, free_nolock, give, take,
    },
    paths::{end, small_sheaves},
    world::{MIB, World},
};

/// Places where a handler leaves an object until the next one, perhaps of another CPU, finds it: who frees it
/// comes after who used it.
#[derive(Default)]
struct Slots([AtomicPtr<u8>; 8]);

impl Slots {
    /// Frees what is in a slot, or puts an object in.
    fn turn(
        &self,
        at: u64,
        alloc: impl FnOnce() -> Option<Object>,
        free: impl FnOnce(Object),
    ) -> bool {
        let slot = &self.0[at as usize % self.0.len()];
        if let Some(object) = std::ptr::NonNull::new(slot.swap(std::ptr::null_mut(), AcqRel)) {
            free(Object(object));
            return true;
        }
        let Some(object) = alloc() else { return false };
        let was = slot.swap(object.0.as_ptr(), AcqRel);
        // A handler that came in between.
        if let Some(was) = std::ptr::NonNull::new(was) {
            free(Object(was));
        }
        true
    }

    fn end(&self, cache: &Cache) {
        for slot in &self.0 {
            let object = slot.swap(std::ptr::null_mut(), AcqRel);
            if let Some(object) = std::ptr::NonNull::new(object) {
                free(cache, Object(object));
            }
        }
    }
}

/// Whatever a thread does with a cache: a step of a long test.
fn step(cache: &Cache, round: u64, held: &mut Vec<Object>) {
    match round % 7 {
        0 | 1 => held.extend(alloc(cache, Gfp::KERNEL)),
        2 => held.extend(alloc_bulk(cache, Gfp::KERNEL, 6).expect("memory")),
        3 | 4 => held
            .pop()
            .into_iter()
            .for_each(|object| free(cache, object)),
        5 if held.len() > 8 => {
            let some = held.split_off(held.len() - 7);
            free_bulk(cache, some);
        }
        6 => {
            let mut sheaf = cache
                .prefill(Gfp::KERNEL, 1 + round as usize % 6)
                .expect("memory");
            held.extend(crate::objects::alloc_prefilled(&mut sheaf));
        }
        _ => {}
    }
    if held.len() > 60 {
        give(cache, held.drain(10..));
    }
}

pub fn locks_are_met_taken() -> Taken {
    let rounds = crate::world::rounds(6_000, 1_500);
    let world = World::new(
        Machine::builder().cpus(2).seed(3),
        Memory::builder().node(32 * MIB),
    );
    let cache = world.run(|slabs| small_sheaves(slabs, "met"));
    let slots: Arc<[Slots; 2]> = Arc::default();
    let turns: Arc<AtomicU64> = Arc::default();
    let (slot, turn) = (Arc::clone(&slots), Arc::clone(&turns));
    let interrupt = world.machine.on_interrupt(5, move || {
        let at = turn.fetch_add(1, Relaxed);
        slot[0].turn(
            at / 3,
            || alloc(cache, Gfp::ATOMIC),
            |object| free(cache, object),
        );
    });
    let (slot, turn) = (Arc::clone(&slots), Arc::clone(&turns));
    let nmi = world.machine.on_nmi(7, move || {
        let at = turn.fetch_add(1, Relaxed);
        slot[1].turn(
            at / 2,
            || alloc_nolock(cache),
            |object| free_nolock(cache, object),
        );
    });
    let done = AtomicBool::new(false);
    world.machine.run_on_all(|cpu| {
        let mut held = Vec::new();
        if cpu == CpuId::BOOT {
            for round in 0..rounds {
                step(cache, round, &mut held);
            }
            done.store(true, Relaxed);
        } else {
            let mut round = 0;
            while !done.load(Relaxed) {
                step(cache, round, &mut held);
                if round % 32 == 0 {
                    cache.shrink();
                }
                round += 1;
            }
        }
        give(cache, held);
    });
    drop((interrupt, nmi));
    world.run(|slabs| {
        slots.iter().for_each(|slots| slots.end(cache));
        for arrow in [
            "alloc.lock_taken",
            "free.lock_taken",
            "nolock.alloc_taken",
            "nolock.free_taken",
        ] {
            assert!(count(&world, arrow) > 0, "{arrow}");
        }
        end(slabs, cache);
    });
    taken(&world)
}

/// Objects that fill a slab each, so that every free to a slab needs the list lock, which
/// NMIs find taken.
pub fn frees_are_deferred() -> Taken {
    let rounds = crate::world::rounds(4_000, 800);
    let world = World::new(
        Machine::builder().cpus(2).seed(5),
        Memory::builder().node(32 * MIB),
    );
    let cache: &Cache = world.run(|slabs| {
        let spec = Spec::new("deferred", 20_000).sheaf_capacity(1);
        slabs.create(&spec).expect("a cache")
    });
    let slots: Arc<Slots> = Arc::default();
    let turns: Arc<AtomicU64> = Arc::default();
    let (slot, turn) = (Arc::clone(&slots), Arc::clone(&turns));
    let nmi = world.machine.on_nmi(2, move || {
        let at = turn.fetch_add(1, Relaxed);
        slot.turn(
            at,
            || alloc_nolock(cache),
            |object| free_nolock(cache, object),
        );
    });
    world.machine.run_on_all(|_| {
        for _ in 0..rounds / 20 {
            let held = take(cache, 10);
            give(cache, held);
            Hosted::mark(Mark::Step);
        }
    });
    drop(nmi);
    world.run(|slabs| {
        slots.end(cache);
        assert!(count(&world, "deferred.push") > 0);
        // Whoever destroys the cache waits for them, and finds nothing in use.
        end(slabs, cache);
        assert_eq!(
            count(&world, "deferred.push"),
            count(&world, "deferred.run")
        );
    });
    taken(&world)
}

#[test]
fn interrupts_meet_every_lock() {
    locks_are_met_taken();
}

#[test]
fn frees_that_meet_a_lock_are_deferred() {
    frees_are_deferred();
}
