//! That every arrow is taken.

use mm::{hosted::Reports, slab::quarantine::POISON_QUARANTINE};

use crate::{
    cache, count, end, interrupts, lone, walk,
    world::{free, take},
};

#[test]
fn every_arrow_is_taken() {
    let busy = interrupts::meet_the_lock();
    let world = lone();
    let cache = world.run(|slabs| {
        slabs.set_quarantine(200);
        let large = cache(slabs, "large", 300);
        free(large, take(large, 1));
        let cache = cache(slabs, "arrows", 64);
        let objects = take(cache, 4);
        free(cache, objects.clone());
        free(cache, vec![objects[3]]);
        // SAFETY: memory of a slab. Wrong on purpose.
        unsafe { objects[3].write(!POISON_QUARANTINE) };
        cache.shrink();
        free(cache, take(cache, 2));
        slabs.set_quarantine(0);
        end(slabs, large);
        cache
    });
    world.fail_pages(Some(0));
    world.run(|slabs| {
        slabs.set_quarantine(200);
        free(cache, take(cache, 1));
    });
    world.fail_pages(None);
    world.run(|slabs| {
        walk(slabs);
        end(slabs, cache);
    });
    assert_eq!(Reports::of(&world.machine).take().len(), 2);
    let own = world
        .slabs()
        .arrows()
        .filter(|(name, _)| name.starts_with("quarantine."));
    let mut number = 0;
    for (arrow, taken) in own {
        number += 1;
        assert!(taken + count(busy.slabs(), arrow) > 0, "{arrow}");
        assert!(taken > 0 || arrow == "quarantine.busy", "{arrow}");
    }
    assert_eq!(number, 9);
}
