//! What creation refuses, and what it makes.

use core::ptr::NonNull;

use mm::{
    Gfp,
    fault::Knobs,
    hosted::Memory,
    slab::{
        CreateError, Flags, KmemCache, Slabs, Spec,
        create::{MAX_CAPACITY, default_capacity},
        kmalloc::SIZES,
        name::Name,
    },
};
use platform::hosted::{Hosted, Machine};

use crate::world::{MIB, World, free, take};

#[track_caller]
fn refused(slabs: &Slabs<Hosted>, spec: &Spec<'_>) -> CreateError {
    match slabs.create(spec) {
        Ok(cache) => panic!("{spec:?} was created as {:?}", cache.name()),
        Err(error) => error,
    }
}

fn destroy(slabs: &Slabs<Hosted>, cache: &KmemCache<Hosted>) {
    // SAFETY: the test's, and not used any more.
    unsafe { slabs.destroy(cache) }.unwrap();
}

#[test]
fn every_bad_argument_is_an_error_that_says_which() {
    fn constructor(_: NonNull<u8>) {}
    let world = World::small();
    world.run(|slabs| {
        let before = slabs.caches().iter().count();
        let good = Spec::new("good", 64);
        let long = "n".repeat(Name::MAX + 1);
        for name in ["", "a b", "a/b", "a\n", "ä", ".", "..", &long] {
            let error = refused(slabs, &Spec { name, ..good });
            assert_eq!(error, CreateError::BadName, "{name:?}");
        }
        assert_eq!(
            refused(slabs, &Spec { size: 0, ..good }),
            CreateError::BadSize(0)
        );
        for size in [5 << 20, 1 << 40, usize::MAX] {
            assert!(matches!(
                refused(slabs, &Spec { size, ..good }),
                CreateError::BadSize(_)
            ));
        }
        for align in [3, 24, 8192, usize::MAX] {
            assert_eq!(
                refused(slabs, &good.align(align)),
                CreateError::BadAlign(align)
            );
        }
        let error = refused(slabs, &good.flags(Flags::NO_SHEAVES | Flags::NO_MERGE));
        assert_eq!(error, CreateError::BadFlags(Flags::NO_SHEAVES));
        let made = good.constructor(constructor);
        for at in [60, 64, 4, usize::MAX] {
            assert_eq!(
                refused(slabs, &made.free_pointer(at)),
                CreateError::BadFreePointer(at)
            );
        }
        assert_eq!(
            refused(slabs, &good.free_pointer(8)),
            CreateError::NeedlessFreePointer
        );
        for (at, len) in [(60, 8), (0, 65), (usize::MAX, 2), (2, usize::MAX)] {
            let usercopy = Some((at, len));
            assert_eq!(
                refused(slabs, &Spec { usercopy, ..good }),
                CreateError::BadUsercopy(at, len)
            );
        }
        let capacity = MAX_CAPACITY + 1;
        assert_eq!(
            refused(slabs, &good.sheaf_capacity(capacity)),
            CreateError::BadSheafCapacity(capacity)
        );
        assert_eq!(slabs.caches().iter().count(), before, "something was made");
        // And each has words of its own.
        let errors = [
            CreateError::BadName,
            CreateError::NameTaken,
            CreateError::BadSize(1),
            CreateError::BadAlign(3),
            CreateError::BadFlags(Flags::NO_SHEAVES),
            CreateError::BadFreePointer(1),
            CreateError::NeedlessFreePointer,
            CreateError::BadUsercopy(1, 2),
            CreateError::BadSheafCapacity(3),
            CreateError::NoMemory,
        ];
        let mut texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), errors.len());
    });
}

#[test]
fn a_creation_that_may_not_fail_panics() {
    let world = World::small();
    world.run(|slabs| {
        let create = || {
            let _ = slabs.create(&Spec::new("loud", 64).align(3).flags(Flags::PANIC));
        };
        // Caught here, so that the machine goes on and gives its memory back.
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(create));
        let panic = panic.expect_err("it panics");
        let said = panic.downcast_ref::<String>().expect("a text");
        let expected = "\"loud\" cannot be created: an alignment of 3 bytes";
        assert!(said.contains(expected), "{said}");
    });
}

#[test]
fn a_name_is_taken_until_its_cache_is_destroyed() {
    let world = World::small();
    world.run(|slabs| {
        let spec = Spec::new("one", 64).flags(Flags::NO_MERGE);
        let first = slabs.create(&spec).unwrap();
        let id = first.id();
        assert_eq!(refused(slabs, &spec), CreateError::NameTaken);
        assert_eq!(
            refused(slabs, &Spec::new("kmalloc-64", 100).flags(Flags::NO_MERGE)),
            CreateError::NameTaken
        );
        destroy(slabs, first);
        let again = slabs.create(&spec).unwrap();
        assert!(again.id() > id, "numbers are never used again");
        destroy(slabs, again);
    });
}

