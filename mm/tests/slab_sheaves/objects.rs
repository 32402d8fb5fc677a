//! Objects that know whether they are in use: one that is handed out twice, or freed twice, is
//! noticed at once. What is lost is noticed at the end of a world, which wants all slabs back.

use std::{mem::MaybeUninit, ptr::NonNull};

use mm::{
    Gfp,
    fault::Knobs,
    slab::{KmemCache, Prefilled},
};
use platform::{NodeId, Platform, hosted::Hosted};

use crate::world::World;

pub type Cache = KmemCache<Hosted>;

const IN_USE: u64 = 0x5eaf_5eaf_5eaf_5eaf;
const FREE: u64 = 0xf4ee_f4ee_f4ee_f4ee;

/// An object in use.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object(pub NonNull<u8>);

// SAFETY: memory with one owner.
unsafe impl Send for Object {}

impl Object {
    /// An object that was handed out just now.
    #[track_caller]
    pub fn new(object: NonNull<u8>) -> Self {
        // SAFETY: at least a word, aligned, and the caller's. (Nothing atomic: a sanitizer shall see whether the
        // allocator has ordered its users.)
        let was = unsafe { object.cast::<u64>().replace(IN_USE) };
        assert_ne!(was, IN_USE, "{object:?} is handed out, and in use");
        Self(object)
    }

    /// It is about to be freed.
    #[track_caller]
    pub fn end(self) -> NonNull<u8> {
        // SAFETY: as above.
        let was = unsafe { self.0.cast::<u64>().replace(FREE) };
        assert_eq!(was, IN_USE, "{:?} is freed, and not in use", self.0);
        self.0
    }
}

#[track_caller]
pub fn alloc(cache: &Cache, gfp: Gfp) -> Option<Object> {
    cache.alloc(gfp).map(Object::new)
}

#[track_caller]
pub fn alloc_node(cache: &Cache, gfp: Gfp, node: NodeId) -> Option<Object> {
    cache.alloc_node(gfp, node).map(Object::new)
}

#[track_caller]
pub fn alloc_nolock(cache: &Cache) -> Option<Object> {
    cache.alloc_nolock(None).map(Object::new)
}

#[track_caller]
pub fn alloc_prefilled(sheaf: &mut Prefilled<'_, Hosted>) -> Option<Object> {
    sheaf.alloc(Gfp::NOWAIT).map(Object::new)
}

/// So many, or none.
#[track_caller]
pub fn alloc_bulk(cache: &Cache, gfp: Gfp, count: usize) -> Option<Vec<Object>> {
    let mut objects = vec![MaybeUninit::uninit(); count];
    let got = cache.alloc_bulk(gfp, &mut objects);
    if got == 0 {
        return None;
    }
    assert_eq!(got, count, "all or nothing");
    // SAFETY: all were filled.
    let objects = objects.iter().map(|object| unsafe { object.assume_init() });
    Some(objects.map(Object::new).collect())
}

#[track_caller]
pub fn free(cache: &Cache, object: Object) {
    // SAFETY: the caller's object, of that cache.
    unsafe { cache.free(object.end()) };
}

#[track_caller]
pub fn free_nolock(cache: &Cache, object: Object) {
    // SAFETY: as above.
    unsafe { cache.free_nolock(object.end()) };
}

#[track_caller]
pub fn free_bulk(cache: &Cache, objects: Vec<Object>) {
    let objects: Vec<_> = objects.into_iter().map(Object::end).collect();
    // SAFETY: as above, each once.
    unsafe { cache.free_bulk(&objects) };
}

/// So many, one by one.
#[track_caller]
pub fn take(cache: &Cache, count: usize) -> Vec<Object> {
    let one = || alloc(cache, Gfp::KERNEL).expect("memory for an object");
    (0..count).map(|_| one()).collect()
}

/// One by one.
#[track_caller]
pub fn give(cache: &Cache, objects: impl IntoIterator<Item = Object>) {
    for object in objects {
        free(cache, object);
    }
}

/// Slabs of a cache.
pub fn slabs_of(cache: &Cache) -> u64 {
    let nodes = Hosted::nodes();
    let counts = nodes.iter().filter_map(|node| cache.node_counts(node));
    counts.map(|counts| counts.slabs).sum()
}

/// From now on there are so many blocks of pages more; `None`: all there are. In a thread of the
/// machine.
pub fn fail_pages(world: &World, after: Option<u32>) {
    world.mm().debug().faults(|page| {
        // Of all orders and flags.
        page.fail_nth(0);
        page.attr.configure(&Knobs {
            probability: if after.is_some() { 100 } else { 0 },
            space: after.unwrap_or(0),
            times: -1,
            verbose: 0,
            ..Knobs::OFF
        });
    });
}
