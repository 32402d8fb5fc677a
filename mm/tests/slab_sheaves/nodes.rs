//! Several nodes.

use mm::{Gfp, Mm, hosted::Memory, slab::KmemCache};
use platform::{
    NodeId, Platform,
    hosted::{Hosted, Machine},
};

use crate::{
    arrows::{Taken, count, taken},
    objects::{Object, alloc, alloc_bulk, alloc_node, free, free_bulk, give, take},
    paths::{CAPACITY, end, small_sheaves, small_sheaves_of},
    world::{MIB, World},
};

fn node(index: usize) -> NodeId {
    NodeId::from_index(index).expect("a node")
}

/// The node of an object's memory.
fn node_of(mm: &Mm<Hosted>, object: &Object) -> NodeId {
    let map = mm.frames();
    let pfn = map.pfn_of_address(object.0.addr().get());
    let frame = map.get(pfn.expect("memory")).expect("memory");
    frame.word().zone().node()
}

pub fn objects_go_home() -> Taken {
    let world = World::small();
    world.run(|slabs| {
        let cache = small_sheaves(slabs, "home");
        let mut objects = take(cache, 20);
        for object in &objects {
            assert_eq!(node_of(world.mm(), object), node(0));
        }
        // Of the other node: from its slabs, whatever is in the sheaves.
        for _ in 0..8 {
            let object = alloc_node(cache, Gfp::KERNEL, node(1)).expect("memory");
            assert_eq!(node_of(world.mm(), &object), node(1));
            objects.push(object);
        }
        let remote = count(&world, "free.remote");
        give(cache, objects.drain(20..));
        assert_eq!(count(&world, "free.remote"), remote + 8);
        give(cache, objects);
        assert_eq!(count(&world, "free.remote"), remote + 8);
        // In the sheaves now: and the other node is asked for again.
        let object = alloc_node(cache, Gfp::KERNEL, node(1)).expect("memory");
        assert_eq!(node_of(world.mm(), &object), node(1));
        assert!(count(&world, "alloc.mismatch") > 0);
        let own = alloc_node(cache, Gfp::KERNEL, node(0)).expect("memory");
        assert_eq!(node_of(world.mm(), &own), node(0));
        give(cache, [own, object]);
        // Bulk: each goes where it belongs.
        let mut many = alloc_bulk(cache, Gfp::KERNEL, 10).expect("memory");
        many.push(alloc_node(cache, Gfp::KERNEL, node(1)).expect("memory"));
        many.extend(alloc_bulk(cache, Gfp::KERNEL, 3).expect("memory"));
        let remote = count(&world, "free.remote");
        free_bulk(cache, many);
        assert_eq!(count(&world, "free.remote"), remote + 1);
        end(slabs, cache);
    });
    taken(&world)
}

/// The first node has little memory: what does not fit there comes from the other, first from
/// fresh slabs, then from partial ones.
pub fn other_nodes_help() -> Taken {
    let memory = Memory::builder().node(4 * MIB).node(16 * MIB);
    let world = World::new(Machine::builder().cpus(2).nodes(2), memory);
    world.run(|slabs| {
        let cache = small_sheaves_of(slabs, "help", 1000);
        let here = |object: &Object| node_of(world.mm(), object) == node(0);
        let mut objects = Vec::new();
        loop {
            let object = alloc(cache, Gfp::KERNEL).expect("the other node has memory");
            let is_here = here(&object);
            objects.push(object);
            if !is_here {
                break;
            }
        }
        assert!(count(&world, "supply.fresh_elsewhere") > 0);
        let only_here = Gfp::NOWAIT | Gfp::THISNODE;
        let none = alloc_node(cache, only_here, node(0));
        assert!(none.iter().all(here), "of that node, or none");
        objects.extend(none);
        // Everything in sheaves is used up; then the other node's slab is taken from.
        for _ in 0..4 * CAPACITY {
            objects.push(alloc(cache, Gfp::KERNEL).expect("as above"));
        }
        assert!(count(&world, "supply.others") > 0);
        give(cache, objects);
        end(slabs, cache);
    });
    taken(&world)
}

pub fn partial_slabs_of_others_first() -> Taken {
    let world = World::small();
    world.run(|slabs| {
        let cache: &KmemCache<Hosted> = small_sheaves(slabs, "defrag");
        // A partial slab on the other node.
        let there = alloc_node(cache, Gfp::KERNEL, node(1)).expect("memory");
        cache.set_remote_node_defrag_ratio(100);
        let object = alloc(cache, Gfp::KERNEL).expect("memory");
        assert_eq!(
            node_of(world.mm(), &object),
            node(1),
            "instead of a fresh slab here"
        );
        assert_eq!(count(&world, "supply.defrag"), 1);
        give(cache, [there, object]);
        end(slabs, cache);
    });
    taken(&world)
}

#[test]
fn objects_of_other_nodes_go_home() {
    objects_go_home();
}

#[test]
fn other_nodes_help_out() {
    other_nodes_help();
}

#[test]
fn partial_slabs_of_other_nodes_first_if_wanted() {
    partial_slabs_of_others_first();
}

/// A CPU on a node without memory counts the nearest with memory as its own: its frees are not
/// remote, and it fills its sheaves from there.
#[test]
fn a_node_without_memory_counts_the_nearest() {
    let memory = Memory::builder()
        .piece(node(0), 16 * MIB)
        .piece(node(2), 16 * MIB);
    let machine = Machine::builder()
        .cpus(3)
        .nodes(3)
        .distance(node(1), node(2), 12)
        .distance(node(1), node(0), 30);
    let world = World::new(machine, memory);
    let (cache, mm) = world.run(|slabs| (small_sheaves(slabs, "nearest"), slabs.mm()));
    world.machine.run_on_all(|cpu| {
        if Hosted::node_of(cpu) != node(1) {
            return;
        }
        let objects = take(cache, 2 * CAPACITY);
        let near = |object: &Object| node_of(mm, object) == node(2);
        assert!(objects.iter().all(near));
        let own = alloc_node(cache, Gfp::KERNEL, node(1)).expect("memory");
        assert!(near(&own));
        free(cache, own);
        give(cache, objects);
    });
    assert_eq!(count(&world, "free.remote"), 0);
    assert_eq!(count(&world, "alloc.refill"), 3, "9 objects, 4 at a time");
    world.run(|slabs| end(slabs, cache));
}
