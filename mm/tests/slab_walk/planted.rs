//! Faults, each planted alone: the walk finds it, and says what it is.

use std::{ptr::NonNull, sync::atomic::Ordering::Relaxed};

use mm::{
    Frame, Gfp,
    slab::{Slabs, walk::plant::Plant, word::Link},
};
use platform::hosted::Hosted;

use crate::{
    cache, fault, lone, tally, walk,
    world::{free, take},
};

/// The descriptor of an object's page.
fn frame(slabs: &Slabs<Hosted>, object: NonNull<u8>) -> &Frame {
    let map = slabs.mm().frames();
    let pfn = map.pfn_of_address(object.addr().get()).unwrap();
    map.get(pfn).unwrap()
}

#[test]
fn an_object_that_was_freed_twice_is_in_a_sheaf_twice() {
    lone().run(|slabs| {
        let cache = cache(slabs, "planted", 64);
        let objects = take(cache, 10);
        let object = objects[3];
        // SAFETY: wrong on purpose.
        unsafe {
            cache.free(object);
            cache.free(object);
        }
        let place = "in the main sheaf of cpu0";
        let expected = format!(
            "cache planted: the object {:#x} is {place} and {place}",
            object.addr()
        );
        assert_eq!(fault(slabs), expected);
        // Both come back.
        assert_eq!(take(cache, 2), [object, object]);
        free(cache, objects);
        tally(slabs);
    });
}

#[test]
fn an_object_in_a_sheaf_and_on_its_slabs_freelist_is_found() {
    lone().run(|slabs| {
        let cache = cache(slabs, "planted", 1024);
        let objects = take(cache, 40);
        let object = objects[0];
        // SAFETY: wrong on purpose: it goes to its slab, and then into a sheaf.
        unsafe {
            cache.free(object);
            cache.shrink();
            cache.free(object);
        }
        let expected = format!(
            "cache planted: the object {:#x} is on its slab's freelist and in the main sheaf of cpu0",
            object.addr()
        );
        assert_eq!(fault(slabs), expected);
        assert_eq!(take(cache, 1), [object]);
        // It is on the freelist still; allocate until it comes from there.
        let mut more = Vec::new();
        while more.last() != Some(&object) {
            more.extend(take(cache, 1));
        }
        more.extend_from_slice(&objects[1..]);
        free(cache, more);
        tally(slabs);
    });
}

#[test]
fn an_object_of_another_cache_is_a_stranger() {
    lone().run(|slabs| {
        let (one, other) = (cache(slabs, "one", 64), cache(slabs, "other", 64));
        let first = take(other, 1);
        let object = take(one, 1)[0];
        // SAFETY: wrong on purpose, here and below.
        unsafe { other.free(object) };
        let expected = format!(
            "cache other: {:#x} in the main sheaf of cpu0 is no object of the cache",
            object.addr()
        );
        assert_eq!(fault(slabs), expected);
        assert_eq!(take(other, 1), [object]);
        // The middle of an own one is none either.
        // SAFETY: wrong on purpose; it stays within the object.
        let middle = unsafe {
            let middle = first[0].add(8);
            other.free(middle);
            middle
        };
        assert!(fault(slabs).contains("is no object of the cache"));
        assert_eq!(take(other, 1), [middle]);
        free(one, vec![object]);
        free(other, first);
        tally(slabs);
    });
}

#[test]
fn a_free_object_that_was_written_to_breaks_its_slabs_freelist() {
    lone().run(|slabs| {
        let cache = cache(slabs, "planted", 64);
        let objects = take(cache, 100);
        let (object, rest) = objects.split_last().unwrap();
        free(cache, vec![*object]);
        cache.shrink();
        let at = object.addr().get() + cache.layout().link as usize;
        let link = core::ptr::with_exposed_provenance_mut::<u64>(at);
        let read = || {
            // SAFETY: memory of a slab.
            unsafe { link.read() }
        };
        let write = |word| {
            // SAFETY: the same. Wrong on purpose.
            unsafe { link.write(word) }
        };
        let before = read();
        for wrong in [before ^ 0x55, u64::MAX, 0x4141_4141_4141_4141] {
            write(wrong);
            let found = fault(slabs);
            assert!(
                found.starts_with("cache planted: slab ")
                    && (found.contains("free objects is wrong")
                        || found.contains("are free, counted")),
                "{found}"
            );
        }
        write(before);
        tally(slabs);
        free(cache, rest.to_vec());
    });
}

#[test]
fn a_slabs_word_that_counts_wrongly_is_found() {
    lone().run(|slabs| {
        let cache = cache(slabs, "planted", 64);
        let objects = take(cache, 1);
        cache.shrink();
        let word = &frame(slabs, objects[0]).pair[0];
        let before = word.load(Relaxed);
        // One object in use less, and one more free.
        word.store(before - (1 << 16), Relaxed);
        let found = fault(slabs);
        assert!(found.contains("63 objects are free, counted 64"), "{found}");
        // Nothing on the freelist, and all of it free.
        word.store(before | u64::from(Link::NONE.to_bits()), Relaxed);
        let found = fault(slabs);
        assert!(found.contains("0 objects are free, counted 63"), "{found}");
        // Another number of objects.
        word.store(before + (1 << 32), Relaxed);
        assert!(fault(slabs).contains("of order 0 has 65 objects"));
        word.store(before, Relaxed);
        tally(slabs);
        free(cache, objects);
    });
}

