//! The table of steps: order, failure, going back.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc::vec::Vec;
use platform::{CpuId, CpuMask};

use super::{AllBack, on, others, some_other};
use crate::arch::irq;
use crate::hotplug::{self, CpuStep, Error, Place, Step};
use crate::kunit::{Ctx, Outcome, kassert, kassert_eq};
use crate::sched::table;
use crate::{sched, smp};

/// What must be as it was after a failure.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    online: CpuMask,
    active: CpuMask,
    done: Vec<usize>,
    idle: bool,
    threads: usize,
}

impl Seen {
    fn now(cpu: CpuId) -> Self {
        Self {
            online: smp::online(),
            active: smp::active(),
            done: smp::cpus()
                .iter()
                .map(|cpu| hotplug::status(cpu).done)
                .collect(),
            // One that is offline is in its extended quiescent state for good.
            idle: !smp::online().contains(cpu) && sched::eqs(cpu).snapshot().in_eqs(),
            threads: table::count(),
        }
    }
}

/// Each step is made to fail, on the way up and down: the error names it, and all is as before.
pub fn any_step_may_fail(_: &mut Ctx) -> Outcome {
    let _back = AllBack;
    let cpu = some_other();
    let steps = hotplug::step_names();
    kassert!(steps.len() >= 5);
    for &step in &steps {
        let failure = Err(Error::Step {
            cpu,
            step,
            why: "it was made to",
        });
        let before = Seen::now(cpu);
        kassert!(hotplug::fail(Some(step)));
        kassert_eq!(hotplug::off(cpu), failure);
        kassert_eq!(Seen::now(cpu), before, "after '{step}' failed to go down");
        kassert_eq!(on(cpu, smp::this_cpu), Ok(cpu));

        kassert_eq!(hotplug::off(cpu), Ok(()));
        let before = Seen::now(cpu);
        kassert!(hotplug::fail(Some(step)));
        kassert_eq!(hotplug::on(cpu), failure);
        kassert_eq!(Seen::now(cpu), before, "after '{step}' failed to go up");
        // Once only.
        kassert_eq!(hotplug::on(cpu), Ok(()));
        kassert_eq!(on(cpu, smp::this_cpu), Ok(cpu));
    }
    Ok(())
}

/// What the test's steps did, a digit each, the last one lowest.
static DID: AtomicU64 = AtomicU64::new(0);
/// Something was not as it should be where a step was done.
static WRONG: AtomicU64 = AtomicU64::new(0);
/// `b` fails on its way up.
static FAILS: AtomicBool = AtomicBool::new(false);

const A_UP: u64 = 1;
const A_DOWN: u64 = 2;
const B_UP: u64 = 3;
const B_DOWN: u64 = 4;
const C_UP: u64 = 5;
const C_DOWN: u64 = 6;
const STARTING: u64 = 7;
const DYING: u64 = 8;

/// Notes a step that is right only under a condition.
fn did(what: u64, right: bool) {
    WRONG.fetch_add(u64::from(!right), Ordering::Relaxed);
    let next = |did: u64| Some(and(did, what));
    // AcqRel: steps of one walk are ordered, on whichever CPU.
    let _ = DID.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
}

/// What was done, and one more. With many CPUs the first ones get lost.
fn and(did: u64, what: u64) -> u64 {
    did.wrapping_mul(10).wrapping_add(what)
}

/// What was done since the last time.
fn take_done() -> u64 {
    DID.swap(0, Ordering::AcqRel)
}

fn is_online(cpu: CpuId) -> bool {
    smp::online().contains(cpu)
}

/// On the CPU itself, alone, before and after others see it.
fn is_private(cpu: CpuId) -> bool {
    let here = cpu == smp::this_cpu();
    here && !is_online(cpu) && !irq::enabled() && sched::eqs(cpu).is_watching()
}

const A: Step = Step {
    name: "test-a",
    place: Place::Stopped,
    up: |cpu| {
        did(A_UP, !is_online(cpu));
        Ok(())
    },
    down: |cpu| {
        did(A_DOWN, !is_online(cpu));
        Ok(())
    },
};

const B: Step = Step {
    name: "test-b",
    place: Place::Running,
    up: |cpu| {
        did(B_UP, is_online(cpu));
        let fails = FAILS.load(Ordering::Relaxed);
        if fails { Err("on purpose") } else { Ok(()) }
    },
    down: |cpu| {
        did(B_DOWN, is_online(cpu));
        Ok(())
    },
};

