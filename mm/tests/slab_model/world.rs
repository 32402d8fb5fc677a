//! A machine with memory, the page and the slab allocator, and RCU.

use std::sync::Arc;

use mm::{
    Block, BlockKind, Config, Gfp, Mm, PAGE_SIZE, Pfn,
    debug::Debug,
    frame::FrameMap,
    hosted::{self, Memory, Reports},
    report::Kind,
    slab::{Flags, KmemCache, Slabs, Spec, walk::Room},
};
use platform::{
    NodeId, Platform,
    hosted::{Builder, Hosted, Machine},
};
use rcu::{Rcu, hosted::Engine};

pub const MIB: u64 = 1 << 20;

/// Under `cargo xtask test --long` and in CI: that percentage of `full`; else `quick`.
pub fn rounds(full: u64, quick: u64) -> u64 {
    match std::env::var("GRANARY_PERCENT") {
        Ok(percent) => {
            let percent: u64 = percent.parse().expect("GRANARY_PERCENT is no number");
            (full * percent / 100).max(1)
        }
        Err(_) => quick,
    }
}

/// A generator of numbers: SplitMix64.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of them.
    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}

/// All of it, for the time of a [`run`].
pub struct World<'a> {
    pub machine: &'a Machine,
    /// Until the end of the run.
    pub mm: &'static Mm<Hosted>,
    /// Until the end of the run.
    pub slabs: &'static Slabs<Hosted>,
    pub rcu: Arc<Rcu<Hosted>>,
}

/// Makes a machine and runs `f` as a thread of its first CPU, which leaves nothing behind: no
/// cache, no thread. Then takes the allocators down; all pages and all per-CPU memory are
/// back.
pub fn run(machine: Builder, memory: hosted::Builder, f: impl FnOnce(&World<'_>)) {
    let (memory, machine) = (memory.build(), machine.build());
    machine.run(|| run_in(&machine, &memory, f));
}

fn run_in(machine: &Machine, memory: &Memory, f: impl FnOnce(&World<'_>)) {
    let blocks = memory.pieces().iter().map(|piece| Block {
        start: Pfn::of_phys(piece.region.start()).unwrap(),
        end: Pfn((piece.region.end() / PAGE_SIZE) as u32),
        node: piece.node,
        kind: BlockKind::Free,
    });
    let config = Config {
        min_free: None,
        debug: Debug::off(),
    };
    // SAFETY: memory and descriptors are there as long as this, and nobody else's.
    let mm = unsafe { Mm::new(FrameMap::new(memory.layout(), memory.end()), config, blocks) };
    let mm = Box::into_raw(Box::new(mm.expect("per-CPU memory for the lists")));
    // SAFETY: given back at the end.
    let lasting: &'static Mm<Hosted> = unsafe { &*mm };
    lasting.drain_all();
    let first = lasting.counts();
    // SAFETY: the allocator of pages lasts longer.
    let slabs = Box::into_raw(Box::new(unsafe { Slabs::new(lasting) }));
    // SAFETY: given back at the end.
    let lasting_slabs: &'static Slabs<Hosted> = unsafe { &*slabs };
    {
        let engine = Engine::start(machine, rcu::Config::default());
        let world = World {
            machine,
            mm: lasting,
            slabs: lasting_slabs,
            rcu: Arc::clone(&engine),
        };
        switch(world.slabs, &mut Random(machine.seed()));
        // SAFETY: once, and where it stays.
        unsafe { world.slabs.start() }.expect("memory for the first caches");
        let early = early_discard(world.slabs);
        // SAFETY: the engine is there until the last cache is gone.
        unsafe { world.slabs.set_rcu(&engine) };
        // SAFETY: all its objects were freed.
        unsafe { world.slabs.destroy(early) }.expect("nothing is left");
        f(&world);
        drop(world);
        // What waits for a grace period goes first.
        engine.synchronize();
        engine.barrier();
        walk(lasting_slabs, &engine);
        // SAFETY: nobody has anything of it any more.
        let left = unsafe { lasting_slabs.stop() };
        assert_eq!(left, 0, "caches have objects in use");
        // SAFETY: made by `into_raw`; nobody has anything of it any more.
        drop(unsafe { Box::from_raw(slabs) });
    }
    // Where memory is short caches cannot be made, and that is said.
    for said in Reports::of(machine).take() {
        assert_eq!(said.kind, Kind::OutOfMemory, "{said}");
    }
    lasting.drain_all();
    assert_eq!(lasting.counts(), first, "pages are missing");
    lasting.audit().unwrap();
    // SAFETY: as for the slabs.
    drop(unsafe { Box::from_raw(mm) });
}

/// Walks the heap, which must be sound. No other thread uses it, nor does an interrupt.
#[track_caller]
pub fn walk(slabs: &Slabs<Hosted>, rcu: &Rcu<Hosted>) {
    // Frees that were deferred on other CPUs: who serves a first call may be about to run them, and
    // serves the second when that is done.
    for _ in 0..2 {
        Hosted::call(Hosted::online_cpus(), &|| ());
    }
    // Slabs that wait.
    rcu.barrier();
    let mut room = Box::new(Room::new());
    // SAFETY: nobody else uses it, as the caller says; what else there was has ended.
    if let Err(fault) = unsafe { slabs.walk(&mut room) } {
        panic!("the walk: {fault}");
    }
}

/// A cache that has given a slab back which then waits for RCU, which there is not yet.
fn early_discard(slabs: &'static Slabs<Hosted>) -> &'static KmemCache<Hosted> {
    let spec = Spec::new("early", 64).flags(Flags::TYPESAFE_BY_RCU);
    let cache = slabs.create(&spec).expect("memory for a cache");
    let object = cache.alloc(Gfp::KERNEL).expect("memory");
    // SAFETY: allocated above.
    unsafe { cache.free(object) };
    cache.shrink();
    cache
}

/// Turns switches by chance that are turned before the start.
fn switch(slabs: &Slabs<Hosted>, random: &mut Random) {
    slabs.debug().set_seed(random.next());
    slabs.debug().set_hardened(random.one_in(3));
    slabs.debug().set_shuffled(random.one_in(3));
}

/// The node of the memory at an address.
pub fn node_of(mm: &Mm<Hosted>, address: usize) -> NodeId {
    let pfn = mm.frames().pfn_of_address(address).expect("memory");
    let word = mm.frames().get(pfn).expect("below the end").word();
    mm.zone(word.zone()).expect("the frame's zone").node()
}
