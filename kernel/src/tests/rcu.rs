//! RCU: what a grace period waits for and what it leaves alone; callbacks; cookies.

mod ways;

use alloc::{boxed::Box, format, sync::Arc, vec::Vec};
use core::{
    panic::Location,
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering},
};

use platform::{CpuId, CpuMask, lockdep};
use rcu::Head;

use self::ways::{Watch, held_up};
use crate::{
    arch::irq,
    kunit::{
        Ctx, OnlineCpus, Outcome, Stop, kassert, kassert_eq, kassert_ok, kfail, knote, kskip,
        kunit_suite,
    },
    rcu::{rcu, read},
    report::Kind,
    sched::{self, Builder, JoinHandle, table},
    smp,
    softirq::{self, Kind as Softirq},
    sweep::sweep,
    timer::RawKind,
};

kunit_suite! {
    name: "rcu",
    cases: [
        thread_holds_it_up => { over: OnlineCpus },
        nested_section_holds_it_up => { over: OnlineCpus },
        preemption_off_holds_it_up => { over: OnlineCpus },
        interrupts_off_hold_it_up => { over: OnlineCpus },
        interrupt_holds_it_up => { over: OnlineCpus },
        soft_interrupt_holds_it_up => { over: OnlineCpus },
        nmi_holds_it_up => { over: OnlineCpus },
        interrupt_of_extended_holds_it_up => { over: OnlineCpus },
        cookies,
        full_cookies,
        callbacks_of_all_cpus,
        callbacks_from_interrupts,
        callbacks_queue_callbacks,
        idle_cpus_are_left_alone,
        extended_is_left_alone,
        extended_reader_is_reported => { expects: [Kind::Rcu] },
        sleeping_reader_is_reported => { expects: [Kind::Lock(lockdep::Kind::SleepInAtomic)] },
        queued_twice_is_reported => { expects: [Kind::Rcu] },
        text_shows_the_tree,
    ],
}

fn thread_holds_it_up(_: &mut Ctx, cpu: CpuId) -> Outcome {
    held_up(cpu, Watch::read)
}

/// The end of an inner section is no end.
fn nested_section_holds_it_up(_: &mut Ctx, cpu: CpuId) -> Outcome {
    held_up(cpu, |watch| {
        let _outer = read();
        drop((read(), read()));
        watch.stay();
        drop(read());
    })
}

fn preemption_off_holds_it_up(_: &mut Ctx, cpu: CpuId) -> Outcome {
    held_up(cpu, |watch| {
        let _pinned = sched::Pinned::disable();
        watch.stay();
    })
}

fn interrupts_off_hold_it_up(_: &mut Ctx, cpu: CpuId) -> Outcome {
    held_up(cpu, |watch| {
        let _irqs_off = irq::disable();
        watch.stay();
    })
}

/// In a call of another CPU, or, with one CPU in between, of this one.
fn interrupt_holds_it_up(_: &mut Ctx, cpu: CpuId) -> Outcome {
    held_up(cpu, |watch| {
        let own = smp::this_cpu();
        // An interrupt, not a plain call: the other CPU makes it.
        let caller = smp::online().without(own).first().unwrap_or(own);
        sched::move_to(CpuMask::only(caller));
        smp::call_on(own, &|| watch.read());
    })
}

/// For the soft interrupt, which has no data of its own.
static IN_SOFTIRQ: AtomicPtr<Watch> = AtomicPtr::new(core::ptr::null_mut());

fn soft_interrupt_holds_it_up(_: &mut Ctx, cpu: CpuId) -> Outcome {
    held_up(cpu, |watch| {
        IN_SOFTIRQ.store(core::ptr::from_ref(watch).cast_mut(), Ordering::SeqCst);
        softirq::set_test(Some(|| {
            let watch = IN_SOFTIRQ.load(Ordering::SeqCst);
            // SAFETY: the reader, which waits below, keeps it.
            if let Some(watch) = unsafe { watch.as_ref() } {
                watch.read();
            }
            IN_SOFTIRQ.store(core::ptr::null_mut(), Ordering::SeqCst);
        }));
        let own = smp::this_cpu();
        smp::call_on(own, &|| softirq::raise(Softirq::Test));
        while !IN_SOFTIRQ.load(Ordering::SeqCst).is_null() {
            sched::yield_now();
        }
        softirq::set_test(None);
    })
}

