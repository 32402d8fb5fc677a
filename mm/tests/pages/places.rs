//! Where memory comes from: order of nodes, zones, watermarks, reserves.

use mm::{Gfp, Mm, Use, hosted::Memory, zone::ZoneKind};
use platform::{
    CpuId, NodeId,
    hosted::{Hosted, Machine},
};

use super::world::{Held, LINE, MIB, World, alloc, alloc_node, free, node, zone_of};

/// Allocates single pages until there is none.
fn exhaust(mut alloc: impl FnMut() -> Option<Held>) -> Vec<Held> {
    std::iter::from_fn(&mut alloc).collect()
}

fn free_all(mm: &Mm<Hosted>, held: impl IntoIterator<Item = Held>) {
    held.into_iter().for_each(|held| free(mm, held));
}

/// The nodes that blocks came from, in order, each once for a run.
fn nodes_in_order(mm: &Mm<Hosted>, held: &[Held]) -> Vec<usize> {
    let mut nodes: Vec<_> = held
        .iter()
        .map(|held| zone_of(mm, held.pfn).node().index())
        .collect();
    nodes.dedup();
    nodes
}

/// Four nodes in a square with a diagonal: from each the others follow by distance.
#[test]
fn nodes_follow_by_distance() {
    let distances = [
        (0, 1, 16),
        (0, 2, 31),
        (0, 3, 22),
        (1, 2, 22),
        (1, 3, 40),
        (2, 3, 16),
    ];
    let mut machine = Machine::builder().cpus(4).nodes(4).seed(21);
    for (one, other, distance) in distances {
        machine = machine.distance(node(one), node(other), distance);
    }
    let far = |one: usize, other: usize| {
        let (low, high) = (one.min(other), one.max(other));
        let found = distances.iter().find(|(a, b, _)| (*a, *b) == (low, high));
        found.map_or(10, |(_, _, distance)| *distance)
    };
    let memory = (0..4).fold(Memory::builder().start(LINE), |memory, _| {
        memory.node(4 * MIB).hole(MIB)
    });
    let world = World::new(machine, memory);
    let gfp = Gfp::NOWAIT | Gfp::ATOMIC;
    for from in 0..4 {
        let mut wanted: Vec<usize> = (0..4).collect();
        wanted.sort_by_key(|other| far(from, *other));
        world.run(|mm| {
            let order: Vec<_> = mm
                .fallback(node(from))
                .iter()
                .map(|zone| zone.node())
                .collect();
            assert_eq!(
                order,
                wanted.iter().map(|index| node(*index)).collect::<Vec<_>>()
            );
            // For a block that no list has.
            let held = exhaust(|| alloc_node(mm, node(from), gfp, 4, Use::Pages));
            let seen = nodes_in_order(mm, &held);
            // Once down to the low watermark of all, then below it.
            assert_eq!(seen[..4], wanted, "from node {from}: {seen:?}");
            free_all(mm, held);
            let here = exhaust(|| alloc_node(mm, node(from), gfp | Gfp::THISNODE, 4, Use::Pages));
            assert_eq!(nodes_in_order(mm, &here), [from]);
            free_all(mm, here);
        });
        world.assert_all_back();
    }
    // The CPU that asks is near its node, through its page lists too.
    let firsts = world.run_on_all(|mm, _| {
        let held: Vec<_> = (0..100)
            .map(|_| alloc(mm, Gfp::KERNEL, 0, Use::Pages).unwrap())
            .collect();
        let nodes = nodes_in_order(mm, &held);
        free_all(mm, held);
        nodes
    });
    assert_eq!(firsts, [[0], [1], [2], [3]]);
    world.assert_all_back();
}

/// A node without memory: its CPUs get that of the nearest; asking for its own gets none.
#[test]
fn a_node_without_memory_has_the_nearest() {
    let machine = Machine::builder()
        .cpus(3)
        .nodes(3)
        .distance(node(0), node(1), 30)
        .distance(node(1), node(2), 15);
    let memory = Memory::builder().node(4 * MIB).piece(node(2), 4 * MIB);
    let world = World::new(machine, memory);
    world.run_on_all(|mm, cpu| {
        let wanted = if cpu.index() == 0 { 0 } else { 2 };
        assert_eq!(mm.nearest_memory(Hosted::node(cpu)), Some(node(wanted)));
        for order in [0, 3, 5] {
            let held = alloc(mm, Gfp::KERNEL, order, Use::Pages).unwrap();
            assert_eq!(zone_of(mm, held.pfn).node(), node(wanted));
            let own = Gfp::KERNEL | Gfp::THISNODE | Gfp::NOWARN;
            let none = alloc(mm, own, order, Use::Pages);
            assert_eq!(none.is_none(), cpu.index() == 1, "{none:?}");
            free_all(mm, none.into_iter().chain([held]));
        }
    });
    world.assert_all_back();
}

trait NodeOf {
    fn node(cpu: CpuId) -> NodeId;
}

impl NodeOf for Hosted {
    fn node(cpu: CpuId) -> NodeId {
        <Self as platform::Platform>::node_of(cpu)
    }
}

