//! Completions under the model checker.

use std::sync::Arc;

use platform::{
    CpuId, Platform,
    model::{self, Model, Setup},
    sync::Cell,
    wait::Completion,
};

/// Orders with few preemptions; most bugs need two or three.
fn setup(cpus: usize) -> Setup {
    let bound = if cpus > 2 { 2 } else { 3 };
    Setup::new(cpus).blocking_locks().preemptions(bound)
}

/// A completion whose life the checker watches: it is shared while it is used, exclusive
/// when it is freed.
struct Watched {
    completion: Cell<Completion<Model>>,
    data: Cell<u32>,
}

// SAFETY: the checker watches the cells; that they are used rightly is what is tested.
unsafe impl Sync for Watched {}
// SAFETY: as above.
unsafe impl Send for Watched {}

impl Watched {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            completion: Cell::new(Completion::new()),
            data: Cell::new(0),
        })
    }

    fn using<R>(&self, f: impl FnOnce(&Completion<Model>) -> R) -> R {
        let access = self.completion.shared();
        // SAFETY: checked by the model.
        f(unsafe { access.get() })
    }

    fn free(&self) {
        drop(self.completion.exclusive());
    }

    fn write(&self) {
        let access = self.data.exclusive();
        // SAFETY: checked by the model.
        unsafe { *access.get_mut() = 1 };
    }

    fn read(&self) -> u32 {
        let access = self.data.shared();
        // SAFETY: checked by the model.
        unsafe { *access.get() }
    }
}

#[test]
fn may_be_freed_when_wait_returns() {
    setup(2).check(|| {
        let watched = Watched::new();
        let other = Arc::clone(&watched);
        let completer = model::cpu(1, move || {
            other.write();
            other.using(Completion::complete);
        });
        watched.using(Completion::wait);
        watched.free();
        assert_eq!(watched.read(), 1);
        completer.join();
    });
}

#[test]
fn may_be_freed_when_try_wait_says_true() {
    setup(2).check(|| {
        let watched = Watched::new();
        let other = Arc::clone(&watched);
        let completer = model::cpu(1, move || {
            other.write();
            other.using(Completion::complete_all);
        });
        if watched.using(Completion::try_wait) {
            watched.free();
            assert_eq!(watched.read(), 1);
        }
        completer.join();
    });
}

#[test]
fn a_deadline_and_the_completer_may_come_together() {
    setup(2).check(|| {
        let watched = Watched::new();
        let other = Arc::clone(&watched);
        let completer = model::cpu(1, move || other.using(Completion::complete));
        let passed = watched.using(|completion| completion.wait_timeout(10));
        if passed {
            watched.free();
        }
        completer.join();
        // Passed once: then, or now.
        assert_ne!(passed, watched.using(Completion::try_wait));
    });
}

#[test]
fn complete_all_lets_all_pass() {
    setup(3).check(|| {
        let watched = Watched::new();
        let waiters = [1, 2].map(|number| {
            let other = Arc::clone(&watched);
            model::cpu(number, move || other.using(Completion::wait))
        });
        watched.using(Completion::complete_all);
        waiters.into_iter().for_each(model::Cpu::join);
        watched.free();
    });
}

#[test]
fn an_interrupt_may_complete() {
    setup(2).check(|| {
        let watched = Watched::new();
        let other = Arc::clone(&watched);
        // On the CPU of the waiter itself.
        model::on_interrupt(move || other.using(Completion::complete));
        let sleeper = Model::current_thread();
        let raiser = model::cpu(1, move || {
            model::interrupt(CpuId::BOOT);
            // A CPU that sleeps is woken by its interrupts.
            Model::unpark(&sleeper);
        });
        watched.using(Completion::wait);
        watched.free();
        raiser.join();
    });
}
