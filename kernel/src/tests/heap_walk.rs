//! Looking at the heap: the walk, whose an address is, and the files of caches.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mm::Gfp;
use mm::slab::{Flags, Spec, walk::At, whatis::What};

use super::files::{names_in, text_of};
use crate::files::{self, Error, Kind, Mode};
use crate::kunit::{
    Ctx, Outcome, Stop, kassert, kassert_eq, kassert_ok, kfail, kskip, kunit_suite, rounds,
};
use crate::memory::{heap_walk, slab::slabs};
use crate::sched::Builder;
use crate::{hotplug, sched, shell, smp, standstill};

kunit_suite! {
    name: "heap_walk",
    cases: [
        others_stand_still,
        none_stands_where_preemption_is_off,
        the_heap_is_sound,
        the_heap_is_sound_while_others_allocate,
        objects_are_found_where_they_are,
        batches_say_what_waits_for_what,
        caches_have_files,
        merged_caches_are_links,
        counters_count,
        slabinfo_lists_every_cache,
        writing_shrinks_while_others_allocate,
        commands_answer,
    ],
}

/// What others count does not go on meanwhile, and goes on afterwards.
fn others_stand_still(_: &mut Ctx) -> Outcome {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static OVER: AtomicBool = AtomicBool::new(false);
    OVER.store(false, Ordering::Relaxed);
    let online = hotplug::read_lock();
    let counter = Builder::new().spawn(format_args!("counter"), || {
        // Relaxed: only numbers and signs, here and below.
        while !OVER.load(Ordering::Relaxed) {
            COUNT.fetch_add(1, Ordering::Relaxed);
            sched::yield_now();
        }
    });
    let counter = kassert_ok!(counter);
    let now = || COUNT.load(Ordering::Relaxed);
    let mut moved = Ok(());
    for _ in 0..rounds(200, 5) {
        let before = now();
        while now() == before {
            sched::yield_now();
        }
        let pair = standstill::with(&online, || {
            let first = now();
            (0..2_000).for_each(|_| core::hint::spin_loop());
            (first, now())
        });
        if pair.is_none_or(|(first, last)| first != last) {
            moved = Err(pair);
        }
    }
    OVER.store(true, Ordering::Relaxed);
    counter.join();
    kassert_eq!(moved, Ok(()));
    Ok(())
}

/// CPUs that are in such sections nearly all of the time are met outside of them.
fn none_stands_where_preemption_is_off(_: &mut Ctx) -> Outcome {
    static INSIDE: AtomicU64 = AtomicU64::new(0);
    static OVER: AtomicBool = AtomicBool::new(false);
    OVER.store(false, Ordering::Relaxed);
    let online = hotplug::read_lock();
    let mut threads = Vec::new();
    for cpu in smp::online().without(smp::this_cpu()) {
        let section = || {
            // Relaxed: only numbers and signs, here and below; a CPU that stands orders them.
            while !OVER.load(Ordering::Relaxed) {
                let pinned = sched::Pinned::disable();
                INSIDE.fetch_add(1, Ordering::Relaxed);
                (0..200).for_each(|_| core::hint::spin_loop());
                INSIDE.fetch_sub(1, Ordering::Relaxed);
                drop(pinned);
            }
        };
        let spawned = Builder::new()
            .on(cpu)
            .spawn(format_args!("inside"), section);
        threads.push(kassert_ok!(spawned));
    }
    let looked = || standstill::with(&online, || INSIDE.load(Ordering::Relaxed));
    let inside = (0..10).map(|_| looked()).find(|inside| *inside != Some(0));
    OVER.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(sched::JoinHandle::join);
    kassert_eq!(inside, None);
    Ok(())
}

