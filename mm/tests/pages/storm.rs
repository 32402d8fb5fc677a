//! Random operations on several CPUs, each with several threads, and with interrupts and NMIs
//! that allocate and free.

use std::sync::{Arc, Mutex, PoisonError};

use mm::{Gfp, Mm, Use, hosted::Memory, owner::Entry};
use platform::{
    CpuId, Mark, Platform, Preempt, Priority, Spawn,
    hosted::{Builder, Hosted, Machine},
};

use super::{
    owners::Owners,
    world::{Held, LINE, MIB, Random, World, alloc, alloc_node, free, free_nolock, node, rounds},
};

/// Blocks that a thread or a CPU's interrupts hold at most.
const HELD: usize = 300;

/// What is held between rounds: by each thread, by interrupts, and on its way to others.
#[derive(Default)]
struct Holdings(Mutex<Vec<Held>>);

impl Holdings {
    /// No point is in `f`, so that an interrupt does not find the lock taken.
    fn with<R>(&self, f: impl FnOnce(&mut Vec<Held>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a block by chance.
    fn take(&self, random: &mut Random) -> Option<Held> {
        self.with(|held| {
            let index = random.below(held.len().max(1) as u64) as usize;
            (index < held.len()).then(|| held.swap_remove(index))
        })
    }
}

/// What threads and handlers share.
struct Shared {
    owners: Owners,
    /// By thread.
    own: Vec<Holdings>,
    /// From anyone to anyone.
    posted: Holdings,
    /// Of interrupts, and of NMIs.
    interrupts: [Holdings; 2],
    randoms: [Mutex<Random>; 2],
}

fn usage(random: &mut Random) -> Use {
    Use::ALL[random.below(Use::ALL.len() as u64) as usize]
}

/// Mostly small, sometimes as large as can be.
fn order(random: &mut Random) -> usize {
    match random.below(100) {
        0..60 => 0,
        60..94 => 1 + random.below(3) as usize,
        _ => 4 + random.below(7) as usize,
    }
}

fn gfp(random: &mut Random) -> Gfp {
    let base = [
        Gfp::KERNEL,
        Gfp::KERNEL,
        Gfp::ATOMIC,
        Gfp::NOWAIT,
        Gfp::NOLOCK,
    ];
    let mut gfp = base[random.below(base.len() as u64) as usize] | Gfp::NOWARN;
    for (flag, one_in) in [(Gfp::ZERO, 4), (Gfp::THISNODE, 6), (Gfp::DMA32, 12)] {
        if random.one_in(one_in) {
            gfp |= flag;
        }
    }
    gfp
}

impl Shared {
    fn new(mm: &Mm<Hosted>, threads: usize, seed: u64) -> Self {
        Self {
            owners: Owners::new(mm),
            own: (0..threads).map(|_| Holdings::default()).collect(),
            posted: Holdings::default(),
            interrupts: Default::default(),
            randoms: [1, 2].map(|number| Mutex::new(Random(seed ^ number << 40))),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Holdings> {
        let single = [&self.posted].into_iter();
        self.own.iter().chain(single).chain(&self.interrupts)
    }

    fn free(&self, mm: &Mm<Hosted>, held: Held, lockless: bool) {
        self.owners.give(mm, &held);
        if lockless {
            free_nolock(mm, held);
        } else {
            free(mm, held);
        }
    }

    /// One allocation by a thread, with flags that allow it to sleep only where it may.
    fn alloc(&self, mm: &Mm<Hosted>, random: &mut Random) -> Option<Held> {
        let mut gfp = gfp(random);
        let (order, usage) = (order(random), usage(random));
        let pinned = random.one_in(8).then(Preempt::<Hosted>::disable);
        if pinned.is_some() {
            gfp.remove(Gfp::RECLAIM);
        }
        let held = if random.one_in(3) {
            let nodes = Hosted::nodes();
            let wanted = node(random.below(nodes.count() as u64) as usize);
            let held = alloc_node(mm, wanted, gfp, order, usage)?;
            if gfp.contains(Gfp::THISNODE) {
                assert_eq!(super::world::zone_of(mm, held.pfn).node(), wanted);
            }
            held
        } else {
            alloc(mm, gfp, order, usage)?
        };
        self.owners.take(mm, &held, gfp);
        Some(held)
    }

    /// What a thread does.
    fn work(&self, mm: &Mm<Hosted>, thread: usize, seed: u64, ops: u64) {
        let random = &mut Random(seed ^ (thread as u64) << 32);
        let own = &self.own[thread];
        for _ in 0..ops {
            match random.below(1000) {
                0..430 => {
                    if own.with(|held| held.len()) < HELD
                        && let Some(held) = self.alloc(mm, random)
                    {
                        own.with(|list| list.push(held));
                    }
                }
                430..760 => {
                    if let Some(held) = own.take(random) {
                        self.free(mm, held, random.one_in(3));
                    }
                }
                760..860 => {
                    if let Some(held) = own.take(random) {
                        self.posted.with(|posted| posted.push(held));
                    }
                }
                860..990 => {
                    if let Some(held) = self.posted.take(random) {
                        self.free(mm, held, random.one_in(3));
                    }
                }
                990..996 => drop(mm.drain_here()),
                996 => mm.drain_all(),
                _ => Hosted::mark(Mark::Step),
            }
        }
    }

    /// What an interrupt (0) or NMI (1) does: it allocates or frees a little.
    fn interrupt(&self, mm: &Mm<Hosted>, kind: usize) {
        // Drawn at once: no point while the lock is held.
        let mut random = {
            let mut random = self.randoms[kind].lock().unwrap();
            Random(random.next())
        };
        let random = &mut random;
        let holdings = &self.interrupts[kind];
        if holdings.with(|held| held.len()) < HELD && random.one_in(2) {
            let gfp = match kind {
                0 if random.one_in(2) => Gfp::ATOMIC | Gfp::NOWARN,
                _ => Gfp::NOLOCK,
            };
            let order = random.below(5) as usize;
            if let Some(held) = alloc(mm, gfp, order, usage(random)) {
                self.owners.take(mm, &held, gfp);
                holdings.with(|list| list.push(held));
            }
        } else if let Some(held) = holdings.take(random) {
            self.free(mm, held, kind == 1 || random.one_in(2));
        } else if let Some(held) = self.posted.take(random) {
            self.free(mm, held, kind == 1 || random.one_in(2));
        }
    }
}

/// Rounds of random operations, with a look at all counts after each, and at everything at
/// the end.
fn storm(machine: Builder, memory: mm::hosted::Builder, per_cpu: usize, ops: u64) {
    storm_in(&World::new(machine, memory), per_cpu, ops);
}

fn storm_in(world: &World, per_cpu: usize, ops: u64) {
    const ROUNDS: u64 = 4;
    let seed = world.machine.seed();
    let cpus = world.run(|_| Hosted::online_cpus().count());
    let threads = cpus * per_cpu;
    let shared = Arc::new(Shared::new(world.mm(), threads, seed));
    for round in 0..ROUNDS {
        let handler = |kind| {
            let (mm, shared) = (Arc::clone(world.mm()), Arc::clone(&shared));
            move || shared.interrupt(&mm, kind)
        };
        let injected = (
            world.machine.on_interrupt(40, handler(0)),
            world.machine.on_nmi(60, handler(1)),
        );
        for thread in 0..threads {
            let (mm, shared) = (Arc::clone(world.mm()), Arc::clone(&shared));
            let cpu = CpuId::from_index(thread % cpus);
            let spawn = Spawn {
                name: "storm",
                // One of each CPU's threads may wander.
                cpu: cpu.filter(|_| thread < cpus * (per_cpu - 1)),
                priority: Priority::Normal,
            };
            let ops = ops / ROUNDS / threads as u64;
            world.machine.spawn(spawn, move || {
                shared.work(&mm, thread, seed ^ round << 48, ops);
            });
        }
        world.run(|_| ());
        drop(injected);
        let held: Vec<Held> = shared
            .all()
            .flat_map(|holdings| holdings.with(|list| list.clone()))
            .collect();
        world.assert_counts(&held);
    }
    world.run(|mm| {
        for holdings in shared.all() {
            while let Some(held) = holdings.with(Vec::pop) {
                shared.free(mm, held, false);
            }
        }
    });
    shared.owners.assert_empty();
    world.assert_all_back();
}

/// One CPU, one zone, little memory: it is often short, and reclaim runs.
#[test]
fn one_cpu_with_little_memory() {
    let memory = Memory::builder().node(6 * MIB);
    storm(
        Machine::builder().seed(11),
        memory,
        2,
        rounds(1_000_000, 20_000),
    );
}

/// Two nodes, both zones; memory of one node around that of the other.
#[test]
fn four_cpus_around_4_gib() {
    let memory = Memory::builder()
        .start(LINE - 16 * MIB)
        .node(24 * MIB)
        .node(16 * MIB)
        .piece(node(0), 8 * MIB);
    let machine = Machine::builder().cpus(4).nodes(2).seed(12);
    storm(machine, memory, 2, rounds(4_000_000, 40_000));
}

/// Nodes of odd sizes with holes, one without memory, one CPU for each, and CPUs that never
/// run.
#[test]
fn eight_cpus_on_odd_nodes() {
    let memory = Memory::builder()
        .start(16 * MIB + 5 * 4096)
        .node(3 * MIB + 7 * 4096)
        .hole(4096)
        .more(5 * MIB)
        .hole(64 * MIB)
        .node(9 * MIB - 4096)
        .start(LINE + MIB)
        .piece(node(3), 13 * MIB + 4096);
    let machine = Machine::builder().cpus(8).possible(12).nodes(4).seed(13);
    storm(machine, memory, 1, rounds(4_000_000, 40_000));
}

/// With every check on, and one allocation in ten made to fail.
#[test]
fn with_all_checks_and_failures() {
    let memory = Memory::builder().node(8 * MIB).node(4 * MIB);
    let machine = Machine::builder().cpus(2).nodes(2).seed(14);
    let end = memory.clone().build().end().index();
    let world = World::with(
        machine,
        memory,
        |_| (),
        |debug| {
            let entries = (0..end).map(|_| Entry::default());
            assert!(debug.start_owners(Vec::leak(entries.collect())));
            debug.set_poison(true);
            debug.faults(|faults| {
                for (knob, value) in [
                    ("probability", "10"),
                    ("times", "-1"),
                    ("ignore-gfp-wait", "N"),
                    ("min-order", "0"),
                    ("verbose", "0"),
                ] {
                    faults.set(knob, value).unwrap();
                }
            });
        },
    );
    storm_in(&world, 2, rounds(1_000_000, 10_000));
}
