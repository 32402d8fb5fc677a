//! Wrong frees: each is reported as what it is, names who did it, and changes nothing.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use mm::{
    Block, BlockKind, Gfp, Mm, Pfn, State, Use,
    frame::MAX_ORDER,
    hosted::{Memory, Reports},
    report::Kind,
};
use platform::{
    Platform,
    hosted::{Hosted, Machine},
};

use super::world::{Held, MIB, World, alloc, free, free_nolock, node, quiet, rounds, words};

/// 16 MiB, of which one is what boot left and one is reserved, behind a hole.
fn world() -> World {
    let memory = Memory::builder().node(14 * MIB).hole(MIB).more(2 * MIB);
    World::with(
        Machine::builder().cpus(2),
        memory,
        |blocks| {
            let last = blocks.last_mut().unwrap();
            let middle = Pfn(last.start.0.midpoint(last.end.0));
            let reserved = Block {
                start: middle,
                kind: BlockKind::Reserved,
                ..*last
            };
            *last = Block {
                end: middle,
                kind: BlockKind::Boot,
                ..*last
            };
            blocks.push(reserved);
        },
        |_| (),
    )
}

/// Frees what must not be freed, both ways; each time that is what is said, by this place in
/// the source, and no descriptor and no count has changed.
#[track_caller]
fn refused(mm: &Mm<Hosted>, kind: Kind, wrong: Held) {
    let place = std::panic::Location::caller();
    let before = (words(mm), quiet(mm));
    for nolock in [false, true] {
        if nolock {
            free_nolock(mm, wrong);
        } else {
            free(mm, wrong);
        }
        let said = Reports::here().expect(kind);
        assert_eq!(said.frame, Some(wrong.pfn), "{said}");
        let caller = said.caller.expect("a caller");
        assert!(caller.file().ends_with("wrong.rs"), "{said} ({place})");
        assert!(said.text.starts_with(kind.title()), "{said}");
        assert!(
            (words(mm), quiet(mm)) == before,
            "{kind:?} changed something ({place})"
        );
    }
}

#[test]
fn each_kind_of_wrong_free_is_told_apart() {
    let world = world();
    world.run(|mm| {
        for order in 0..=MAX_ORDER {
            let held = alloc(mm, Gfp::KERNEL, order, Use::Slab).unwrap();
            let others = (0..=MAX_ORDER + 2).filter(|other| *other != order);
            for order in others {
                refused(mm, Kind::WrongOrder, Held { order, ..held });
            }
            for usage in Use::ALL.into_iter().filter(|usage| *usage != Use::Slab) {
                refused(mm, Kind::WrongUse, Held { usage, ..held });
            }
            for number in [1, (1 << order) - 1] {
                if order > 0 {
                    let pfn = held.pfn.add(number);
                    refused(mm, Kind::NotHead, Held { pfn, ..held });
                    refused(
                        mm,
                        Kind::NotHead,
                        Held {
                            pfn,
                            order: 0,
                            ..held
                        },
                    );
                }
            }
            // It is still ours: it can be freed, once.
            free(mm, held);
            refused(mm, Kind::DoubleFree, held);
            let state = mm.frames().get(held.pfn).unwrap().word().state();
            // Small ones are in a list by now, large ones in the zone.
            assert_eq!(state == State::Listed, order <= 3, "{state:?}");
            mm.drain_all();
        }
        mm.audit().unwrap();
    });
    world.assert_all_back();
}

/// Also when it has become a part of a larger free block.
#[test]
fn a_double_free_is_one_after_merging_too() {
    let world = world();
    world.run(|mm| {
        let blocks = [(); 64].map(|()| alloc(mm, Gfp::KERNEL, 4, Use::Slab).unwrap());
        blocks.iter().for_each(|held| free(mm, *held));
        let mut merged = 0;
        for held in blocks {
            let word = mm.frames().get(held.pfn).unwrap().word();
            merged += usize::from(word.state() == State::Tail);
            refused(mm, Kind::DoubleFree, held);
        }
        assert!(merged > 32, "{merged} are parts of larger blocks");
    });
    world.assert_all_back();
}

