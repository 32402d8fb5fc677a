//! Callbacks that are pushed without a lock, against who takes them over: none is forgotten,
//! and what was done before a push is seen by who runs the callback.
#![allow(
    clippy::arc_with_non_send_sync,
    reason = "the checker's threads are coroutines of one thread"
)]

mod callback;
mod world;

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use callback::Callback;
use platform::{
    CpuId,
    model::{self, Setup},
    sync::Cell,
};
use rcu::model::end_cpu;
use world::World;

/// Whoever is to come comes, and all of them have run.
fn run_all(world: &World, ran: &[Arc<Cell<bool>>]) {
    for _ in 0..2 {
        world.rcu.make_by_hand();
        world.rcu.run_by_hand(CpuId::BOOT);
    }
    for ran in ran {
        // SAFETY: nobody runs it any more; the model checks it.
        assert!(unsafe { *ran.shared().get() });
    }
}

/// A CPU queues callbacks, the first of which is ripe. Another one stands in for the CPU's
/// thread: it takes over, names, and finds perhaps that nothing waits any more. As the CPU is
/// idle all the time, nothing but the stack is between the two.
fn queue_while_taken(more: usize) {
    let arrows: &'static [AtomicUsize; 3] = Box::leak(Box::default());
    let setup = Setup::new(2).preemptions(3).blocking_locks();
    setup.check(move || {
        let world = World::back_to_back();
        end_cpu();
        let ran: Vec<_> = (0..=more).map(|_| Arc::new(Cell::new(false))).collect();
        Callback::queue(&world, &ran[0]);
        world.rcu.make_by_hand();
        let taken = Arc::clone(&world);
        let taker = model::cpu(1, move || {
            taken.rcu.run_by_hand(CpuId::BOOT);
            taken.rcu.make_by_hand();
            taken.rcu.run_by_hand(CpuId::BOOT);
        });
        ran[1..].iter().for_each(|ran| Callback::queue(&world, ran));
        taker.join();
        assert!(
            world.rcu.comes_by(CpuId::BOOT),
            "nobody comes for what has arrived"
        );
        run_all(&world, &ran);
        let names = ["cb.first", "cb.later", "cb.rest"];
        for (name, count) in names.iter().zip(arrows) {
            let taken = world.rcu.arrows().find(|arrow| arrow.0 == *name).unwrap().1;
            count.fetch_add(taken as usize, SeqCst);
        }
    });
    let arrows = arrows.each_ref().map(|count| count.load(SeqCst));
    assert!(arrows.iter().all(|count| *count > 0), "{arrows:?}");
}

#[test]
fn a_callback_is_not_forgotten_and_seen_as_a_whole() {
    queue_while_taken(1);
}

#[test]
fn nor_are_two() {
    queue_while_taken(2);
}

/// What a CPU pushes is taken by another one, with nothing but the stack between the two.
#[test]
fn what_is_taken_is_filled_in() {
    let counts: &'static [AtomicUsize; 3] = Box::leak(Box::default());
    Setup::new(2).check(move || {
        let world = World::back_to_back();
        end_cpu();
        let ran: Vec<_> = (0..3).map(|_| Arc::new(Cell::new(false))).collect();
        // Named; somebody comes from here on.
        Callback::queue(&world, &ran[0]);
        let takes = Arc::clone(&world);
        let taker = model::cpu(1, move || {
            let mut taken = takes.rcu.take_arrived(CpuId::BOOT);
            counts[taken.len()].fetch_add(1, SeqCst);
            while let Some((head, run)) = taken.pop() {
                // SAFETY: the head of a leaked callback. No section is anywhere.
                unsafe { run(head) };
            }
        });
        ran[1..].iter().for_each(|ran| Callback::queue(&world, ran));
        taker.join();
        run_all(&world, &ran);
    });
    let counts = counts.each_ref().map(|count| count.load(SeqCst));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

/// An interrupt comes upon a CPU that queues a callback, and queues another one there. Another
/// CPU knows of that one, and a barrier of its does not pass the first CPU by: also when that
/// has pushed and has not come for it yet, and when it has taken over both and has not said so.
#[test]
fn what_an_interrupt_queued_is_not_passed_by() {
    let taken: &'static [AtomicUsize; 2] = Box::leak(Box::default());
    let setup = Setup::new(3).preemptions(3).blocking_locks();
    setup.check(move || {
        let world = World::back_to_back();
        end_cpu();
        let (first, second) = (Arc::new(Cell::new(false)), Arc::new(Cell::new(false)));
        let waiter = Rc::new(RefCell::new(None));
        let (queues, its, starts) = (Arc::clone(&world), Arc::clone(&second), Rc::clone(&waiter));
        model::on_interrupt(move || {
            Callback::queue(&queues, &its);
            let waits = Arc::clone(&queues);
            let waiter = model::cpu(1, move || assert!(!waits.rcu.has_none(CpuId::BOOT)));
            *starts.borrow_mut() = Some(waiter);
        });
        let interrupts = model::cpu(2, || model::interrupt(CpuId::BOOT));
        Callback::queue(&world, &first);
        interrupts.join();
        // The interrupt has come by here, at the latest.
        drop(platform::IrqsOff::<model::Model>::disable());
        let waiter = waiter.take();
        waiter.expect("the interrupt has come").join();
        run_all(&world, &[first, second]);
        let arrow = |name| world.rcu.arrows().find(|arrow| arrow.0 == name).unwrap().1;
        let together = arrow("cb.first") + arrow("cb.later") == 1;
        taken[usize::from(together)].fetch_add(1, SeqCst);
    });
    let taken = taken.each_ref().map(|count| count.load(SeqCst));
    assert!(taken.iter().all(|count| *count > 0), "{taken:?}");
}
