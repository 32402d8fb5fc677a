//! Sequences of operations on one CPU, which get smaller when one fails.

use mm::{Gfp, hosted::Memory};
use platform::hosted::Machine;
use proptest::prelude::*;

use super::{
    actor::{Actor, Op, Shared},
    world::{MIB, Random, rounds, run},
};

fn op() -> impl Strategy<Value = Op> {
    any::<u64>().prop_map(|seed| Op::random(&mut Random(seed)))
}

/// Any operations in any order, on caches by chance, with one node or two.
#[test]
fn sequences_on_one_cpu() {
    let config = ProptestConfig {
        cases: rounds(2_000, 40) as u32,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    };
    let ops = prop::collection::vec(op(), 1..250);
    proptest!(config, |(ops in ops, seed in any::<u64>(), two in any::<bool>())| {
        let memory = Memory::builder().node(16 * MIB);
        let (machine, memory) = if two {
            (Machine::builder().nodes(2), memory.node(16 * MIB))
        } else {
            (Machine::builder(), memory)
        };
        run(machine, memory, |world| {
            // In half of all cases freed objects wait before they are used again.
            world.slabs.set_quarantine(seed as usize % 2 * 4_000);
            let shared = Shared::new(world, 3, seed);
            let mut actor = Actor::new(&shared, seed);
            ops.iter().for_each(|op| actor.run(op));
            shared.walk();
            actor.end();
            shared.end();
        });
    });
}

/// A cache of each kind is filled and emptied, slab after slab, in both orders.
#[test]
fn whole_slabs_come_and_go() {
    let memory = Memory::builder().node(32 * MIB);
    run(Machine::builder(), memory, |world| {
        for seed in 0..rounds(400, 30) {
            let shared = Shared::new(world, 1, seed);
            let cache = shared.caches[0].cache;
            let mut held: Vec<_> = (0..400)
                .map(|_| cache.alloc(Gfp::KERNEL).expect("memory"))
                .collect();
            held.sort_unstable();
            held.dedup();
            assert_eq!(held.len(), 400);
            shared.walk();
            if seed.is_multiple_of(2) {
                held.reverse();
            }
            // SAFETY: allocated above, each once.
            held.into_iter()
                .for_each(|object| unsafe { cache.free(object) });
            shared.end();
        }
    });
}
