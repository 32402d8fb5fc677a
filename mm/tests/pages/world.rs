//! A machine with memory and a page allocator, and what is true of it when all is quiet.

use std::sync::Arc;

use mm::{
    Block, BlockKind, Config, Gfp, Mm, Pfn, State, Use,
    debug::Debug,
    frame::{FrameMap, PAGE_SIZE},
    hosted::{self, Memory, Reports},
    mm::Counts,
    report::Kind,
};
use platform::{
    CpuId, NodeId,
    hosted::{Builder, Hosted, Machine},
};

pub const MIB: u64 = 1 << 20;
/// The first address of the Normal zones.
pub const LINE: u64 = 4 << 30;

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

pub fn node(index: usize) -> NodeId {
    NodeId::from_index(index).unwrap()
}

/// A generator of numbers: SplitMix64.
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
}

/// What was allocated.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub pfn: Pfn,
    pub order: usize,
    pub usage: Use,
}

impl Held {
    pub fn frames(&self) -> u64 {
        1 << self.order
    }
}

/// All of it. Dropped in this order; the allocator inside of the machine.
pub struct World {
    mm: Option<Arc<Mm<Hosted>>>,
    /// The descriptors' words, the free blocks and the counts at the beginning.
    first: Option<Quiet>,
    pub machine: Machine,
    pub memory: Memory,
}

/// What must be the same whenever nobody holds anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quiet {
    pub free: Vec<(Pfn, usize)>,
    pub counts: Vec<Counts>,
}

impl World {
    /// An allocator of all memory that there is.
    pub fn new(machine: Builder, memory: hosted::Builder) -> Self {
        Self::with(machine, memory, |_| (), |_| ())
    }

    /// An allocator of what `change` makes of the memory's blocks, with the checks that
    /// `debug` switches on.
    pub fn with(
        machine: Builder,
        memory: hosted::Builder,
        change: impl FnOnce(&mut Vec<Block>),
        debug: impl FnOnce(&Debug<Hosted>),
    ) -> Self {
        let (machine, memory) = (machine.build(), memory.build());
        let mut blocks: Vec<Block> = memory
            .pieces()
            .iter()
            .map(|piece| Block {
                start: Pfn::of_phys(piece.region.start()).unwrap(),
                end: Pfn((piece.region.end() / PAGE_SIZE as u64) as u32),
                node: piece.node,
                kind: BlockKind::Free,
            })
            .collect();
        change(&mut blocks);
        let config = Config {
            min_free: None,
            debug: Debug::off(),
        };
        let mm = machine.run(|| {
            debug(&config.debug);
            // SAFETY: memory and descriptors are there as long as this, and nobody else's.
            unsafe {
                let map = FrameMap::new(memory.layout(), memory.end());
                Mm::new(map, config, blocks.into_iter())
            }
        });
        let mut world = Self {
            mm: Some(Arc::new(mm.expect("per-CPU memory for the lists"))),
            first: None,
            machine,
            memory,
        };
        world.first = Some(world.quiet());
        world
    }

    pub fn mm(&self) -> &Arc<Mm<Hosted>> {
        self.mm.as_ref().unwrap()
    }

    /// Runs as a thread of CPU 0.
    pub fn run<R>(&self, f: impl FnOnce(&Mm<Hosted>) -> R) -> R {
        self.machine.run(|| f(self.mm()))
    }

    /// Runs on every CPU.
    pub fn run_on_all<R: Send>(&self, f: impl Fn(&Mm<Hosted>, CpuId) -> R + Sync) -> Vec<R> {
        self.machine.run_on_all(|cpu| f(self.mm(), cpu))
    }

    /// Takes what was said of memory; all must be of kind `kind`.
    pub fn take_reports(&self, kind: Kind) -> usize {
        let said = Reports::of(&self.machine).take();
        for said in &said {
            assert_eq!(said.kind, kind, "{said}");
        }
        said.len()
    }

    /// Free blocks and counts, with nothing in CPUs' lists.
    pub fn quiet(&self) -> Quiet {
        self.run(|mm| {
            mm.drain_all();
            quiet(mm)
        })
    }

