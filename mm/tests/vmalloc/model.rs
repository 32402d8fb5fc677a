//! Random sequences against a simple model.

use mm::{
    Gfp,
    frame::PAGE_SIZE,
    hosted::{Fault, Reports},
    report::Kind,
    vmalloc::{Error, Request},
};
use platform::CpuId;
use proptest::prelude::*;

use crate::world::{Area, Shape, World, claim_frames, run};

#[derive(Clone, Debug)]
enum Step {
    Alloc {
        bytes: usize,
        align_pages: u32,
        below: u32,
        above: u32,
    },
    Free(usize),
    Map(usize),
    Purge,
    /// A CPU reads an area.
    Touch(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..40 * PAGE_SIZE, 0..6u32, 0..3u32, 0..3u32).prop_map(
            |(bytes, align_pages, below, above)| Step::Alloc { bytes, align_pages, below, above }
        ),
        4 => any::<usize>().prop_map(Step::Free),
        1 => (1..20usize).prop_map(Step::Map),
        1 => Just(Step::Purge),
        4 => (any::<usize>(), any::<usize>()).prop_map(|(area, cpu)| Step::Touch(area, cpu)),
    ];
    proptest::collection::vec(step, 1..120)
}

/// What the model knows of an area.
struct Known<'v, 'm> {
    area: Area<'v, 'm>,
    mark: u8,
}

fn bytes<'a>(area: &'a Area<'_, '_>) -> &'a [u8] {
    // SAFETY: the test's own memory, mapped as long as the area lives, and not written to
    // while this is borrowed.
    unsafe { core::slice::from_raw_parts(area.address().as_ptr(), area.memory().len()) }
}

/// Guards are unmapped, and every page is that of the frame which the area names.
fn look(world: &World<'_>, known: &Known<'_, '_>, cpu: CpuId) {
    let (memory, range) = (known.area.memory(), known.area.range());
    let mut frames = known.area.frames();
    for page in range.step_by(PAGE_SIZE) {
        let seen = world.memory.access(cpu, page);
        if !memory.contains(&page) {
            assert_eq!(seen, Err(Fault), "guard page {page:#x}");
        } else if let Some(frame) = frames.next() {
            assert_eq!(seen, Ok(frame));
        }
    }
    assert!(bytes(&known.area).iter().all(|byte| *byte == known.mark));
}

