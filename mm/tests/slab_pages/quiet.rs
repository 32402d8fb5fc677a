//! What is true of a cache without sheaves when nobody allocates or frees.

use std::{collections::BTreeMap, ptr::NonNull};

use mm::{
    Pfn, State, Use,
    slab::{KmemCache, NodeCounts, Place, Slab, Slabs},
};
use platform::hosted::Hosted;

/// The slabs of a cache, by looking at all frames.
pub fn slabs_of(slabs: &Slabs<Hosted>, cache: &KmemCache<Hosted>) -> Vec<Slab<Hosted>> {
    let map = *slabs.mm().frames();
    let heads = (0..map.end().0).map(Pfn).filter(|pfn| {
        let frame = map.get(*pfn).expect("below the end");
        frame.word().state() == State::Used(Use::Slab)
    });
    // SAFETY: heads of slabs, and nobody discards one now.
    let all = heads.map(|pfn| unsafe { Slab::<Hosted>::at(map, pfn) });
    all.filter(|slab| std::ptr::eq(slab.cache().as_ptr(), cache))
        .collect()
}

/// The words of the slabs, their lists, and the counts agree with each other and with `held`, all objects that are in use.
#[track_caller]
pub fn check(slabs: &Slabs<Hosted>, cache: &KmemCache<Hosted>, held: &[NonNull<u8>]) {
    let map = *slabs.mm().frames();
    let mut in_use: BTreeMap<Pfn, Vec<usize>> = BTreeMap::new();
    for object in held {
        let slab = Slab::<Hosted>::of_address(map, object.addr().get()).expect("in a slab");
        assert_eq!(
            slab.cache().as_ptr().cast_const(),
            std::ptr::from_ref(cache)
        );
        let place = slab.offset_of(*object) - cache.layout().red_left as usize;
        let size = cache.layout().size as usize;
        assert!(
            place.is_multiple_of(size),
            "{object:p} begins at no object's place"
        );
        assert!(
            place + size <= slab.bytes(),
            "{object:p} ends beyond its slab"
        );
        in_use.entry(slab.pfn()).or_default().push(place / size);
    }
    for indexes in in_use.values_mut() {
        let count = indexes.len();
        indexes.sort_unstable();
        indexes.dedup();
        assert_eq!(indexes.len(), count, "an object has two owners");
    }
    let mut expected: BTreeMap<usize, NodeCounts> = BTreeMap::new();
    let mut empty: BTreeMap<usize, usize> = BTreeMap::new();
    for slab in slabs_of(slabs, cache) {
        let word = slab.freelist().load();
        let users = in_use.get(&slab.pfn()).map_or(0, Vec::len);
        assert_eq!(word.in_use(), users, "{slab:?}");
        assert_eq!(
            word.is_listed(),
            !word.is_full(),
            "{slab:?} is lost, or listed for nothing"
        );
        assert_eq!(word.is_full(), word.free() == 0, "{slab:?}");
        assert_eq!(
            word.objects(),
            cache.layout().objects_of(slab.order()),
            "{slab:?}"
        );
        let place = if word.is_full() {
            Place::Full
        } else {
            Place::Partial
        };
        assert_eq!(slab.place(), place);
        let node = slab.frame().word().zone().node().index();
        let counts = expected.entry(node).or_default();
        counts.slabs += 1;
        counts.objects += word.objects() as u64;
        counts.partial += u64::from(word.is_listed());
        *empty.entry(node).or_default() += usize::from(word.is_empty());
    }
    for node in slabs.mm().nodes().iter() {
        let found = cache
            .node_counts(node)
            .expect("the cache's part on the node");
        let (locked, waited) = (found.list_locked, found.list_waited);
        let expected = expected.remove(&node.index()).unwrap_or_default();
        let expected = NodeCounts {
            list_locked: locked,
            list_waited: waited,
            ..expected
        };
        assert_eq!(found, expected, "node {node}");
        assert!(waited <= locked);
        let most = mm::slab::layout::default_min_partial(cache.layout().size as usize);
        let empty = empty.get(&node.index()).copied().unwrap_or(0);
        assert!(
            empty <= most as usize,
            "{empty} empty slabs are kept on node {node}"
        );
    }
}
