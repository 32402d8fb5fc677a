//! The call list on real threads: each is a CPU that calls all others and serves its own
//! list while it waits, as CPUs with interrupts off do.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use platform::call_list::{Call, CallList, Node, Pushed};

const CPUS: usize = 4;
const ROUNDS: usize = 2_000;

#[test]
fn everyone_calls_everyone() {
    let lists: [CallList; CPUS] = core::array::from_fn(|_| CallList::new());
    let ran: [AtomicUsize; CPUS] = core::array::from_fn(|_| AtomicUsize::new(0));
    let finished = AtomicUsize::new(0);
    thread::scope(|scope| {
        for own in 0..CPUS {
            let (lists, ran, finished) = (&lists, &ran, &finished);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let function = || {
                        ran[own].fetch_add(1, Ordering::Relaxed);
                    };
                    let call = Call::new(&function, CPUS - 1);
                    let nodes: [Node; CPUS] = core::array::from_fn(|_| Node::new(&call));
                    for other in (0..CPUS).filter(|other| *other != own) {
                        // SAFETY: call and nodes stay here until the call is done. (There
                        // are no interrupts: every thread serves its list again and again.)
                        let _ = unsafe { lists[other].push(&nodes[other]) };
                    }
                    while !call.is_done() {
                        lists[own].serve();
                        thread::yield_now();
                    }
                }
                finished.fetch_add(1, Ordering::Release);
                while finished.load(Ordering::Acquire) < CPUS {
                    lists[own].serve();
                    thread::yield_now();
                }
            });
        }
    });
    for count in ran {
        assert_eq!(count.into_inner(), ROUNDS * (CPUS - 1));
    }
}

#[test]
fn calls_run_oldest_first() {
    let list = CallList::new();
    let order = std::sync::Mutex::new(Vec::new());
    let functions: [_; 3] = core::array::from_fn(|number| {
        let order = &order;
        move || order.lock().unwrap().push(number)
    });
    let calls: [Call<'_>; 3] = core::array::from_fn(|number| Call::new(&functions[number], 1));
    let nodes: [Node; 3] = core::array::from_fn(|number| Node::new(&calls[number]));
    // SAFETY: calls and nodes outlive the list's use of them, which ends below.
    let pushed: [Pushed; 3] = core::array::from_fn(|number| unsafe { list.push(&nodes[number]) });
    assert_eq!(pushed, [Pushed::First, Pushed::Behind, Pushed::Behind]);
    assert!(calls.iter().all(|call| !call.is_done()));
    list.serve();
    assert!(calls.iter().all(Call::is_done));
    assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
}

#[test]
fn a_closed_list_takes_nothing() {
    let list = CallList::new();
    let ran = AtomicUsize::new(0);
    let function = || {
        ran.fetch_add(1, Ordering::Relaxed);
    };
    let calls: [Call<'_>; 3] = core::array::from_fn(|_| Call::new(&function, 1));
    let nodes: [Node; 3] = core::array::from_fn(|number| Node::new(&calls[number]));
    // SAFETY: here and below: calls and nodes outlive the list's use of them.
    assert_eq!(unsafe { list.push(&nodes[0]) }, Pushed::First);
    assert!(!list.close() && !list.is_closed(), "it has a call to serve");
    list.serve();
    assert!(list.close() && list.is_closed());
    // SAFETY: as above.
    assert_eq!(unsafe { list.push(&nodes[1]) }, Pushed::Closed);
    calls[1].skip();
    assert!(calls[1].is_done());
    // Serving does not open it.
    list.serve();
    assert!(list.is_closed());
    list.open();
    // SAFETY: as above.
    assert_eq!(unsafe { list.push(&nodes[2]) }, Pushed::First);
    list.serve();
    assert!(calls[2].is_done());
    assert_eq!(ran.load(Ordering::Relaxed), 2);
}
