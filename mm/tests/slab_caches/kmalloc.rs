//! The kmalloc family.

use core::{alloc::Layout, ptr::NonNull};

use mm::{
    Gfp, Use,
    frame::{MAX_ORDER, PAGE_SIZE},
    hosted::Memory,
    report::Kind,
    slab::{
        Slabs, Spec, ZERO_SIZE,
        kmalloc::{
            MAX_CACHED, SIZES,
            size::{NAMES, align_of, class_of},
        },
    },
    vmalloc::Vmalloc,
};
use platform::{
    NodeId,
    hosted::{Hosted, Machine},
};

use crate::world::{MIB, World};

const BLOCK: usize = PAGE_SIZE << MAX_ORDER;

fn is_aligned(memory: NonNull<u8>, align: usize) -> bool {
    memory.addr().get().is_multiple_of(align)
}

/// Bytes of a kind.
fn fill(memory: NonNull<u8>, size: usize, byte: u8) {
    // SAFETY: the test's, and so large.
    unsafe { memory.write_bytes(byte, size) };
}

fn all(memory: NonNull<u8>, size: usize, byte: u8) -> bool {
    // SAFETY: the test's, written to, and so large.
    let bytes = unsafe { core::slice::from_raw_parts(memory.as_ptr(), size) };
    bytes.iter().all(|found| *found == byte)
}

fn free(slabs: &Slabs<Hosted>, memory: NonNull<u8>) {
    // SAFETY: the test's, and not used any more.
    unsafe { slabs.kfree(memory) };
}

/// Every size up to twice the largest cache: from the right place, aligned, its own, and its ksize says so.
#[test]
fn every_size_comes_from_its_cache_or_from_pages() {
    let world = World::small();
    world.run(|slabs| {
        for size in (1..=2 * MAX_CACHED)
            .step_by(7)
            .chain(SIZES)
            .chain([8193, 65_536])
        {
            let memory = slabs.kmalloc(size, Gfp::KERNEL).unwrap();
            // SAFETY: the test's.
            let usable = unsafe { slabs.ksize(memory) };
            match class_of(size) {
                Some(class) => {
                    assert_eq!(usable, SIZES[class], "{size}");
                    assert!(is_aligned(memory, align_of(class)), "{size}");
                    let name = slabs.kmalloc_cache(size).unwrap().name();
                    assert_eq!(name.as_str(), NAMES[class]);
                }
                None => {
                    assert_eq!(usable, size.next_power_of_two(), "{size}");
                    assert!(is_aligned(memory, usable), "{size}");
                }
            }
            fill(memory, usable, 0xa5);
            free(slabs, memory);
        }
    });
}

#[test]
fn nothing_is_a_pointer_that_may_be_freed() {
    let world = World::small();
    world.run(|slabs| {
        for memory in [
            slabs.kmalloc(0, Gfp::KERNEL),
            slabs.kzalloc(0, Gfp::ATOMIC),
            slabs.kcalloc(0, 8, Gfp::KERNEL),
            slabs.kmalloc_array(usize::MAX, 0, Gfp::KERNEL),
            slabs.kmalloc_node(0, Gfp::KERNEL, NodeId::FIRST),
            slabs.kmalloc_nolock(0, Gfp::NOLOCK, None),
        ] {
            assert_eq!(memory, Some(ZERO_SIZE));
        }
        // SAFETY: that may be done with it.
        unsafe {
            assert_eq!(slabs.ksize(ZERO_SIZE), 0);
            slabs.kfree(ZERO_SIZE);
            slabs.kfree_nolock(ZERO_SIZE);
            assert_eq!(
                slabs.krealloc(Some(ZERO_SIZE), 0, Gfp::KERNEL),
                Some(ZERO_SIZE)
            );
            let memory = slabs
                .krealloc(Some(ZERO_SIZE), 10, Gfp::KERNEL | Gfp::ZERO)
                .unwrap();
            assert!(all(memory, 10, 0));
            assert_eq!(
                slabs.krealloc(Some(memory), 0, Gfp::KERNEL),
                Some(ZERO_SIZE)
            );
        }
    });
}

