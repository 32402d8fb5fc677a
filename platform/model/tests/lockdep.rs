//! The order checker under the model checker: of several CPUs whose edges or uses contradict
//! one another, at least one sees it.

use core::panic::Location;

use loom::{model::Builder, sync::Arc, thread};
use platform::{
    Acquisition, Context, CpuId, LockKind,
    lock::{Class, LockClass},
    lock_class,
    lockdep::{Checker, ClassId, Graph, Held, Now},
};

fn explore(bound: Option<usize>, test: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = bound;
    builder.check(test);
}

fn id(number: u8) -> ClassId {
    ClassId::new(number).unwrap()
}

/// CPUs that each add one edge of a cycle and search the way back.
fn cycle(threads: u8) {
    let graph = Arc::new(Graph::new());
    let add = move |graph: &Graph, index: u8| {
        let (from, to) = (id(index + 1), id((index + 1) % threads + 1));
        graph.add(from, to);
        graph.path_from(to, |class| class == from).is_some()
    };
    let running: Vec<_> = (1..threads)
        .map(|index| {
            let graph = Arc::clone(&graph);
            thread::spawn(move || add(&graph, index))
        })
        .collect();
    let mut seen = add(&graph, 0);
    for thread in running {
        seen |= thread.join().unwrap();
    }
    assert!(seen, "nobody saw the cycle");
}

#[test]
fn two_edges() {
    explore(None, || cycle(2));
}

#[test]
fn three_edges() {
    explore(Some(3), || cycle(3));
}

lock_class! {
    struct Safe = ("safe", 1, nests);
    struct Unsafe = ("unsafe", 1, nests);
}

/// Takes the locks of the classes one after the other. How many findings there were.
fn take(
    checker: &Checker,
    classes: &[&'static LockClass],
    context: Context,
    irqs_on: bool,
) -> usize {
    let now = Now {
        cpu: CpuId::BOOT,
        context,
        irqs_on,
        softirqs_on: false,
        may_sleep: false,
    };
    let held = Held::new();
    let mut found = 0;
    for class in classes {
        let acquisition = Acquisition {
            class,
            lock: core::ptr::from_ref(*class).addr(),
            kind: LockKind::Spin,
            is_try: false,
            nesting: 0,
            at: Location::caller(),
        };
        checker.acquire(&held, &acquisition, &now, &mut |_| found += 1);
    }
    found
}

/// One CPU takes a class in an interrupt, another one with interrupts on.
#[test]
fn two_uses() {
    explore(Some(3), || {
        let checker = Arc::new(Checker::new());
        let other = {
            let checker = Arc::clone(&checker);
            thread::spawn(move || take(&checker, &[Safe::class()], Context::HardIrq, false))
        };
        let found = take(&checker, &[Safe::class()], Context::Task, true);
        assert!(found + other.join().unwrap() >= 1, "nobody saw it");
    });
}

/// One CPU takes a class in an interrupt, another takes a second class under it, a third
/// takes that with interrupts on.
#[test]
fn uses_and_an_edge() {
    explore(Some(2), || {
        let checker = Arc::new(Checker::new());
        let running = [
            (vec![Safe::class()], Context::HardIrq, false),
            (vec![Safe::class(), Unsafe::class()], Context::Task, false),
        ]
        .map(|(classes, context, irqs_on)| {
            let checker = Arc::clone(&checker);
            thread::spawn(move || take(&checker, &classes, context, irqs_on))
        });
        let mut found = take(&checker, &[Unsafe::class()], Context::Task, true);
        for thread in running {
            found += thread.join().unwrap();
        }
        assert!(found >= 1, "nobody saw it");
    });
}
