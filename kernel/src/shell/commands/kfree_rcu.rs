//! Commands that look at what waits for grace periods.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ptr::NonNull;

use mm::Gfp;
use mm::kvfree_rcu::Head;
use mm::slab::{text::OneCache, walk::Fault};

use super::slab::{ROOM, Room, show, text};
use crate::memory::{heap_walk, slab::slabs};
use crate::shell::{Args, Status, bad_argument, shell_command};
use crate::{hotplug, standstill};

shell_command! {
    name: "batches",
    usage: "",
    summary: "show what was given to kfree_rcu and waits for a grace period",
    details: "How many grace periods are over, then for each CPU what its lane does (idle, awake: about \
to look,\ndozing until what is open is old, called: when a grace period is over), bytes that wait, objects that\n\
somebody has taken and is freeing; then its sheaves by cache, pages and chains. Each says by how many\ngrace periods, \
normal or expedited, it is over, or that it is still open.",
    arguments: (0, 0),
    run: batches,
}

fn batches(_: Args<'_>) -> Status {
    let online = hotplug::read_lock();
    // So that no cache is created or destroyed just now.
    let _caches = slabs().caches();
    let mut room = ROOM.lock();
    // Shown while all stand still: it is out of date at once.
    match standstill::with(&online, || show_batches(&mut room)) {
        Some(()) => Status::SUCCESS,
        None => {
            crate::println!("batches: a CPU does not stop");
            Status::FAILURE
        }
    }
}

/// Nobody else runs.
fn show_batches(room: &mut Room) {
    room.text.clear();
    // What does not fit is left out. SAFETY: nobody else runs, and interrupts are off.
    let _ = write!(room.text, "{}", unsafe { slabs().batches() });
    show(&room.text);
}

shell_command! {
    name: "kfree_rcu",
    usage: "[-d] COUNT [BYTES]",
    summary: "give objects to kfree_rcu, and show the heap while they wait",
    details: "Gives COUNT objects of kmalloc with BYTES (64) to kfree_rcu: half of them at once, the \
others while all\nCPUs stand still, so that their grace period cannot end. Then, in the same moment, it shows the walk of the\n\
heap, the batches, the cache, and whose the first object is that waits, and the last one. -d: calls it as\nan NMI does.",
    arguments: (1, 3),
    complete: |offer| offer("-d"),
    run: kfree_rcu,
}

/// Objects, at most.
const MOST: usize = 10_000;

fn kfree_rcu(arguments: Args<'_>) -> Status {
    let mut words = arguments.iter().map(String::as_str).peekable();
    let deferred = words.next_if_eq(&"-d").is_some();
    let word = words.next().unwrap_or_default();
    let Some(count) = word.parse().ok().filter(|count| (1..=MOST).contains(count)) else {
        return bad_argument("kfree_rcu", word, "a number from 1 to 10000");
    };
    let word = words.next().unwrap_or("64");
    let least = size_of::<Head>();
    let Some(bytes) = word.parse().ok().filter(|bytes| *bytes >= least) else {
        return bad_argument("kfree_rcu", word, "16 bytes or more");
    };
    if let Some(word) = words.next() {
        return bad_argument("kfree_rcu", word, "nothing");
    }
    for _ in 0..count / 2 {
        match slabs().kmalloc(bytes, Gfp::KERNEL) {
            Some(object) => give(object, deferred),
            None => {
                crate::println!("kfree_rcu: no memory");
                return Status::FAILURE;
            }
        }
    }
    give_and_show(count - count / 2, bytes, deferred)
}

fn give(object: NonNull<u8>, deferred: bool) {
    let head = object.cast();
    // SAFETY: the caller's, with room for a head; no reader knows it.
    unsafe {
        if deferred {
            slabs().kfree_rcu_nolock(object, head);
        } else {
            slabs().kfree_rcu(object, head);
        }
    }
}

/// Gives so many objects to `kfree_rcu`, and shows the heap, while nobody else runs.
fn give_and_show(count: usize, bytes: usize, deferred: bool) -> Status {
    let online = hotplug::read_lock();
    let caches = slabs().caches();
    let mut room = ROOM.lock();
    let mut given = Vec::with_capacity(count);
    // For when there is no memory without waiting.
    let alloc = |_| slabs().kmalloc(bytes, Gfp::KERNEL);
    let mut reserve: Vec<NonNull<u8>> = (0..count).map_while(alloc).collect();
    let mut work = || {
        // Not before the heap is at rest: else what was given would not wait any more when it is. SAFETY:
        // nobody else runs, here and below; the list of caches is locked.
        unsafe { heap_walk::walk_at_rest()? };
        // Allocated here, so that they are of this CPU's node, and go into its sheaf.
        while given.len() < count
            && let Some(object) = slabs()
                .kmalloc(bytes, Gfp::NOWAIT | Gfp::NOWARN)
                .or_else(|| reserve.pop())
        {
            give(object, deferred);
            given.push(object);
        }
        // SAFETY: as above.
        let tally = unsafe { heap_walk::walk_at_rest()? };
        show(&text(format_args!("{tally}\nthe heap is sound\n")));
        show_batches(&mut room);
        for object in [given.first(), given.last()].into_iter().flatten() {
            let address = object.addr().get();
            // SAFETY: as above.
            let what = unsafe { slabs().whatis(address) };
            show(&text(format_args!("{address:#x}: {what}\n")));
        }
        if let Some(cache) = slabs().kmalloc_cache(bytes) {
            let Room { now, text } = &mut *room;
            // SAFETY: as above.
            unsafe { now.take(cache) };
            text.clear();
            // What does not fit is left out.
            let _ = write!(text, "{}", OneCache(&caches, cache, now));
            show(text);
        }
        Ok::<(), Fault>(())
    };
    let mut status = Err(None);
    for _ in 0..heap_walk::TRIES {
        status = match standstill::with(&online, &mut work) {
            // Somebody may have been stopped in the middle of something.
            Some(Err(fault)) => Err(Some(fault)),
            Some(Ok(())) => Ok(()),
            None => Err(None),
        };
        if !matches!(status, Err(Some(_))) {
            break;
        }
        heap_walk::pause();
    }
    for object in reserve {
        // SAFETY: allocated above.
        unsafe { slabs().kfree(object) };
    }
    match status {
        Ok(()) => return Status::SUCCESS,
        Err(Some(fault)) => crate::println!("kfree_rcu: {fault}"),
        Err(None) => crate::println!("kfree_rcu: a CPU does not stop"),
    }
    Status::FAILURE
}
