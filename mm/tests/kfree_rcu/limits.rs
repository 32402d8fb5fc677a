//! When batches are closed by their age, and when too much waits, or memory is short.

use mm::{
    Gfp,
    kvfree_rcu::OPEN_NS,
    reclaim::{Shrink, Wanted},
};
use platform::{Platform, Preempt, hosted::Hosted};

use crate::common::{
    OF_SHEAF, Section, Shared, count, cpu, create, destroy, free_rcu, free_rcu_at_once, on, spec,
    take, wait_until, walk, world,
};

/// Nobody asks for anything: the drainer closes what is open for long enough, and not before.
#[test]
pub fn what_is_open_for_long_is_closed() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let shared = Shared::new();
        let (cache, none) = (
            create(slabs, "test"),
            slabs.create(&spec("none").sheaf_capacity(0)).unwrap(),
        );
        for (round, cache) in [cache, none, cache, none].into_iter().enumerate() {
            let object = take(cache, 1, shared)[0];
            let before = Hosted::now_ns();
            free_rcu(slabs, object);
            wait_until(|| shared.ended() == round as u64 + 1);
            let took = Hosted::now_ns() - before;
            assert!(took >= OPEN_NS, "closed after {took} ns");
        }
        assert_eq!(count(slabs, "rcu.close_old"), 2);
        assert_eq!(count(slabs, "rcu.close_loose"), 2);
        // A drainer that is late finds some of them old, and does not doze.
        assert!(count(slabs, "lane.doze") > 0);
        assert!(count(slabs, "lane.ripe") >= 4);
        wait_until(|| count(slabs, "lane.idle") >= 4);
        walk(slabs, engine);
        destroy(slabs, cache);
        destroy(slabs, none);
    });
}

/// Over the soft limit the drainer makes an expedited grace period, and nobody has to ask.
#[test]
pub fn over_the_soft_limit_the_drainer_hurries() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let (cache, shared) = (create(slabs, "test"), Shared::new());
        let size = u64::from(cache.layout().size);
        slabs.kvfree_rcu().set_soft_limit(3 * OF_SHEAF * size);
        let some = take(cache, 3 * OF_SHEAF + 1, shared);
        {
            let _pinned = Preempt::<Hosted>::disable();
            some.into_iter().for_each(|object| free_rcu(slabs, object));
            assert_eq!(count(slabs, "lane.urge"), 0, "just what may wait");
            assert_eq!(slabs.kvfree_rcu().bytes(), 3 * OF_SHEAF * size);
        }
        wait_until(|| shared.ended() == 3 * OF_SHEAF + 1);
        let expedited = engine.stats().expedited;
        free_rcu_at_once(slabs, take(cache, 4 * OF_SHEAF + 1, shared));
        assert_eq!(count(slabs, "lane.urge"), 1);
        wait_until(|| count(slabs, "lane.expedite") == 1);
        wait_until(|| shared.ended() == 7 * OF_SHEAF + 2);
        assert!(engine.stats().expedited > expedited);
        // That is over: the next ones wait as usual.
        free_rcu_at_once(slabs, take(cache, OF_SHEAF + 1, shared));
        wait_until(|| shared.ended() == 8 * OF_SHEAF + 3);
        assert_eq!(count(slabs, "lane.expedite"), 1);
        walk(slabs, engine);
        destroy(slabs, cache);
    });
}

