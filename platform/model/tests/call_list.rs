//! The call list under a model checker: every interleaving of a few threads, with the
//! memory orders that its source names; and the model's calls, which use it.

use std::sync::atomic::{AtomicUsize as Plain, Ordering::SeqCst};

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Notify};
use loom::thread;

use platform::{
    CpuId, CpuMask, Mark, Platform,
    call_list::{Call, CallList, Node, Pushed},
    model::{self, Model, Setup},
};

/// A CPU: its list, and an interrupt, which stays pending until it is taken.
struct Cpu {
    list: CallList,
    interrupt: Notify,
}

impl Cpu {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            list: CallList::new(),
            interrupt: Notify::new(),
        })
    }

    /// Calls `function` here from another CPU, and waits.
    fn call(&self, function: &(dyn Fn() + Sync)) {
        let call = Call::new(function, 1);
        let node = Node::new(&call);
        // SAFETY: both stay on this stack until the call is done.
        if unsafe { self.list.push(&node) } == Pushed::First {
            self.interrupt.notify();
        }
        while !call.is_done() {
            thread::yield_now();
        }
    }

    /// Takes interrupts until `ran` functions have run; serves only when interrupted, so
    /// that a lost interrupt is a deadlock, which the checker reports.
    fn take_interrupts(&self, ran: &Plain, until: usize) {
        while ran.load(SeqCst) < until {
            self.interrupt.wait();
            self.list.serve();
        }
    }
}

/// Data that only the call's orders protect: the checker reports a race on it.
struct Guarded(UnsafeCell<u32>);
// SAFETY: that accesses are ordered is what the test proves.
unsafe impl Sync for Guarded {}
// SAFETY: as above.
unsafe impl Send for Guarded {}

#[test]
fn a_call_runs_once_and_its_effect_is_seen() {
    loom::model(|| {
        let cpu = Cpu::new();
        let ran = std::sync::Arc::new(Plain::new(0));
        let (there, count) = (Arc::clone(&cpu), std::sync::Arc::clone(&ran));
        let caller = thread::spawn(move || {
            let data = Guarded(UnsafeCell::new(1));
            let data = &data;
            there.call(&|| {
                data.0.with_mut(|value| {
                    // SAFETY: the caller waits, so this is the only access.
                    unsafe { *value += 1 };
                });
                count.fetch_add(1, SeqCst);
            });
            // SAFETY: the call is over, so this is the only access.
            data.0.with(|value| assert_eq!(unsafe { *value }, 2));
        });
        cpu.take_interrupts(&ran, 1);
        caller.join().unwrap();
        assert_eq!(ran.load(SeqCst), 1);
    });
}

/// Two CPUs call a third at once. They do not wait here (two that spin make endlessly many
/// interleavings of no interest), so calls and nodes are leaked.
#[test]
fn two_callers_lose_nothing() {
    let mut model = loom::model::Builder::new();
    // More than the races of two pushes and a take need; all of them take five times as long.
    model.preemption_bound = Some(3);
    model.check(|| {
        let cpu = Cpu::new();
        let ran: &'static Plain = Box::leak(Box::new(Plain::new(0)));
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let there = Arc::clone(&cpu);
                thread::spawn(move || {
                    let function = Box::leak(Box::new(|| {
                        ran.fetch_add(1, SeqCst);
                    }));
                    let call: &'static Call<'_> = Box::leak(Box::new(Call::new(function, 1)));
                    let node: &'static Node = Box::leak(Box::new(Node::new(call)));
                    // SAFETY: both are there for ever.
                    if unsafe { there.list.push(node) } == Pushed::First {
                        there.interrupt.notify();
                    }
                    call
                })
            })
            .collect();
        cpu.take_interrupts(ran, 2);
        for caller in callers {
            assert!(caller.join().unwrap().is_done());
        }
        assert_eq!(ran.load(SeqCst), 2);
    });
}

/// A CPU goes offline while two others call it: it serves each call, or refuses it, and never
/// leaves one on its list.
#[test]
fn a_list_that_closes_serves_or_refuses() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let cpu = Cpu::new();
        let ran: &'static Plain = Box::leak(Box::new(Plain::new(0)));
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let there = Arc::clone(&cpu);
                thread::spawn(move || {
                    let function = Box::leak(Box::new(|| {
                        ran.fetch_add(1, SeqCst);
                    }));
                    let call: &'static Call<'_> = Box::leak(Box::new(Call::new(function, 1)));
                    let node: &'static Node = Box::leak(Box::new(Node::new(call)));
                    // SAFETY: both are there for ever.
                    let pushed = unsafe { there.list.push(node) };
                    if pushed == Pushed::Closed {
                        call.skip();
                    }
                    (call, pushed)
                })
            })
            .collect();
        // What the CPU does last, with interrupts off.
        while !cpu.list.close() {
            cpu.list.serve();
        }
        // A list that is closed is not opened by being served.
        cpu.list.serve();
        let mut served = 0;
        for caller in callers {
            let (call, pushed) = caller.join().unwrap();
            assert!(call.is_done(), "a call is left: {pushed:?}");
            served += usize::from(pushed != Pushed::Closed);
        }
        assert_eq!(ran.load(SeqCst), served);
    });
}

/// The model's own calls: the function runs on each CPU, as that CPU, whether it serves the
/// call at a mark, has ended, or has not begun.
#[test]
fn the_model_calls_every_cpu() {
    Setup::new(2).calls().preemptions(3).check(|| {
        let cpu1 = model::cpu(1, || Model::mark(Mark::Step));
        let ran = Plain::new(0);
        Model::call(CpuMask::first_n(2), &|| {
            assert!(!Model::irqs_enabled() && !Model::may_sleep());
            ran.fetch_add(1 << (8 * Model::current_cpu().index()), SeqCst);
        });
        assert_eq!(ran.into_inner(), 0x101);
        assert_eq!(Model::current_cpu(), CpuId::BOOT);
        cpu1.join();
    });
}
