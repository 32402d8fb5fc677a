//! Everything at once: objects are published where readers on all CPUs find them, replaced, and
//! given to `kfree_rcu` by every road; caches come and go under one name, barriers are made,
//! allocations fail, CPUs go and come back. A reader that sees an object change while it holds
//! it has seen it freed too early.

use alloc::{format, sync::Arc, vec::Vec};
use core::{
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering},
};

use kernel_base::rng::Rng;
use mm::{
    Gfp,
    fault::Knobs,
    kvfree_rcu::Head,
    slab::{Flags, Spec},
};

use super::{Cache, destroy, free_rcu};
use crate::{
    kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok, knote},
    memory::{slab::slabs, vmalloc::vmalloc},
    rcu::read,
    sched, smp,
    tests::long_run::{self, AllBack, move_one},
    time,
};

/// Milliseconds of one part, in full and in daily work.
const FULL_MS: u64 = 30_000;
const QUICK_MS: u64 = 500;
/// Where objects are published.
const SLOTS: usize = 64;
/// What a published object has in it; one that is freed has not.
const ALIVE: u64 = 0x616c_6976_6500_0000;
/// Bytes of an object, of a large kmalloc, and of vmalloc.
const SIZE: usize = 96;
const LARGE: usize = 20_000;

/// What is in each object.
#[repr(C)]
struct Node {
    head: Head,
    /// [`ALIVE`], or something else.
    state: AtomicU64,
    /// No two objects have the same.
    number: AtomicU64,
    /// The same, of another place: so that one that is half written is seen.
    twin: AtomicU64,
}

