//! Work queues, on threads of the host.
#![cfg(feature = "hosted")]

use std::sync::Arc;

use platform::{
    CpuId, Platform, Priority, SpawnError,
    conformance::{self, Case, Size},
    hosted::{Hosted, Machine},
    work::{Queue, Work},
};

const SIZE: Size = Size {
    threads: 4,
    rounds: 500,
};

fn check((name, test): Case) {
    for (cpus, threads, seed) in [(4, 4, 1), (2, 5, 2), (1, 3, 3), (8, 8, 4)] {
        let machine = Machine::builder().cpus(cpus).seed(seed).build();
        let size = Size { threads, ..SIZE };
        if let Err(failure) = machine.run(|| test(size)) {
            panic!("{name} on {cpus} CPUs, seed {}: {failure}", machine.seed());
        }
    }
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                check((stringify!($name), conformance::work::$name::<Hosted>));
            }
        )*

        /// None is forgotten here.
        #[test]
        fn all_cases_are_here() {
            let names = [$(stringify!($name)),*];
            assert_eq!(conformance::work::cases::<Hosted>().map(|(name, _)| name), names);
        }
    };
}

cases! {
    work_runs_on_its_cpu,
    work_flush_races,
    work_cancel_races,
    requeue_from_inside,
    cancel_from_inside,
    flush_while_queueing,
    delayed_never_early,
    queue_in_interrupts,
    queue_ends,
}

/// With interrupts that come in between and use nothing of the test's.
#[test]
fn all_cases_under_interrupts() {
    for (seed, (name, test)) in (10..).zip(conformance::work::cases::<Hosted>()) {
        let machine = Machine::builder().cpus(4).seed(seed).build();
        let noise = machine.on_interrupt(7, || ());
        let outcome = machine.run(|| test(SIZE));
        drop(noise);
        assert_eq!(outcome, Ok(()), "{name} with seed {}", machine.seed());
    }
}

/// A worker that cannot be started: the error comes back, and those that were started end
/// (the machine waits for its threads).
#[test]
fn a_worker_that_cannot_be_started() {
    let machine = Machine::builder().cpus(2).possible(3).build();
    machine.run(|| {
        let possible = Hosted::possible_cpus();
        let offline = CpuId::new(2).unwrap();
        let queue = Queue::<Hosted>::on("some", Priority::Normal, possible);
        assert_eq!(queue.err(), Some(SpawnError::Offline(offline)));
        // For a CPU without a worker the first one does it.
        let queue = Queue::<Hosted>::new("all", Priority::Normal).unwrap();
        let item = Work::new(&queue, |_: &Arc<Work<Hosted>>| {
            assert_eq!(Hosted::current_cpu(), CpuId::BOOT);
        });
        assert!(item.queue_on(offline));
        item.flush();
        assert_eq!(queue.stats().run, 1);
    });
}

/// A worker that would wait for itself is reported, and does not.
#[test]
fn a_worker_does_not_wait_for_itself() {
    let machine = Machine::builder().build();
    // Collected from now on.
    assert!(machine.take_reports().is_empty());
    machine.run(|| {
        let queue = Arc::new(Queue::<Hosted>::new("own", Priority::Normal).unwrap());
        let other = Work::new(&queue, |_: &Arc<Work<Hosted>>| ());
        let given = Arc::clone(&queue);
        let there = Arc::clone(&other);
        let item = Work::new(&queue, move |_: &Arc<Work<Hosted>>| {
            there.queue();
            assert!(!there.flush());
            given.flush();
        });
        item.queue();
        item.flush();
        queue.flush();
        assert_eq!(queue.stats().run, 2);
    });
    let reports = machine.take_reports();
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert!(
        reports
            .iter()
            .all(|report| report.contains("waits for itself"))
    );
}