fn nmi_holds_it_up(_: &mut Ctx, cpu: CpuId) -> Outcome {
    held_up(cpu, |watch| {
        let once = AtomicBool::new(false);
        let handler = || {
            if !once.swap(true, Ordering::SeqCst) {
                watch.read();
            }
        };
        sweep(RawKind::Nmi, 1, 3, &handler, || {});
    })
}

/// A CPU that counts as idle reads in its interrupts all the same.
fn interrupt_of_extended_holds_it_up(_: &mut Ctx, cpu: CpuId) -> Outcome {
    held_up(cpu, |watch| {
        let once = AtomicBool::new(false);
        let handler = || {
            if !once.swap(true, Ordering::SeqCst) {
                watch.read();
            }
        };
        sched::extended(|| sweep(RawKind::Irq, 1, 3, &handler, || {}));
    })
}

/// A cookie is good after a grace period that began after it, and no sooner.
fn cookies(_: &mut Ctx) -> Outcome {
    let (normal, expedited) = (rcu().snap(), rcu().snap_expedited());
    let _section = read();
    let later = (rcu().snap(), rcu().snap_expedited());
    // Nothing can have ended since.
    kassert!(!rcu().poll(later.0));
    kassert!(!rcu().poll_expedited(later.1));
    drop(_section);
    rcu().synchronize();
    kassert!(rcu().poll(normal) && rcu().poll(later.0));
    rcu().synchronize_expedited();
    kassert!(rcu().poll_expedited(expedited) && rcu().poll_expedited(later.1));
    // They stay good, and waiting for them is none.
    rcu().synchronize();
    kassert!(rcu().poll(normal));
    let before = rcu().stats().grace_periods;
    rcu().cond_synchronize(normal);
    kassert_eq!(rcu().stats().grace_periods, before);
    Ok(())
}

/// Either kind of grace period makes a full cookie good.
fn full_cookies(_: &mut Ctx) -> Outcome {
    let waits: [(&str, fn()); 2] = [
        ("synchronize", || rcu().synchronize()),
        ("expedited", || rcu().synchronize_expedited()),
    ];
    for (name, wait) in waits {
        let section = read();
        let cookie = rcu().snap_full();
        kassert!(!rcu().poll_full(cookie), "{name}");
        drop(section);
        wait();
        kassert!(rcu().poll_full(cookie), "{name}");
        rcu().cond_synchronize_full(cookie);
    }
    Ok(())
}

/// A callback that counts.
#[repr(C)]
struct Counting {
    // First: the callback finds the rest by it.
    head: Head,
    ran: Arc<AtomicU64>,
}

impl Counting {
    fn queue(ran: &Arc<AtomicU64>) {
        let counting = Box::into_raw(Box::new(Self {
            head: Head::new(),
            ran: Arc::clone(ran),
        }));
        // SAFETY: from a box; the callback takes it back.
        unsafe { rcu().call(NonNull::new_unchecked(counting).cast(), Self::run) };
    }

    unsafe fn run(head: NonNull<Head>) {
        // SAFETY: queued by `queue` or `requeue` alone: from a box, and called once.
        let this = unsafe { Box::from_raw(head.cast::<Self>().as_ptr()) };
        this.ran.fetch_add(1, Ordering::SeqCst);
    }

    /// The first time it queues itself again.
    unsafe fn again(head: NonNull<Head>) {
        // SAFETY: as in `run`.
        let ran = unsafe { &(*head.cast::<Self>().as_ptr()).ran };
        ran.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the head is the object's again, and still from a box.
        unsafe { rcu().call(head, Self::run) };
    }
}

