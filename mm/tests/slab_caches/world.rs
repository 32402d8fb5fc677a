//! A machine with memory, a page allocator, an engine of RCU, and a slab allocator.

use std::{
    mem::ManuallyDrop,
    sync::atomic::{AtomicUsize, Ordering},
};

use mm::{
    Block, BlockKind, Config, Mm, Pfn, Use,
    debug::Debug,
    fault::Knobs,
    frame::{FrameMap, PAGE_SIZE},
    hosted::{self, Memory, Reports},
    report::Kind,
    slab::{KmemCache, Slabs},
};
use platform::{
    Platform,
    hosted::{Builder, Hosted, Machine},
};
use rcu::{Config as RcuConfig, hosted::Engine};

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

/// All of it.
pub struct World {
    slabs: ManuallyDrop<Box<Slabs<Hosted>>>,
    mm: ManuallyDrop<Box<Mm<Hosted>>>,
    /// Caches that are expected to be in use at the end.
    pub leaked: Expected,
    pub machine: Machine,
    _memory: Memory,
}

/// A number that threads of a machine may set.
pub struct Expected(AtomicUsize);

impl Expected {
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub fn set(&self, number: usize) {
        self.0.store(number, Ordering::Relaxed);
    }
}

impl World {
    /// A machine with a slab allocator that has started.
    pub fn new(machine: Builder, memory: hosted::Builder) -> Self {
        let world = Self::asleep(machine, memory);
        world.run(|slabs| {
            // SAFETY: once; it stays where it is until the world ends.
            unsafe { slabs.start() }.expect("memory for the first caches");
        });
        world
    }

    /// One that has not started.
    pub fn asleep(machine: Builder, memory: hosted::Builder) -> Self {
        let (machine, memory) = (machine.build(), memory.build());
        let blocks: Vec<Block> = memory
            .pieces()
            .iter()
            .map(|piece| Block {
                start: Pfn::of_phys(piece.region.start()).unwrap(),
                end: Pfn((piece.region.end() / PAGE_SIZE as u64) as u32),
                node: piece.node,
                kind: BlockKind::Free,
            })
            .collect();
        let config = Config {
            min_free: None,
            debug: Debug::off(),
        };
        let mm = machine.run(|| {
            // SAFETY: memory and descriptors are there as long as this, and nobody else's.
            unsafe {
                let map = FrameMap::new(memory.layout(), memory.end());
                Mm::new(map, config, blocks.into_iter())
            }
        });
        let mm = Box::new(mm.expect("per-CPU memory for the lists"));
        // SAFETY: the page allocator is dropped after it; `start` comes first.
        let slabs = Box::new(unsafe { Slabs::new(&mm) });
        Self {
            slabs: ManuallyDrop::new(slabs),
            mm: ManuallyDrop::new(mm),
            leaked: Expected(AtomicUsize::new(0)),
            machine,
            _memory: memory,
        }
    }

    /// A small machine: 2 CPUs on 2 nodes.
    pub fn small() -> Self {
        let memory = Memory::builder().node(16 * MIB).node(16 * MIB);
        Self::new(Machine::builder().cpus(2).nodes(2), memory)
    }

    /// The allocator. (For ever, as far as the type says: tests do not let it escape the world.)
    pub fn slabs(&self) -> &'static Slabs<Hosted> {
        let slabs: *const Slabs<Hosted> = &**self.slabs;
        // SAFETY: it lives as long as the world, in which all that a test does is done.
        unsafe { &*slabs }
    }

    pub fn mm(&self) -> &Mm<Hosted> {
        &self.mm
    }

    /// Runs as a thread of CPU 0.
    pub fn run<R>(&self, f: impl FnOnce(&'static Slabs<Hosted>) -> R) -> R {
        self.machine.run(|| f(self.slabs()))
    }

    /// From now on there are so many pages more; `None`: all there are.
    pub fn fail_pages(&self, after: Option<u32>) {
        self.run(|_| {
            self.mm.debug().faults(|page| {
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
        });
    }

    /// Runs as a thread of CPU 0, with an engine of RCU. The last time that the allocator is used.
    pub fn run_with_rcu(&self, f: impl FnOnce(&'static Slabs<Hosted>, &Engine)) {
        self.run(|slabs| {
            let engine = Engine::start(&self.machine, RcuConfig::default());
            // SAFETY: when the engine ends nothing waits for it, nor will it.
            unsafe { slabs.set_rcu(&engine) };
            for cpu in Hosted::online_cpus().iter() {
                slabs.start_drainer(cpu).expect("a thread");
            }
            f(slabs, &engine);
            slabs.stop_drainers();
            engine.barrier();
        });
    }

    /// Takes what was said of memory; all must be of kind `kind`.
    #[track_caller]
    pub fn take_reports(&self, kind: Kind) -> usize {
        let said = Reports::of(&self.machine).take();
        for said in &said {
            assert_eq!(said.kind, kind, "{said}");
        }
        said.len()
    }

    /// Frames of slabs and of large kmallocs.
    pub fn frames(&self) -> u64 {
        self.run(|_| {
            let counts = self.mm.counts();
            counts.used[Use::Slab as usize] + counts.used[Use::Kmalloc as usize]
        })
    }

    /// Every cache gave back what it can do without.
    pub fn shrink(&self) {
        self.run(|slabs| {
            for _ in 0..2 {
                slabs.caches().iter().for_each(|cache| {
                    cache.shrink();
                });
            }
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The machine may have failed.
            return;
        }
        self.machine.run(|| {
            // SAFETY: nothing of it is used any more; then it goes, and what it was made of.
            unsafe {
                let leaked = self.leaked.get();
                assert_eq!(self.slabs.stop(), leaked, "caches are in use");
                let used = self.mm.counts().used;
                if leaked == 0 {
                    assert_eq!(used[Use::Slab as usize], 0, "slabs are left");
                    assert_eq!(used[Use::Kmalloc as usize], 0, "large kmallocs are left");
                }
                ManuallyDrop::drop(&mut self.slabs);
                ManuallyDrop::drop(&mut self.mm);
            }
        });
        let said = Reports::of(&self.machine).take();
        assert!(said.is_empty(), "unexpected reports: {said:?}");
    }
}

/// Allocates so many objects.
#[track_caller]
pub fn take(cache: &KmemCache<Hosted>, count: usize) -> Vec<std::ptr::NonNull<u8>> {
    let alloc = || cache.alloc(mm::Gfp::KERNEL).expect("memory for an object");
    (0..count).map(|_| alloc()).collect()
}

/// Frees them.
pub fn free(cache: &KmemCache<Hosted>, objects: Vec<std::ptr::NonNull<u8>>) {
    for object in objects {
        // SAFETY: allocated from it by the test, which does not use them any more.
        unsafe { cache.free(object) };
    }
}