fn the_heap_is_sound(_: &mut Ctx) -> Outcome {
    let tally = kassert_ok!(heap_walk::walk());
    kassert!(tally.caches > 10 && tally.slabs > 10, "{tally}");
    kassert!(tally.allocated() > 50, "{tally}");
    // Debug caches (slub_debug=) have none.
    let has_sheaves = text_of("/sys/kernel/slab/kmalloc-64/sheaf_capacity")? != "0\n";
    kassert_eq!(tally.in_sheaves > 0, has_sheaves, "{tally}");
    let pages = tally.pages;
    let managed = crate::memory::mm().counts().managed;
    let sum = pages.free + pages.slabs + pages.large + pages.other + pages.bad;
    kassert_eq!(sum, managed, "{tally}");
    Ok(())
}

/// Runs `f` while a thread on each CPU allocates and frees.
fn beside_users<R>(f: impl FnOnce() -> R) -> Result<R, Stop> {
    static OVER: AtomicBool = AtomicBool::new(false);
    static TURNS: AtomicU64 = AtomicU64::new(0);
    OVER.store(false, Ordering::Relaxed);
    TURNS.store(0, Ordering::Relaxed);
    let mut threads = Vec::new();
    for number in 0..smp::online().count() {
        let name = format_args!("heap user {number}");
        threads.push(kassert_ok!(Builder::new().spawn(name, move || {
            let mut kept = Vec::new();
            // Relaxed: only a sign to stop.
            while !OVER.load(Ordering::Relaxed) {
                kept.push(alloc::vec![0_u8; 8 + number * 100]);
                if kept.len() > 200 {
                    kept.clear();
                    TURNS.fetch_add(1, Ordering::Relaxed);
                }
            }
        })));
    }
    // They are at it.
    while TURNS.load(Ordering::Relaxed) < threads.len() as u64 {
        sched::sleep_ns(100_000);
    }
    let result = f();
    OVER.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join();
    }
    Ok(result)
}

fn the_heap_is_sound_while_others_allocate(_: &mut Ctx) -> Outcome {
    for _ in 0..rounds(5, 2) {
        kassert_ok!(beside_users(heap_walk::walk)?);
    }
    Ok(())
}

/// Where an object is.
fn place_of(object: core::ptr::NonNull<u8>) -> Result<Option<At>, Stop> {
    match heap_walk::whatis(object.addr().get()) {
        Some(What::Slab(slab)) => match slab.object {
            Some(object) => Ok(object.at),
            None => kfail!("no object: {slab}"),
        },
        other => kfail!("{object:?} is {other:?}"),
    }
}

fn objects_are_found_where_they_are(_: &mut Ctx) -> Outcome {
    let spec = Spec::new("sought", 72).flags(Flags::NO_MERGE);
    let cache = kassert_ok!(slabs().create(&spec));
    let object = kassert_ok!(cache.alloc(Gfp::KERNEL));
    kassert_eq!(place_of(object)?, None);
    let text = heap_walk::whatis(object.addr().get() + 5).map(|what| what.to_string());
    let text = kassert_ok!(text);
    kassert!(text.starts_with("byte 5 of object "), "{text}");
    kassert!(text.contains(" of cache sought\nslab "), "{text}");
    // SAFETY: allocated above.
    unsafe { cache.free(object) };
    kassert!(matches!(
        place_of(object)?,
        Some(At::Main(_) | At::Freelist | At::Quarantined(_))
    ));
    cache.shrink();
    // Its slab is empty, so it is one no more.
    let what = heap_walk::whatis(object.addr().get()).map(|what| what.to_string());
    kassert!(what.is_some_and(|what| !what.contains("of cache sought")));
    // SAFETY: not used any more.
    kassert_ok!(unsafe { slabs().destroy(cache) });
    kassert_eq!(heap_walk::whatis(8), Some(What::Nowhere));
    Ok(())
}