/// After a barrier what all CPUs queued has run, each once.
fn callbacks_of_all_cpus(_: &mut Ctx) -> Outcome {
    const EACH: u64 = 500;
    let ran = Arc::new(AtomicU64::new(0));
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for cpu in smp::online() {
        let ran = Arc::clone(&ran);
        threads.push(kassert_ok!(
            Builder::new()
                .on(cpu)
                .spawn(format_args!("queues"), move || (0..EACH)
                    .for_each(|_| Counting::queue(&ran)),)
        ));
    }
    threads.into_iter().for_each(JoinHandle::join);
    rcu().barrier();
    let wanted = EACH * smp::online().count() as u64;
    kassert_eq!(ran.load(Ordering::SeqCst), wanted);
    rcu().barrier();
    kassert_eq!(ran.load(Ordering::SeqCst), wanted);
    kassert_eq!(Arc::strong_count(&ran), 1, "objects came back");
    Ok(())
}

fn callbacks_from_interrupts(_: &mut Ctx) -> Outcome {
    let ran = Arc::new(AtomicU64::new(0));
    for cpu in smp::online() {
        smp::call_on(cpu, &|| Counting::queue(&ran));
    }
    rcu().barrier();
    kassert_eq!(ran.load(Ordering::SeqCst), smp::online().count() as u64);
    Ok(())
}

/// What a callback queues runs, too; a barrier made before does not wait for it.
fn callbacks_queue_callbacks(_: &mut Ctx) -> Outcome {
    let ran = Arc::new(AtomicU64::new(0));
    let counting = Box::into_raw(Box::new(Counting {
        head: Head::new(),
        ran: Arc::clone(&ran),
    }));
    // SAFETY: from a box; the second callback takes it back.
    unsafe { rcu().call(NonNull::new_unchecked(counting).cast(), Counting::again) };
    rcu().barrier();
    kassert!(ran.load(Ordering::SeqCst) >= 1);
    rcu().barrier();
    kassert_eq!(ran.load(Ordering::SeqCst), 2);
    Ok(())
}

/// What a CPU did: interrupts that it took, threads that it ran.
fn activity(cpu: CpuId) -> [u64; 5] {
    use crate::arch::percpu::PerCpuCell;
    let counts = smp::ipi_counts(cpu);
    let switches = sched::SWITCHES.on(cpu).load(Ordering::Relaxed);
    [
        counts.timer,
        counts.call,
        counts.rcu,
        counts.reschedule,
        switches,
    ]
}

/// The CPU on which grace periods are looked after.
fn overseer() -> Result<CpuId, Stop> {
    let threads = table::all();
    let found = threads
        .iter()
        .find(|thread| thread.name.as_str() == "rcu_gp");
    let thread = kassert_ok!(found, "there is no thread rcu_gp");
    Ok(thread.cpu())
}

/// Grace periods go by, and a CPU with nothing to do neither ticks nor is interrupted; its
/// word from afar is enough.
fn idle_cpus_are_left_alone(_: &mut Ctx) -> Outcome {
    const ATTEMPTS: usize = 30;
    let own = smp::this_cpu();
    if smp::online().count() < 3 {
        kskip!("needs two CPUs more than grace periods need");
    }
    let mut last = None;
    for _ in 0..ATTEMPTS {
        // What came before has ended.
        sched::sleep_ns(10_000_000);
        let busy = CpuMask::only(own).with(overseer()?);
        let idle = smp::online().difference(busy);
        let before: Vec<_> = idle.iter().map(activity).collect();
        let grace_periods = rcu().stats().grace_periods;
        for _ in 0..50 {
            rcu().synchronize();
            rcu().synchronize_expedited();
        }
        let after: Vec<_> = idle.iter().map(activity).collect();
        kassert!(rcu().stats().grace_periods >= grace_periods + 50);
        // Something else may have been up on one of them, but not time after time.
        if overseer()? == busy.iter().find(|cpu| *cpu != own).unwrap_or(own) && before == after {
            return Ok(());
        }
        last = Some((before, after));
    }
    kfail!("timer, call and reschedule interrupts and switches before and after: {last:?}")
}

