//! Looking at what other CPUs do.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use platform::{CpuId, CpuMask};

use crate::{
    arch::{irq, nmi_backtrace},
    kunit::{Ctx, OnlineCpus, Outcome, kassert, kassert_eq, kassert_ok, kskip, kunit_suite},
    sched::{self, Builder},
    smp,
};

kunit_suite! {
    name: "nmi_backtrace",
    cases: [
        shows_the_thread => { over: OnlineCpus },
        everybody_asks,
        from_an_interrupt,
    ],
}

/// The thread that hogs a CPU with interrupts off is named, and goes on.
fn shows_the_thread(_: &mut Ctx, cpu: CpuId) -> Outcome {
    if cpu == smp::this_cpu() {
        let answers = kassert_ok!(nmi_backtrace::ask(CpuMask::only(cpu)));
        let answer = kassert_ok!(answers.of(cpu));
        kassert_eq!(answer.thread(), Some(sched::current_ref().id));
        return Ok(());
    }
    let (inside, stop) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let thread = {
        let (inside, stop) = (Arc::clone(&inside), Arc::clone(&stop));
        Builder::new().on(cpu).spawn(format_args!("hog"), move || {
            let _irqs_off = irq::disable();
            inside.store(true, Ordering::SeqCst);
            while !stop.load(Ordering::SeqCst) {
                core::hint::spin_loop();
            }
        })
    };
    let thread = kassert_ok!(thread);
    while !inside.load(Ordering::SeqCst) {
        core::hint::spin_loop();
    }
    let answers = nmi_backtrace::ask(CpuMask::only(cpu));
    stop.store(true, Ordering::SeqCst);
    let number = thread.thread().id;
    thread.join();
    let answers = kassert_ok!(answers);
    let answer = kassert_ok!(answers.of(cpu));
    kassert_eq!(answer.thread(), Some(number));
    // Only who was asked.
    for other in smp::online().without(cpu) {
        kassert!(answers.of(other).is_none());
    }
    Ok(())
}

/// One after the other, over and over: no NMI is one too many, and the next round of each is
/// answered in full at last.
fn everybody_asks(_: &mut Ctx) -> Outcome {
    const ROUNDS: u64 = 10;
    let good = Arc::new(AtomicU64::new(0));
    let mut threads = alloc::vec::Vec::new();
    for cpu in smp::online() {
        let good = Arc::clone(&good);
        threads.push(kassert_ok!(Builder::new().on(cpu).spawn(
            format_args!("asks"),
            move || {
                let mut done = 0;
                while done < ROUNDS {
                    let Some(answers) = nmi_backtrace::ask(smp::online()) else {
                        continue;
                    };
                    let all = smp::online().iter().all(|cpu| answers.of(cpu).is_some());
                    done += u64::from(all);
                }
                good.fetch_add(done, Ordering::SeqCst);
            }
        )));
    }
    let count = threads.len() as u64;
    for thread in threads {
        thread.join();
    }
    kassert_eq!(good.load(Ordering::SeqCst), ROUNDS * count);
    Ok(())
}

fn from_an_interrupt(_: &mut Ctx) -> Outcome {
    let Some(cpu) = smp::online().without(smp::this_cpu()).first() else {
        kskip!("needs another CPU");
    };
    let all = AtomicBool::new(false);
    smp::call_on(cpu, &|| {
        let answers = nmi_backtrace::ask(smp::online());
        let good = answers.is_some_and(|answers| {
            let mut cpus = smp::online().iter();
            cpus.all(|cpu| answers.of(cpu).is_some())
        });
        all.store(good, Ordering::SeqCst);
    });
    kassert!(all.load(Ordering::SeqCst));
    Ok(())
}
