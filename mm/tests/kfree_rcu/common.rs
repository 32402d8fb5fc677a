//! What all files use: machines, caches, and readers that hold grace periods up.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
};

use mm::{
    Gfp,
    fault::Knobs,
    hosted::Memory,
    kvfree_rcu::Head,
    slab::{Flags, KmemCache, Slabs, Spec, walk::Room},
};
use platform::{
    CpuId, Platform, Preempt,
    hosted::{Hosted, JoinHandle, Machine},
};
use rcu::{Config, hosted::Engine};

use crate::objects::end;
pub use crate::objects::{Object, Shared, look, make, make_for};
use crate::world::{MIB, World};

pub type Cache = KmemCache<Hosted>;
pub type Allocator = Slabs<Hosted>;

/// Objects of a sheaf of [`create`], and of an rcu sheaf, where the cookie has a place.
pub const CAPACITY: u32 = 8;
pub const OF_SHEAF: u64 = CAPACITY as u64 - 1;

/// How caches of this suite are: small sheaves, and the destructor above.
pub fn spec(name: &str) -> Spec<'_> {
    let spec = Spec::new(name, 96)
        .sheaf_capacity(CAPACITY)
        .flags(Flags::NO_MERGE);
    // SAFETY: all objects of these caches are `Object`s.
    unsafe { spec.destructor(end) }
}

#[track_caller]
pub fn create(slabs: &'static Allocator, name: &str) -> &'static Cache {
    slabs.create(&spec(name)).expect("a cache")
}

/// A cache ends, of which nothing is in use.
#[track_caller]
pub fn destroy(slabs: &Allocator, cache: &Cache) {
    // SAFETY: created by the test, which does not use it any more.
    unsafe { slabs.destroy(cache) }.expect("nothing is in use");
}

/// So many objects.
#[track_caller]
pub fn take(cache: &Cache, count: u64, shared: &'static Shared) -> Vec<NonNull<u8>> {
    let alloc = |_| make(cache.alloc(Gfp::KERNEL).expect("memory"), shared);
    (0..count).map(alloc).collect()
}

/// Gives memory to `kfree_rcu`; its head is its first two words.
pub fn free_rcu(slabs: &Allocator, memory: NonNull<u8>) {
    // SAFETY: the caller's, and large enough.
    unsafe { slabs.kfree_rcu(memory, memory.cast::<Head>()) };
}

/// The same, of many, in a row in which no other thread of the CPU runs: also not its drainer, so
/// that nothing is closed by its age, nor taken off the lane.
pub fn free_rcu_at_once(slabs: &Allocator, all: Vec<NonNull<u8>>) {
    let _pinned = Preempt::<Hosted>::disable();
    for memory in all {
        free_rcu(slabs, memory);
    }
}

/// Waits until it is so. (The machine fails if that takes too long.)
#[track_caller]
pub fn wait_until(is_so: impl Fn() -> bool) {
    let limit = Hosted::now_ns() + 60_000_000_000;
    while !is_so() {
        assert!(Hosted::now_ns() < limit, "it does not come");
        Hosted::yield_now();
        Hosted::relax();
    }
}

/// How often an arrow was taken.
#[track_caller]
pub fn count(slabs: &Allocator, name: &str) -> u64 {
    let found = slabs.arrows().find(|(arrow, _)| *arrow == name);
    found.expect("an arrow").1
}

pub fn cpu(number: u32) -> CpuId {
    CpuId::new(number).expect("a CPU")
}

/// Machines with one node.
pub fn world(cpus: usize) -> World {
    World::new(
        Machine::builder().cpus(cpus),
        Memory::builder().node(32 * MIB),
    )
}

/// From now on there are so many blocks of pages more; `None`: all there are. In a thread of the
/// machine.
pub fn fail_pages(world: &World, after: Option<u32>) {
    world.mm().debug().faults(|page| {
        // Of all orders and flags.
        page.fail_nth(0);
        page.attr.configure(&Knobs {
            probability: if after.is_some() { 100 } else { 0 },
            space: after.unwrap_or(0),
            times: -1,
            verbose: 0,
            ..Knobs::OFF
        });
    });
}

/// Walks the heap, which must be sound. No other thread uses it, nor does an interrupt.
#[track_caller]
pub fn walk(slabs: &Allocator, engine: &Engine) {
    slabs.kvfree_rcu_barrier();
    engine.barrier();
    for _ in 0..2 {
        Hosted::call(Hosted::online_cpus(), &|| ());
    }
    let mut room = Box::new(Room::new());
    // SAFETY: nobody else uses it, as the caller says.
    if let Err(fault) = unsafe { slabs.walk(&mut room) } {
        panic!("the walk: {fault}");
    }
    crate::arrows::note(slabs);
}

/// A reader on another CPU, in one section from its beginning to its end: no grace period ends meanwhile.
pub struct Section {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Section {
    /// A section has begun when this returns.
    pub fn begin(world: &World, cpu: CpuId) -> Self {
        let begun: Arc<AtomicBool> = Arc::default();
        let over: Arc<AtomicBool> = Arc::default();
        let (says, until) = (Arc::clone(&begun), Arc::clone(&over));
        let thread = world.machine.spawn_on(cpu, move || {
            let _section = rcu::hosted::read();
            says.store(true, Release);
            while !until.load(Acquire) {
                Hosted::relax();
            }
        });
        wait_until(|| begun.load(Acquire));
        Self {
            over,
            thread: Some(thread),
        }
    }

    /// It ends, soon.
    pub fn let_go(&self) {
        self.over.store(true, Release);
    }

    /// It ends.
    pub fn end(mut self) {
        self.let_go();
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

/// Runs something as a thread of a CPU, and waits for it.
pub fn on<T: Send + 'static>(
    world: &World,
    cpu: CpuId,
    f: impl FnOnce() -> T + Send + 'static,
) -> T {
    world.machine.spawn_on(cpu, f).join()
}

/// Lets others run for a while, in which what must not happen would have happened.
pub fn linger() {
    let until = Hosted::now_ns() + 3_000_000;
    wait_until(|| Hosted::now_ns() > until);
}

/// Runs `f` with an engine, and without drainers: what is queued stays where it is until somebody asks. The last time that
/// the allocator is used.
pub fn without_drainers(world: &World, f: impl FnOnce(&'static Allocator, &Engine)) {
    world.run(|slabs| {
        let engine = Engine::start(&world.machine, Config::default());
        // SAFETY: it is there until nothing waits for it.
        unsafe { slabs.set_rcu(&engine) };
        f(slabs, &engine);
        slabs.stop_drainers();
        engine.barrier();
    });
}

/// How often an arrow of RCU was taken.
#[track_caller]
pub fn rcu_count(engine: &Engine, name: &str) -> u64 {
    let found = engine.arrows().find(|(arrow, _)| *arrow == name);
    found.expect("an arrow").1
}
