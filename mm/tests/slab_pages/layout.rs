//! How objects lie, for all sizes, alignments and flags.

use std::ptr::NonNull;

use mm::{
    frame::PAGE_SIZE,
    slab::{
        Flags, Spec,
        layout::{BadSpec, ObjectLayout, default_min_partial},
    },
};
use proptest::prelude::*;

fn nothing(_: NonNull<u8>) {}

/// What is asked for: size, alignment as a power of two, flags, a constructor.
fn specs() -> impl Strategy<Value = (usize, u32, Flags, bool)> {
    let size = prop_oneof![1..=600_usize, 1..=9000_usize, 1..=600_000_usize];
    let flags = any::<u32>()
        .prop_map(|bits| Flags::from_bits_truncate(bits) & (Flags::CALLERS | Flags::KMALLOC));
    (size, 0..=12_u32, flags, any::<bool>())
}

fn spec(size: usize, align: u32, constructor: bool) -> Spec<'static> {
    let spec = Spec::new("spec", size).align(1 << align);
    if constructor {
        spec.constructor(nothing)
    } else {
        spec
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Nothing overlaps, all is aligned, and a slab holds what it says.
    #[test]
    fn parts_do_not_overlap((size, align, flags, constructor) in specs(), cpus in 1..=64_usize) {
        let layout = ObjectLayout::new(&spec(size, align, constructor), flags, cpus);
        let layout = layout.unwrap();
        let at = |number: u32| number as usize;
        prop_assert_eq!(at(layout.object_size), size);
        prop_assert_eq!(at(layout.align), at(layout.align).next_power_of_two());
        prop_assert!(at(layout.align) >= 8.max(1 << align));
        prop_assert!(layout.size.is_multiple_of(layout.align));
        prop_assert!(layout.red_left.is_multiple_of(layout.align));
        // From one object's beginning to the left red zone of the next.
        let end = at(layout.size - layout.red_left);
        prop_assert!(size <= end && at(layout.usable) >= size && at(layout.usable) <= end);
        prop_assert!(layout.link.is_multiple_of(8) && at(layout.link) + 8 <= end);
        let keeps = constructor || flags.contains(Flags::TYPESAFE_BY_RCU)
            || flags.contains(Flags::POISON);
        if keeps {
            prop_assert!(at(layout.link) >= at(layout.usable));
        }
        if flags.contains(Flags::RED_ZONE) {
            prop_assert!(layout.red_left > 0);
            prop_assert_eq!(at(layout.usable), size);
            let behind = [at(layout.link), at(layout.tracks)];
            let red_end = behind.into_iter().filter(|part| *part >= size).min().unwrap_or(end);
            prop_assert!(red_end > size, "no right red zone");
        }
        if flags.intersects(Flags::DEBUG) {
            let bytes = mm::slab::debug::info::bytes_behind(flags);
            prop_assert!(layout.tracks.is_multiple_of(8));
            prop_assert!(at(layout.tracks) >= size && at(layout.tracks) + bytes <= end);
            prop_assert!(at(layout.link) + 8 <= at(layout.tracks));
        } else {
            prop_assert_eq!(layout.tracks, 0);
        }
    }

    /// Orders: as many objects as fit, no order in vain, and a bound for what is wasted.
    #[test]
    fn orders_bound_the_waste(
        (size, align, flags, constructor) in specs(),
        cpus in prop_oneof![1..=3_usize, 1..=64_usize],
    ) {
        let layout = ObjectLayout::new(&spec(size, align, constructor), flags, cpus).unwrap();
        let each = layout.size as usize;
        for (order, objects) in [
            (layout.order, layout.objects),
            (layout.min_order, layout.min_objects),
        ] {
            let bytes = PAGE_SIZE << order;
            prop_assert_eq!(usize::from(objects), bytes / each);
            prop_assert!(objects > 0);
            prop_assert!(bytes % each <= bytes / 2, "more than half is wasted");
            prop_assert_eq!(layout.objects_of(order.into()), usize::from(objects));
        }
        prop_assert!(layout.min_order <= layout.order);
        prop_assert!(layout.min_order == 0 || PAGE_SIZE << (layout.min_order - 1) < each);
        prop_assert!(layout.order <= 3 || layout.order == layout.min_order);
        // A lower order that is allowed and wastes less was not passed over.
        let bytes = PAGE_SIZE << layout.order;
        if layout.order <= 3 && bytes % each > bytes / 16 {
            let enough = usize::from(layout.objects);
            for order in layout.order + 1..=3 {
                let other = PAGE_SIZE << order;
                prop_assert!(other % each > other / 16, "order {order} wastes less, with {enough}");
            }
        }
    }

    /// Addresses in a slab and around it: an index exactly where an object begins.
    #[test]
    fn indexes_are_those_of_objects((size, align, flags, constructor) in specs()) {
        let layout = ObjectLayout::new(&spec(size, align, constructor), flags, 4).unwrap();
        let first = NonNull::new(std::ptr::without_provenance_mut::<u8>(0x7000_0000)).unwrap();
        let objects = usize::from(layout.objects);
        let each = layout.size as usize;
        let slab = PAGE_SIZE << layout.order;
        // All of the first page and of the last one, and what lies around.
        let last = slab - PAGE_SIZE;
        let distances = (0..PAGE_SIZE)
            .chain(last..slab)
            .chain([slab, slab + each, usize::MAX - each + 1]);
        for distance in distances.map(|distance| distance as isize) {
            let object = first.as_ptr().wrapping_offset(distance);
            let index = layout.index_at(first, NonNull::new(object).unwrap());
            let expected = (distance >= 0 && (distance as usize).is_multiple_of(each))
                .then_some(distance as usize / each)
                .filter(|index| *index < objects);
            prop_assert_eq!(Some(index).filter(|index| *index < objects), expected);
        }
    }
}