#[test]
fn objects_lie_as_asked_and_the_memory_is_theirs() {
    let world = World::small();
    world.run(|slabs| {
        for size in [1, 8, 24, 100, 700, 4096, 5000, 20_000] {
            for align in [0, 8, 64, 4096] {
                let spec = Spec::new("lie", size).align(align).flags(Flags::NO_MERGE);
                let cache = slabs.create(&spec).unwrap();
                let objects = take(cache, 50);
                for (number, object) in objects.iter().enumerate() {
                    assert!(object.addr().get().is_multiple_of(align.max(8)));
                    // SAFETY: of the test, and so large.
                    unsafe { object.write_bytes(number as u8, size) };
                }
                for (number, object) in objects.iter().enumerate() {
                    // SAFETY: the same.
                    let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), size) };
                    assert!(bytes.iter().all(|byte| *byte == number as u8));
                }
                free(cache, objects);
                destroy(slabs, cache);
            }
        }
    });
}

/// Every allocation of a creation fails in turn, and nothing is left of it.
#[test]
fn creation_without_memory_leaves_nothing() {
    let world = World::small();
    world.run(|slabs| {
        let spec = Spec::new("rare", 72).flags(Flags::NO_MERGE);
        // Slabs of descriptors, so full that the next needs pages.
        let mut others = Vec::new();
        let mut failures = 0;
        for number in 0..200 {
            let name = format!("other-{number}");
            let other = Spec {
                name: &name,
                ..spec
            };
            others.push(slabs.create(&other).unwrap());
            for pages in 0..3 {
                // So many for what comes first.
                let knobs = Knobs {
                    probability: 100,
                    space: pages,
                    times: -1,
                    ..Knobs::OFF
                };
                world.mm().debug().faults(|page| {
                    page.fail_nth(0);
                    page.attr.configure(&knobs);
                });
                let caches = slabs.caches().iter().count();
                let result = slabs.create(&spec);
                world
                    .mm()
                    .debug()
                    .faults(|page| page.attr.configure(&Knobs::OFF));
                match result {
                    Ok(cache) => destroy(slabs, cache),
                    Err(error) => {
                        assert_eq!(error, CreateError::NoMemory);
                        assert_eq!(slabs.caches().iter().count(), caches);
                        failures += 1;
                    }
                }
            }
        }
        assert!(failures > 0, "no creation needed pages");
        others.into_iter().for_each(|cache| destroy(slabs, cache));
    });
    world.take_reports(mm::report::Kind::OutOfMemory);
}

/// Parts on nodes run out in the middle of a creation: those that were there go back.
#[test]
fn creation_that_ends_in_the_middle_leaves_nothing() {
    let memory = Memory::builder().node(16 * MIB).node(16 * MIB);
    let memory = memory.node(16 * MIB);
    let world = World::new(Machine::builder().cpus(2).nodes(3), memory);
    let spec = Spec::new("half", 72).flags(Flags::NO_MERGE);
    world.run(|slabs| {
        // There is a descriptor for it.
        let cache = slabs.create(&spec).unwrap();
        destroy(slabs, cache);
    });
    world.fail_pages(Some(0));
    world.run(|slabs| {
        let parts: *const KmemCache<Hosted> = slabs.caches().find("kmem_cache_node").unwrap();
        // SAFETY: it is there for ever.
        let parts = unsafe { &*parts };
        let all = || std::iter::from_fn(|| parts.alloc(Gfp::KERNEL | Gfp::NOWARN));
        let mut taken: Vec<NonNull<u8>> = all().collect();
        for spare in 0..3 {
            free(parts, taken.split_off(taken.len() - spare));
            let error = slabs.create(&spec).map(KmemCache::id);
            assert_eq!(error, Err(CreateError::NoMemory));
            let left: Vec<NonNull<u8>> = all().collect();
            assert_eq!(left.len(), spare);
            taken.extend(left);
        }
        free(parts, taken);
    });
    world.fail_pages(None);
    world.take_reports(mm::report::Kind::OutOfMemory);
}

#[test]
fn sheaves_fill_the_objects_that_they_lie_in() {
    for size in [1, 8, 255, 256, 1023, 1024, 4095, 4096, 100_000] {
        let bytes = 16 + default_capacity(size) as usize * 8;
        assert!(SIZES.contains(&bytes), "{size}: sheaves of {bytes} bytes");
    }
    assert_eq!(default_capacity(64), 62);
    assert_eq!(default_capacity(256), 30);
    assert_eq!(default_capacity(1024), 14);
    assert_eq!(default_capacity(4096), 6);
}

#[test]
fn a_constructor_runs_once_for_each_object_of_a_slab() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static MADE: AtomicUsize = AtomicUsize::new(0);
    const MARK: u64 = 0x5eed_5eed_5eed_5eed;
    fn constructor(object: NonNull<u8>) {
        MADE.fetch_add(1, Ordering::Relaxed);
        // SAFETY: an object of 64 bytes, aligned to 8.
        unsafe { object.cast::<u64>().write(MARK) };
    }
    let world = World::small();
    world.run(|slabs| {
        let spec = Spec::new("made", 64).constructor(constructor);
        let cache = slabs.create(&spec).unwrap();
        for _ in 0..10 {
            let objects = take(cache, 300);
            for object in &objects {
                // SAFETY: the test's; made, and given back as it was.
                assert_eq!(unsafe { object.cast::<u64>().read() }, MARK);
            }
            free(cache, objects);
        }
        let made = MADE.load(Ordering::Relaxed);
        let slabs_made: u64 = made as u64 / u64::from(cache.layout().objects);
        assert!(made >= 300 && slabs_made * u64::from(cache.layout().objects) == made as u64);
        assert!(made < 1000, "made again on reuse: {made}");
        destroy(slabs, cache);
    });
}