/// What all threads share.
struct World {
    slots: [AtomicPtr<Node>; SLOTS],
    /// Caches with sheaves, with checks, and with a destructor.
    caches: [&'static Cache; 3],
    numbers: AtomicU64,
    stop: AtomicBool,
    early: AtomicU64,
    /// Objects that were read, with a destructor, and caches that ended: none is to be missing, on slow machines too.
    came: [AtomicU64; 3],
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    replaced: [u64; 5],
    read: u64,
    nolock: u64,
    none: u64,
    barriers: u64,
    caches: u64,
}

/// Objects that the destructor was called with.
static DESTROYED: AtomicU64 = AtomicU64::new(0);

/// # Safety
///
/// An object of the torture's cache.
unsafe fn destructor(object: NonNull<u8>) {
    // SAFETY: as promised; its fields are atomic.
    unsafe { object.cast::<Node>().as_ref() }
        .state
        .store(0, Ordering::Relaxed);
    DESTROYED.fetch_add(1, Ordering::Relaxed);
}

impl World {
    /// Publishes a fresh object of some kind in a slot; who was there is given to `kfree_rcu`.
    fn replace(&self, rng: &mut Rng, seen: &mut Seen) {
        let road = rng.below(100);
        let gfp = Gfp::KERNEL | Gfp::NOWARN;
        let (kind, memory) = match road {
            0 => (4, vmalloc().vmalloc(LARGE, gfp)),
            1..4 => (3, slabs().kmalloc(LARGE, gfp)),
            4..50 => (0, self.caches[0].alloc(gfp)),
            50..75 => (1, self.caches[1].alloc(gfp)),
            _ => (2, self.caches[2].alloc(gfp)),
        };
        let Some(memory) = memory else {
            seen.none += 1;
            return;
        };
        seen.replaced[kind] += 1;
        if kind == 2 {
            self.came[1].fetch_add(1, Ordering::Relaxed);
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let node = memory.cast::<Node>();
        // SAFETY: fresh memory that is large enough.
        unsafe {
            node.write(Node {
                head: Head::new(),
                state: AtomicU64::new(ALIVE),
                number: AtomicU64::new(number),
                twin: AtomicU64::new(number),
            });
        }
        // Release: readers see it whole. Acquire: what is in the old one.
        let slot = &self.slots[rng.below(SLOTS as u64) as usize];
        let old = slot.swap(node.as_ptr(), Ordering::AcqRel);
        self.free(old, rng, seen);
    }

    fn free(&self, old: *mut Node, rng: &mut Rng, seen: &mut Seen) {
        let Some(old) = NonNull::new(old) else { return };
        let memory = old.cast::<u8>();
        match rng.below(20) {
            0 => {
                seen.nolock += 1;
                // SAFETY: taken out of its slot, so the caller's; readers do not look at the head.
                unsafe { slabs().kfree_rcu_nolock(memory, memory.cast()) };
            }
            1 => {
                // SAFETY: the same; a thread that may sleep.
                unsafe { slabs().kfree_rcu_mightsleep(memory) };
            }
            _ => free_rcu(memory),
        }
    }

    /// Holds some objects for a while, and looks whether they stay as they are.
    fn look(&self, rng: &mut Rng, seen: &mut Seen) {
        let _section = read();
        for _ in 0..4 {
            let slot = &self.slots[rng.below(SLOTS as u64) as usize];
            // Acquire pairs with the Release of who published it.
            let Some(node) = NonNull::new(slot.load(Ordering::Acquire)) else {
                continue;
            };
            // SAFETY: found in the section, so it is not freed before that ends.
            let node = unsafe { node.as_ref() };
            let numbers =
                || [&node.state, &node.number, &node.twin].map(|word| word.load(Ordering::Relaxed));
            let first = numbers();
            time::spin_ns(rng.below(2_000));
            let again = numbers();
            if first[0] != ALIVE || first[1] != first[2] || first != again {
                self.early.fetch_add(1, Ordering::Relaxed);
            }
            seen.read += 1;
            self.came[0].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A cache of a name that is used again and again, with objects in flight when it ends.
    fn short_life(&self, name: &str, rng: &mut Rng, seen: &mut Seen) -> Option<()> {
        let spec = Spec::new(name, 64 + rng.below(400) as usize).flags(Flags::NO_MERGE);
        let cache = slabs().create(&spec).ok()?;
        for _ in 0..rng.below(150) {
            if let Some(object) = cache.alloc(Gfp::KERNEL | Gfp::NOWARN) {
                free_rcu(object);
            }
        }
        if rng.below(4) == 0 {
            slabs().kvfree_rcu_barrier_on_cache(cache);
        }
        seen.caches += 1;
        self.came[2].fetch_add(1, Ordering::Relaxed);
        // SAFETY: made above; all its objects were given back.
        unsafe {
            if rng.below(3) == 0 {
                slabs().destroy_lingering(cache);
                return Some(());
            }
            slabs().destroy(cache).ok()
        }
    }

    fn work(&self, number: usize, mut rng: Rng) -> Seen {
        let mut seen = Seen::default();
        let name = format!("torture_{number}");
        while !self.stop.load(Ordering::Relaxed) {
            match rng.below(1000) {
                0 => {
                    slabs().kvfree_rcu_barrier();
                    seen.barriers += 1;
                }
                1 => {
                    slabs().kvfree_rcu_barrier_on_cache(self.caches[rng.below(3) as usize]);
                    seen.barriers += 1;
                }
                2..6 => {
                    if self.short_life(&name, &mut rng, &mut seen).is_none() {
                        // No memory, or the name is taken: neither is to be here.
                        seen.none += 1;
                    }
                }
                6..500 => self.replace(&mut rng, &mut seen),
                _ => self.look(&mut rng, &mut seen),
            }
        }
        seen
    }
}

pub fn everything_at_once(ctx: &mut Ctx, part: u64) -> Outcome {
    run(ctx.rng().next_u64() ^ part, true)
}

/// Without CPUs that go, all of them are busy all the time.
pub fn cpus_stay(ctx: &mut Ctx) -> Outcome {
    run(ctx.rng().next_u64(), false)
}

fn run(seed: u64, moves: bool) -> Outcome {
    let _back = AllBack;
    let create = |name, flags| {
        let spec = Spec::new(name, SIZE).flags(flags | Flags::NO_MERGE);
        slabs().create(&spec)
    };
    let plain = kassert_ok!(create("torture_plain", Flags::empty()));
    let checked = kassert_ok!(create("torture_checked", Flags::POISON | Flags::RED_ZONE));
    // SAFETY: all its objects are nodes.
    let spec = unsafe { Spec::new("torture_destructor", SIZE).destructor(destructor) };
    let with_destructor = kassert_ok!(slabs().create(&spec.flags(Flags::NO_MERGE)));
    let destroyed_before = DESTROYED.load(Ordering::Relaxed);
    let world = Arc::new(World {
        slots: [const { AtomicPtr::new(null_mut()) }; SLOTS],
        caches: [plain, checked, with_destructor],
        numbers: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        early: AtomicU64::new(0),
        came: [const { AtomicU64::new(0) }; 3],
    });
    let mut rng = Rng::new(seed);
    let mut threads = Vec::new();
    for number in 0..smp::online().count() {
        let (own, rng) = (Arc::clone(&world), rng.split());
        let thread = sched::Builder::new().spawn(format_args!("kfree_rcu {number}"), move || {
            own.work(number, rng)
        });
        threads.push(kassert_ok!(thread));
    }
    let until = time::now_ns() + long_run::duration_ns(FULL_MS, QUICK_MS);
    let missing = || {
        world
            .came
            .iter()
            .any(|what| what.load(Ordering::Relaxed) == 0)
    };
    while time::now_ns() < until || missing() {
        if moves {
            move_one(&mut rng);
        }
        fail_some(rng.below(3) == 0);
        sched::sleep_ns(2_000_000);
    }
    fail_some(false);
    world.stop.store(true, Ordering::Relaxed);
    let seen: Vec<Seen> = threads.into_iter().map(|thread| thread.join()).collect();
    let mut last = Seen::default();
    for slot in &world.slots {
        world.free(slot.swap(null_mut(), Ordering::AcqRel), &mut rng, &mut last);
    }
    slabs().kvfree_rcu_barrier();
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    let (read, caches) = (sum(|seen| seen.read), sum(|seen| seen.caches));
    knote!(
        "read {read}, replaced {}, nolock {}, caches {caches}, barriers {}, none {}",
        sum(|seen| seen.replaced.iter().sum()),
        sum(|seen| seen.nolock),
        sum(|seen| seen.barriers),
        sum(|seen| seen.none),
    );
    kassert_eq!(world.early.load(Ordering::Relaxed), 0);
    let with = sum(|seen| seen.replaced[2]);
    kassert_eq!(DESTROYED.load(Ordering::Relaxed) - destroyed_before, with);
    for kind in 0..3 {
        kassert!(!world.caches[kind].has_in_flight());
    }
    kassert!(read > 0 && caches > 0 && with > 0, "nothing was done");
    slabs().sync_lingering();
    world.caches.iter().try_for_each(|cache| destroy(cache))
}

/// Makes some allocations fail, or none any more.
fn fail_some(some: bool) {
    slabs().faults(|points| {
        points.attr.configure(&Knobs {
            probability: if some { 10 } else { 0 },
            interval: 1,
            times: -1,
            verbose: 0,
            ..Knobs::OFF
        });
    });
}
