//! `/proc/slabinfo`, and the files of a cache.

use mm::slab::{
    Caches, Flags, KmemCache, Spec,
    text::{Attribute, OneCache, SlabInfo, Snapshot, StoreError},
};
use platform::hosted::Hosted;

use crate::{
    World, cache, lone,
    world::{free, take},
};

fn show(caches: &Caches<'_, Hosted>, cache: &KmemCache<Hosted>, name: &str) -> String {
    let mut text = String::new();
    let attribute = Attribute::named(name).unwrap_or_else(|| panic!("no attribute {name}"));
    attribute.show(caches, cache, &mut text).unwrap();
    text
}

fn store(cache: &KmemCache<Hosted>, name: &str, value: &str) -> Result<(), StoreError> {
    Attribute::named(name).unwrap().store(cache, value)
}

#[test]
fn slabinfo_has_linux_format() {
    lone().run(|slabs| {
        let cache = cache(slabs, "a_cache", 64);
        let objects = take(cache, 100);
        let text = SlabInfo(&slabs.caches()).to_string();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("slabinfo - version: 2.1"));
        // As in /proc/slabinfo of Linux 7.2, word for word.
        assert_eq!(
            lines.next(),
            Some(
                "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> \
                 : tunables <limit> <batchcount> <sharedfactor> \
                 : slabdata <active_slabs> <num_slabs> <sharedavail>"
            )
        );
        // The newest comes first.
        assert_eq!(
            lines.next(),
            Some(
                "a_cache              126    128     64   64    1 \
                 : tunables    0    0    0 : slabdata      2      2      0"
            )
        );
        assert_eq!(lines.count(), 15);
        free(cache, objects);
    });
}

/// What Linux 7.2 has in each folder of `/sys/kernel/slab`, but for its counters.
const LINUX: [&str; 30] = [
    "aliases",
    "align",
    "cpu_partial",
    "cpu_slabs",
    "ctor",
    "destroy_by_rcu",
    "hwcache_align",
    "min_partial",
    "object_size",
    "objects",
    "objects_partial",
    "objs_per_slab",
    "order",
    "partial",
    "poison",
    "reclaim_account",
    "red_zone",
    "remote_node_defrag_ratio",
    "sanity_checks",
    "sheaf_capacity",
    "shrink",
    "slab_size",
    "slabs",
    "slabs_cpu_partial",
    "store_user",
    "total_objects",
    "trace",
    "validate",
    "usersize",
    "contention",
];

#[test]
fn every_attribute_of_linux_is_there_and_shows_a_line() {
    lone().run(|slabs| {
        let cache = cache(slabs, "a_cache", 64);
        let caches = slabs.caches();
        for name in LINUX {
            let text = show(&caches, cache, name);
            let empty = ["ctor", "shrink", "validate"].contains(&name);
            assert_eq!(text.is_empty(), empty, "{name}: {text:?}");
            assert!(empty || text.ends_with('\n'), "{name}: {text:?}");
        }
        let names: Vec<&str> = Attribute::all().map(|of| of.name).collect();
        assert!(names.is_sorted(), "{names:?}");
        assert!(Attribute::named("nothing").is_none());
    });
}

#[test]
fn attributes_say_how_the_cache_is() {
    World::small().run(|slabs| {
        let spec = Spec::new("a_cache", 200).flags(Flags::NO_MERGE | Flags::RECLAIM_ACCOUNT);
        let cache = slabs.create(&spec.align(64).sheaf_capacity(14)).unwrap();
        let objects = take(cache, 50);
        let caches = slabs.caches();
        let show = |name| show(&caches, cache, name);
        assert_eq!(show("object_size"), "200\n");
        assert_eq!(show("slab_size"), "256\n");
        assert_eq!(show("align"), "64\n");
        assert_eq!(show("objs_per_slab"), "16\n");
        assert_eq!(show("order"), "0\n");
        assert_eq!(show("sheaf_capacity"), "14\n");
        assert_eq!(show("reclaim_account"), "1\n");
        assert_eq!(show("red_zone"), "0\n");
        assert_eq!(show("aliases"), "0\n");
        assert_eq!(show("cpu_slabs"), "0\n");
        assert_eq!(show("slabs_cpu_partial"), "0(0)\n");
        // 50 are taken and 12 are in the sheaf, all of node 0.
        assert_eq!(show("slabs"), "4 N0=4\n");
        assert_eq!(show("total_objects"), "64 N0=64\n");
        assert_eq!(show("objects"), "62 N0=62\n");
        assert_eq!(show("partial"), "1 N0=1\n");
        assert_eq!(show("objects_partial"), "14 N0=14\n");
        let text = show("contention");
        assert_eq!(text.lines().count(), 1 + 2 * 2, "{text}");
        drop(caches);
        free(cache, objects);
    });
}

