//! From an address to its frame, to its zone and node, and back.

use mm::{
    Gfp, Pfn, State, Use,
    frame::{MAX_ORDER, PAGE_SIZE},
    hosted::Memory,
    zone::ZoneKind,
};
use platform::hosted::Machine;

use super::world::{LINE, MIB, World, alloc, free, node, zone_of};

/// Every page of the map: address to frame to node and back; what is no memory says so.
#[test]
fn every_page_is_found_from_its_address() {
    let memory = Memory::builder()
        .start(3 * MIB)
        .node(5 * MIB + 3 * 4096)
        .hole(7 * 4096)
        .piece(node(2), 9 * MIB)
        .start(LINE - 4 * MIB)
        .piece(node(1), 8 * MIB)
        .hole(MIB)
        .piece(node(0), 2 * MIB);
    let machine = Machine::builder().cpus(3).nodes(3);
    let world = World::new(machine, memory);
    world.run(|mm| {
        let frames = mm.frames();
        let mut of_node = [0_u64; 3];
        for number in 0..frames.end().0 {
            let pfn = Pfn(number);
            let piece = world.memory.pieces().iter();
            let piece = piece
                .clone()
                .find(|piece| piece.region.contains(pfn.phys()));
            let address = frames.address_of(pfn).addr();
            for inside in [0, 1, PAGE_SIZE - 1] {
                assert_eq!(frames.pfn_of_address(address + inside), Some(pfn));
            }
            let frame = frames.get(pfn).expect("below the end");
            assert_eq!(frames.pfn_of(frame), pfn);
            let Some(piece) = piece else {
                assert_eq!(frame.word().state(), State::Hole, "{pfn}");
                assert_eq!(frames.head_of(pfn), None);
                continue;
            };
            let zone = zone_of(mm, pfn);
            assert_eq!(
                (zone.node(), zone.kind()),
                (piece.node, ZoneKind::of(pfn)),
                "{pfn}"
            );
            let (head, word) = frames.head_of(pfn).expect("memory has a head");
            assert_eq!(word.state(), State::Free);
            assert!(
                head <= pfn && pfn.0 < head.0 + (1 << word.order()),
                "{pfn} of {head}"
            );
            of_node[zone.node().index()] += 1;
        }
        assert!(frames.get(frames.end()).is_none());
        assert_eq!(
            frames.pfn_of_address(frames.address_of(frames.end()).addr()),
            None
        );
        for (index, &frames) in of_node.iter().enumerate() {
            let counts = mm.node_counts(node(index));
            assert_eq!(
                (counts.present, counts.managed, counts.free),
                (frames, frames, frames)
            );
        }
    });
}

/// Every frame of a used block leads to its head, whatever lies beside it.
#[test]
fn tails_lead_to_their_head() {
    let world = World::new(Machine::builder(), Memory::builder().node(32 * MIB));
    world.run(|mm| {
        for order in 0..=MAX_ORDER {
            let held = alloc(mm, Gfp::KERNEL, order, Use::Slab).unwrap();
            let neighbour = alloc(mm, Gfp::KERNEL, 0, Use::Pages).unwrap();
            for number in 0..1 << order {
                let (head, word) = mm.frames().head_of(held.pfn.add(number)).unwrap();
                assert_eq!(head, held.pfn);
                assert_eq!(
                    (word.state(), word.order()),
                    (State::Used(Use::Slab), order)
                );
            }
            free(mm, neighbour);
            free(mm, held);
        }
    });
    world.assert_all_back();
}
