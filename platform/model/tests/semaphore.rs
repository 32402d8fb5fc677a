//! The counting semaphore under the model checker.

use std::sync::Arc;

use platform::{
    CpuId, Platform,
    model::{self, Model, Setup},
    wait::Semaphore,
};

/// Orders with few preemptions; most bugs need two or three.
fn setup(cpus: usize) -> Setup {
    let bound = if cpus > 2 { 2 } else { 3 };
    Setup::new(cpus).blocking_locks().preemptions(bound)
}

#[test]
fn what_is_put_back_is_taken_once() {
    setup(3).check(|| {
        let semaphore = Arc::new(Semaphore::<Model>::new(0));
        let takers = [1, 2].map(|number| {
            let other = Arc::clone(&semaphore);
            model::cpu(number, move || other.down())
        });
        semaphore.up();
        semaphore.up();
        takers.into_iter().for_each(model::Cpu::join);
        assert_eq!(semaphore.available(), 0);
    });
}

#[test]
fn a_deadline_and_an_up_may_come_together() {
    setup(2).check(|| {
        let semaphore = Arc::new(Semaphore::<Model>::new(0));
        let other = Arc::clone(&semaphore);
        let taker = model::cpu(1, move || {
            if other.down_timeout(10) {
                other.up();
            }
        });
        semaphore.up();
        taker.join();
        assert_eq!(semaphore.available(), 1);
    });
}

#[test]
fn an_interrupt_may_put_back() {
    setup(2).check(|| {
        let semaphore = Arc::new(Semaphore::<Model>::new(0));
        let other = Arc::clone(&semaphore);
        model::on_interrupt(move || other.up());
        let sleeper = Model::current_thread();
        let raiser = model::cpu(1, move || {
            model::interrupt(CpuId::BOOT);
            // A CPU that sleeps is woken by its interrupts.
            Model::unpark(&sleeper);
        });
        semaphore.down();
        raiser.join();
    });
}
