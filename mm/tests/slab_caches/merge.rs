//! Which caches are one.

use core::ptr::NonNull;

use mm::{
    Gfp,
    slab::{Flags, KmemCache, Slabs, Spec},
};
use platform::hosted::Hosted;

use crate::world::World;

fn constructor(_: NonNull<u8>) {}

/// Whether `spec` is merged with `cache`; destroyed again.
#[track_caller]
fn merges(slabs: &Slabs<Hosted>, cache: &KmemCache<Hosted>, spec: &Spec<'_>) -> bool {
    let other = slabs.create(spec).unwrap();
    let same = core::ptr::eq(cache, other);
    let references = cache.references();
    // SAFETY: the test's, and not used any more.
    unsafe { slabs.destroy(other) }.unwrap();
    if same {
        assert_eq!(cache.references(), references - 1);
    }
    same
}

/// A size that no kmalloc cache is near.
const SIZE: usize = 360;

#[test]
fn caches_merge_when_objects_of_one_do_for_the_other_and_not_otherwise() {
    let world = World::small();
    world.run_with_rcu(|slabs, _| {
        let base = slabs.create(&Spec::new("base", SIZE)).unwrap();
        assert_eq!(base.layout().size as usize, SIZE);
        let like = Spec::new("like", SIZE);
        let smaller = |by: usize| Spec::new("like", SIZE - by);
        let merged = [
            like,
            // Rounded up to words it is the same size.
            smaller(7),
            like.align(8),
            like.flags(Flags::PANIC),
            like.sheaf_capacity(mm::slab::create::default_capacity(SIZE)),
        ];
        for spec in merged {
            assert!(merges(slabs, base, &spec), "{spec:?}");
        }
        let apart = [
            smaller(8),
            Spec::new("like", SIZE + 1),
            like.align(16),
            like.flags(Flags::NO_MERGE),
            like.flags(Flags::TYPESAFE_BY_RCU),
            like.flags(Flags::RECLAIM_ACCOUNT),
            like.constructor(constructor),
            like.sheaf_capacity(5),
            Spec {
                usercopy: Some((0, 8)),
                ..like
            },
        ];
        for spec in apart {
            assert!(!merges(slabs, base, &spec), "{spec:?}");
        }
        // SAFETY: the test's, and not used any more.
        unsafe { slabs.destroy(base) }.unwrap();
    });
}

/// The same with what may not merge standing there already.
#[test]
fn nothing_merges_with_a_cache_that_is_special() {
    let world = World::small();
    world.run_with_rcu(|slabs, _| {
        let plain = Spec::new("plain", SIZE);
        let base = Spec::new("base", SIZE);
        let special = [
            base.flags(Flags::NO_MERGE),
            base.flags(Flags::TYPESAFE_BY_RCU),
            base.flags(Flags::RECLAIM_ACCOUNT),
            base.constructor(constructor),
            base.sheaf_capacity(0),
            Spec {
                usercopy: Some((0, 8)),
                ..base
            },
        ];
        for spec in special {
            let cache = slabs.create(&spec).unwrap();
            assert!(!merges(slabs, cache, &plain), "{spec:?}");
            // SAFETY: the test's, and not used any more.
            unsafe { slabs.destroy(cache) }.unwrap();
        }
        slabs.set_merging(false);
        let cache = slabs.create(&base).unwrap();
        assert!(!merges(slabs, cache, &plain), "merging is off");
        slabs.set_merging(true);
        assert!(merges(slabs, cache, &plain), "merging is on");
        // SAFETY: the test's, and not used any more.
        unsafe { slabs.destroy(cache) }.unwrap();
    });
}

#[test]
fn aliases_are_listed_and_found_and_go_with_their_reference() {
    let world = World::small();
    world.run(|slabs| {
        let create = |name| slabs.create(&Spec::new(name, SIZE)).unwrap();
        let base = create("first");
        for name in ["second", "third", "fourth"] {
            assert!(core::ptr::eq(create(name), base));
        }
        let names = || -> Vec<String> {
            let caches = slabs.caches();
            let names = caches.aliases(base).map(|alias| alias.name.to_string());
            names.collect()
        };
        let finds = |name: &str| {
            let caches = slabs.caches();
            caches
                .find(name)
                .is_some_and(|cache| core::ptr::eq(cache, base))
        };
        assert_eq!(names(), ["fourth", "third", "second"]);
        assert_eq!(base.references(), 4);
        assert!(
            ["first", "second", "third", "fourth"]
                .into_iter()
                .all(finds)
        );
        // SAFETY: the references that the test has, one after the other.
        unsafe {
            slabs.destroy_named(base, "third").unwrap();
            assert_eq!(names(), ["fourth", "second"]);
            assert!(!finds("third") && finds("second"));
            slabs.destroy(base).unwrap();
            assert_eq!(names(), ["second"]);
            // It was created by this name, and keeps it as long as there is anybody.
            slabs.destroy_named(base, "first").unwrap();
            assert_eq!(
                (names(), base.references()),
                (vec!["second".to_string()], 1)
            );
            assert!(finds("first") && finds("second"));
            slabs.destroy_named(base, "second").unwrap();
        }
        assert!(slabs.caches().find("first").is_none());
        assert!(slabs.caches().find("second").is_none());
    });
}

/// Destroying one name does nothing to objects, whoever allocated them.
#[test]
fn objects_of_merged_caches_stay_when_one_of_them_goes() {
    let world = World::small();
    world.run(|slabs| {
        let base = slabs.create(&Spec::new("one", SIZE)).unwrap();
        let other = slabs.create(&Spec::new("other", SIZE - 5)).unwrap();
        assert!(core::ptr::eq(base, other));
        let object = other.alloc(Gfp::KERNEL | Gfp::ZERO).unwrap();
        // SAFETY: the test's. All that the larger one may use is zeroed.
        unsafe {
            let bytes = core::slice::from_raw_parts(object.as_ptr(), SIZE);
            assert!(bytes.iter().all(|byte| *byte == 0));
            slabs.destroy(other).unwrap();
            object.write_bytes(1, SIZE);
            base.free(object);
            slabs.destroy(base).unwrap();
        }
    });
}

/// What nobody else has is what kmalloc has.
#[test]
fn caches_of_sizes_of_kmalloc_are_of_kmalloc() {
    let world = World::small();
    world.run(|slabs| {
        let cache = slabs.create(&Spec::new("mine", 96)).unwrap();
        assert_eq!(cache.name().as_str(), "kmalloc-96");
        assert!(core::ptr::eq(cache, slabs.kmalloc_cache(90).unwrap()));
        // SAFETY: the test's.
        unsafe { slabs.destroy(cache) }.unwrap();
        assert_eq!(cache.references(), 1);
    });
}

/// Not even one that is about to go, which is when its name is free.
#[test]
fn nothing_merges_with_what_is_destroyed() {
    let world = World::small();
    world.run(|slabs| {
        let cache = slabs.create(&Spec::new("gone", SIZE)).unwrap();
        let id = cache.id();
        let object = cache.alloc(Gfp::KERNEL).unwrap();
        // SAFETY: the test's; the object is freed later.
        let leaked = unsafe { slabs.destroy(cache) }.unwrap_err();
        assert_eq!((leaked.id, leaked.objects), (id, 1));
        let again = slabs.create(&Spec::new("gone", SIZE)).unwrap();
        assert_ne!(again.id(), id);
        // SAFETY: the test's.
        unsafe {
            slabs.destroy(again).unwrap();
            slabs.kfree(object);
        }
    });
    assert_eq!(world.take_reports(mm::report::Kind::SlabLeak), 1);
}
