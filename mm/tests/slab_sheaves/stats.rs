//! What caches count, by CPU.

use std::collections::BTreeSet;

use mm::{Gfp, slab::stats::Stat};
use platform::CpuId;

use crate::{
    objects::{alloc, give, take},
    paths::{CAPACITY, alone, end, small_sheaves},
};

#[test]
fn every_count_has_a_name_of_its_own() {
    let names: BTreeSet<_> = Stat::ALL.iter().map(|stat| stat.name()).collect();
    assert_eq!(names.len(), Stat::ALL.len());
    assert_eq!(Stat::AllocFastpath.name(), "alloc_fastpath");
    assert_eq!(Stat::SheafPrefillOversize.name(), "sheaf_prefill_oversize");
}

#[test]
fn counts_say_what_happened() {
    let world = alone();
    world.run(|slabs| {
        let cache = small_sheaves(slabs, "counted");
        let stat = |stat| cache.stat(stat);
        // The first gets the sheaf filled, the others pop.
        let objects = take(cache, CAPACITY);
        assert_eq!(stat(Stat::AllocSlowpath), 1);
        assert_eq!(stat(Stat::AllocFastpath), CAPACITY as u64 - 1);
        assert_eq!(stat(Stat::SheafRefill), CAPACITY as u64);
        assert_eq!((stat(Stat::AllocSlab), stat(Stat::SheafAlloc)), (1, 1));
        assert_eq!(
            cache.stat_on(Stat::AllocFastpath, CpuId::BOOT),
            CAPACITY as u64 - 1
        );
        give(cache, objects);
        assert_eq!(stat(Stat::FreeFastpath), CAPACITY as u64);
        let objects = take(cache, 4 * CAPACITY);
        give(cache, objects);
        assert_eq!(stat(Stat::BarnPut), 2);
        let objects = take(cache, 4 * CAPACITY);
        assert_eq!(stat(Stat::BarnGet), 2);
        give(cache, objects);
        cache.reset_stat(Stat::AllocFastpath);
        assert_eq!(stat(Stat::AllocFastpath), 0);
        assert!(stat(Stat::FreeFastpath) > 0);
        let object = alloc(cache, Gfp::KERNEL).expect("there are some");
        assert_eq!(stat(Stat::AllocFastpath), 1);
        give(cache, [object]);
        cache.shrink();
        assert!(stat(Stat::SheafFlush) > 0 && stat(Stat::FreeSlab) > 0);
        assert!(stat(Stat::SheafFree) > 0);
        end(slabs, cache);
    });
}
