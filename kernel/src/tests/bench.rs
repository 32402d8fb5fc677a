//! The benchmark harness: which round it reports, what it adds, how it ends.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel_base::bench::{Tenths, Value, is_name};
use platform::{CpuId, CpuMask};

use crate::bench::{self, Run, Start, Stop, Workload};
use crate::kunit::{Ctx, Outcome, kassert, kassert_eq, kunit_suite};
use crate::{sched, time};

kunit_suite! {
    name: "bench",
    cases: [
        names_are_unique,
        the_median_round_is_reported,
        warm_up_is_a_tenth_and_not_counted,
        several_cpus_share,
        timed_parts_add_up,
        sleep_is_idle_time,
        what_is_no_figure_says_why,
    ],
}

const fn workload(run: fn(&mut Run) -> bench::Outcome) -> Workload {
    Workload {
        name: "fake/one",
        ops: 100,
        cpus: 1,
        run,
    }
}

/// What the line of `workload` is, or why there is none.
fn line(workload: &Workload, rounds: u32) -> Result<alloc::string::String, Stop> {
    bench::figures(workload, rounds, &mut Vec::new()).map(|figures| figures.to_string())
}

fn names_are_unique(_: &mut Ctx) -> Outcome {
    let workloads = bench::workloads();
    kassert!(!workloads.is_empty());
    for pair in workloads.windows(2) {
        kassert!(pair[0].name < pair[1].name, "{} comes twice", pair[0].name);
    }
    kassert!(workloads.iter().all(|workload| is_name(workload.name)));
    Ok(())
}

/// Calls of the fake workloads so far. Relaxed: only this CPU counts them.
static CALLS: AtomicU64 = AtomicU64::new(0);

fn took(ns: u64) -> bench::Took {
    bench::Took {
        ns,
        idle_ns: ns / 10,
    }
}

fn the_median_round_is_reported(_: &mut Ctx) -> Outcome {
    // The warm-up, then five rounds.
    const NS: [u64; 6] = [9, 5_000, 1_000, 4_000, 2_000, 3_000];
    fn run(run: &mut Run) -> bench::Outcome {
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        run.add(took(NS[call as usize % NS.len()]));
        run.key("call", Value::Whole(call))
    }
    CALLS.store(0, Ordering::Relaxed);
    kassert_eq!(
        line(&workload(run), 5),
        Ok(
            "BENCH fake/one cpus=1 ops=100 ns_per_op=30.0 min=10.0 max=50.0 idle_ns=300 call=5"
                .into()
        )
    );
    Ok(())
}

fn warm_up_is_a_tenth_and_not_counted(_: &mut Ctx) -> Outcome {
    fn run(run: &mut Run) -> bench::Outcome {
        let ns = if run.ops() == 10 {
            1_000_000
        } else {
            run.ops()
        };
        CALLS.fetch_add(run.ops(), Ordering::Relaxed);
        run.add(took(ns));
        Ok(())
    }
    CALLS.store(0, Ordering::Relaxed);
    kassert_eq!(
        line(&workload(run), 3),
        Ok("BENCH fake/one cpus=1 ops=100 ns_per_op=1.0 min=1.0 max=1.0 idle_ns=10".into())
    );
    kassert_eq!(CALLS.load(Ordering::Relaxed), 10 + 3 * 100);
    Ok(())
}

fn several_cpus_share(_: &mut Ctx) -> Outcome {
    fn run(run: &mut Run) -> bench::Outcome {
        run.add(took(1_000));
        run.shared_by(4, 4 * run.ops());
        run.key("peak_kib", Value::Whole(7))?;
        run.key("destroy_us", Value::Tenths(Tenths::new(15)))
    }
    // 1000 ns x 4 CPUs / 400 operations.
    kassert_eq!(
        line(&workload(run), 1),
        Ok(
            "BENCH fake/one cpus=4 ops=400 ns_per_op=10.0 min=10.0 max=10.0 idle_ns=100 \
            peak_kib=7 destroy_us=1.5"
                .into()
        )
    );
    Ok(())
}

fn timed_parts_add_up(_: &mut Ctx) -> Outcome {
    const PART_NS: u64 = 200_000;
    let whole = Start::now();
    let mut run = Run::new(1);
    let mut sum = 0;
    for _ in 0..2 {
        let outer = Start::now();
        kassert_eq!(
            run.time(|| {
                time::spin_ns(PART_NS);
                7
            }),
            7
        );
        sum += outer.took().ns;
        time::spin_ns(PART_NS);
    }
    let timed = run.took().ns;
    kassert!(timed >= 2 * PART_NS, "{timed} ns");
    // What lies around the parts is no part of it.
    kassert!(timed <= sum, "{timed} ns of {sum} ns");
    kassert!(whole.took().ns >= timed + 2 * PART_NS);
    Ok(())
}

fn sleep_is_idle_time(_: &mut Ctx) -> Outcome {
    const SLEEP_NS: u64 = 20_000_000;
    let allowed = sched::current().allowed();
    sched::move_to(CpuMask::only(CpuId::BOOT));
    bench::prepare_idle();
    let mut run = Run::new(1);
    run.time(|| sched::sleep_ns(SLEEP_NS));
    let slept = run.took();
    let start = Start::now();
    time::spin_ns(1_000_000);
    let spun = start.took();
    sched::move_to(allowed);
    // Others may run on this CPU meanwhile, but not all the time.
    kassert!(
        (1..=slept.ns).contains(&slept.idle_ns),
        "{} ns of {} ns",
        slept.idle_ns,
        slept.ns
    );
    kassert!(slept.ns >= SLEEP_NS);
    kassert_eq!(spun.idle_ns, 0);
    Ok(())
}

fn what_is_no_figure_says_why(_: &mut Ctx) -> Outcome {
    let failed = |why: &str| Err(Stop::Failed(why.into()));
    kassert_eq!(
        line(&workload(|_| Ok(())), 1),
        failed("it measured nothing")
    );
    let skips: Workload = workload(|_| Err(Stop::Skipped("not here".into())));
    kassert_eq!(line(&skips, 1), Err(Stop::Skipped("not here".into())));
    fn twice(run: &mut Run) -> bench::Outcome {
        run.key("a", Value::Whole(1))?;
        run.key("a", Value::Whole(1))
    }
    kassert_eq!(
        line(&workload(twice), 1),
        failed("its line cannot be made: a key comes twice")
    );
    fn many(run: &mut Run) -> bench::Outcome {
        (0..=kernel_base::bench::MAX_KEYS).try_for_each(|_| run.key("a", Value::Whole(1)))
    }
    kassert_eq!(line(&workload(many), 1), failed("it has too many keys"));
    let rounds = u32::MAX;
    kassert_eq!(
        line(&workload(|_| Ok(())), rounds),
        failed(&format!("no memory for {rounds} rounds"))
    );
    Ok(())
}
