//! Slab caches in the kernel.

mod caches;
mod locks;
mod objects;
mod quarantine;

use alloc::vec::Vec;
use core::ptr::NonNull;

use mm::{
    Gfp,
    report::Kind as Wrong,
    slab::{Flags, KmemCache, Spec},
};

use self::{
    caches::{
        a_cpu_that_goes_keeps_nothing, aliases_are_listed, boxes_know_their_cache,
        boxes_may_be_dropped_while_their_cache_goes, objects_in_use_keep_their_cache,
        typesafe_slabs_wait_for_readers, without_memory_nothing_is_left,
    },
    locks::under_each_lock,
    objects::{
        every_api, from_interrupts, node_is_as_asked, on_all_cpus_at_once, shrink_gives_back,
    },
    quarantine::{caches_end_while_others_leave_quarantine, freed_objects_wait_in_quarantine},
};
use crate::{
    kunit::{Stop, kassert_ok, kunit_suite},
    machine::Kernel,
    memory::{mm, slab::slabs},
    report::Kind,
    timer::RawKind,
};

kunit_suite! {
    name: "slab",
    teardown: quarantine::as_it_was,
    cases: [
        every_api => { over: SIZES },
        node_is_as_asked,
        from_interrupts,
        on_all_cpus_at_once,
        shrink_gives_back,
        aliases_are_listed,
        objects_in_use_keep_their_cache => { expects: [
            Kind::Memory(Wrong::SlabLeak),
            Kind::Memory(Wrong::SlabLeak),
        ] },
        typesafe_slabs_wait_for_readers,
        boxes_know_their_cache => { expects: [Kind::Memory(Wrong::SlabLeak)] },
        boxes_may_be_dropped_while_their_cache_goes,
        without_memory_nothing_is_left,
        a_cpu_that_goes_keeps_nothing,
        under_each_lock => { over: KINDS },
        freed_objects_wait_in_quarantine => { expects: [
            Kind::Memory(Wrong::SlabDoubleFree),
            Kind::Memory(Wrong::SlabQuarantine),
        ] },
        caches_end_while_others_leave_quarantine,
    ],
}

/// One that many fit into a page of, one of a page, one of several.
const SIZES: &[(&str, usize)] = &[("40", 40), ("4096", 4096), ("20000", 20_000)];
const KINDS: &[(&str, RawKind)] = &[("irq", RawKind::Irq), ("nmi", RawKind::Nmi)];

type Cache = &'static KmemCache<Kernel>;

/// A cache of its own.
fn create(name: &str, size: usize, flags: Flags) -> Result<Cache, Stop> {
    let spec = Spec::new(name, size).flags(flags | Flags::NO_MERGE);
    Ok(kassert_ok!(slabs().create(&spec)))
}

/// Destroys a cache, of which nothing is in use.
fn destroy(cache: Cache) -> Result<(), Stop> {
    // SAFETY: the case's own, and not used any more.
    kassert_ok!(unsafe { slabs().destroy(cache) });
    Ok(())
}

/// An object that a case may give to other threads.
#[derive(Clone, Copy)]
struct Object(NonNull<u8>);

// SAFETY: memory that one thread after the other uses.
unsafe impl Send for Object {}
// SAFETY: as above.
unsafe impl Sync for Object {}

impl Object {
    /// Writes a number at both ends.
    fn mark(self, size: usize, number: u64) {
        // SAFETY: the case's, and so large.
        unsafe {
            self.0.cast::<u64>().write_volatile(number);
            self.0.add(size - 8).cast::<u64>().write_volatile(number);
        }
    }

    /// Whether they are there still.
    fn is_marked(self, size: usize, number: u64) -> bool {
        // SAFETY: as above.
        unsafe {
            self.0.cast::<u64>().read_volatile() == number
                && self.0.add(size - 8).cast::<u64>().read_volatile() == number
        }
    }
}

/// So many objects, each marked with its number.
fn take(cache: Cache, count: usize) -> Result<Vec<Object>, Stop> {
    let size = cache.layout().object_size as usize;
    let mut objects = Vec::with_capacity(count);
    for number in 0..count {
        let object = Object(kassert_ok!(cache.alloc(Gfp::KERNEL)));
        object.mark(size, number as u64);
        objects.push(object);
    }
    Ok(objects)
}

fn free(cache: Cache, objects: &[Object]) {
    for object in objects {
        // SAFETY: allocated from it by the case, which does not use them any more.
        unsafe { cache.free(object.0) };
    }
}

/// Slabs that a cache has on all nodes.
fn slabs_of(cache: Cache) -> u64 {
    let nodes = mm().nodes();
    let counts = nodes.iter().filter_map(|node| cache.node_counts(node));
    counts.map(|counts| counts.slabs).sum()
}