#[test]
fn products_that_are_no_number_and_sizes_beyond_all_blocks_fail() {
    let world = World::small();
    world.run(|slabs| {
        for (count, size) in [(usize::MAX, 2), (1 << 33, 1 << 33), (3, usize::MAX / 2)] {
            assert_eq!(slabs.kmalloc_array(count, size, Gfp::KERNEL), None);
            assert_eq!(slabs.kcalloc(count, size, Gfp::KERNEL), None);
        }
    });
    assert_eq!(
        world.take_reports(Kind::OutOfMemory),
        0,
        "no such size was asked for"
    );
    world.run(|slabs| {
        for size in [BLOCK + 1, 1 << 40, usize::MAX] {
            assert_eq!(slabs.kmalloc(size, Gfp::KERNEL | Gfp::NOWARN), None);
            assert_eq!(slabs.kmalloc(size, Gfp::KERNEL), None);
        }
    });
    assert_eq!(world.take_reports(Kind::OutOfMemory), 3);
    world.run(|slabs| {
        let memory = slabs.kmalloc(BLOCK, Gfp::KERNEL).unwrap();
        free(slabs, memory);
    });
}

#[test]
fn zeros_are_zeros_of_every_size() {
    let world = World::small();
    world.run(|slabs| {
        for size in [1, 8, 100, 192, 1000, 8192, 9000, 70_000] {
            let dirty = slabs.kmalloc(size, Gfp::KERNEL).unwrap();
            fill(dirty, size, 0xff);
            free(slabs, dirty);
            for memory in [
                slabs.kzalloc(size, Gfp::KERNEL),
                slabs.kcalloc(1, size, Gfp::ATOMIC),
                slabs.kmalloc_node(size, Gfp::KERNEL | Gfp::ZERO, NodeId::FIRST),
            ] {
                let memory = memory.unwrap();
                assert!(all(memory, size, 0), "{size}");
                fill(memory, size, 0xff);
                free(slabs, memory);
            }
            if let Some(memory) = slabs.kmalloc_nolock(size, Gfp::ZERO, None) {
                assert!(all(memory, size, 0), "{size}, in any context");
                free(slabs, memory);
            }
        }
    });
}

/// Large ones count as what they are.
#[test]
fn what_comes_straight_from_pages_is_counted() {
    let world = World::small();
    world.run(|slabs| {
        let counted = || world.mm().counts().used[Use::Kmalloc as usize];
        assert_eq!(counted(), 0);
        let first = slabs.kmalloc(MAX_CACHED + 1, Gfp::KERNEL).unwrap();
        assert_eq!(counted(), 4);
        let second = slabs.kmalloc(100_000, Gfp::KERNEL).unwrap();
        assert_eq!(counted(), 4 + 32);
        free(slabs, first);
        // SAFETY: the test's.
        unsafe { slabs.kfree_nolock(second) };
        assert_eq!(counted(), 0);
    });
}

#[test]
fn a_node_that_is_asked_for_is_the_memory_s() {
    let world = World::small();
    world.run(|slabs| {
        for node in world.mm().nodes().iter() {
            for size in [64, 4096, 20_000] {
                let gfp = Gfp::KERNEL | Gfp::THISNODE;
                let memory = slabs.kmalloc_node(size, gfp, node).unwrap();
                let frames = world.mm().frames();
                let pfn = frames.pfn_of_address(memory.addr().get()).unwrap();
                assert_eq!(frames.get(pfn).unwrap().word().zone().node(), node);
                free(slabs, memory);
            }
        }
    });
}

/// In place as long as the class or the order is the same, else moved, with its content.
#[test]
fn krealloc_stays_where_it_fits_and_keeps_the_content() {
    let world = World::small();
    world.run(|slabs| {
        let sizes = [
            1, 8, 9, 60, 64, 65, 96, 97, 130, 192, 193, 256, 8192, 8193, 16_384, 16_385, 50_000,
        ];
        for from in sizes {
            for to in sizes {
                let old = slabs.kmalloc(from, Gfp::KERNEL).unwrap();
                fill(old, from, 7);
                // SAFETY: the test's.
                let new = unsafe { slabs.krealloc(Some(old), to, Gfp::KERNEL) }.unwrap();
                assert!(all(new, from.min(to), 7), "{from} to {to}");
                let order = |size: usize| size.div_ceil(PAGE_SIZE).next_power_of_two();
                let same = match (class_of(from), class_of(to)) {
                    (Some(from), Some(to)) => from == to,
                    (None, None) => order(from) == order(to),
                    _ => false,
                };
                assert_eq!(new == old, same, "{from} to {to}");
                free(slabs, new);
            }
        }
        // SAFETY: none is given.
        let fresh = unsafe { slabs.krealloc(None, 100, Gfp::KERNEL | Gfp::ZERO) }.unwrap();
        assert!(all(fresh, 100, 0));
        free(slabs, fresh);
    });
}

