//! Freed objects that wait before they are reused.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use mm::{
    Gfp,
    slab::{Flags, quarantine::POISON_QUARANTINE},
};

use super::{create, destroy, free, take};
use crate::{
    boot,
    kunit::{Ctx, Outcome, Stop, kassert, kassert_ok, kskip, rounds},
    memory::{heap_walk, slab::slabs},
    sched::Builder,
    smp,
    tests::files::text_of,
};

const KIB: usize = 1024;

/// What a case leaves behind is what the command line wanted.
pub fn as_it_was(_: &mut Ctx) -> Outcome {
    slabs().set_quarantine(boot::command_line().slab.quarantine as usize);
    Ok(())
}

/// What is said of where an object is.
fn state(object: super::Object) -> Result<String, Stop> {
    let what = kassert_ok!(heap_walk::whatis(object.0.addr().get())).to_string();
    Ok(what.lines().last().unwrap_or_default().to_string())
}

/// They are seen there, by the walk too; a write is found when they leave, and a second free at once.
pub fn freed_objects_wait_in_quarantine(_: &mut Ctx) -> Outcome {
    const NAME: &str = "slab-quarantine";
    slabs().set_quarantine(256 * KIB);
    let cache = create(NAME, 72, Flags::empty())?;
    if cache.is_debug() {
        destroy(cache)?;
        kskip!("slub_debug= is on, and debug caches do not take part");
    }
    let objects = take(cache, 20)?;
    free(cache, &objects);
    smp::call_all(&|| {
        let object = cache.alloc(Gfp::ATOMIC);
        // SAFETY: just allocated.
        object
            .into_iter()
            .for_each(|object| unsafe { cache.free(object) });
    });
    let all = 20 + smp::online().count() as u64;
    // A CPU may have been just at its quarantine when it was called.
    let inside = cache.quarantined();
    kassert!((20..=all).contains(&inside), "{inside} of {all}");
    let text = text_of(&format!("/sys/kernel/slab/{NAME}/quarantined"))?;
    kassert!(text.starts_with(&format!("{inside} C")), "{text}");
    for object in &objects {
        let state = state(*object)?;
        kassert!(state.starts_with("free: quarantined on cpu"), "{state}");
    }
    let tally = kassert_ok!(heap_walk::walk());
    kassert!(tally.quarantined >= inside, "{tally}");
    // Two that do not belong here.
    // SAFETY: memory of a slab. Wrong on purpose.
    unsafe {
        objects[7].0.add(33).write_volatile(!POISON_QUARANTINE);
        cache.free(objects[8].0);
    }
    destroy(cache)?;
    kassert_ok!(heap_walk::walk());
    Ok(())
}

/// All CPUs free what makes objects leave whose caches other CPUs destroy.
pub fn caches_end_while_others_leave_quarantine(_: &mut Ctx) -> Outcome {
    slabs().set_quarantine(2 * KIB);
    let turns = rounds(400, 20);
    let mut threads = Vec::new();
    for cpu in smp::online() {
        let turn = move || -> Outcome {
            for number in 0..turns {
                let cache = create(&format!("slab-q{cpu}-{number}"), 88, Flags::empty())?;
                let objects = take(cache, 40)?;
                free(cache, &objects);
                destroy(cache)?;
            }
            Ok(())
        };
        // On no certain CPU: objects are left behind on others.
        let thread = Builder::new().spawn(format_args!("quarantine"), turn);
        threads.push(kassert_ok!(thread));
    }
    for thread in threads {
        thread.join()?;
    }
    kassert_ok!(heap_walk::walk());
    Ok(())
}
