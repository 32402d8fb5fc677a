//! Use after free, and what else is found.

use std::ptr::NonNull;

use mm::{
    Gfp,
    hosted::Reports,
    reclaim::{Shrink, Wanted},
    report::Kind,
    slab::Slabs,
};
use platform::{CpuId, hosted::Hosted};

use crate::{
    Cache, cache, count, end, is_in, lone, walk,
    world::{World, free, take},
};

fn poke(object: NonNull<u8>, at: usize, byte: u8) {
    // SAFETY: memory of a slab. Wrong on purpose.
    unsafe { object.add(at).write(byte) };
}

/// The one report that there is.
#[track_caller]
fn said(world: &World) -> (Kind, String) {
    let mut said = Reports::of(&world.machine).take();
    assert_eq!(said.len(), 1, "{said:?}");
    let said = said.remove(0);
    (said.kind, said.to_string())
}

/// Each byte, also where links of free objects lie.
#[test]
fn a_write_after_free_is_one_report_that_names_the_byte() {
    let world = lone();
    world.run(|slabs| {
        const SIZE: usize = 40;
        let cache = cache(slabs, "written", SIZE);
        for at in 0..SIZE {
            slabs.set_quarantine(SIZE);
            let objects = take(cache, 3);
            free(cache, vec![objects[0]]);
            poke(objects[0], at, 0x12);
            assert!(Reports::of(&world.machine).take().is_empty());
            // The next one makes it leave.
            free(cache, vec![objects[1]]);
            let (kind, text) = said(&world);
            assert_eq!(kind, Kind::SlabQuarantine);
            let index = format!("at {:#x}", objects[0].addr());
            for part in [
                "a slab object in quarantine was written to",
                "cache written (id ",
                "objects of 40 bytes",
                &index,
                &format!(
                    "object in quarantine (0..40): 1 byte is wrong, at {at}: 0x12 instead of 0x6d"
                ),
                " !12 ",
                " ms ago on cpu0 by thread ",
                // Who freed it.
                "slab_caches/world.rs:",
                "the object is freed all the same",
            ] {
                assert!(
                    format!("{text} ").replace('\n', " ").contains(part),
                    "{part}: {text}"
                );
            }
            assert_eq!(cache.faults_found(), at as u64 + 1);
            assert!(!is_in(slabs, objects[0]) && is_in(slabs, objects[1]));
            free(cache, vec![objects[2]]);
            walk(slabs);
        }
        slabs.set_quarantine(0);
        end(slabs, cache);
    });
}

#[test]
fn the_first_and_the_last_byte_and_their_number_are_told() {
    let world = lone();
    world.run(|slabs| {
        let cache = cache(slabs, "written", 200);
        slabs.set_quarantine(1 << 20);
        let object = take(cache, 1)[0];
        free(cache, vec![object]);
        for at in [7, 30, 199] {
            poke(object, at, 1);
        }
        // In whatever way it leaves.
        end(slabs, cache);
        let (_, text) = said(&world);
        assert!(
            text.contains("3 bytes are wrong, from 7 to 199, the first: 0x01 instead of 0x6d"),
            "{text}"
        );
    });
}

/// Makes objects of a cache leave.
type Leave = fn(&'static Slabs<Hosted>, &'static Cache);

/// Whoever makes the object leave.
#[test]
fn all_who_leave_are_looked_at() {
    let world = lone();
    let ways: [(&str, Leave); 5] = [
        ("off", |slabs, _| slabs.set_quarantine(0)),
        ("lower", |slabs, _| slabs.set_quarantine(64)),
        ("shrink", |_, cache| _ = cache.shrink()),
        ("pressure", |slabs, _| {
            let wanted = Wanted {
                frames: u64::MAX,
                gfp: Gfp::KERNEL,
            };
            _ = slabs.scan(wanted);
        }),
        ("end", |slabs, cache| end(slabs, cache)),
    ];
    world.run(|slabs| {
        for (way, leave) in ways {
            let cache = cache(slabs, way, 64);
            slabs.set_quarantine(1 << 20);
            let objects = take(cache, 2);
            free(cache, objects.clone());
            poke(objects[0], 0, 0);
            leave(slabs, cache);
            let (kind, text) = said(&world);
            assert_eq!(kind, Kind::SlabQuarantine, "{way}: {text}");
            slabs.set_quarantine(0);
            if way != "end" {
                end(slabs, cache);
            }
        }
    });
}

#[test]
fn a_second_free_is_refused() {
    let world = lone();
    world.run(|slabs| {
        let cache = cache(slabs, "twice", 64);
        slabs.set_quarantine(1 << 20);
        let objects = take(cache, 200);
        free(cache, objects.clone());
        for object in [objects[0], objects[150], objects[199]] {
            free(cache, vec![object]);
            let (kind, text) = said(&world);
            assert_eq!(kind, Kind::SlabDoubleFree);
            assert!(
                text.contains("is free already, and in quarantine"),
                "{text}"
            );
            assert!(text.contains("asked for at mm/tests/"), "{text}");
        }
        assert_eq!(count(slabs, "quarantine.double"), 3);
        assert_eq!(walk(slabs), 200);
        // Who has written the same bytes may free them.
        let object = take(cache, 1)[0];
        // SAFETY: the test's.
        unsafe { object.write_bytes(mm::slab::quarantine::POISON_QUARANTINE, 64) };
        free(cache, vec![object]);
        assert_eq!(cache.quarantined(), 201);
        end(slabs, cache);
    });
}

/// What is no object is not filled: it may be a part of somebody else's.
#[test]
fn what_is_no_object_is_not_written_to() {
    let world = lone();
    world.run(|slabs| {
        let (one, two) = (cache(slabs, "one", 64), cache(slabs, "two", 256));
        let (objects, others) = (take(one, 3), take(two, 1));
        for object in &objects {
            // SAFETY: the test's.
            unsafe { object.write_bytes(7, 64) };
        }
        slabs.set_quarantine(1 << 20);
        // SAFETY: wrong on purpose: the middle of an object, and another cache's object.
        unsafe {
            one.free(objects[0].add(8));
            two.free(objects[1]);
        }
        assert_eq!((one.quarantined(), two.quarantined()), (0, 0));
        assert_eq!(slabs.quarantined(CpuId::BOOT).objects, 0);
        for object in &objects {
            // SAFETY: the test's.
            let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), 64) };
            assert!(bytes.iter().all(|byte| *byte == 7));
        }
        // They are in sheaves now, from where they are found when these are flushed, or handed out.
        slabs.set_quarantine(0);
        assert_eq!(take(one, 1), [unsafe_middle(objects[0])]);
        assert_eq!(take(two, 1), [objects[1]]);
        free(one, objects);
        free(two, others);
        end(slabs, one);
        end(slabs, two);
    });
}

fn unsafe_middle(object: NonNull<u8>) -> NonNull<u8> {
    // SAFETY: in the object.
    unsafe { object.add(8) }
}