/// Over the hard limit who queues waits, if that may be, but not for ever; and frees what is ripe.
#[test]
pub fn over_the_hard_limit_who_queues_waits_a_while() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let (cache, shared) = (create(slabs, "test"), Shared::new());
        let size = u64::from(cache.layout().size);
        slabs.kvfree_rcu().set_soft_limit(OF_SHEAF * size);
        let limit = slabs.kvfree_rcu().hard_limit();
        assert_eq!(limit, 8 * OF_SHEAF * size);
        let section = Section::begin(&world, cpu(1));
        let many = take(cache, 12 * OF_SHEAF, shared);
        let more = take(cache, 2 * OF_SHEAF, shared);
        // Where nobody may sleep nobody helps.
        free_rcu_at_once(slabs, many);
        assert_eq!(count(slabs, "lane.help"), 0);
        assert!(slabs.kvfree_rcu().bytes() > limit);
        // In a section nobody does, either.
        let guard = rcu::hosted::read();
        let mut more = more.into_iter();
        more.by_ref()
            .take(OF_SHEAF as usize)
            .for_each(|object| free_rcu(slabs, object));
        drop(guard);
        assert_eq!(count(slabs, "lane.help"), 0);
        // A reader is there, so it is in vain here; and it ends.
        let before = Hosted::now_ns();
        more.for_each(|object| free_rcu(slabs, object));
        assert!(count(slabs, "lane.help") > 0);
        assert!(Hosted::now_ns() - before >= 100_000_000, "it has waited");
        assert_eq!(shared.ended(), 0);
        section.end();
        // The reader has gone: a flood stays about where it may be, as who makes it waits.
        let mut most = 0;
        for _ in 0..300 {
            for object in take(cache, OF_SHEAF, shared) {
                free_rcu(slabs, object);
            }
            most = most.max(slabs.kvfree_rcu().bytes());
        }
        assert!(most < 2 * 12 * OF_SHEAF * size, "{most} bytes waited");
        slabs.kvfree_rcu_barrier();
        assert_eq!(shared.ended(), 314 * OF_SHEAF);
        walk(slabs, engine);
        destroy(slabs, cache);
    });
}

/// The shrinker frees all that waits, of all CPUs, and says how much that was.
#[test]
fn the_shrinker_frees_what_waits() {
    let world = world(2);
    world.run_with_rcu(|slabs, engine| {
        let (cache, shared) = (create(slabs, "test"), Shared::new());
        let shrinker: &'static dyn Shrink = slabs.kvfree_rcu();
        let wanted = Wanted {
            frames: 1,
            gfp: Gfp::KERNEL,
        };
        assert_eq!((shrinker.count(), shrinker.scan(wanted)), (0, 0));
        let section = Section::begin(&world, cpu(1));
        free_rcu(slabs, slabs.kmalloc(1 << 16, Gfp::KERNEL).unwrap());
        free_rcu_at_once(slabs, take(cache, 3, shared));
        assert_eq!(shrinker.count(), 16);
        // A reader that does not end is waited for, for a while.
        assert_eq!(shrinker.scan(wanted), 0);
        assert_eq!(shared.ended(), 0);
        section.end();
        on(&world, cpu(1), move || {
            free_rcu_at_once(slabs, take(cache, 5, shared));
            // In a section there is nothing that it could do.
            let _guard = rcu::hosted::read();
            assert_eq!(shrinker.scan(wanted), 0);
        });
        shrinker.scan(wanted);
        wait_until(|| shared.ended() == 8);
        assert_eq!(shrinker.count(), 0);
        // Found by an allocation that has no memory.
        world.mm().register_shrinker(shrinker).unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = slabs.kmalloc(1 << 22, Gfp::KERNEL | Gfp::NOWARN) {
            blocks.push(block);
        }
        while let Some(block) = slabs.kmalloc(1 << 14, Gfp::NOWAIT | Gfp::NOWARN) {
            blocks.push(block);
        }
        blocks.drain(..2).for_each(|block| free_rcu(slabs, block));
        let again = slabs.kmalloc(1 << 22, Gfp::KERNEL);
        assert!(again.is_some(), "what waits is memory, too");
        blocks.extend(again);
        for block in blocks {
            free_rcu(slabs, block);
        }
        slabs.kvfree_rcu_barrier();
        assert!(world.mm().unregister_shrinker(shrinker));
        walk(slabs, engine);
        destroy(slabs, cache);
    });
}
