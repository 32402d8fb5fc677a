//! Whose an address is.

use std::ptr::NonNull;

use mm::{
    Gfp,
    slab::{Flags, Slabs, Spec},
};
use platform::hosted::Hosted;

use crate::{
    cache, lone,
    world::{free, take},
};

/// What is said of an address.
fn whatis(slabs: &Slabs<Hosted>, address: usize) -> String {
    // SAFETY: the caller's thread is the only one.
    unsafe { slabs.whatis(address) }.to_string()
}

fn of(slabs: &Slabs<Hosted>, object: NonNull<u8>, offset: usize) -> String {
    whatis(slabs, object.addr().get() + offset)
}

/// The last line: the object's state.
pub fn state(slabs: &Slabs<Hosted>, object: NonNull<u8>) -> String {
    of(slabs, object, 0).lines().last().unwrap().to_string()
}

#[test]
fn an_object_is_named_with_its_cache_slab_and_state() {
    lone().run(|slabs| {
        let cache = cache(slabs, "sought", 64);
        let objects = take(cache, 3);
        let object = objects[0];
        let slab = slabs
            .mm()
            .frames()
            .pfn_of_address(object.addr().get())
            .unwrap();
        let index = (object.addr().get() & 0xfff) / 64;
        let expected = format!(
            "byte 5 of object {index} ({:#x}, 64 bytes) of cache sought\n\
             slab {slab} of order 0 on node 0: 62 of 64 in use, partial\nallocated",
            object.addr()
        );
        assert_eq!(of(slabs, object, 5), expected);
        free(cache, vec![object]);
        assert_eq!(state(slabs, object), "free: in the main sheaf of cpu0");
        cache.shrink();
        assert_eq!(state(slabs, object), "free: on its slab's freelist");
        free(cache, objects[1..].to_vec());
    });
}

#[test]
fn sheaves_are_told_apart() {
    lone().run(|slabs| {
        let cache = cache(slabs, "sought", 64);
        let objects = take(cache, 62 * 3);
        cache.shrink();
        free(cache, objects.clone());
        // The first ones fill a sheaf, the next ones another, and so on.
        let states = [0, 62, 124].map(|index| state(slabs, objects[index]));
        let expected = [
            "free: in the spare sheaf of cpu0",
            "free: in the barn of node 0, in a full sheaf",
            "free: in the main sheaf of cpu0",
        ];
        assert_eq!(states, expected);
    });
}

#[test]
fn parts_of_a_debugged_object_are_told_apart() {
    lone().run(|slabs| {
        let all = Flags::RED_ZONE | Flags::POISON | Flags::STORE_USER;
        let spec = Spec::new("debugged", 40).flags(all);
        let cache = slabs.create(&spec).unwrap();
        let objects = take(cache, 1);
        let (object, layout) = (objects[0], *cache.layout());
        let part = |offset: isize| {
            let text = whatis(slabs, object.addr().get().wrapping_add_signed(offset));
            text.split(" of object").next().unwrap().to_string()
        };
        assert_eq!(part(0), "byte 0");
        assert_eq!(part(39), "byte 39");
        assert_eq!(part(-1), "left red zone");
        assert_eq!(part(layout.usable as isize), "right red zone");
        assert_eq!(part(layout.link as isize + 7), "link");
        assert_eq!(part(layout.tracks as isize), "tracks");
        let text = of(slabs, object, 0);
        assert!(
            text.contains("\nallocated\n  allocated at mm/tests/slab_walk/"),
            "{text}"
        );
        free(cache, objects);
        let text = of(slabs, object, 0);
        assert!(text.contains("\nfree: on its slab's freelist\n"), "{text}");
        assert!(text.contains("\n  freed at mm/tests/"), "{text}");
        assert!(
            text.contains(" by thread ") && !text.ends_with('\n'),
            "{text}"
        );
        // SAFETY: not used any more.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}

#[test]
fn what_is_no_object_is_named_too() {
    lone().run(|slabs| {
        assert_eq!(whatis(slabs, 0), "no memory of the direct map");
        assert_eq!(whatis(slabs, usize::MAX), "no memory of the direct map");
        let large = slabs.kmalloc(100_000, Gfp::KERNEL).unwrap();
        let head = slabs
            .mm()
            .frames()
            .pfn_of_address(large.addr().get())
            .unwrap();
        assert_eq!(
            of(slabs, large, 0x3000),
            format!(
                "page {} of a block of order 5 from frame {head}: large kmalloc",
                head.add(3)
            )
        );
        // SAFETY: allocated above.
        unsafe { slabs.kfree(large) };
        assert!(of(slabs, large, 0).ends_with("free") || of(slabs, large, 0).contains("free ("));
        let cache = cache(slabs, "odd", 1000);
        let objects = take(cache, 1);
        let base = objects[0].addr().get() & !0xfff;
        let slab = usize::from(cache.layout().order);
        let base = base & !((4096 << slab) - 1);
        let behind = base + usize::from(cache.layout().objects) * cache.layout().size as usize;
        if behind < base + (4096 << slab) {
            assert!(whatis(slabs, behind).starts_with("behind the last object of cache odd\n"));
        }
        free(cache, objects);
    });
}
