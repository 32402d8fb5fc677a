//! Read-side sections: they nest, in every context, whatever interrupts them where.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use platform::{Context, CpuId};
use rcu::Machine;

use crate::{
    arch::preempt,
    kunit::{
        Ctx, OnlineCpus, Outcome, kassert, kassert_eq, kassert_ok, knote, kskip, kunit_suite,
        rounds,
    },
    machine::Kernel,
    rcu::{rcu, read},
    sched::{self, Builder},
    smp,
    sweep::sweep,
    time,
    timer::RawKind,
};

kunit_suite! {
    name: "rcu_readers",
    cases: [
        nest,
        nest_in_interrupts => { over: OnlineCpus },
        swept => { over: KINDS },
        swept_while_asked => { over: KINDS },
        interrupts_know_what_they_came_upon => { over: OnlineCpus },
        preempted_reader_holds_it_up => { over: OnlineCpus },
        many_preempted_readers,
    ],
}

const KINDS: &[(&str, RawKind)] = &[("irq", RawKind::Irq), ("nmi", RawKind::Nmi)];

/// How deep the running code is in sections, in either flavour.
fn depth() -> u32 {
    if Kernel::preemptible() {
        Kernel::reader_depth()
    } else {
        preempt::depth()
    }
}

fn nest(_: &mut Ctx) -> Outcome {
    kassert_eq!(depth(), 0);
    let first = read();
    let second = read();
    kassert_eq!(depth(), 2);
    drop(first);
    kassert_eq!(depth(), 1);
    kassert!(!sched::may_sleep());
    drop(second);
    kassert_eq!(depth(), 0);
    kassert!(sched::may_sleep());
    Ok(())
}

/// On top of the section that was interrupted; and the CPU is watching, idle or not.
fn nest_in_interrupts(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let good = AtomicBool::new(false);
    smp::call_on(cpu, &|| {
        let before = depth();
        let guard = read();
        let inside = depth();
        drop(guard);
        let watching = sched::eqs(cpu).is_watching();
        let right = watching && inside == before + 1 && depth() == before;
        good.store(right, Ordering::SeqCst);
    });
    kassert!(good.load(Ordering::SeqCst));
    Ok(())
}

/// More instructions than two sections have, with setting the timer.
const LENGTH: u32 = 600;

/// A section at each of whose instructions another one comes and goes.
fn swept(_: &mut Ctx, kind: RawKind) -> Outcome {
    let wrong = AtomicU32::new(0);
    let handler = || {
        let before = depth();
        let outer = read();
        drop(read());
        let inside = depth();
        drop(outer);
        if inside != before + 1 || depth() != before {
            wrong.fetch_add(1, Ordering::SeqCst);
        }
    };
    let swept = sweep(kind, 1, LENGTH, &handler, || {
        let before = depth();
        let outer = read();
        drop(read());
        let inside = depth();
        drop(outer);
        if inside != before + 1 || depth() != before {
            wrong.fetch_add(1, Ordering::SeqCst);
        }
    });
    knote!("{swept:?}");
    kassert_eq!(wrong.load(Ordering::SeqCst), 0);
    kassert_eq!(depth(), 0);
    Ok(())
}

/// The same while the end of the section is asked for: nobody is asked for any more after
/// it, so the end was told; by which of the two does not matter.
fn swept_while_asked(_: &mut Ctx, kind: RawKind) -> Outcome {
    #[cfg(feature = "rcu_preemptible")]
    {
        use crate::arch::{irq, reader};
        let wrong = AtomicU32::new(0);
        let handler = || drop(read());
        sweep(kind, 1, 2 * LENGTH, &handler, || {
            let guard = read();
            {
                let _irqs_off = irq::disable();
                Kernel::ask_reader();
            }
            drop(guard);
            if reader::get() != reader::NONE {
                wrong.fetch_add(1, Ordering::SeqCst);
            }
        });
        kassert_eq!(wrong.load(Ordering::SeqCst), 0);
        Ok(())
    }
    #[cfg(not(feature = "rcu_preemptible"))]
    {
        let _ = kind;
        kskip!("nobody asks non-preemptible readers")
    }
}

/// What a busy thread does on the CPU while it is interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
enum Doing {
    Nothing = 0,
    Pinned = 1,
    Reading = 2,
    Extended = 3,
    Ends = 4,
}

