//! RCU, by the contract's names.

use alloc::{sync::Arc, vec::Vec};
use core::{
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use kernel_base::bench::Value;
use mm::{Gfp, vmalloc::Request};
use platform::CpuId;
use rcu::Head;

use super::{Outcome, Run, Start, Stop, bench};
use crate::{
    memory::vmalloc::{Area, vmalloc},
    rcu::{rcu, read},
    sched::{Builder, JoinHandle},
    smp, time,
};

bench! {
    name: "rcu_read",
    ops: 1_000_000,
    run: rcu_read,
}

bench! {
    name: "call_rcu",
    ops: 50_000,
    run: call_rcu,
}

bench! {
    name: "synchronize_rcu",
    ops: 50,
    run: |run| one_by_one(run, || rcu().synchronize()),
}

bench! {
    name: "synchronize_rcu/busy",
    ops: 50,
    cpus: 2,
    run: synchronize_busy,
}

bench! {
    name: "synchronize_rcu_expedited",
    ops: 200,
    run: |run| one_by_one(run, || rcu().synchronize_expedited()),
}

bench! {
    name: "rcu_barrier",
    ops: 200,
    run: |run| one_by_one(run, || rcu().barrier()),
}

fn rcu_read(run: &mut Run) -> Outcome {
    let ops = run.ops();
    run.time(|| {
        for _ in 0..ops {
            drop(read());
        }
    });
    Ok(())
}

/// Calls that wait: the time of each, and of the shortest and longest one.
fn one_by_one(run: &mut Run, wait: fn()) -> Outcome {
    let (mut shortest, mut longest) = (u64::MAX, 0);
    for _ in 0..run.ops() {
        let start = Start::now();
        wait();
        let took = start.took();
        run.add(took);
        shortest = shortest.min(took.ns);
        longest = longest.max(took.ns);
    }
    run.key("one_min_ns", Value::Whole(shortest))?;
    run.key("one_max_ns", Value::Whole(longest))
}

fn spawn<T: Send + 'static>(
    cpu: CpuId,
    f: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Stop> {
    Builder::new()
        .on(cpu)
        .spawn(format_args!("bench"), f)
        .map_err(|error| Stop::Failed(alloc::format!("no thread: {error}")))
}

/// While every other CPU reads, 10 us at a time, back to back.
fn synchronize_busy(run: &mut Run) -> Outcome {
    const SECTION_NS: u64 = 10_000;
    let stop = Arc::new(AtomicBool::new(false));
    let reading = Arc::new(AtomicUsize::new(0));
    let mut readers = Vec::new();
    let others = smp::online().without(smp::this_cpu());
    let started = others.iter().try_for_each(|cpu| {
        let (stop, reading) = (Arc::clone(&stop), Arc::clone(&reading));
        readers.push(spawn(cpu, move || {
            reading.fetch_add(1, Ordering::Relaxed);
            while !stop.load(Ordering::Relaxed) {
                let _guard = read();
                let end = time::now_ns() + SECTION_NS;
                while time::now_ns() < end {
                    core::hint::spin_loop();
                }
            }
        })?);
        Ok(())
    });
    while reading.load(Ordering::Relaxed) < readers.len() {
        core::hint::spin_loop();
    }
    let outcome = started.and_then(|()| one_by_one(run, || rcu().synchronize()));
    stop.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(JoinHandle::join);
    outcome
}

/// Objects of one CPU, of which each is queued once.
struct Objects(Area);

// SAFETY: the memory is the area's, which one thread at a time has.
unsafe impl Send for Objects {}

impl Objects {
    fn new(count: usize) -> Result<Self, Stop> {
        let request = Request::new(count * size_of::<Head>(), Gfp::KERNEL);
        let area = vmalloc()
            .alloc(&request)
            .map_err(|error| Stop::Failed(alloc::format!("no memory for objects: {error:?}")))?;
        let objects = Self(area);
        for index in 0..count {
            // SAFETY: the area's, which is aligned to a page and long enough.
            unsafe { objects.at(index).write(Head::new()) };
        }
        Ok(objects)
    }

    fn at(&self, index: usize) -> NonNull<Head> {
        let start = core::ptr::with_exposed_provenance_mut::<Head>(self.0.memory().start);
        // SAFETY: callers stay below the count; an area does not begin at 0.
        unsafe { NonNull::new_unchecked(start.add(index)) }
    }

    fn queue_all(&self, count: usize) {
        let rcu = rcu();
        for index in 0..count {
            // SAFETY: written above, queued once; the area lives until the barrier is over.
            unsafe { rcu.call(self.at(index), nothing) };
        }
    }
}

/// What the callbacks do.
unsafe fn nothing(_: NonNull<Head>) {}

/// Every CPU queues callbacks; then all of them have run.
fn call_rcu(run: &mut Run) -> Outcome {
    let count = run.ops() as usize;
    let cpus = smp::online().count();
    let others = smp::online().without(smp::this_cpu());
    let own = Objects::new(count)?;
    let each = others.iter().map(|cpu| Ok((cpu, Objects::new(count)?)));
    let each: Vec<(CpuId, Objects)> = each.collect::<Result<_, Stop>>()?;
    let (begin, ready) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut workers = Vec::new();
    let started = each.into_iter().try_for_each(|(cpu, objects)| {
        let (begin, ready) = (Arc::clone(&begin), Arc::clone(&ready));
        workers.push(spawn(cpu, move || {
            ready.fetch_add(1, Ordering::Relaxed);
            while !begin.load(Ordering::Acquire) {
                core::hint::spin_loop();
            }
            objects.queue_all(count);
            objects
        })?);
        Ok(())
    });
    while ready.load(Ordering::Relaxed) < workers.len() {
        core::hint::spin_loop();
    }
    let start = Start::now();
    begin.store(true, Ordering::Release);
    own.queue_all(count);
    // Freed after the barrier only, however this ends.
    let queued: Vec<Objects> = workers.into_iter().map(JoinHandle::join).collect();
    let tail = Start::now();
    rcu().barrier();
    let tail = tail.took();
    run.add(start.took());
    drop((own, queued));
    started?;
    run.shared_by(cpus, (cpus * count) as u64);
    run.key("tail_us", Value::Whole(tail.ns / 1_000))
}