/// If all calls ask for zeros, what was not asked for before is zero.
#[test]
fn krealloc_with_zeros_gives_zeros_for_what_is_new() {
    let world = World::small();
    world.run(|slabs| {
        let gfp = Gfp::KERNEL | Gfp::ZERO;
        let dirty = slabs.kmalloc(64, Gfp::KERNEL).unwrap();
        fill(dirty, 64, 0xff);
        free(slabs, dirty);
        for steps in [
            &[40, 20, 64][..],
            &[48, 33, 60, 34, 64],
            &[64, 1, 64, 200, 130, 192],
            &[9000, 8500, 16_000],
        ] {
            let mut memory = slabs.kmalloc(steps[0], gfp).unwrap();
            for pair in steps.windows(2) {
                fill(memory, pair[0], 0xee);
                // SAFETY: the test's.
                memory = unsafe { slabs.krealloc(Some(memory), pair[1], gfp) }.unwrap();
                let kept = pair[0].min(pair[1]);
                assert!(all(memory, kept, 0xee), "{steps:?}");
                // SAFETY: of the same memory.
                let new = unsafe { memory.add(kept) };
                assert!(all(new, pair[1] - kept, 0), "{steps:?} at {pair:?}");
            }
            free(slabs, memory);
        }
    });
}

#[test]
fn krealloc_without_memory_changes_nothing() {
    let world = World::small();
    let old = world.run(|slabs| {
        let old = slabs.kmalloc(64, Gfp::KERNEL).unwrap();
        fill(old, 64, 3);
        old
    });
    world.fail_pages(Some(0));
    world.run(|slabs| {
        // SAFETY: the test's.
        let new = unsafe { slabs.krealloc(Some(old), 20_000, Gfp::KERNEL | Gfp::NOWARN) };
        assert_eq!(new, None);
        assert!(all(old, 64, 3));
        free(slabs, old);
    });
    world.fail_pages(None);
}

/// Each layout that there may be.
#[test]
fn layouts_are_aligned_as_they_say() {
    World::small().run(check_layouts);
}

/// Also where there are red zones before objects.
#[test]
fn layouts_are_aligned_with_red_zones() {
    let memory = Memory::builder().node(32 * MIB);
    let world = World::asleep(Machine::builder().cpus(2), memory);
    world.run(|slabs| {
        slabs.debug().set_slub_debug("Z").unwrap();
        // SAFETY: once.
        unsafe { slabs.start() }.unwrap();
        check_layouts(slabs);
    });
}

fn check_layouts(slabs: &Slabs<Hosted>) {
    for shift in 0..=20 {
        let align = 1_usize << shift;
        for size in [0, 1, 8, 33, 90, 100, 129, 180, 3000, 5000, 8192, 9000] {
            let layout = Layout::from_size_align(size, align).unwrap();
            let memory = slabs.alloc_layout(layout, Gfp::KERNEL).unwrap();
            if size == 0 {
                assert_eq!(memory, ZERO_SIZE);
                continue;
            }
            assert!(is_aligned(memory, align), "{layout:?}");
            fill(memory, size, 5);
            let larger = size * 3;
            // SAFETY: the test's.
            let moved = unsafe { slabs.realloc_layout(memory, layout, larger, Gfp::KERNEL) };
            let moved = moved.unwrap();
            assert!(is_aligned(moved, align), "{layout:?}");
            assert!(all(moved, size, 5));
            let layout = Layout::from_size_align(larger, align).unwrap();
            // SAFETY: the test's.
            let back = unsafe { slabs.realloc_layout(moved, layout, size, Gfp::KERNEL) };
            let back = back.unwrap();
            assert!(is_aligned(back, align) && all(back, size, 5));
            free(slabs, back);
        }
    }
    let layout = Layout::from_size_align(1, 2 * BLOCK).unwrap();
    assert_eq!(slabs.alloc_layout(layout, Gfp::KERNEL | Gfp::NOWARN), None);
}

/// Where the right cache has nothing `kmalloc_nolock` takes the next one that is aligned as well: not kmalloc-96 for
/// 64 bytes.
#[test]
fn nolock_takes_the_next_cache_that_is_aligned_as_well() {
    let memory = Memory::builder().node(16 * MIB);
    let world = World::new(Machine::builder(), memory);
    world.run(|slabs| {
        let no_pages = |percent| {
            world.mm().debug().faults(|page| {
                page.set("min-order", "0").unwrap();
                page.set("ignore-gfp-wait", "0").unwrap();
                page.attr.configure(&mm::fault::Knobs {
                    probability: percent,
                    times: -1,
                    ..mm::fault::Knobs::OFF
                });
            });
        };
        // The next two classes of each have some at hand.
        for size in SIZES {
            let held = [(); 4].map(|()| slabs.kmalloc(size, Gfp::KERNEL).unwrap());
            held.into_iter().for_each(|memory| free(slabs, memory));
        }
        for (size, next) in [(8, 16), (64, 128), (128, 256), (60, 96), (192, 256)] {
            no_pages(100);
            let layout = Layout::from_size_align(size, 1 << size.trailing_zeros()).unwrap();
            let take = || slabs.alloc_layout_nolock(layout, Gfp::empty());
            let held: Vec<_> = core::iter::from_fn(take).collect();
            no_pages(0);
            // SAFETY: the test's.
            let sizes = held.iter().map(|memory| unsafe { slabs.ksize(*memory) });
            let sizes: std::collections::BTreeSet<usize> = sizes.collect();
            let right = SIZES[class_of(size).unwrap()];
            assert!(sizes.iter().eq(&[right, next]), "{size}: {sizes:?}");
            for memory in held {
                assert!(is_aligned(memory, layout.align()), "{size}: {memory:?}");
                free(slabs, memory);
            }
        }
    });
}