/// An interrupt came upon a quiescent state exactly if preemption was on and no section
/// under way, or the CPU was in an extended state.
fn interrupts_know_what_they_came_upon(_: &mut Ctx, cpu: CpuId) -> Outcome {
    if cpu == smp::this_cpu() {
        kskip!("another CPU has to interrupt it");
    }
    let wanted = Arc::new(AtomicU64::new(Doing::Nothing as u64));
    let at = Arc::new(AtomicU64::new(u64::MAX));
    let thread = {
        let (wanted, at) = (Arc::clone(&wanted), Arc::clone(&at));
        let busy = move |doing: Doing| {
            at.store(doing as u64, Ordering::SeqCst);
            while wanted.load(Ordering::SeqCst) == doing as u64 {
                core::hint::spin_loop();
            }
        };
        Builder::new().on(cpu).spawn(format_args!("busy"), move || {
            busy(Doing::Nothing);
            {
                let _pinned = sched::Pinned::disable();
                busy(Doing::Pinned);
            }
            {
                let _guard = read();
                busy(Doing::Reading);
            }
            sched::extended(|| busy(Doing::Extended));
        })
    };
    let thread = kassert_ok!(thread);
    let mut seen = alloc::vec::Vec::new();
    for doing in [
        Doing::Nothing,
        Doing::Pinned,
        Doing::Reading,
        Doing::Extended,
    ] {
        wanted.store(doing as u64, Ordering::SeqCst);
        while at.load(Ordering::SeqCst) != doing as u64 {
            core::hint::spin_loop();
        }
        let quiescent = AtomicBool::new(false);
        smp::call_on(cpu, &|| {
            quiescent.store(Kernel::interrupted_quiescent(), Ordering::SeqCst);
        });
        // Not within an interrupt, where it is asked for another one's sake.
        let nested = AtomicBool::new(false);
        smp::call_on(cpu, &|| {
            smp::call_on(cpu, &|| {
                nested.store(Kernel::interrupted_quiescent(), Ordering::SeqCst);
            });
        });
        seen.push((
            doing,
            quiescent.load(Ordering::SeqCst),
            nested.load(Ordering::SeqCst),
        ));
    }
    wanted.store(Doing::Ends as u64, Ordering::SeqCst);
    thread.join();
    kassert_eq!(
        seen,
        [
            (Doing::Nothing, true, false),
            (Doing::Pinned, false, false),
            (Doing::Reading, false, false),
            (Doing::Extended, true, false),
        ]
    );
    kassert!(preempt::context() == Context::Task && !Kernel::interrupted_quiescent());
    Ok(())
}

/// A thread that is switched away in its section holds grace periods up until it has ended
/// it, wherever that is.
fn preempted_reader_holds_it_up(_: &mut Ctx, cpu: CpuId) -> Outcome {
    if !Kernel::preemptible() {
        kskip!("sections of this build are not preempted");
    }
    let (release, expedited) = (Arc::new(AtomicBool::new(false)), cpu.number() % 2 == 1);
    let inside = Arc::new(AtomicBool::new(false));
    let reader = {
        let (release, inside) = (Arc::clone(&release), Arc::clone(&inside));
        Builder::new()
            .on(cpu)
            .spawn(format_args!("reader"), move || {
                let _guard = read();
                inside.store(true, Ordering::SeqCst);
                while !release.load(Ordering::SeqCst) {
                    core::hint::spin_loop();
                }
            })
    };
    let reader = kassert_ok!(reader);
    while !inside.load(Ordering::SeqCst) {
        sched::yield_now();
    }
    // It has to take turns, and so is switched away in its section.
    let hog = {
        let release = Arc::clone(&release);
        Builder::new().on(cpu).spawn(format_args!("hog"), move || {
            while !release.load(Ordering::SeqCst) {
                core::hint::spin_loop();
            }
        })
    };
    let hog = kassert_ok!(hog);
    let switches = reader.thread().switches();
    while reader.thread().switches() < switches + 3 {
        sched::sleep_ns(1_000_000);
    }
    let returned = Arc::new(AtomicBool::new(false));
    let waiter = {
        let returned = Arc::clone(&returned);
        Builder::new().spawn(format_args!("waiter"), move || {
            if expedited {
                rcu().synchronize_expedited();
            } else {
                rcu().synchronize();
            }
            returned.store(true, Ordering::SeqCst);
        })
    };
    let waiter = kassert_ok!(waiter);
    let switches = reader.thread().switches();
    let end = time::now_ns() + 30_000_000;
    while reader.thread().switches() < switches + 3 || time::now_ns() < end {
        sched::sleep_ns(1_000_000);
    }
    let early = returned.load(Ordering::SeqCst);
    release.store(true, Ordering::SeqCst);
    reader.join();
    hog.join();
    waiter.join();
    kassert!(!early, "a grace period ended before the section");
    Ok(())
}

/// More readers than CPUs, all of which are switched away in their sections, and end them on
/// any CPU; grace periods all the while.
fn many_preempted_readers(_: &mut Ctx) -> Outcome {
    const SECTION_NS: u64 = 3_000_000;
    let rounds = rounds(50, 4);
    let stop = Arc::new(AtomicBool::new(false));
    let sections = Arc::new(AtomicU64::new(0));
    let mut readers = alloc::vec::Vec::new();
    for _ in 0..2 * smp::online().count() {
        let (stop, sections) = (Arc::clone(&stop), Arc::clone(&sections));
        readers.push(kassert_ok!(Builder::new().spawn(
            format_args!("reader"),
            move || {
                while !stop.load(Ordering::SeqCst) {
                    let guard = read();
                    let end = time::now_ns() + SECTION_NS;
                    while time::now_ns() < end {
                        core::hint::spin_loop();
                    }
                    drop(guard);
                    sections.fetch_add(1, Ordering::SeqCst);
                }
            }
        )));
    }
    let before = rcu().stats();
    for _ in 0..rounds {
        rcu().synchronize();
        rcu().synchronize_expedited();
    }
    stop.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.join();
    }
    let after = rcu().stats();
    kassert!(after.grace_periods >= before.grace_periods + rounds);
    kassert!(after.expedited >= before.expedited + rounds);
    knote!("{} sections", sections.load(Ordering::SeqCst));
    Ok(())
}
