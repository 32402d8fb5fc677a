//! Links between free objects that were overwritten: the object is isolated, all others are
//! found again, and none is lost or handed out twice.

use std::{collections::BTreeSet, ptr::NonNull};

use mm::report::Kind;

use crate::{
    flags::{Cache, F, P, all, alloc, cache, destroy, free, nothing_said, peek, poke, said, spoil},
    world::World,
};

/// Frees the objects, so that the last one is at the head of the freelist and linked to those
/// before it.
fn chain(cache: &Cache) -> (Vec<NonNull<u8>>, NonNull<u8>) {
    let count = usize::from(cache.layout().objects);
    let mut objects: Vec<_> = (0..count).map(|_| alloc(cache)).collect();
    let keeper = objects.pop().expect("objects");
    objects.iter().for_each(|object| free(cache, *object));
    (objects, keeper)
}

/// All objects of the slab but one can be had, once each.
#[track_caller]
fn all_but(cache: &Cache, lost: NonNull<u8>, objects: &[NonNull<u8>], keeper: NonNull<u8>) {
    assert_eq!(cache.validate(), 0);
    nothing_said();
    let expected: BTreeSet<_> = objects.iter().copied().filter(|o| *o != lost).collect();
    let taken: Vec<_> = expected.iter().map(|_| alloc(cache)).collect();
    assert_eq!(taken.iter().copied().collect::<BTreeSet<_>>(), expected);
    taken.into_iter().for_each(|object| free(cache, object));
    free(cache, keeper);
    destroy(cache);
    nothing_said();
}

#[test]
fn found_by_validation() {
    let world = World::small();
    world.run(|slabs| {
        for flags in all() {
            let cache = cache(slabs, 64, flags);
            let (objects, keeper) = chain(cache);
            let bad = objects[3];
            let at = cache.layout().link as isize;
            // Where poison is, links lie outside.
            assert_eq!(flags.contains(P), at >= 64, "{flags}");
            spoil(bad, at, 8);
            assert_eq!(cache.validate(), 1, "{flags}");
            said(
                Kind::SlabFreelist,
                &[
                    "the link of free object #",
                    "was overwritten",
                    "isolated",
                    "made anew",
                ],
            );
            all_but(cache, bad, &objects, keeper);
        }
    });
}

#[test]
fn found_by_an_allocation() {
    let world = World::small();
    world.run(|slabs| {
        for flags in all() {
            let cache = cache(slabs, 64, flags);
            let (objects, keeper) = chain(cache);
            // At the head.
            let bad = *objects.last().unwrap();
            spoil(bad, cache.layout().link as isize, 8);
            let other = alloc(cache);
            assert_ne!(other, bad);
            said(Kind::SlabFreelist, &["was overwritten", "links.rs"]);
            free(cache, other);
            all_but(cache, bad, &objects, keeper);
        }
    });
}

/// With `F` already by the next free.
#[test]
fn found_by_a_free() {
    let world = World::small();
    world.run(|slabs| {
        for flags in all() {
            let cache = cache(slabs, 64, flags);
            let (mut objects, keeper) = chain(cache);
            let user = alloc(cache);
            let bad = objects[2];
            spoil(bad, cache.layout().link as isize, 8);
            free(cache, user);
            if flags.contains(F) {
                said(Kind::SlabFreelist, &["was overwritten"]);
            } else {
                nothing_said();
                assert_eq!(cache.validate(), 1);
                said(Kind::SlabFreelist, &["was overwritten"]);
            }
            objects.sort_unstable();
            all_but(cache, bad, &objects, keeper);
        }
    });
}

/// A link that could be one: to an object in use, or back, so that the list runs in a circle.
#[test]
fn links_that_lead_elsewhere() {
    let world = World::small();
    world.run(|slabs| {
        for flags in all() {
            let at = |cache: &Cache| cache.layout().link as isize;
            let copy = |cache: &Cache, from: NonNull<u8>, to: NonNull<u8>| {
                (0..8).for_each(|byte| poke(to, at(cache) + byte, peek(from, at(cache) + byte)));
            };
            // A circle: the third leads where the fourth does.
            let first = cache(slabs, 64, flags);
            let (objects, keeper) = chain(first);
            let user = *objects.last().unwrap();
            copy(first, user, objects[2]);
            assert_eq!(first.validate(), 1, "{flags}");
            said(Kind::SlabFreelist, &["more objects are linked than the "]);
            assert_eq!(first.validate(), 0);
            free(first, keeper);
            destroy(first);
            // To an object in use.
            let second = cache(slabs, 64, flags);
            let (objects, keeper) = chain(second);
            let head = *objects.last().unwrap();
            let link: Vec<u8> = (0..8).map(|byte| peek(head, at(second) + byte)).collect();
            assert_eq!(alloc(second), head);
            let user = alloc(second);
            free(second, head);
            (0..8).for_each(|byte| poke(head, at(second) + byte, link[byte as usize]));
            assert_eq!(second.validate(), 1, "{flags}");
            said(
                Kind::SlabFreelist,
                &["leads to #", "which is allocated", "isolated"],
            );
            assert_eq!(second.validate(), 0);
            let other = alloc(second);
            assert!(other != user && other != head);
            free(second, other);
            free(second, user);
            free(second, keeper);
            destroy(second);
            nothing_said();
        }
    });
}

/// Zeros end a list too early.
#[test]
fn a_cleared_link() {
    let world = World::small();
    world.run(|slabs| {
        for flags in all() {
            let cache = cache(slabs, 64, flags);
            let (objects, keeper) = chain(cache);
            let at = cache.layout().link as isize;
            (at..at + 8).for_each(|at| poke(objects[3], at, 0));
            assert_eq!(cache.validate(), 1, "{flags}");
            let linked = format!("{} objects are linked, ", objects.len() - 3);
            said(Kind::SlabFreelist, &[&linked, "made anew"]);
            assert_eq!(cache.validate(), 0);
            let again: BTreeSet<_> = objects.iter().map(|_| alloc(cache)).collect();
            assert_eq!(again, objects.iter().copied().collect(), "nothing is lost");
            again.into_iter().for_each(|object| free(cache, object));
            free(cache, keeper);
            destroy(cache);
            nothing_said();
        }
    });
}