#[test]
fn merged_caches_count_as_aliases_and_are_found_by_each_name() {
    lone().run(|slabs| {
        let one = slabs.create(&Spec::new("one", 64)).unwrap();
        let other = slabs.create(&Spec::new("other", 64)).unwrap();
        assert!(std::ptr::eq(one, other), "the same cache");
        let caches = slabs.caches();
        let aliases = caches.aliases(one).count();
        assert_eq!(show(&caches, one, "aliases"), format!("{aliases}\n"));
        for name in ["one", "other"] {
            assert!(std::ptr::eq(caches.find(name).unwrap(), one), "{name}");
        }
        drop(caches);
        // SAFETY: not used any more.
        unsafe {
            slabs.destroy(other).unwrap();
            slabs.destroy(one).unwrap();
        }
    });
}

#[test]
fn values_are_taken_or_refused() {
    lone().run(|slabs| {
        let cache = cache(slabs, "a_cache", 64);
        let text = |name: &str| show(&slabs.caches(), cache, name);
        assert_eq!(store(cache, "min_partial", "7\n"), Ok(()));
        assert_eq!(text("min_partial"), "7\n");
        assert_eq!(store(cache, "remote_node_defrag_ratio", "100"), Ok(()));
        assert_eq!(text("remote_node_defrag_ratio"), "100\n");
        for (name, wrong) in [
            ("min_partial", "many"),
            ("min_partial", "-1"),
            ("min_partial", ""),
            ("remote_node_defrag_ratio", "101"),
            ("shrink", "0"),
            ("shrink", "yes"),
            ("validate", ""),
            ("cpu_partial", "3"),
        ] {
            let refused = store(cache, name, wrong);
            assert!(
                matches!(refused, Err(StoreError::NotA(_))),
                "{name}: {refused:?}"
            );
        }
        assert_eq!(text("min_partial"), "7\n");
        assert_eq!(store(cache, "cpu_partial", "0"), Ok(()));
        assert_eq!(store(cache, "order", "1"), Err(StoreError::ReadOnly));
        for attribute in Attribute::all() {
            let takes = attribute.store(cache, "?") != Err(StoreError::ReadOnly);
            assert_eq!(takes, attribute.is_writable(), "{}", attribute.name);
        }
    });
}

#[test]
fn shrink_and_validate_do_what_they_say() {
    lone().run(|slabs| {
        let cache = cache(slabs, "a_cache", 64);
        free(cache, take(cache, 1000));
        assert!(cache.usage().slabs > 0);
        assert_eq!(store(cache, "shrink", "1"), Ok(()));
        assert_eq!(cache.usage().slabs, 0);
        assert_eq!(store(cache, "validate", "1"), Ok(()));
    });
}

#[cfg(feature = "slab_stats")]
#[test]
fn counters_are_shown_by_cpu_and_reset_by_0() {
    lone().run(|slabs| {
        let cache = cache(slabs, "a_cache", 64);
        free(cache, take(cache, 10));
        let text = |name: &str| show(&slabs.caches(), cache, name);
        assert_eq!(text("free_fastpath"), "10 C0=10\n");
        assert_eq!(
            store(cache, "free_fastpath", "1"),
            Err(StoreError::NotA("0"))
        );
        assert_eq!(store(cache, "free_fastpath", "0"), Ok(()));
        assert_eq!(text("free_fastpath"), "0\n");
    });
}

#[test]
fn one_cache_is_shown_with_what_every_cpu_and_node_has() {
    lone().run(|slabs| {
        let cache = cache(slabs, "a_cache", 64);
        let objects = take(cache, 100);
        let mut now = Snapshot::new();
        // SAFETY: this thread is the only one.
        unsafe { now.take(cache) };
        let text = OneCache(&slabs.caches(), cache, &now).to_string();
        let mut lines = text.lines();
        let mut next = || lines.next().unwrap_or_default();
        assert_eq!(
            next(),
            "cache a_cache: objects of 64 bytes, 64 apart, aligned to 8"
        );
        assert_eq!(
            next(),
            "slabs of order 0 with 64 objects, of order 0 with 64 when memory is short"
        );
        let least = show(&slabs.caches(), cache, "min_partial");
        let least = least.trim();
        assert_eq!(
            next(),
            format!(
                "sheaves of 62 objects, {least} empty slabs kept, 0 frees deferred, 0 quarantined, flags NO_MERGE"
            )
        );
        assert_eq!(next(), "cpu0: main 26/62 spare - rcu_free - waiting 0");
        assert_eq!(
            next(),
            "node 0: 2 slabs with 128 objects, 1 partial, 0 full (debug), 0 wait for RCU; \
             barn: 0 full, 0 empty"
        );
        assert!(next().ends_with(": 62 of 64 in use"));
        free(cache, objects);
    });
}
