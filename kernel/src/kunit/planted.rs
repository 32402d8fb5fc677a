//! Faults planted on demand: they prove that a run which goes wrong is noticed.
//!
//! `kunit.planted=NAME` adds the suite `planted`: a case that passes, one with the
//! fault, and one that passes behind it. Only the test build has them. The fault
//! `silent` is not here: `main` keeps quiet before anything can be printed.

use mm::Gfp;
use mm::slab::{Flags, Spec};
use platform::wait::Mutex;

use super::{Body, Case, Ctx, Hook, Outcome, Suite, kassert_ok, kfail};
use crate::arch::irq;
use crate::console;
use crate::machine::Kernel;
use crate::memory::slab::slabs;

platform::lock_class! {
    struct Held = ("planted", 40);
}

/// A fault that can be planted.
#[derive(Clone, Copy)]
pub enum Planted {
    /// A case goes wrong.
    Case(&'static Suite),
    /// The suite announces one case more than it has.
    Truncate(&'static Suite),
    /// The run has no case at all.
    NoPlan,
}

/// The fault called `name`.
pub fn named(name: &str) -> Option<Planted> {
    // The planted faults are no part of a measured kernel.
    if !cfg!(debug_assertions) {
        return None;
    }
    Some(match name {
        "hang" => Planted::Case(&HANG),
        "hang_irqs_on" => Planted::Case(&HANG_IRQS_ON),
        "hang_asleep" => Planted::Case(&HANG_ASLEEP),
        "hang_holding" => Planted::Case(&HANG_HOLDING),
        "hang_locked" => Planted::Case(&HANG_LOCKED),
        "panic" => Planted::Case(&PANIC),
        "fail" => Planted::Case(&FAIL),
        "heap" => Planted::Case(&HEAP),
        "truncate" => Planted::Truncate(&TRUNCATE),
        "noplan" => Planted::NoPlan,
        _ => return None,
    })
}

static HANG: Suite = suite(&[case("first", pass), case("hang", hang), case("last", pass)]);
static HANG_IRQS_ON: Suite = suite(&[
    case("first", pass),
    case("hang_irqs_on", hang_irqs_on),
    case("last", pass),
]);
static HANG_ASLEEP: Suite = suite(&[
    case("first", pass),
    case("hang_asleep", hang_asleep),
    case("last", pass),
]);
static HANG_HOLDING: Suite = suite(&[
    case("first", pass),
    case("hang_holding", hang_holding),
    case("last", pass),
]);
static HANG_LOCKED: Suite = suite(&[
    case("first", pass),
    case("hang_locked", hang_locked),
    case("last", pass),
]);
static PANIC: Suite = suite(&[
    case("first", pass),
    case("panic", panic),
    case("last", pass),
]);
static FAIL: Suite = suite(&[case("first", pass), case("fail", fail), case("last", pass)]);
static HEAP: Suite = suite(&[
    case("first", pass),
    case("heap", use_after_free),
    case("last", pass),
]);
static TRUNCATE: Suite = suite(&[case("first", pass), case("last", pass)]);

const fn suite(cases: &'static [Case]) -> Suite {
    Suite {
        name: "planted",
        setup: None,
        teardown: None,
        cases,
    }
}

const fn case(name: &'static str, run: Hook) -> Case {
    Case {
        name,
        body: Body::Plain(run),
        expects: &[],
    }
}

fn pass(_: &mut Ctx) -> Outcome {
    Ok(())
}

fn fail(_: &mut Ctx) -> Outcome {
    kfail!("planted failure")
}

/// Writes to a free object: the case itself notices nothing.
fn use_after_free(_: &mut Ctx) -> Outcome {
    let spec = Spec::new("planted", 64).flags(Flags::NO_MERGE);
    let cache = kassert_ok!(slabs().create(&spec));
    let (kept, freed) = (cache.alloc(Gfp::KERNEL), cache.alloc(Gfp::KERNEL));
    let (_, freed) = (kassert_ok!(kept), kassert_ok!(freed));
    // SAFETY: wrong on purpose. The other object keeps the slab.
    unsafe {
        cache.free(freed);
        cache.shrink();
        freed.cast::<[u8; 64]>().write([0x5a; 64]);
    }
    Ok(())
}

fn panic(_: &mut Ctx) -> Outcome {
    panic!("planted panic")
}

fn hang(_: &mut Ctx) -> Outcome {
    let _irqs_off = irq::disable();
    loop {
        core::hint::spin_loop();
    }
}

fn hang_irqs_on(_: &mut Ctx) -> Outcome {
    loop {
        core::hint::spin_loop();
    }
}

fn hang_asleep(_: &mut Ctx) -> Outcome {
    loop {
        crate::sched::park();
    }
}

/// Whoever wants the lock would hang, too.
fn hang_holding(_: &mut Ctx) -> Outcome {
    static LOCK: Mutex<(), Kernel, Held> = Mutex::new(());
    let _guard = LOCK.lock();
    loop {
        crate::sched::park();
    }
}

/// Nobody can print any more, but for a panic.
fn hang_locked(_: &mut Ctx) -> Outcome {
    console::with_lock_held(|| {
        loop {
            core::hint::spin_loop();
        }
    })
}
