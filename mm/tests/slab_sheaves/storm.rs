//! Many CPUs on several nodes, all functions at random, objects that wander from CPU to CPU,
//! interrupts and NMIs.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use mm::{Gfp, hosted::Memory};
use platform::{
    NodeId, Platform,
    hosted::{Hosted, Machine},
};

use crate::{
    objects::{
        Object, alloc, alloc_bulk, alloc_node, alloc_nolock, alloc_prefilled, free, free_bulk,
        free_nolock, give,
    },
    paths::{end, small_sheaves},
    world::{MIB, World},
};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn storm(seed: u64, nodes: usize) {
    let mut memory = Memory::builder();
    for _ in 0..nodes {
        memory = memory.node(16 * MIB);
    }
    let machine = Machine::builder().cpus(4).nodes(nodes).seed(seed);
    let world = World::new(machine, memory);
    let caches = world.run(|slabs| {
        let large = mm::slab::Spec::new("storm_large", 700);
        [
            small_sheaves(slabs, "storm"),
            slabs.create(&large).expect("a cache"),
        ]
    });
    // Objects on their way to another CPU.
    let wander: [Mutex<Vec<Object>>; 2] = Default::default();
    let turns: Arc<AtomicU64> = Arc::default();
    let turn = Arc::clone(&turns);
    let nmi = world.machine.on_nmi(40, move || {
        let cache = caches[turn.fetch_add(1, Relaxed) as usize % 2];
        let objects = [(); 3].map(|()| alloc_nolock(cache));
        for object in objects.into_iter().flatten() {
            free_nolock(cache, object);
        }
    });
    let interrupt = world.machine.on_interrupt(30, move || {
        for cache in caches {
            let objects = alloc_bulk(cache, Gfp::ATOMIC | Gfp::NOWARN, 5);
            free_bulk(cache, objects.unwrap_or_default());
            if let Some(object) = alloc(cache, Gfp::ATOMIC | Gfp::NOWARN) {
                free(cache, object);
            }
        }
    });
    world.machine.run_on_all(|cpu| {
        let mut random = Random(seed * 64 + u64::from(cpu.number()));
        let mut held: [Vec<Object>; 2] = Default::default();
        for _ in 0..crate::world::rounds(20_000, 800) {
            let which = random.below(2) as usize;
            let (cache, held) = (caches[which], &mut held[which]);
            match random.below(12) {
                0..3 => held.extend(alloc(cache, Gfp::KERNEL)),
                3 => {
                    let node = NodeId::from_index(random.below(nodes as u64) as usize);
                    let node = node.unwrap_or(Hosted::node_of(cpu));
                    held.extend(alloc_node(cache, Gfp::KERNEL, node));
                }
                4 => {
                    let count = 1 + random.below(30) as usize;
                    held.extend(alloc_bulk(cache, Gfp::KERNEL, count).unwrap_or_default());
                }
                5 => {
                    let count = 1 + random.below(12) as usize;
                    if let Some(mut sheaf) = cache.prefill(Gfp::KERNEL, count) {
                        let used = random.below(count as u64 + 1);
                        held.extend((0..used).filter_map(|_| alloc_prefilled(&mut sheaf)));
                    }
                }
                6..9 => held
                    .pop()
                    .into_iter()
                    .for_each(|object| free(cache, object)),
                9 => {
                    let keep = random.below(held.len() as u64 + 1) as usize;
                    free_bulk(cache, held.split_off(keep));
                }
                10 => {
                    let mut wander = wander[which].lock().unwrap();
                    std::mem::swap(&mut *wander, held);
                }
                _ => {
                    held.extend(alloc_nolock(cache));
                    if random.below(40) == 0 {
                        cache.shrink();
                    }
                }
            }
            if held.len() > 300 {
                give(cache, held.drain(100..));
            }
        }
        for (cache, held) in caches.into_iter().zip(held) {
            give(cache, held);
        }
    });
    drop((nmi, interrupt));
    world.run(|slabs| {
        for (cache, wander) in caches.into_iter().zip(wander) {
            give(cache, wander.into_inner().unwrap());
            end(slabs, cache);
        }
    });
}

#[test]
fn on_one_node() {
    storm(1, 1);
}

#[test]
fn on_two_nodes() {
    storm(2, 2);
}

#[test]
fn on_four_nodes() {
    storm(3, 4);
}
