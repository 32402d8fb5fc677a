//! Barriers against callbacks that are queued, become ripe and run: the count of what has not
//! been run, and the barrier's own callback behind them.
#![allow(
    clippy::arc_with_non_send_sync,
    reason = "the checker's threads are coroutines of one thread"
)]

mod callback;
mod world;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use callback::Callback;
use platform::{
    CpuId, Platform,
    model::{self, Model, Setup},
    sync::{AtomicBool, Cell, Ordering},
};
use rcu::model::{begin_cpu, end_cpu, switch};
use world::World;

/// What a CPU's thread does, until the barrier is over.
fn run_until(world: &World, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        switch(&world.rcu);
        world.rcu.make_by_hand();
        world.rcu.run_by_hand(CpuId::BOOT);
        Model::relax();
    }
}

/// A CPU runs a callback that is ripe, and another one, which knows of it, waits for a
/// barrier: it comes before, while or after the callback is run.
#[test]
fn a_barrier_sees_what_callbacks_did() {
    let arrows: &'static [AtomicUsize; 3] = Box::leak(Box::default());
    let setup = Setup::new(2).preemptions(2).blocking_locks();
    setup.check(move || {
        let world = World::new(false);
        let (ran, over) = (Arc::new(Cell::new(false)), Arc::new(AtomicBool::new(false)));
        // The other CPU is idle: the grace period ends at once.
        Callback::queue(&world, &ran);
        world.rcu.make_by_hand();
        let (waits, seen, ends) = (Arc::clone(&world), Arc::clone(&ran), Arc::clone(&over));
        let waiter = model::cpu(1, move || {
            begin_cpu();
            waits.rcu.barrier();
            // SAFETY: the callback is over; the model checks it.
            assert!(unsafe { *seen.shared().get() });
            ends.store(true, Ordering::Release);
            end_cpu();
        });
        run_until(&world, &over);
        waiter.join();
        let names = ["barrier.queued", "barrier.behind_running", "barrier.empty"];
        for (name, count) in names.iter().zip(arrows) {
            let taken = world.rcu.arrows().find(|arrow| arrow.0 == *name).unwrap().1;
            count.fetch_add(taken as usize, SeqCst);
        }
    });
    let arrows = arrows.each_ref().map(|count| count.load(SeqCst));
    assert!(arrows.iter().all(|count| *count > 0), "{arrows:?}");
}

#[test]
fn a_barrier_finds_what_its_caller_knows_of() {
    queue_and_say_so(false);
}

#[test]
fn a_barrier_finds_what_has_arrived_behind_others() {
    queue_and_say_so(true);
}

/// A CPU queues a callback, behind another one that waits or as the first, and says so;
/// another CPU, if it has heard of it, waits for a barrier.
fn queue_and_say_so(behind: bool) {
    let counts: &'static [AtomicUsize; 2] = Box::leak(Box::default());
    let setup = Setup::new(2)
        .preemptions(if behind { 1 } else { 2 })
        .blocking_locks();
    setup.check(move || {
        let world = World::back_to_back();
        if behind {
            Callback::queue(&world, &Arc::new(Cell::new(false)));
        }
        let (ran, over) = (Arc::new(Cell::new(false)), Arc::new(AtomicBool::new(false)));
        let queued = Arc::new(AtomicBool::new(false));
        let (waits, seen, ends) = (Arc::clone(&world), Arc::clone(&ran), Arc::clone(&over));
        let hears = Arc::clone(&queued);
        let waiter = model::cpu(1, move || {
            // Idle as far as sections go: it has none.
            let knows = hears.load(Ordering::Acquire);
            counts[usize::from(knows)].fetch_add(1, SeqCst);
            waits.rcu.barrier();
            if knows {
                // SAFETY: the callback is over; the model checks it.
                assert!(unsafe { *seen.shared().get() });
            }
            ends.store(true, Ordering::Release);
        });
        Callback::queue(&world, &ran);
        queued.store(true, Ordering::Release);
        run_until(&world, &over);
        waiter.join();
        // What nobody waited for: after a grace period that may be running.
        for _ in 0..2 {
            switch(&world.rcu);
            world.rcu.make_by_hand();
            world.rcu.run_by_hand(CpuId::BOOT);
        }
        // SAFETY: nobody runs it any more.
        assert!(unsafe { *ran.shared().get() });
    });
    let counts = counts.each_ref().map(|count| count.load(SeqCst));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
