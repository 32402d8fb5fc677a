//! Several CPUs, their interrupts and NMIs, in caches whose slabs fill and empty all the time: every arrow of the
//! table in `docs/slab.md` that several need is taken.

use std::{
    mem::MaybeUninit,
    ptr::{NonNull, null_mut},
    sync::atomic::{
        AtomicPtr, AtomicU64,
        Ordering::{AcqRel, Relaxed},
    },
};

use mm::{
    Gfp,
    hosted::Memory,
    slab::{Flags, KmemCache, Slabs, Spec},
};
use platform::{
    CpuId,
    hosted::{Hosted, Machine},
};

use super::{
    contents::Random,
    quiet::check,
    single::plain,
    world::{MIB, World, rounds},
};

/// How often an arrow was taken.
#[track_caller]
pub fn count(slabs: &Slabs<Hosted>, name: &str) -> u64 {
    let found = slabs.arrows().find(|(arrow, _)| *arrow == name);
    found.unwrap_or_else(|| panic!("no arrow {name}")).1
}

/// What happens to slabs that no test need arrange.
const BY_CHANCE: [&str; 20] = [
    "slab.made",
    "slab.made_lost",
    "slab.push",
    "slab.push_locked",
    "slab.list",
    "slab.list_empty",
    "slab.empty_at_once",
    "slab.keep_empty",
    "slab.empty",
    "slab.take_all",
    "slab.take_part",
    "slab.skip",
    "slab.rest",
    "slab.rest_join",
    "slab.rest_list",
    "slab.shrunk",
    "slab.gone",
    "slab.waits",
    "slab.gone_by_rcu",
    "slab.busy",
];

/// Objects that any CPU and any handler may take and put back.
struct Exchange {
    cache: &'static KmemCache<Hosted>,
    slots: [AtomicPtr<u8>; 24],
    random: AtomicU64,
}

impl Exchange {
    fn new(cache: &'static KmemCache<Hosted>) -> &'static Self {
        // For ever: handlers have it.
        Box::leak(Box::new(Self {
            cache,
            slots: std::array::from_fn(|_| AtomicPtr::new(null_mut())),
            random: AtomicU64::new(1),
        }))
    }

    /// Whatever is in a slot now comes out of it.
    fn exchange(&self, object: Option<NonNull<u8>>) -> Option<NonNull<u8>> {
        let object = object.map_or(null_mut(), NonNull::as_ptr);
        let number = Random(self.random.fetch_add(1, Relaxed)).below(self.slots.len() as u64);
        NonNull::new(self.slots[number as usize].swap(object, AcqRel))
    }

    /// As a handler does it.
    fn nolock(&self) {
        let fresh = self.cache.alloc_nolock(None);
        let old = [self.exchange(fresh), self.exchange(None)];
        for object in old.into_iter().flatten() {
            // SAFETY: it came out of its slot, so it is ours.
            unsafe { self.cache.free_nolock(object) };
        }
    }

    /// As a thread does it.
    fn step(&self, random: &mut Random) {
        let gfp = Gfp::KERNEL | Gfp::NOWARN;
        match random.below(40) {
            0 => {
                self.cache.shrink();
            }
            1..6 => {
                let mut many = [MaybeUninit::uninit(); 24];
                let count = 1 + random.below(24) as usize;
                let got = self.cache.alloc_bulk(gfp, &mut many[..count]);
                // SAFETY: the first ones were filled.
                let many = many[..got]
                    .iter()
                    .map(|object| unsafe { object.assume_init() });
                let old: Vec<_> = many
                    .filter_map(|object| self.exchange(Some(object)))
                    .collect();
                // SAFETY: they came out of their slots.
                unsafe { self.cache.free_bulk(&old) };
            }
            _ => {
                let fresh = if random.below(3) == 0 {
                    None
                } else {
                    self.cache.alloc(gfp)
                };
                if let Some(old) = self.exchange(fresh) {
                    // SAFETY: as above.
                    unsafe { self.cache.free(old) };
                }
            }
        }
    }

    fn empty(&self) {
        for slot in &self.slots {
            if let Some(object) = NonNull::new(slot.swap(null_mut(), AcqRel)) {
                // SAFETY: as above.
                unsafe { self.cache.free(object) };
            }
        }
    }
}

/// One machine: the arrows that were taken there are added to `taken`.
fn storm(seed: u64, steps: u64, taken: &mut [u64; BY_CHANCE.len()]) {
    let memory = Memory::builder().node(8 * MIB).node(8 * MIB);
    let machine = Machine::builder().cpus(3).nodes(2).seed(seed);
    let world = World::new(machine, memory);
    world.run_with_rcu(|slabs, rcu| {
        let specs = [
            plain("few", 6000),
            plain("one", 30_000),
            plain("many", 400),
            Spec::new("sheaves", 700)
                .flags(Flags::NO_MERGE)
                .sheaf_capacity(8),
            Spec::new("typesafe", 1000)
                .flags(Flags::TYPESAFE_BY_RCU)
                .sheaf_capacity(0),
        ];
        let exchanges = specs.map(|spec| Exchange::new(slabs.create(&spec).unwrap()));
        let turn = AtomicU64::new(0);
        let handler = move || {
            let number = turn.fetch_add(1, Relaxed) as usize % exchanges.len();
            exchanges[number].nolock();
        };
        let injection = if seed.is_multiple_of(2) {
            world.machine.on_interrupt(20, handler)
        } else {
            world.machine.on_nmi(20, handler)
        };
        let threads: Vec<_> = (0..3)
            .map(|cpu| {
                let work = move || {
                    let mut random = Random(seed << 8 | cpu as u64);
                    for step in 0..steps {
                        exchanges[step as usize % exchanges.len()].step(&mut random);
                    }
                };
                world.machine.spawn_on(CpuId::new(cpu).unwrap(), work)
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join());
        drop(injection);
        for exchange in &exchanges {
            exchange.empty();
        }
        for exchange in &exchanges {
            // All that was deferred is made.
            exchange.cache.shrink();
        }
        rcu.barrier();
        for exchange in &exchanges[..3] {
            check(slabs, exchange.cache, &[]);
        }
        for (sum, name) in taken.iter_mut().zip(BY_CHANCE) {
            *sum += count(slabs, name);
        }
        for exchange in &exchanges {
            // SAFETY: nobody uses it.
            unsafe { slabs.destroy(exchange.cache) }.unwrap();
        }
    });
}

/// Machines with seeds 1, 2, 3, ..., until all arrows were taken, in threads, interrupts and NMIs.
#[test]
fn every_arrow_is_taken() {
    let mut taken = [0; BY_CHANCE.len()];
    let least = rounds(200, 2);
    let most = 60.max(least);
    for seed in 1..=most {
        storm(seed, 600, &mut taken);
        if seed >= least && taken.iter().all(|times| *times > 0) {
            return;
        }
    }
    let missed: Vec<_> = BY_CHANCE
        .iter()
        .zip(taken)
        .filter(|(_, times)| *times == 0)
        .collect();
    assert!(missed.is_empty(), "never taken: {missed:?}");
}
