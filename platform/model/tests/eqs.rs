//! Extended quiescent states under the model checker: a CPU that reads between idle times,
//! and one that unpublishes, looks at the word, and frees.

use loom::sync::Arc;
use loom::thread;
use platform::eqs::Eqs;
use platform::sync::{AtomicBool, Cell, Ordering};

/// A CPU's word, and something that can be found while it is published.
struct World {
    eqs: Eqs,
    published: AtomicBool,
    object: Cell<u32>,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            eqs: Eqs::new(),
            published: AtomicBool::new(true),
            object: Cell::new(1),
        })
    }

    /// A read-side section.
    fn read(&self) {
        assert!(self.eqs.is_watching());
        // Acquire, as a reader that follows a pointer.
        if self.published.load(Ordering::Acquire) {
            // SAFETY: not freed while it can be found; the model checks it.
            assert_eq!(unsafe { *self.object.shared().get() }, 1);
        }
    }

    /// An NMI that reads.
    fn nmi(&self) {
        let entered = self.eqs.nmi_enter();
        self.read();
        self.eqs.nmi_exit(entered);
    }

    /// Unpublishes, and frees if the word allows it at the first or second look.
    fn update(&self) -> End {
        self.published.store(false, Ordering::Relaxed);
        let snapshot = self.eqs.snapshot();
        let end = match (snapshot.in_eqs(), self.eqs.passed_since(snapshot)) {
            (true, true) => End::Idle,
            (false, true) => End::Passed,
            (false, false) => return End::Watching,
            (true, false) => panic!("an idle CPU passed"),
        };
        // SAFETY: nobody reads it any more; the model checks it.
        unsafe { *self.object.exclusive().get_mut() = 0 };
        end
    }
}

/// What an update saw.
#[derive(Clone, Copy)]
enum End {
    /// The CPU was idle.
    Idle,
    /// It was not, but has been then.
    Passed,
    /// It was watching all the time, so nothing was freed.
    Watching,
}

/// Runs `cpu` beside an update, in every order, and checks that the update ends in every way.
fn check(cpu: fn(&World)) {
    use std::sync::atomic::{AtomicBool as Plain, Ordering::SeqCst};
    let ends: std::sync::Arc<[Plain; 3]> = Default::default();
    let seen = std::sync::Arc::clone(&ends);
    loom::model(move || {
        let world = World::new();
        let there = Arc::clone(&world);
        let reader = thread::spawn(move || {
            cpu(&there);
            assert!(!there.eqs.is_watching());
        });
        seen[world.update() as usize].store(true, SeqCst);
        reader.join().unwrap();
    });
    let ends = ends.each_ref().map(|end| end.load(SeqCst));
    assert_eq!(ends, [true; 3], "idle, passed, watching");
}

#[test]
fn a_thread_between_idle_times() {
    check(|world| {
        world.eqs.idle_exit();
        world.read();
        world.eqs.idle_enter();
    });
}

#[test]
fn two_sections_with_an_idle_time_between() {
    check(|world| {
        world.eqs.idle_exit();
        world.read();
        world.eqs.idle_enter();
        world.eqs.idle_exit();
        world.read();
        world.eqs.idle_enter();
    });
}

#[test]
fn an_interrupt_in_idle() {
    check(|world| {
        let entered = world.eqs.irq_enter();
        assert!(entered.from_eqs());
        world.read();
        world.eqs.irq_exit(entered);
    });
}

#[test]
fn an_nmi_in_idle() {
    check(World::nmi);
}

#[test]
fn an_nmi_while_idle_ends() {
    check(|world| {
        world.eqs.idle_exit_with_nmi(|| world.nmi());
        world.eqs.idle_enter();
    });
}

#[test]
fn nmis_around_an_interrupts_entry() {
    check(|world| {
        let entered = world.eqs.irq_enter_with_nmis(|| world.nmi(), || {});
        assert!(entered.from_eqs());
        world.read();
        world.eqs.irq_exit(entered);
    });
    check(|world| {
        let entered = world.eqs.irq_enter_with_nmis(|| {}, || world.nmi());
        world.eqs.irq_exit(entered);
        world.nmi();
    });
}

#[test]
fn an_interrupt_and_an_nmi_in_a_thread() {
    check(|world| {
        world.eqs.idle_exit();
        let irq = world.eqs.irq_enter();
        assert!(!irq.from_eqs());
        world.nmi();
        world.read();
        world.eqs.irq_exit(irq);
        assert!(world.eqs.is_watching());
        world.eqs.idle_enter();
    });
}