/// While all stand still no grace period ends.
fn batches_say_what_waits_for_what(_: &mut Ctx) -> Outcome {
    const COUNT: usize = 150;
    let spec = Spec::new("batched", 72).flags(Flags::NO_MERGE);
    let cache = kassert_ok!(slabs().create(&spec));
    let mut objects = Vec::new();
    for _ in 0..COUNT {
        objects.push(kassert_ok!(cache.alloc(Gfp::KERNEL)));
    }
    let mut text = String::with_capacity(16 << 10);
    let looked = {
        let online = hotplug::read_lock();
        let _caches = slabs().caches();
        standstill::with(&online, || {
            for object in &objects {
                // SAFETY: allocated above, and there is room for a head.
                unsafe { slabs().kfree_rcu(*object, object.cast()) };
            }
            // SAFETY: nobody else runs.
            unsafe {
                let shown = write!(text, "{}", slabs().batches());
                (shown, slabs().whatis(objects[0].addr().get()))
            }
        })
    };
    let (shown, what) = kassert_ok!(looked);
    kassert_ok!(shown);
    let lanes = text.matches("objects taken\n").count();
    kassert!(lanes >= smp::online().count(), "{text}");
    let awaited = match what {
        What::Slab(slab) => slab.object.and_then(|object| object.awaited),
        other => kfail!("{other}"),
    };
    let said = kassert_ok!(awaited, "{what}").to_string();
    kassert!(what.to_string().contains(&format!(" ({said})")), "{what}");
    kassert!(
        text.contains(&format!(" ({said})\n")),
        "no {said} in:\n{text}"
    );
    // Of a debug cache all are in pages.
    if !cache.flags().intersects(Flags::DEBUG) {
        kassert!(text.contains("\n  batched: "), "{text}");
        kassert!(said.ends_with("; not over"), "{said}");
    }
    slabs().kvfree_rcu_barrier_on_cache(cache);
    for file in ["rcu_waiting", "rcu_waiting_bytes"] {
        kassert_eq!(text_of(&format!("/sys/kernel/slab/batched/{file}"))?, "0\n");
    }
    kassert!(!cache.has_in_flight());
    // SAFETY: not used any more.
    kassert_ok!(unsafe { slabs().destroy(cache) });
    Ok(())
}

fn caches_have_files(_: &mut Ctx) -> Outcome {
    let spec = Spec::new("filed", 72);
    let cache = kassert_ok!(slabs().create(&spec.flags(Flags::NO_MERGE)));
    let folder = "/sys/kernel/slab/filed";
    kassert!(names_in("/sys/kernel/slab")?.contains(&String::from("filed/")));
    // Looked at afterwards: while a folder is listed none of its files can be.
    let mut entries = Vec::new();
    kassert_ok!(files::list(folder, &mut |entry| {
        entries.push((
            String::from(entry.name),
            entry.kind == Kind::File(Mode::ReadWrite),
        ));
    }));
    kassert!(entries.len() > 30);
    for (name, is_writable) in entries {
        let path = format!("{folder}/{name}");
        text_of(&path)?;
        // What is only read refuses to be written, and what is written refuses nonsense.
        let refused = files::store(&path, "nonsense");
        if is_writable {
            kassert!(
                matches!(refused, Err(Error::NotA(_))),
                "{path}: {refused:?}"
            );
        } else {
            kassert_eq!(refused, Err(Error::ReadOnly), "{path}");
        }
    }
    kassert_eq!(text_of(&format!("{folder}/object_size"))?, "72\n");
    kassert_ok!(files::store(&format!("{folder}/min_partial"), "3"));
    kassert_eq!(text_of(&format!("{folder}/min_partial"))?, "3\n");
    let list = |path: &str| files::list(path, &mut |_| ());
    kassert_eq!(list(&format!("{folder}/order")), Err(Error::NotFolder));
    kassert_eq!(list(&format!("{folder}/nothing")), Err(Error::Missing));
    kassert_eq!(files::store(folder, "1"), Err(Error::IsFolder));
    // SAFETY: not used any more.
    kassert_ok!(unsafe { slabs().destroy(cache) });
    kassert_eq!(list(folder), Err(Error::Missing));
    Ok(())
}