const C: Step = Step {
    name: "test-c",
    place: Place::Running,
    up: |cpu| {
        did(C_UP, is_online(cpu));
        Ok(())
    },
    down: |cpu| {
        did(C_DOWN, is_online(cpu));
        Ok(())
    },
};

const ON_CPU: CpuStep = CpuStep {
    name: "test-on-cpu",
    starting: |cpu| did(STARTING, is_private(cpu)),
    dying: |cpu| did(DYING, is_private(cpu)),
};

/// Takes the test's steps out.
struct Registered;

impl Drop for Registered {
    fn drop(&mut self) {
        FAILS.store(false, Ordering::Relaxed);
        for step in [C, B, A] {
            hotplug::unregister(step.name);
        }
        hotplug::unregister_on_cpu(ON_CPU.name);
    }
}

/// Steps are done in order up, in the opposite order down, each where it belongs; those of a
/// walk that fails are undone.
pub fn steps_are_undone_in_the_opposite_order(_: &mut Ctx) -> Outcome {
    let _back = AllBack;
    let cpu = some_other();
    let steps = hotplug::step_names().len();
    let registered = Registered;
    for step in [A, B, C] {
        kassert_eq!(hotplug::register(step), Ok(()));
    }
    kassert_eq!(hotplug::register_on_cpu(ON_CPU), Ok(()));
    kassert_eq!(hotplug::register(B), Err("there is a step of that name"));
    let status = hotplug::status(cpu);
    kassert_eq!((status.steps, status.done), (steps + 3, steps + 3));
    // Done for the CPUs that were online, which for `a` is not the usual place.
    take_done();
    WRONG.store(0, Ordering::Relaxed);

    kassert_eq!(hotplug::off(cpu), Ok(()));
    kassert_eq!(take_done(), 6482);
    kassert_eq!(hotplug::on(cpu), Ok(()));
    kassert_eq!(take_done(), 1735);

    // `b` fails by itself on the way up.
    kassert_eq!(hotplug::off(cpu), Ok(()));
    take_done();
    FAILS.store(true, Ordering::Relaxed);
    let failed = hotplug::on(cpu);
    FAILS.store(false, Ordering::Relaxed);
    kassert_eq!(
        failed,
        Err(Error::Step {
            cpu,
            step: B.name,
            why: "on purpose"
        })
    );
    kassert_eq!(take_done(), 17382);
    kassert_eq!(hotplug::status(cpu).done, 0);
    kassert_eq!(hotplug::on(cpu), Ok(()));
    take_done();

    // `a` is made to on the way down, when the CPU is dead already: it starts again.
    kassert!(hotplug::fail(Some(A.name)));
    kassert!(hotplug::off(cpu).is_err());
    kassert_eq!(take_done(), 648_735);
    kassert_eq!(on(cpu, smp::this_cpu), Ok(cpu));
    kassert_eq!(WRONG.load(Ordering::Relaxed), 0);

    // Taken out, they are undone for each CPU that is online.
    kassert_eq!(hotplug::off(cpu), Ok(()));
    take_done();
    hotplug::unregister(C.name);
    let downs = (1..smp::cpus().count()).fold(0, |did, _| and(did, C_DOWN));
    kassert_eq!(take_done(), downs);
    drop(registered);
    kassert_eq!(hotplug::on(cpu), Ok(()));
    kassert_eq!(hotplug::status(cpu).done, steps);
    Ok(())
}

/// A step whose `up` fails for a CPU that is online is undone for the others, and not there.
pub fn step_that_fails_is_not_registered(_: &mut Ctx) -> Outcome {
    let _registered = Registered;
    let cpus = 1 + others().count();
    let names = hotplug::step_names();
    let failing = Step {
        up: |cpu| {
            did(B_UP, true);
            let last = smp::cpus().last() == Some(cpu);
            if last { Err("on purpose") } else { Ok(()) }
        },
        ..B
    };
    take_done();
    kassert_eq!(hotplug::register(failing), Err("on purpose"));
    let ups = (0..cpus).fold(0, |did, _| and(did, B_UP));
    let all = (1..cpus).fold(ups, |did, _| and(did, B_DOWN));
    kassert_eq!(take_done(), all);
    kassert_eq!(hotplug::step_names(), names);
    let full = |cpu| hotplug::status(cpu).done == names.len();
    kassert!(smp::cpus().iter().all(full));
    Ok(())
}
