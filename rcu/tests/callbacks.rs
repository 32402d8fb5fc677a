//! Segmented callback lists against a simple model: every callback once, in order, not too
//! early, and no later than its grace period.

use std::{cell::RefCell, collections::VecDeque, ptr::NonNull};

use proptest::prelude::*;
use rcu::{
    callbacks::{Head, List, Queue, Segment},
    seq::{Cookie, Seq},
};

#[repr(C)]
struct Object {
    head: Head,
    number: usize,
}

thread_local! {
    static RAN: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

unsafe fn run(head: NonNull<Head>) {
    // SAFETY: the head is the first field of an object that was leaked for this.
    let object = unsafe { Box::from_raw(head.cast::<Object>().as_ptr()) };
    assert!(!object.head.is_queued());
    RAN.with_borrow_mut(|ran| ran.push(object.number));
}

fn object(number: usize) -> NonNull<Head> {
    let head = Head::new();
    NonNull::from(Box::leak(Box::new(Object { head, number }))).cast()
}

fn run_all(mut queue: Queue) -> Vec<usize> {
    run_some(&mut queue, usize::MAX)
}

/// Runs the first `count`.
fn run_some(queue: &mut Queue, count: usize) -> Vec<usize> {
    RAN.with_borrow_mut(Vec::clear);
    for _ in 0..count {
        let Some((head, run)) = queue.pop() else {
            break;
        };
        // SAFETY: popped, so the object's own again.
        unsafe { run(head) };
    }
    RAN.take()
}

fn push(list: &mut List, number: usize) {
    // SAFETY: fresh.
    unsafe { list.push(object(number), run) };
}

#[test]
fn a_callback_goes_through_the_segments() {
    let mut list = List::new();
    let idle = Seq::INITIAL;
    push(&mut list, 1);
    assert_eq!(list.len_of(Segment::Next), 1);
    assert!(!list.advance(idle));
    let first = idle.snap();
    assert!(list.accelerate(first));
    assert_eq!(list.due(Segment::Wait), Some(first));
    let running = idle.start();
    // One more, which the running grace period does not cover.
    push(&mut list, 2);
    let second = running.snap();
    assert!(list.accelerate(second));
    assert_eq!(list.due(Segment::NextReady), Some(second));
    // No place for a third name.
    push(&mut list, 3);
    let third = running.end().start().snap();
    assert!(!list.accelerate(third));
    assert_eq!(list.len_of(Segment::Next), 1);
    assert!(!list.advance(running));
    let ended = running.end();
    assert!(list.advance(ended));
    assert_eq!(list.due(Segment::Wait), Some(second));
    assert_eq!(run_all(list.take_done()), [1]);
    assert!(list.accelerate(third));
    assert_eq!(list.due(Segment::NextReady), Some(third));
    let ended = ended.start().end().start().end();
    assert!(list.advance(ended));
    assert_eq!(run_all(list.take_done()), [2, 3]);
    assert!(list.is_empty());
}

#[test]
fn a_barrier_runs_behind_all_and_waits_for_nothing_else() {
    let mut list = List::new();
    let barrier = object(9);
    // SAFETY: fresh; and not queued by the first call.
    assert!(!unsafe { list.entrain(barrier, run) });
    push(&mut list, 1);
    let cookie = Seq::INITIAL.snap();
    assert!(list.accelerate(cookie));
    // SAFETY: as above.
    assert!(unsafe { list.entrain(barrier, run) });
    assert_eq!(list.len_of(Segment::Wait), 2);
    assert_eq!(list.len_of(Segment::Next), 0);
    push(&mut list, 2);
    assert!(list.advance(Seq::INITIAL.start().end()));
    assert_eq!(run_all(list.take_done()), [1, 9]);
    assert!(list.accelerate(cookie) && list.advance(Seq::INITIAL.start().end()));
    assert_eq!(run_all(list.take_done()), [2]);
}

#[derive(Clone, Debug)]
enum Op {
    Push,
    Entrain,
    Start,
    End,
    Accelerate,
    Advance,
    Run(usize),
    Adopt,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Push),
        1 => Just(Op::Entrain),
        2 => Just(Op::Start),
        2 => Just(Op::End),
        3 => Just(Op::Accelerate),
        3 => Just(Op::Advance),
        2 => (0_usize..5).prop_map(Op::Run),
        1 => Just(Op::Adopt),
    ]
}

proptest! {
    /// The model: each callback with the number of grace periods that must have ended.
    #[test]
    fn no_callback_is_early_lost_or_out_of_order(ops in prop::collection::vec(op(), 1..200)) {
        let mut seq = Seq::INITIAL;
        let mut list = List::new();
        // Taken, and not run yet.
        let mut running = Queue::new();
        // What must have been reached before each may run.
        let mut model: VecDeque<(usize, Cookie)> = VecDeque::new();
        let mut number = 0;
        for op in ops {
            match op {
                Op::Push => {
                    push(&mut list, number);
                    model.push_back((number, seq.snap()));
                    number += 1;
                }
                Op::Entrain => {
                    let barrier = object(number);
                    // SAFETY: fresh.
                    if unsafe { list.entrain(barrier, run) } {
                        // It waits for what is before it, no longer.
                        let (_, due) = *model.back().expect("there is something to wait for");
                        model.push_back((number, due));
                        number += 1;
                    } else {
                        prop_assert_eq!(running.len(), model.len());
                        // SAFETY: not queued, so still ours.
                        drop(unsafe { Box::from_raw(barrier.cast::<Object>().as_ptr()) });
                    }
                }
                Op::Start if !seq.is_running() => seq = seq.start(),
                Op::End if seq.is_running() => seq = seq.end(),
                Op::Start | Op::End => {}
                Op::Accelerate => {
                    list.accelerate(seq.snap());
                }
                Op::Advance => {
                    list.advance(seq);
                }
                Op::Run(count) => {
                    running.append(&mut list.take_done());
                    for ran in run_some(&mut running, count) {
                        let (expected, due) = model.pop_front().expect("more ran than were queued");
                        prop_assert_eq!(ran, expected);
                        prop_assert!(due.is_done(seq), "{} is early", ran);
                    }
                }
                Op::Adopt => {
                    // A CPU goes whose list is this one; the new one is empty. All wait anew.
                    let mut other = std::mem::take(&mut list);
                    list.adopt(&mut other);
                    prop_assert!(other.is_empty());
                }
            }
            prop_assert_eq!(list.len() + running.len(), model.len());
        }
        // Enough grace periods, and nothing is left.
        for _ in 0..4 {
            list.accelerate(seq.snap());
            seq = if seq.is_running() { seq.end() } else { seq.start().end() };
            seq = seq.start().end();
            list.advance(seq);
        }
        let rest: Vec<usize> = model.iter().map(|(number, _)| *number).collect();
        running.append(&mut list.take_done());
        prop_assert_eq!(run_all(running), rest);
        prop_assert!(list.is_empty());
    }
}