fn follow(world: &World<'_>, steps: &[Step]) {
    let vmalloc = &world.vmalloc;
    let lent: Vec<_> = (0..20)
        .map(|_| {
            world
                .frames()
                .mm
                .alloc_pages(Gfp::KERNEL, 0, mm::Use::Pages)
        })
        .map(Option::unwrap)
        .collect();
    let mut areas: Vec<Known<'_, '_>> = Vec::new();
    let mut mark = 0u8;
    for step in steps {
        match step {
            Step::Alloc {
                bytes: size,
                align_pages,
                below,
                above,
            } => {
                let request = Request::new(*size, Gfp::KERNEL | Gfp::NOWARN)
                    .aligned(PAGE_SIZE << align_pages)
                    .guarded(*below, *above);
                match vmalloc.alloc(&request) {
                    Ok(area) => {
                        let range = area.range();
                        assert_eq!(range.start % request.align, 0);
                        assert_eq!(area.pages(), size.div_ceil(PAGE_SIZE));
                        assert_eq!(area.frames().count(), area.pages());
                        let guards = range.len() / PAGE_SIZE - area.pages();
                        assert_eq!(guards as u32, below + above);
                        for other in &areas {
                            let other = other.area.range();
                            assert!(range.end <= other.start || other.end <= range.start);
                        }
                        mark = mark.wrapping_add(1);
                        claim_frames(&area, world);
                        // SAFETY: as for `bytes`.
                        unsafe { area.address().write_bytes(mark, area.memory().len()) };
                        areas.push(Known { area, mark });
                    }
                    // Fragments may be too small; nothing else may be wrong.
                    Err(error) => assert_eq!(error, Error::NoSpace),
                }
            }
            Step::Free(which) if !areas.is_empty() => {
                let known = areas.swap_remove(which % areas.len());
                look(world, &known, CpuId::BOOT);
            }
            Step::Map(pages) => {
                let frames = &lent[..*pages];
                // SAFETY: the test's frames, used only through the area.
                let shown = unsafe { vmalloc.map(frames, mm::machine::Access::ReadWrite) };
                let Ok(area) = shown else {
                    assert_eq!(shown.unwrap_err(), Error::NoSpace);
                    Reports::here().expect(Kind::OutOfMemory);
                    continue;
                };
                for (index, frame) in frames.iter().enumerate() {
                    let at = area.memory().start + index * PAGE_SIZE;
                    assert_eq!(world.memory.access(CpuId::BOOT, at), Ok(*frame));
                }
                drop(area);
                assert_eq!(
                    world.memory.stale_pages(),
                    0,
                    "lent frames were not flushed"
                );
            }
            Step::Purge => {
                vmalloc.purge();
                assert_eq!(world.memory.stale_pages(), 0);
                assert_eq!(vmalloc.stats().lazy, 0);
            }
            Step::Touch(which, cpu) if !areas.is_empty() => {
                let cpu = CpuId::new((cpu % 2) as u32).unwrap();
                look(world, &areas[which % areas.len()], cpu);
            }
            Step::Free(_) | Step::Touch(..) => {}
        }
        vmalloc.check().unwrap();
        let stats = vmalloc.stats();
        assert_eq!(stats.areas, areas.len());
        let pages: usize = areas.iter().map(|known| known.area.pages()).sum();
        assert_eq!((stats.mapped, world.memory.mapped_pages()), (pages, pages));
        for known in &areas {
            let found = vmalloc.find_area(known.area.memory().end - 1).unwrap();
            assert_eq!(found.memory, known.area.memory());
        }
    }
    drop(areas);
    for pfn in lent {
        // SAFETY: allocated above.
        unsafe { world.frames().mm.free_pages(pfn, 0, mm::Use::Pages) };
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("GRANARY_CASES").map_or(30, |text| text.parse().unwrap()),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// No two areas overlap, guards are unmapped, contents stay, everything comes back.
    #[test]
    fn areas_against_a_model(steps in steps()) {
        let shape = Shape { range_pages: 256, lazy_limit: 50, ..Shape::default() };
        run(shape, |world| follow(world, &steps));
    }
}

/// Many areas at once: the tree stays balanced, pages of descriptors come and go.
#[test]
fn thousands_of_areas() {
    let shape = Shape {
        pages: 16384,
        range_pages: 16384,
        lazy_limit: 2000,
        ..Shape::default()
    };
    run(shape, |world| {
        let request = Request::new(1, Gfp::KERNEL);
        let mut areas: Vec<_> = (0..4000)
            .map(|_| world.vmalloc.alloc(&request).unwrap())
            .collect();
        world.vmalloc.check().unwrap();
        assert!(world.vmalloc.stats().descriptors > 100);
        // Every other one, so that nothing merges; then the rest, from the middle.
        let mut keep = false;
        areas.retain(|_| {
            keep = !keep;
            keep
        });
        world.vmalloc.purge();
        world.vmalloc.check().unwrap();
        // The lowest that fits is taken.
        let lowest = world.vmalloc.alloc(&request).unwrap();
        assert!(lowest.range().start < areas[1].range().start);
        drop(lowest);
        while !areas.is_empty() {
            areas.swap_remove(areas.len() / 2);
        }
    });
}

/// A hole that an aligned area left is used again for the like of it.
#[test]
fn aligned_holes_are_used_again() {
    run(Shape::default(), |world| {
        let vmalloc = &world.vmalloc;
        let stack = Request::new(8 * PAGE_SIZE, Gfp::KERNEL)
            .aligned(32 * PAGE_SIZE)
            .guarded(24, 0);
        // The range itself may begin anywhere, so an aligned area may waste its beginning.
        let mut stacks = Vec::new();
        while let Ok(area) = vmalloc.alloc(&Request {
            gfp: Gfp::KERNEL | Gfp::NOWARN,
            ..stack
        }) {
            stacks.push(area);
        }
        let starts: Vec<_> = stacks.iter().map(|area| area.range().start).collect();
        assert!(starts.len() >= 30);
        for turn in 0..starts.len() {
            let start = stacks.remove(turn).range().start;
            vmalloc.purge();
            let again = vmalloc.alloc(&stack).unwrap();
            assert_eq!(again.range().start, start);
            stacks.insert(turn, again);
        }
    });
}