/// Who may go how deep: *min* for most, half of it for those who cannot wait, and the first
/// try and the page lists leave *low*.
#[test]
fn watermarks_hold() {
    let world = World::new(Machine::builder(), Memory::builder().node(24 * MIB));
    world.run(|mm| {
        let zone = mm.zones().next().unwrap();
        let marks = zone.watermarks();
        assert!(
            0 < marks.min && marks.min < marks.low && marks.low < marks.high,
            "{marks:?}"
        );
        for order in [0, 2, 4] {
            let most = |gfp, depth: u64| {
                let frames = 1 << order;
                let held = exhaust(|| alloc(mm, gfp, order, Use::Pages));
                let free = zone.free();
                // One more would have gone deeper; no list has any left.
                assert!(
                    free >= depth && free < depth + frames,
                    "{gfp}: {free} of {marks:?}"
                );
                assert_eq!(mm.zone_counts(zone).listed, 0);
                held
            };
            for gfp in [Gfp::NOWAIT, Gfp::KERNEL | Gfp::NOWARN, Gfp::NOLOCK] {
                free_all(mm, most(gfp, marks.min));
                mm.drain_all();
            }
            let deep = most(Gfp::ATOMIC | Gfp::NOWARN, marks.min / 2);
            // For others there is nothing until there is more than min again.
            assert!(alloc(mm, Gfp::NOWAIT, order, Use::Pages).is_none());
            free_all(mm, deep);
            mm.drain_all();
        }
        // A list takes no batch below the low watermark.
        let mut held = Vec::new();
        while zone.free() > marks.low {
            held.extend(alloc(mm, Gfp::NOWAIT, 5, Use::Pages));
        }
        held.extend(alloc(mm, Gfp::NOWAIT, 0, Use::Pages));
        assert_eq!(mm.zone_counts(zone).listed, 0);
        free_all(mm, held);
    });
    world.assert_all_back();
}

/// What could have had memory above 4 GiB leaves a share of that below; what needs that gets
/// it; and both are really there.
#[test]
fn dma32_is_kept_for_those_who_need_it() {
    let memory = Memory::builder()
        .start(LINE - 8 * MIB)
        .node(8 * MIB)
        .more(48 * MIB);
    let world = World::new(Machine::builder(), memory);
    world.run(|mm| {
        let [low, high] = [ZoneKind::Dma32, ZoneKind::Normal]
            .map(|kind| mm.zones().find(|zone| zone.kind() == kind).unwrap());
        assert_eq!((low.managed(), high.managed()), (2048, 12288));
        assert_eq!((low.protection(), high.protection()), (12288 / 256, 0));
        for order in [0, 1, 4] {
            let frames = 1 << order;
            let any = exhaust(|| alloc(mm, Gfp::NOWAIT, order, Use::Pages));
            let kinds: Vec<_> = any.iter().map(|held| ZoneKind::of(held.pfn)).collect();
            let first_low = kinds
                .iter()
                .position(|kind| *kind == ZoneKind::Dma32)
                .unwrap();
            assert!(first_low as u64 * frames >= 12288 - high.watermarks().low - frames);
            assert!(high.free() < high.watermarks().min + frames);
            let kept = low.watermarks().min + low.protection();
            assert!(
                low.free() >= kept && low.free() < kept + frames,
                "{}",
                low.free()
            );
            let needed = exhaust(|| alloc(mm, Gfp::NOWAIT | Gfp::DMA32, order, Use::Pages));
            assert!(needed.len() as u64 * frames + frames > low.protection());
            assert!(
                needed
                    .iter()
                    .all(|held| ZoneKind::of(held.pfn) == ZoneKind::Dma32)
            );
            assert!(low.free() < low.watermarks().min + frames);
            free_all(mm, any.into_iter().chain(needed));
            mm.drain_all();
        }
        // With memory everywhere, it comes from above unless it must not.
        let held = alloc(mm, Gfp::KERNEL, 0, Use::Pages).unwrap();
        assert_eq!(ZoneKind::of(held.pfn), ZoneKind::Normal);
        let low = alloc(mm, Gfp::KERNEL | Gfp::DMA32, 0, Use::Pages).unwrap();
        assert_eq!(ZoneKind::of(low.pfn), ZoneKind::Dma32);
        free_all(mm, [held, low]);
    });
    world.assert_all_back();
}

/// A CPU that has gone gives back its lists, those of its strays included: not before, and
/// without being asked itself.
#[test]
fn the_lists_of_a_cpu_that_has_gone_go_back() {
    let world = World::new(
        Machine::builder().cpus(2).nodes(2),
        Memory::builder().node(16 * MIB).node(16 * MIB),
    );
    let gone = CpuId::new(1).unwrap();
    // One of each order on each node, freed on the CPU that goes.
    world.run_on_all(|mm, cpu| {
        if cpu != gone {
            return;
        }
        let held: Vec<Held> = (0..4)
            .flat_map(|order| [(node(0), order), (node(1), order)])
            .map(|(node, order)| alloc_node(mm, node, Gfp::KERNEL, order, Use::Slab).unwrap())
            .collect();
        free_all(mm, held);
    });
    world.run(|mm| {
        let kept = |mm: &Mm<Hosted>| mm.counts().listed;
        assert!(mm.drain_here());
        let before = kept(mm);
        assert!(before >= 2 * (1 + 2 + 4 + 8), "{before} frames are kept");
        // SAFETY: its thread has ended, and no other will run there.
        unsafe { mm.drain_offline(gone) };
        assert_eq!(kept(mm), 0);
        assert_eq!(mm.counts().used_frames(), 0);
        mm.audit().unwrap();
    });
    world.assert_all_back();
}