/// What is not kmalloc's is refused with a report; objects of any cache are taken.
#[test]
fn wrong_addresses_are_reported_and_others_freed() {
    let world = World::small();
    world.run(|slabs| {
        let spec = Spec::new("any", 360);
        let cache = slabs.create(&spec).unwrap();
        let object = cache.alloc(Gfp::KERNEL).unwrap();
        free(slabs, object);
        // SAFETY: the test's, and not used any more.
        unsafe { slabs.destroy(cache) }.unwrap();
        let page = world.mm().alloc_pages(Gfp::KERNEL, 1, Use::Pages).unwrap();
        let large = slabs.kmalloc(20_000, Gfp::KERNEL).unwrap();
        let address = |pfn| NonNull::new(world.mm().frames().address_of(pfn)).unwrap();
        let on_the_stack = 0_u64;
        let wrong = [
            // Pages of somebody else; inside of a large one; what is no memory of the machine.
            address(page),
            // SAFETY: within it.
            unsafe { large.add(PAGE_SIZE) },
            // SAFETY: as above.
            unsafe { large.add(8) },
            NonNull::from(&on_the_stack).cast(),
            NonNull::without_provenance(core::num::NonZero::new(8).unwrap()),
        ];
        for memory in wrong {
            // SAFETY: it is refused.
            unsafe {
                slabs.kfree(memory);
                slabs.kfree_nolock(memory);
                assert_eq!(slabs.ksize(memory), 0);
                assert_eq!(slabs.krealloc(Some(memory), 10, Gfp::KERNEL), None);
            }
        }
        free(slabs, large);
        // SAFETY: the test's.
        unsafe { world.mm().free_pages(page, 1, Use::Pages) };
    });
    assert_eq!(world.take_reports(Kind::BadKmallocAddress), 5 * 4);
}

#[test]
fn kvmalloc_takes_what_is_adjacent_only_in_the_address_space_where_it_must() {
    let memory = Memory::builder().node(16 * MIB);
    let world = World::new(Machine::builder().cpus(2), memory);
    world.run(|slabs| {
        let layout = world.mm().layout();
        let vmalloc = Vmalloc::<Hosted, _>::new(layout, world.mm(), 0, || ()).unwrap();
        let is_virtual = |memory: NonNull<u8>| vmalloc.is_vmalloc(memory.addr().get());
        for size in [0, 100, 5000, 20_000, 2 * BLOCK] {
            let memory = slabs.kvmalloc(&vmalloc, size, Gfp::KERNEL).unwrap();
            assert_eq!(is_virtual(memory), size > BLOCK, "{size}");
            if size > 0 {
                fill(memory, size, 1);
            }
            // SAFETY: the test's.
            unsafe { slabs.kvfree(&vmalloc, memory) };
        }
        // Without blocks of several pages.
        world.mm().debug().faults(|page| {
            page.set("min-order", "1").unwrap();
            page.set("ignore-gfp-wait", "0").unwrap();
            page.attr.configure(&mm::fault::Knobs {
                probability: 100,
                times: -1,
                ..mm::fault::Knobs::OFF
            });
        });
        let memory = slabs
            .kvmalloc(&vmalloc, 20_000, Gfp::KERNEL | Gfp::ZERO)
            .unwrap();
        assert!(is_virtual(memory) && all(memory, 20_000, 0));
        assert_eq!(
            slabs.kvmalloc(&vmalloc, 20_000, Gfp::ATOMIC | Gfp::NOWARN),
            None
        );
        world
            .mm()
            .debug()
            .faults(|page| page.attr.configure(&mm::fault::Knobs::OFF));
        // SAFETY: the test's.
        unsafe { slabs.kvfree(&vmalloc, memory) };
    });
}