#[test]
fn a_slab_that_says_to_be_elsewhere_is_found() {
    lone().run(|slabs| {
        let cache = cache(slabs, "planted", 64);
        let per_slab = usize::from(cache.layout().objects);
        let objects = take(cache, per_slab * 4);
        cache.shrink();
        // A full slab: on no list, so only its descriptor speaks of it.
        let frame = frame(slabs, objects[0]);
        frame.tag.store(3, Relaxed);
        let found = fault(slabs);
        assert!(
            found.contains("is waiting for RCU, with 64 of 64 in use"),
            "{found}"
        );
        frame.tag.store(2, Relaxed);
        assert!(fault(slabs).contains("is full (debug)"));
        frame.tag.store(0, Relaxed);
        let owner = frame.owner.swap(0x1234, Relaxed);
        let found = fault(slabs);
        assert!(
            found.ends_with("belongs to 0x1234, which is no cache"),
            "{found}"
        );
        frame.owner.store(owner, Relaxed);
        tally(slabs);
        free(cache, objects);
    });
}

#[test]
fn what_only_the_allocator_could_do_wrong_is_found() {
    let faults: [(Plant, &str); 16] = [
        (
            Plant::LostSheaf,
            "cache planted: CPUs and barns have 1 sheaves, counted 2",
        ),
        (
            Plant::SharedSheaf,
            "is in use as a sheaf and in use as a sheaf",
        ),
        (
            Plant::LongSheaf,
            "cache planted: 63 of 62 objects in the main sheaf of cpu0; the cache's sheaves have 62",
        ),
        (
            Plant::WildSheaf,
            "cache planted: the sheaf at 0x1000, with objects in the main sheaf of cpu0, is not allocated",
        ),
        (Plant::FreedSheaf, "cache kmalloc-512: the object"),
        (
            Plant::BarnCount,
            "cache planted: the barn of node 0 has 0 full sheaves, counted 1",
        ),
        (
            Plant::SlabCount,
            "cache planted: node 0: 4 slabs, counted 5",
        ),
        (
            Plant::ObjectCount,
            "cache planted: node 0: 256 objects, counted 257",
        ),
        (
            Plant::DeferredCount,
            "cache planted: 0 frees are deferred, counted 1",
        ),
        (
            Plant::QuarantinedCount,
            "cache planted: 0 objects are quarantined on cpu0, counted 1",
        ),
        (
            Plant::Unlisted,
            "cache planted: node 0: 2 slabs are partial, 1 are listed",
        ),
        (
            Plant::WrongList,
            "is in a list of node 0, and does not belong there",
        ),
        (
            Plant::WrongWord,
            "is in a list of node 0, and does not belong there",
        ),
        (
            Plant::ListLink,
            "cache planted: a list of node 0 has broken links behind 1 slabs",
        ),
        (Plant::FreeTail, "is pages of order 0 in "),
        (Plant::UsedTail, "is tail of order 5 in "),
    ];
    lone().run(|slabs| {
        let cache = cache(slabs, "planted", 64);
        let mut objects = take(cache, 250);
        // All to their slabs; then one slab is partial more, and the CPU has sheaves again.
        cache.shrink();
        free(cache, objects.drain(..1).collect());
        cache.shrink();
        free(cache, objects.drain(..70).collect());
        // A block with tails.
        let large = slabs.kmalloc(5 << 12, Gfp::KERNEL).unwrap();
        let before = tally(slabs);
        for (plant, expected) in faults {
            // SAFETY: nobody uses the cache meanwhile.
            let undo = unsafe { cache.plant(plant) };
            let found = walk(slabs).map_err(|fault| fault.to_string());
            undo();
            match found {
                Ok(_) => panic!("{plant:?} is not found"),
                Err(found) => assert!(found.contains(expected), "{plant:?}: {found}"),
            }
            let after = tally(slabs);
            assert_eq!(after.caches, before.caches, "{plant:?}");
        }
        // SAFETY: allocated above.
        unsafe { slabs.kfree(large) };
        free(cache, objects);
    });
}

#[test]
fn accounts_of_pages_that_are_wrong_are_found() {
    lone().run(|slabs| {
        let page = slabs
            .mm()
            .alloc_pages(Gfp::KERNEL, 0, mm::Use::Slab)
            .unwrap();
        let owner = &slabs.mm().frames().get(page).unwrap().owner;
        owner.store(0, Relaxed);
        assert_eq!(
            fault(slabs),
            format!("slab {page} belongs to 0x0, which is no cache")
        );
        // SAFETY: allocated above.
        unsafe { slabs.mm().free_pages(page, 0, mm::Use::Slab) };
        tally(slabs);
    });
}