/// So is a CPU that says so by `extended`, though a thread runs there; it takes interrupts.
fn extended_is_left_alone(_: &mut Ctx) -> Outcome {
    let own = smp::this_cpu();
    let Some(cpu) = smp::online().without(own).iter().next_back() else {
        kskip!("needs another CPU");
    };
    // How far the thread has got, and how far it may go.
    let (at, until) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(1)));
    let thread = {
        let (at, until) = (Arc::clone(&at), Arc::clone(&until));
        Builder::new().on(cpu).spawn(format_args!("user"), move || {
            let reach = |place| {
                at.store(place, Ordering::SeqCst);
                while until.load(Ordering::SeqCst) <= place {
                    core::hint::spin_loop();
                }
            };
            sched::extended(|| {
                // Without its tick: a grace period that meets the CPU in an interrupt asks it, rightly.
                let irqs_off = irq::disable();
                reach(1);
                drop(irqs_off);
                reach(2);
            });
        })
    };
    let thread = kassert_ok!(thread);
    let reached = |place| {
        while at.load(Ordering::SeqCst) < place {
            sched::yield_now();
        }
    };
    reached(1);
    let asked = |cpu| smp::ipi_counts(cpu).rcu;
    let before = asked(cpu);
    for _ in 0..20 {
        rcu().synchronize();
        rcu().synchronize_expedited();
    }
    rcu().barrier();
    // Had it been asked, the interrupt would come now.
    until.store(2, Ordering::SeqCst);
    reached(2);
    let taken = asked(cpu) - before;
    // An interrupt there reads as anywhere else.
    smp::call_on(cpu, &|| drop(read()));
    // The call is over before its interrupt is, which goes back to the extended state.
    while sched::eqs(cpu).is_watching() {
        sched::yield_now();
    }
    until.store(3, Ordering::SeqCst);
    thread.join();
    kassert_eq!(taken, 0, "interrupts by grace periods");
    Ok(())
}

fn extended_reader_is_reported(_: &mut Ctx) -> Outcome {
    if !cfg!(debug_assertions) {
        kskip!("this build does not look");
    }
    sched::extended(|| drop(read()));
    Ok(())
}

fn sleeping_reader_is_reported(_: &mut Ctx) -> Outcome {
    let _guard = read();
    crate::lockdep::might_sleep(Location::caller());
    Ok(())
}

/// The second time it is refused; it runs once.
fn queued_twice_is_reported(_: &mut Ctx) -> Outcome {
    if !cfg!(debug_assertions) {
        kskip!("this build does not look");
    }
    let ran = Arc::new(AtomicU64::new(0));
    let counting = Box::into_raw(Box::new(Counting {
        head: Head::new(),
        ran: Arc::clone(&ran),
    }));
    // SAFETY: not null.
    let head = unsafe { NonNull::new_unchecked(counting) }.cast();
    {
        let _section = read();
        // SAFETY: from a box, which the callback takes back. The second breaks the contract,
        // within a section, so that the first has not run, and is refused.
        unsafe {
            rcu().call(head, Counting::run);
            rcu().call(head, Counting::run);
        }
    }
    rcu().barrier();
    kassert_eq!(ran.load(Ordering::SeqCst), 1);
    Ok(())
}

/// The shell's `rcu` names each CPU, and counts.
fn text_shows_the_tree(_: &mut Ctx) -> Outcome {
    let before = format!("{}", rcu().text());
    rcu().synchronize();
    let after = format!("{}", rcu().text());
    knote!("{} bytes", after.len());
    kassert!(before != after, "it does not change with a grace period");
    kassert!(after.lines().count() > smp::online().count());
    Ok(())
}