fn merged_caches_are_links(_: &mut Ctx) -> Outcome {
    let base = kassert_ok!(slabs().create(&Spec::new("merge_base", 360)));
    if base.flags().intersects(Flags::DEBUG) {
        // SAFETY: not used any more.
        kassert_ok!(unsafe { slabs().destroy(base) });
        kskip!("slub_debug= is on, and debug caches are not merged");
    }
    let same = kassert_ok!(slabs().create(&Spec::new("merge_more", 360)));
    kassert!(core::ptr::eq(base, same), "not merged");
    let mut target = String::new();
    kassert_ok!(files::list("/sys/kernel/slab", &mut |entry| {
        if let (Kind::Link(to), "merge_more") = (entry.kind, entry.name) {
            target.push_str(to);
        }
    }));
    kassert_eq!(target, base.title().to_string());
    let aliases = text_of("/sys/kernel/slab/merge_more/aliases")?;
    kassert_eq!(
        aliases,
        text_of(&format!("/sys/kernel/slab/{target}/aliases"))?
    );
    kassert!(aliases != "0\n");
    // SAFETY: not used any more.
    unsafe {
        kassert_ok!(slabs().destroy_named(same, "merge_more"));
        kassert_ok!(slabs().destroy_named(base, "merge_base"));
    }
    let gone = files::list("/sys/kernel/slab/merge_more", &mut |_| ());
    kassert_eq!(gone, Err(Error::Missing));
    Ok(())
}

/// Each allocation and each free is counted once, by the CPU that makes it.
fn counters_count(_: &mut Ctx) -> Outcome {
    const COUNT: u64 = 200;
    if cfg!(not(feature = "slab_stats")) {
        kskip!("this build does not count");
    }
    let spec = Spec::new("counted", 104).flags(Flags::NO_MERGE);
    let cache = kassert_ok!(slabs().create(&spec));
    let mut objects = Vec::new();
    for _ in 0..COUNT {
        objects.push(kassert_ok!(cache.alloc(Gfp::KERNEL)));
    }
    // SAFETY: allocated above.
    objects
        .iter()
        .for_each(|object| unsafe { cache.free(*object) });
    // The number that a file begins with is the sum of those of CPUs.
    let counted = |name: &str| -> Result<u64, Stop> {
        let text = text_of(&format!("/sys/kernel/slab/counted/{name}"))?;
        let mut words = text.split_whitespace();
        let sum: u64 = kassert_ok!(words.next().unwrap_or_default().parse(), "{name}: {text}");
        let mut parts = 0;
        for word in words {
            let (cpu, part) = kassert_ok!(word.split_once('='), "{name}: {text}");
            kassert!(cpu.starts_with('C'), "{name}: {text}");
            parts += kassert_ok!(part.parse::<u64>(), "{name}: {text}");
        }
        kassert_eq!(parts, sum, "{name}: {text}");
        Ok(sum)
    };
    let (fast, slow) = (counted("alloc_fastpath")?, counted("alloc_slowpath")?);
    kassert_eq!(fast + slow, COUNT, "{fast} fast, {slow} slow");
    let is_debug = cache.flags().intersects(Flags::DEBUG);
    kassert_eq!(fast == 0, is_debug, "{fast} fast, {slow} slow");
    let mut freed = 0;
    for name in ["free_fastpath", "free_slowpath", "free_remote"] {
        freed += counted(name)?;
    }
    kassert_eq!(freed, COUNT);
    kassert!(counted("alloc_slab")? > 0);
    let path = "/sys/kernel/slab/counted/alloc_slowpath";
    kassert_eq!(files::store(path, "1"), Err(Error::NotA("0")));
    kassert_eq!(counted("alloc_slowpath")?, slow);
    kassert_ok!(files::store(path, "0"));
    kassert_eq!(counted("alloc_slowpath")?, 0);
    kassert_eq!(counted("alloc_fastpath")?, fast);
    // SAFETY: not used any more.
    kassert_ok!(unsafe { slabs().destroy(cache) });
    Ok(())
}