#[test]
fn what_was_never_allocated_is_foreign() {
    let world = world();
    world.run(|mm| {
        let pieces = world.memory.pieces();
        let at = |address| Held {
            pfn: Pfn::of_phys(address).unwrap(),
            order: 0,
            usage: Use::Pages,
        };
        let boot = pieces[1].region.start();
        for (state, address) in [
            (State::Hole, 0),
            (State::Hole, pieces[0].region.end()),
            (State::Boot, boot),
            (State::Reserved, boot + MIB),
        ] {
            let word = mm.frames().get(at(address).pfn).unwrap().word();
            assert_eq!(word.state(), state);
            refused(mm, Kind::Foreign, at(address));
        }
        let end = mm.frames().end();
        for pfn in [end, Pfn(u32::MAX - 1), Pfn(u32::MAX)] {
            refused(mm, Kind::Foreign, Held { pfn, ..at(0) });
        }
        // A free block that was never handed out.
        refused(mm, Kind::DoubleFree, at(pieces[0].region.start()));
    });
    world.assert_all_back();
}

/// What boot gave back is memory like any other.
#[test]
fn boot_memory_is_freed_once() {
    let world = world();
    world.run(|mm| {
        let boot = world.memory.pieces()[1].region.start();
        let (start, end) = (
            Pfn::of_phys(boot).unwrap(),
            Pfn::of_phys(boot + MIB).unwrap(),
        );
        let before = mm.counts();
        // SAFETY: nobody uses it.
        unsafe { mm.free_boot(start, end) };
        let after = mm.counts();
        assert_eq!(after.managed, before.managed + 256);
        assert_eq!(after.free, before.free + 256);
        let (head, word) = mm.frames().head_of(start.add(17)).unwrap();
        assert_eq!((head, word.state(), word.order()), (start, State::Free, 8));
        mm.audit().unwrap();
        // SAFETY: refused, since it is no boot memory any more.
        let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unsafe {
            mm.free_boot(start, end);
        }));
        assert!(again.is_err());
    });
}

/// Where two CPUs wait for each other. Unlike those of the host it ends if one of them fails.
#[derive(Default)]
struct Meeting(AtomicUsize);

impl Meeting {
    fn wait(&self) {
        let both = (self.0.fetch_add(1, SeqCst) / 2 + 1) * 2;
        while self.0.load(SeqCst) < both {
            Hosted::relax();
        }
    }
}

/// Two CPUs free the same block at the same time: one succeeds, one is reported.
#[test]
fn of_two_frees_at_once_one_is_reported() {
    let world = world();
    let rounds = rounds(20_000, 400);
    for order in [0, 2, 5] {
        let (begin, end) = (Meeting::default(), Meeting::default());
        let shared = std::sync::Mutex::new(None);
        world.run_on_all(|mm, cpu| {
            for round in 0..rounds {
                if cpu.index() == 0 {
                    *shared.lock().unwrap() = alloc(mm, Gfp::KERNEL, order, Use::Pages);
                }
                begin.wait();
                let held = shared.lock().unwrap().unwrap();
                if round % 2 == 0 {
                    free(mm, held);
                } else {
                    free_nolock(mm, held);
                }
                end.wait();
                if cpu.index() == 0 {
                    let said = Reports::here().take();
                    assert_eq!(said.len(), 1, "{said:?}");
                    // While the first one's block is being merged it looks like a part.
                    let kind = said[0].kind;
                    assert!(matches!(kind, Kind::DoubleFree | Kind::NotHead), "{said:?}");
                }
            }
        });
        world.assert_all_back();
    }
}

/// A descriptor that somebody wrote to is noticed when its block is next used, and the block
/// is kept out of use.
#[test]
fn damaged_descriptors_are_noticed() {
    let world = world();
    world.run(|mm| {
        let held = alloc(mm, Gfp::KERNEL, 0, Use::Pages).unwrap();
        let frame = mm.frames().get(held.pfn).unwrap();
        let word: *const u32 = std::ptr::from_ref(frame).cast();
        // SAFETY: the descriptor's first word; nobody else looks at it now.
        unsafe { word.cast_mut().write(0xff) };
        free(mm, held);
        let said = Reports::here().take();
        assert_eq!(said.len(), 1, "{said:?}");
        assert_ne!(said[0].kind, Kind::DoubleFree, "{said:?}");
        // SAFETY: as above.
        let now = unsafe { word.read() };
        assert_eq!(now, 0xff, "what is damaged is left as it is");
        let next: Vec<_> = (0..64)
            .map(|_| alloc(mm, Gfp::KERNEL, 0, Use::Pages).unwrap())
            .collect();
        assert!(next.iter().all(|other| other.pfn != held.pfn));
        next.into_iter().for_each(|held| free(mm, held));
        assert_eq!(mm.nodes().count(), node(0).index() + 1);
    });
}
