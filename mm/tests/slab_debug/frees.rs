//! Frees of what is not to be freed: refused, whatever the flags, and nothing has changed.

use std::ptr::NonNull;

use mm::{Gfp, Use, report::Kind, slab::Spec};

use crate::{
    flags::{U, all, alloc, cache, destroy, free, nothing_said, said},
    world::World,
};

#[test]
fn twice() {
    let world = World::small();
    world.run(|slabs| {
        for flags in all() {
            let cache = cache(slabs, 64, flags);
            let objects: Vec<_> = (0..4).map(|_| alloc(cache)).collect();
            free(cache, objects[1]);
            free(cache, objects[1]);
            said(
                Kind::SlabDoubleFree,
                &["is free already", "nothing is freed", "frees.rs"],
            );
            // Also with others freed in between.
            free(cache, objects[2]);
            free(cache, objects[1]);
            said(Kind::SlabDoubleFree, &["is free already"]);
            assert_eq!(cache.validate(), 0);
            // No object is there twice.
            let mut again: Vec<_> = (0..50).map(|_| alloc(cache)).collect();
            again.extend([objects[0], objects[3]]);
            again.sort_unstable();
            let count = again.len();
            again.dedup();
            assert_eq!(again.len(), count, "{flags}");
            again.into_iter().for_each(|object| free(cache, object));
            destroy(cache);
            nothing_said();
        }
    });
}

/// The track of the first free is kept.
#[test]
fn twice_tells_of_the_first() {
    let world = World::small();
    world.run(|slabs| {
        let cache = cache(slabs, 64, U);
        let (object, keeper) = (alloc(cache), alloc(cache));
        let line = free_once(cache, object);
        free(cache, object);
        said(
            Kind::SlabDoubleFree,
            &["freed ", &format!("frees.rs:{line}:")],
        );
        free(cache, keeper);
        destroy(cache);
    });
}

/// In which line it was freed.
#[rustfmt::skip]
fn free_once(cache: &crate::flags::Cache, object: NonNull<u8>) -> u32 {
    // SAFETY: the test's.
    unsafe { cache.free(object); line!() }
}

#[test]
fn not_an_objects_beginning() {
    let world = World::small();
    world.run(|slabs| {
        for flags in all() {
            let cache = cache(slabs, 64, flags);
            let object = alloc(cache);
            for (at, text) in [
                (8, "8 bytes from that of #"),
                (1, "1 bytes from that of #"),
                (63, "63 bytes from that of #"),
            ] {
                // SAFETY: within the object.
                free(cache, unsafe { object.offset(at) });
                said(Kind::SlabWrongFree, &["is no object's beginning", text]);
            }
            let size = cache.layout().size as usize;
            let bytes = 4096_usize << cache.layout().order;
            let used = usize::from(cache.layout().objects) * size;
            if used < bytes {
                let slab = object.addr().get() & !(bytes - 1);
                let behind = object.with_addr((slab + used).try_into().unwrap());
                free(cache, behind);
                said(Kind::SlabWrongFree, &["is "]);
            }
            free(cache, object);
            assert_eq!(cache.validate(), 0);
            destroy(cache);
            nothing_said();
        }
    });
}

#[test]
fn not_in_a_slab() {
    let world = World::small();
    world.run(|slabs| {
        let cache = cache(slabs, 64, U);
        let here = 0_u64;
        free(cache, NonNull::from(&here).cast());
        said(Kind::SlabWrongFree, &["is no memory"]);
        let mm = slabs.mm();
        let pfn = mm.alloc_pages(Gfp::KERNEL, 0, Use::Pages).unwrap();
        let page = NonNull::new(mm.frames().address_of(pfn)).unwrap();
        free(cache, page);
        said(Kind::SlabWrongFree, &["is in no slab: pages"]);
        // SAFETY: allocated above.
        unsafe { mm.free_pages(pfn, 0, Use::Pages) };
        assert_eq!(cache.faults_found(), 2);
        destroy(cache);
        nothing_said();
    });
}

#[test]
fn of_another_cache() {
    let world = World::small();
    world.run(|slabs| {
        for flags in all() {
            let cache = cache(slabs, 64, flags);
            let other = slabs.create(&Spec::new("other", 64).flags(flags)).unwrap();
            let plain = slabs.create(&Spec::new("plainly", 72)).unwrap();
            for owner in [other, plain] {
                let object = alloc(owner);
                free(cache, object);
                let name = format!("cache {}", owner.name());
                said(
                    Kind::SlabWrongCache,
                    &["is freed to cache planted, but is not of it", &name],
                );
                free(owner, object);
            }
            assert_eq!((cache.faults_found(), other.faults_found()), (2, 1));
            [cache, other, plain].into_iter().for_each(destroy);
            nothing_said();
        }
    });
}

/// An object is freed twice whose slab was given back in between.
#[test]
fn twice_after_the_slab_has_gone() {
    let world = World::small();
    world.run(|slabs| {
        let cache = cache(slabs, 64, U);
        let object = alloc(cache);
        free(cache, object);
        cache.shrink();
        free(cache, object);
        said(Kind::SlabWrongFree, &["is in no slab: "]);
        destroy(cache);
        nothing_said();
    });
}

/// Nor by the other functions.
#[test]
fn in_bulk_and_without_locks() {
    let world = World::small();
    world.run(|slabs| {
        for flags in all() {
            let cache = cache(slabs, 64, flags);
            let objects = [alloc(cache), alloc(cache)];
            // SAFETY: a fault on purpose: the second is freed twice.
            unsafe {
                cache.free_nolock(objects[1]);
                cache.free_bulk(&objects);
            }
            said(Kind::SlabDoubleFree, &["is free already"]);
            // SAFETY: the same.
            unsafe { cache.free_nolock(objects[0]) };
            said(Kind::SlabDoubleFree, &["is free already"]);
            // SAFETY: the same.
            unsafe { slabs.kfree(objects[0]) };
            said(Kind::SlabDoubleFree, &["is free already"]);
            assert_eq!(cache.validate(), 0);
            destroy(cache);
            nothing_said();
        }
    });
}
