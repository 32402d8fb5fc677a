//! Every arrow of the state tables in `docs/rcu.md` is taken by some test run here, in one
//! flavour or the other, or has an excuse by name.

use std::{
    collections::BTreeMap,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use platform::{
    CpuId, CpuMask, IrqsOff, Mark, Platform, Preempt, Priority, Spawn,
    hosted::{Hosted, Machine},
};
use rcu::{
    Config, Head, Rcu,
    hosted::{Engine, make_preemptible, read},
};

/// Rounds before an arrow counts as never taken. All are, after a few.
const ROUNDS: u64 = 200;
/// Operations of each thread in a round.
const OPERATIONS: usize = 60;
const CPUS: usize = 4;
/// Longer than a grace period looks once.
const PAUSE: Duration = Duration::from_micros(200);

/// Arrows that nothing here takes, and why not.
const EXCUSED: &[(&str, &str)] = &[];

/// A callback that frees itself.
#[repr(C)]
struct Own {
    head: Head,
}

fn queue(rcu: &Rcu<Hosted>) {
    unsafe fn free(head: NonNull<Head>) {
        // SAFETY: it came from a box of `Own`, whose head is at the beginning.
        drop(unsafe { Box::from_raw(head.cast::<Own>().as_ptr()) });
    }
    let own = Box::into_raw(Box::new(Own { head: Head::new() }));
    // SAFETY: a fresh head, which is the engine's until `free` has it.
    unsafe { rcu.call(NonNull::new_unchecked(own).cast(), free) };
}

/// A head that is queued twice, and freed once all is over.
fn queue_twice(rcu: &Rcu<Hosted>) {
    unsafe fn nothing(_: NonNull<Head>) {}
    let mut head = Box::new(Head::new());
    let place = NonNull::from(&mut *head);
    // SAFETY: it lives until the barrier is over. The second call is the fault that the
    // engine shall find.
    unsafe {
        rcu.call(place, nothing);
        rcu.call(place, nothing);
    }
    rcu.barrier();
}

fn section(steps: usize) {
    let _guard = read();
    for _ in 0..steps {
        Hosted::mark(Mark::Step);
    }
}

/// A section that begins with preemption off and ends with it on, or the other way round.
fn overlapping() {
    let guard = read();
    Hosted::mark(Mark::Step);
    let pinned = Preempt::<Hosted>::disable();
    drop(guard);
    for _ in 0..20 {
        Hosted::mark(Mark::Step);
    }
    drop(pinned);
}

/// The CPU that runs this is away for a moment, and `elsewhere` told so meanwhile.
fn leave_and_return(rcu: &Rcu<Hosted>, away: &AtomicUsize) {
    let irqs_off = IrqsOff::<Hosted>::disable();
    let cpu = irqs_off.cpu();
    rcu.cpu_dying(cpu);
    away.store(cpu.index() + 1, Ordering::SeqCst);
    for _ in 0..1000 {
        // Not a point: nothing may run here.
        std::thread::yield_now();
    }
    away.store(0, Ordering::SeqCst);
    rcu.cpu_starting(cpu);
}

fn worker(rcu: &Rcu<Hosted>, away: &AtomicUsize, seed: usize) {
    let mut state = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..OPERATIONS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match state % 16 {
            0..=3 => section((state >> 8) as usize % 60),
            4 => overlapping(),
            5 | 6 => (0..state >> 8 & 127).for_each(|_| queue(rcu)),
            7 => rcu.synchronize(),
            8 => rcu.synchronize_expedited(),
            9 => rcu.barrier(),
            10 => {
                let cookie = rcu.start_poll();
                section(10);
                rcu.cond_synchronize(cookie);
            }
            11 => {
                let cookie = rcu.start_poll_expedited();
                rcu.cond_synchronize_expedited(cookie);
            }
            12 if state >> 8 & 1 == 0 => std::thread::sleep(PAUSE),
            // Wakes the others for a moment, those that are idle from that only.
            12 => {
                let others = CpuMask::first_n(CPUS).without(Preempt::<Hosted>::disable().cpu());
                Hosted::call(others, &|| std::thread::sleep(PAUSE));
            }
            13 => {
                let pinned = Preempt::<Hosted>::disable();
                section(30);
                drop(pinned);
            }
            14 => leave_and_return(rcu, away),
            _ => {
                if let Some(gone) = away.load(Ordering::SeqCst).checked_sub(1) {
                    rcu.cpu_dead(CpuId::from_index(gone).expect("a CPU"));
                }
                queue(rcu);
            }
        }
    }
}

fn round(seed: u64, preemptible: bool, seen: &mut BTreeMap<&'static str, u64>) {
    let machine = Machine::builder().cpus(CPUS).seed(seed + 1).build();
    if preemptible {
        make_preemptible(&machine);
    }
    // Stalls and heads that are queued twice are reported, and looked at elsewhere.
    let _ = machine.take_reports();
    let config = Config {
        leaf_fanout: 2,
        fanout: 2,
        // Every third round has stalls.
        stall_ns: if seed.is_multiple_of(3) {
            50_000
        } else {
            20_000_000_000
        },
        next_scan_ns: 200_000,
        urge_ns: 400_000,
        ..Config::default()
    };
    let reader = Arc::new(AtomicBool::new(true));
    machine.run(|| {
        let rcu = Engine::start(&machine, config);
        let interrupting = Arc::clone(&reader);
        let _interrupts = machine.on_interrupt(16, move || {
            if interrupting.load(Ordering::Relaxed) {
                section(1);
            }
        });
        let away = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..2 * CPUS)
            .map(|number| {
                let (rcu, away) = (Arc::clone(&rcu), Arc::clone(&away));
                let spawn = Spawn {
                    name: "worker",
                    // Half of them go where they like.
                    cpu: (number < CPUS)
                        .then(|| CpuMask::first_n(CPUS).iter().nth(number))
                        .flatten(),
                    priority: Priority::Normal,
                };
                let seed = number + seed as usize * 100;
                machine.spawn(spawn, move || worker(&rcu, &away, seed))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join());
        queue_twice(&rcu);
        for (arrow, count) in rcu.arrows() {
            *seen.entry(arrow).or_default() += count;
        }
    });
    let _ = machine.take_reports();
}

#[test]
fn every_arrow_is_taken() {
    let mut seen = BTreeMap::new();
    let missing = |seen: &BTreeMap<&'static str, u64>| -> Vec<&'static str> {
        let never = seen.iter().filter(|(_, count)| **count == 0);
        never
            .map(|(arrow, _)| *arrow)
            .filter(|arrow| !EXCUSED.iter().any(|(name, _)| name == arrow))
            .collect()
    };
    for seed in 0..ROUNDS {
        round(seed, seed.is_multiple_of(2), &mut seen);
        if missing(&seen).is_empty() {
            println!("after {} rounds: {seen:?}", seed + 1);
            return;
        }
    }
    panic!("arrows never taken: {:?}; {seen:?}", missing(&seen));
}