    /// Nobody holds anything: all is as it was at the beginning.
    #[track_caller]
    pub fn assert_all_back(&self) {
        let now = self.quiet();
        let first = self.first.as_ref().unwrap();
        assert_eq!(now.counts, first.counts, "the counts differ");
        if now.free != first.free {
            let only = |these: &Quiet, those: &Quiet| -> Vec<(Pfn, usize)> {
                let these = these.free.iter().copied();
                these.filter(|block| !those.free.contains(block)).collect()
            };
            panic!(
                "free blocks differ: now {:?}, at first {:?}",
                only(&now, first),
                only(first, &now)
            );
        }
        self.run(|mm| mm.audit()).unwrap();
    }

    /// The frames that are held are counted, by node and use, and no others.
    #[track_caller]
    pub fn assert_counts(&self, held: &[Held]) {
        self.run(|mm| {
            mm.audit().unwrap();
            for node in mm.nodes().iter() {
                let counts = mm.node_counts(node);
                let here = |block: &&Held| zone_of(mm, block.pfn).node() == node;
                for usage in Use::ALL {
                    let of = held
                        .iter()
                        .filter(here)
                        .filter(|block| block.usage == usage);
                    let sum: u64 = of.map(Held::frames).sum();
                    assert_eq!(counts.used[usage as usize], sum, "{usage:?} on node {node}");
                }
                assert_eq!(counts.free_frames() + counts.used_frames(), counts.managed);
            }
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let mm = self.mm.take();
        if std::thread::panicking() {
            // Its per-CPU memory cannot be given back: the machine may have failed.
            std::mem::forget(mm);
            return;
        }
        self.machine.run(|| {
            let last = Arc::into_inner(mm.expect("until now"));
            assert!(last.is_some(), "somebody still has the allocator");
        });
    }
}

/// The zone of a frame.
pub fn zone_of(mm: &Mm<Hosted>, pfn: Pfn) -> &mm::zone::Zone<Hosted> {
    let word = mm.frames().get(pfn).expect("below the end").word();
    mm.zone(word.zone()).expect("the frame's zone")
}

/// What the descriptors say is free, and the counts.
pub fn quiet(mm: &Mm<Hosted>) -> Quiet {
    let mut free = Vec::new();
    for zone in mm.zones() {
        for number in zone.start().0..zone.end().0 {
            let word = mm.frames().get(Pfn(number)).expect("below the end").word();
            if word.state() == State::Free && word.zone() == zone.index() {
                free.push((Pfn(number), word.order()));
            }
        }
    }
    free.sort_unstable_by_key(|block| block.0);
    Quiet {
        free,
        counts: mm.zones().map(|zone| mm.zone_counts(zone)).collect(),
    }
}

/// The words of all descriptors.
pub fn words(mm: &Mm<Hosted>) -> Vec<u32> {
    let end = mm.frames().end().0;
    let word = |number| mm.frames().get(Pfn(number)).unwrap().word().bits();
    (0..end).map(word).collect()
}

/// Allocates, if there is memory.
#[track_caller]
pub fn alloc(mm: &Mm<Hosted>, gfp: Gfp, order: usize, usage: Use) -> Option<Held> {
    let pfn = mm.alloc_pages(gfp, order, usage)?;
    Some(Held { pfn, order, usage })
}

/// Allocates near a node, if there is memory.
#[track_caller]
pub fn alloc_node(
    mm: &Mm<Hosted>,
    node: NodeId,
    gfp: Gfp,
    order: usize,
    usage: Use,
) -> Option<Held> {
    let pfn = mm.alloc_pages_node(node, gfp, order, usage)?;
    Some(Held { pfn, order, usage })
}

/// Frees.
#[track_caller]
pub fn free(mm: &Mm<Hosted>, held: Held) {
    // SAFETY: allocated so, and held by the caller. (Tests of wrong frees give others, which
    // are to be refused.)
    unsafe { mm.free_pages(held.pfn, held.order, held.usage) };
}

/// Frees without waiting.
#[track_caller]
pub fn free_nolock(mm: &Mm<Hosted>, held: Held) {
    // SAFETY: as above.
    unsafe { mm.free_pages_nolock(held.pfn, held.order, held.usage) };
}