/// What cannot be is refused, and says why.
#[test]
fn bad_specs_are_refused() {
    let new = |spec: Spec<'_>, flags| ObjectLayout::new(&spec, flags, 1).map(|layout| layout.size);
    let plain = Flags::empty();
    assert_eq!(new(Spec::new("s", 0), plain), Err(BadSpec::NoBytes));
    let largest = 4 << 20;
    assert_eq!(new(Spec::new("s", largest), plain), Ok(4 << 20));
    for size in [largest + 1, usize::MAX] {
        assert_eq!(
            new(Spec::new("s", size), plain),
            Err(BadSpec::TooLarge(size))
        );
    }
    // It would fit, but for its red zones.
    let red = new(Spec::new("s", largest), Flags::RED_ZONE);
    assert_eq!(red, Err(BadSpec::TooLarge(largest)));
    for align in [3, 8192, usize::MAX] {
        assert_eq!(
            new(Spec::new("s", 8).align(align), plain),
            Err(BadSpec::Align(align))
        );
    }
    let needless = new(Spec::new("s", 64).free_pointer(0), plain);
    assert_eq!(needless, Err(BadSpec::NeedlessFreePointer));
    let typesafe = Flags::TYPESAFE_BY_RCU;
    for at in [4, 57, 64, usize::MAX] {
        let spec = Spec::new("s", 64).free_pointer(at);
        assert_eq!(new(spec, typesafe), Err(BadSpec::FreePointer(at)));
    }
    let fits = ObjectLayout::new(&Spec::new("s", 64).free_pointer(56), typesafe, 1).unwrap();
    assert_eq!((fits.link, fits.size), (56, 64));
}

/// Sizes that users meet.
#[test]
fn known_sizes() {
    let layout = |size, flags, cpus| {
        let spec = Spec::new("s", size).sheaf_capacity(0);
        ObjectLayout::new(&spec, flags, cpus).unwrap()
    };
    let plain = layout(256, Flags::empty(), 4);
    assert_eq!(
        (plain.size, plain.link, plain.order, plain.objects),
        (256, 128, 0, 16)
    );
    let lines = layout(40, Flags::HWCACHE_ALIGN, 4);
    assert_eq!((lines.size, lines.align), (64, 64));
    let halves = layout(20, Flags::HWCACHE_ALIGN, 4);
    assert_eq!((halves.size, halves.align), (32, 32));
    let typesafe = layout(64, Flags::TYPESAFE_BY_RCU, 4);
    assert_eq!((typesafe.size, typesafe.link), (72, 64));
    // 280 bytes of one page would be wasted, 136 of two.
    assert_eq!(layout(424, Flags::empty(), 1).order, 1);
    // 4 objects would do on a smaller machine.
    assert_eq!(layout(4096, Flags::empty(), 64).order, 3);
    // 5 pages go into 8; no lower order holds one.
    let large = layout(5 * 4096 * 2, Flags::empty(), 4);
    assert_eq!((large.order, large.min_order, large.objects), (4, 4, 1));
    // A slab has as many objects as a sheaf: 30 by default.
    let sheaves = ObjectLayout::new(&Spec::new("s", 256), Flags::empty(), 1).unwrap();
    assert_eq!((sheaves.order, sheaves.objects), (1, 32));
    assert_eq!(default_min_partial(0), 5);
    assert_eq!(default_min_partial(4096), 6);
    assert_eq!(default_min_partial(4 << 20), 10);
}
