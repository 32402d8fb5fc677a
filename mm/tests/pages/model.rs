//! Sequences of operations on one CPU against a simple model: a set of ranges.

use std::collections::BTreeMap;

use mm::{Gfp, Mm, Use, frame::MAX_ORDER, hosted::Memory};
use platform::hosted::{Hosted, Machine};
use proptest::prelude::*;

use super::{
    owners::Owners,
    world::{Held, LINE, MIB, World, alloc, free, free_nolock, rounds},
};

#[derive(Clone, Debug)]
enum Op {
    Alloc {
        order: usize,
        usage: Use,
        gfp: Gfp,
    },
    Free {
        index: prop::sample::Index,
        nolock: bool,
    },
    DrainHere,
    DrainAll,
}

fn gfps() -> impl Strategy<Value = Gfp> {
    let base = prop::sample::select(vec![Gfp::KERNEL, Gfp::ATOMIC, Gfp::NOWAIT, Gfp::NOLOCK]);
    (base, any::<[bool; 2]>()).prop_map(|(base, [zero, dma32])| {
        let zero = if zero { Gfp::ZERO } else { Gfp::empty() };
        let dma32 = if dma32 { Gfp::DMA32 } else { Gfp::empty() };
        base | Gfp::NOWARN | zero | dma32
    })
}

fn op() -> impl Strategy<Value = Op> {
    let order = prop_oneof![3 => 0..=3_usize, 2 => 4..=MAX_ORDER];
    prop_oneof![
        6 => (order, prop::sample::select(&Use::ALL[..]), gfps())
            .prop_map(|(order, usage, gfp)| Op::Alloc { order, usage, gfp }),
        5 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(index, nolock)| Op::Free { index, nolock }),
        1 => Just(Op::DrainHere),
        1 => Just(Op::DrainAll),
    ]
}

/// An allocation that may wait failed: there was really nothing for it.
fn assert_nothing_there(mm: &Mm<Hosted>, gfp: Gfp, order: usize) {
    mm.drain_all();
    let last = mm.zones().count() - 1;
    for (index, zone) in mm.zones().enumerate() {
        // In a zone that others can do without it leaves more.
        let reserve = if gfp.contains(Gfp::DMA32) || index == last {
            0
        } else {
            zone.protection()
        };
        let counts = mm.zone_counts(zone);
        let suits = index == 0 || !gfp.contains(Gfp::DMA32);
        let enough = counts.free >= (1 << order) + zone.watermarks().min + reserve;
        let block = counts.blocks[order..].iter().any(|blocks| *blocks > 0);
        assert!(
            !(suits && enough && block),
            "order {order}, {gfp}: {counts:?}"
        );
    }
}

fn run(world: &World, ops: &[Op]) {
    world.run(|mm| {
        let owners = Owners::new(mm);
        let mut model: BTreeMap<u32, Held> = BTreeMap::new();
        let mut held_frames = 0;
        for op in ops {
            match op {
                Op::Alloc { order, usage, gfp } => {
                    let Some(held) = alloc(mm, *gfp, *order, *usage) else {
                        if gfp.contains(Gfp::RECLAIM) {
                            assert_nothing_there(mm, *gfp, *order);
                        }
                        continue;
                    };
                    owners.take(mm, &held, *gfp);
                    let (start, end) = (held.pfn.0, held.pfn.0 + (1 << order));
                    let before = model.range(..end).next_back();
                    if let Some((other, held)) = before {
                        assert!(
                            other + (1 << held.order) <= start,
                            "{held:?} overlaps {start}"
                        );
                    }
                    model.insert(start, held);
                    held_frames += held.frames();
                }
                Op::Free { index, nolock } => {
                    let Some(key) = (!model.is_empty())
                        .then(|| *model.keys().nth(index.index(model.len())).unwrap())
                    else {
                        continue;
                    };
                    let held = model.remove(&key).unwrap();
                    held_frames -= held.frames();
                    owners.give(mm, &held);
                    if *nolock {
                        free_nolock(mm, held);
                    } else {
                        free(mm, held);
                    }
                }
                Op::DrainHere => assert!(mm.drain_here()),
                Op::DrainAll => mm.drain_all(),
            }
            let counts = mm.counts();
            assert_eq!(counts.used_frames(), held_frames);
            assert_eq!(counts.free_frames() + held_frames, counts.managed);
        }
        mm.audit().unwrap();
        for held in model.into_values() {
            owners.give(mm, &held);
            free(mm, held);
        }
        owners.assert_empty();
    });
    world.assert_all_back();
}

/// Single pages and large blocks, any flags, any order of frees.
#[test]
fn sequences_on_one_cpu() {
    let config = ProptestConfig {
        cases: rounds(3_000, 40) as u32,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    };
    let below = Memory::builder().node(7 * MIB + 12 * 4096);
    let around = Memory::builder().start(LINE - 5 * MIB).node(11 * MIB);
    proptest!(config, |(ops in prop::collection::vec(op(), 1..150), both in any::<bool>())| {
        let memory = if both { around.clone() } else { below.clone() };
        run(&World::new(Machine::builder(), memory), &ops);
    });
}