fn slabinfo_lists_every_cache(_: &mut Ctx) -> Outcome {
    let text = text_of("/proc/slabinfo")?;
    let caches = slabs().caches();
    kassert_eq!(text.lines().count(), 2 + caches.iter().count());
    for cache in caches.iter() {
        let begin = format!("\n{:<17} ", cache.title());
        kassert!(text.contains(&begin), "no {begin} in:\n{text}");
    }
    for line in text.lines().skip(2) {
        kassert_eq!(line.split_whitespace().count(), 16, "{line}");
    }
    Ok(())
}

fn writing_shrinks_while_others_allocate(_: &mut Ctx) -> Outcome {
    for _ in 0..rounds(50, 2) {
        let shrunk = beside_users(|| {
            for name in ["kmalloc-64", "kmalloc-128", "kmalloc-256"] {
                for file in ["shrink", "validate"] {
                    files::store(&format!("/sys/kernel/slab/{name}/{file}"), "1")?;
                }
            }
            Ok::<(), Error>(())
        })?;
        kassert_ok!(shrunk);
        kassert_ok!(heap_walk::walk());
    }
    Ok(())
}

/// The commands succeed, or fail with the status of wrong input.
fn commands_answer(_: &mut Ctx) -> Outcome {
    for (line, code) in [
        ("slabinfo", 0),
        ("slabinfo -a", 0),
        ("slabinfo kmalloc-64", 0),
        ("slabinfo no-such-cache", 2),
        ("slabtop -o", 0),
        ("slabtop -o -s c", 0),
        ("slabtop -o -s z", 2),
        ("slabtop -s", 2),
        ("slabtop -o -s", 2),
        ("slabinfo -x", 2),
        ("slabinfo kmalloc-64 kmalloc-8", 2),
        ("slabtop everything", 2),
        ("kmem walk", 0),
        ("kmem 0xffff888000000000", 0),
        ("batches", 0),
        ("batches all", 2),
        ("kfree_rcu 200", 0),
        ("kfree_rcu 9 5000", 0),
        ("kfree_rcu -d 9", 0),
        ("kfree_rcu 2 20000", 0),
        ("kfree_rcu", 2),
        ("kfree_rcu -d", 2),
        ("kfree_rcu 0", 2),
        ("kfree_rcu 9 8", 2),
        ("kfree_rcu 9 64 1", 2),
        ("kmem", 2),
        ("kmem here", 0),
        ("kmem here+0x40", 0),
        ("kmem here+", 2),
        ("kmem here+0x+1", 2),
        ("kmem here+0xffffffffffffffff", 2),
        ("kmem +0x12", 2),
        ("whatis 12", 2),
        ("whatis 0x", 2),
        ("whatis 0xffffffffffffffffff", 2),
        ("ls /sys/kernel/slab", 0),
        ("ls -l /sys/kernel/slab/kmalloc-64", 0),
        ("ls -l a b", 2),
        ("ls /sys/kernel/slab/nothing", 1),
        ("cat /sys/kernel/slab/kmalloc-64", 1),
        ("write /sys/kernel/slab/kmalloc-64/order 1", 1),
        ("write /proc/meminfo 1", 1),
        (
            "echo 101 > /sys/kernel/slab/kmalloc-64/remote_node_defrag_ratio",
            1,
        ),
        ("echo 1 >/sys/kernel/slab/kmalloc-64/shrink", 0),
        ("echo 2 >/sys/kernel/slab/kmalloc-64/shrink", 1),
        ("echo 0 > /sys/kernel/slab/kmalloc-64/cpu_partial", 0),
        ("write /sys/kernel/slab/kmalloc-64/min_partial -1", 1),
        ("write /sys/kernel/slab/kmalloc-64", 2),
        ("echo >", 2),
        ("echo", 0),
    ] {
        kassert_eq!(shell::run_line(line).code(), code, "{line}");
    }
    Ok(())
}
