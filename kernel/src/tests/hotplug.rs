//! CPUs go offline and come back.

mod calls;
mod cycles;
mod memory;
mod steps;
mod threads;

use platform::{CpuId, CpuMask, SpawnError};

use crate::arch::tlb;
use crate::hotplug::{self, Error};
use crate::kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok, kskip, kunit_suite};
use crate::sched::{self, Builder, table};
use crate::{smp, time};

use self::{
    calls::{calls_race_with_going, timers_fire, what_was_raised_is_run, work_is_done_elsewhere},
    cycles::{controllers_take_turns, cycles_leave_nothing, cycles_under_load},
    memory::{page_lists_are_drained, translations_are_forgotten},
    steps::{
        any_step_may_fail, step_that_fails_is_not_registered,
        steps_are_undone_in_the_opposite_order,
    },
    threads::{
        section_is_waited_for, sleepers_wake_elsewhere, threads_go_on, threads_that_stay_wait,
        who_does_not_rest_stays,
    },
};

kunit_suite! {
    name: "hotplug",
    setup: needs_two,
    teardown: all_back,
    cases: [
        each_goes_and_comes_back,
        what_cannot_be,
        threads_go_on,
        sleepers_wake_elsewhere,
        threads_that_stay_wait,
        section_is_waited_for,
        who_does_not_rest_stays,
        timers_fire,
        work_is_done_elsewhere,
        what_was_raised_is_run,
        calls_race_with_going,
        page_lists_are_drained,
        translations_are_forgotten,
        any_step_may_fail,
        steps_are_undone_in_the_opposite_order,
        step_that_fails_is_not_registered,
        cycles_leave_nothing,
        cycles_under_load,
        controllers_take_turns,
    ],
}

fn needs_two(_: &mut Ctx) -> Outcome {
    if others().is_empty() {
        kskip!("there is only one CPU, which stays");
    }
    Ok(())
}

fn all_back(_: &mut Ctx) -> Outcome {
    drop(AllBack);
    kassert_eq!(smp::online(), smp::cpus());
    kassert_eq!(smp::active(), smp::cpus());
    Ok(())
}

/// CPUs that can go.
fn others() -> CpuMask {
    smp::cpus().without(CpuId::BOOT)
}

/// One of them.
fn some_other() -> CpuId {
    others().last().unwrap_or(CpuId::BOOT)
}

/// Brings all CPUs back, also when a case ends early.
struct AllBack;

impl Drop for AllBack {
    fn drop(&mut self) {
        hotplug::fail(None);
        for cpu in others() {
            // Most are online already.
            let _ = hotplug::on(cpu);
        }
    }
}

/// Waits for something; if it never comes the runner tells.
fn wait_until(what: impl Fn() -> bool) {
    while !what() {
        sched::sleep_ns(100_000);
    }
}

/// Runs `f` in a thread that is bound to `cpu`, to its end.
fn on<T: Send + 'static>(
    cpu: CpuId,
    f: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SpawnError> {
    let thread = Builder::new().on(cpu).spawn(format_args!("on {cpu}"), f)?;
    Ok(thread.join())
}

fn each_goes_and_comes_back(_: &mut Ctx) -> Outcome {
    let _back = AllBack;
    for cpu in others() {
        let threads = table::count();
        let flushes = tlb::flushes(cpu).all;
        kassert_eq!(hotplug::off(cpu), Ok(()));
        kassert_eq!(smp::online(), smp::cpus().without(cpu));
        kassert_eq!(smp::active(), smp::online());
        kassert_eq!(hotplug::status(cpu).done, 0);
        kassert!(sched::eqs(cpu).snapshot().in_eqs());
        kassert!(!sched::is_cpu_idle(cpu));
        let refused = on(cpu, || ());
        kassert_eq!(refused, Err(SpawnError::Offline(cpu)));
        kassert_eq!(smp::call_all(&|| ()), smp::online());
        kassert_eq!(smp::call_many(CpuMask::only(cpu), &|| ()), CpuMask::EMPTY);
        kassert_eq!(hotplug::off(cpu), Err(Error::AlreadyOffline(cpu)));
        let gone_since = hotplug::status(cpu).since_ns;

        kassert_eq!(hotplug::on(cpu), Ok(()));
        let status = hotplug::status(cpu);
        kassert!(status.online && status.done == status.steps, "{status:?}");
        kassert!(status.since_ns > gone_since);
        kassert_eq!(smp::active(), smp::cpus());
        kassert!(tlb::flushes(cpu).all > flushes, "it knows what it knew");
        kassert_eq!(
            smp::call_many(CpuMask::only(cpu), &|| ()),
            CpuMask::only(cpu)
        );
        let deadline = time::now_ns() + 1_000_000;
        let slept = on(cpu, move || {
            sched::sleep_until(deadline);
            (smp::this_cpu(), time::now_ns())
        });
        let (there, woken) = kassert_ok!(slept);
        kassert_eq!(there, cpu);
        kassert!(woken >= deadline);
        kassert_eq!(hotplug::on(cpu), Err(Error::AlreadyOnline(cpu)));
        kassert_eq!(table::count(), threads);
    }
    Ok(())
}

fn what_cannot_be(_: &mut Ctx) -> Outcome {
    kassert_eq!(hotplug::off(CpuId::BOOT), Err(Error::BootCpu));
    kassert_eq!(
        hotplug::on(CpuId::BOOT),
        Err(Error::AlreadyOnline(CpuId::BOOT))
    );
    let Some(absent) = CpuMask::ALL.difference(smp::cpus()).first() else {
        return Ok(());
    };
    kassert_eq!(hotplug::on(absent), Err(Error::NotPossible(absent)));
    kassert_eq!(hotplug::off(absent), Err(Error::NotPossible(absent)));
    kassert!(!hotplug::fail(Some("no such step")));
    Ok(())
}
