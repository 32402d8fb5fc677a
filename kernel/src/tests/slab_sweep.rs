//! The slab allocator, interrupted at every instruction of each of its paths by interrupts and
//! NMIs that allocate and free objects of the same cache: no object is lost, none is given
//! twice, and who finds the sheaves in use does without them.

use core::{
    mem::MaybeUninit,
    ptr::{self, NonNull},
    sync::atomic::{AtomicPtr, AtomicU64, Ordering},
};

use mm::{
    Gfp,
    slab::{Flags, KmemCache, Spec},
};

use crate::{
    kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok, knote, kunit_suite, rounds},
    machine::Kernel,
    memory::{mm, slab::slabs},
    smp,
    sweep::sweep,
    time,
    timer::RawKind,
};

kunit_suite! {
    name: "slab_sweep",
    cases: [
        by_interrupts => { over: PATHS },
        by_nmis => { over: PATHS },
        the_lock_was_taken,
    ],
}

/// What is swept over.
#[derive(Clone, Copy)]
struct Path {
    /// Objects of a sheaf.
    capacity: u32,
    /// More instructions than it has, mostly.
    length: u64,
    run: fn(&Swept<'_>),
}

const PATHS: &[(&str, Path)] = &[
    (
        "pair",
        Path {
            capacity: 30,
            length: 1_500,
            run: |swept| swept.plain(1),
        },
    ),
    (
        "refill",
        Path {
            capacity: 4,
            length: 5_000,
            run: |swept| swept.plain(7),
        },
    ),
    (
        "barn",
        Path {
            capacity: 2,
            length: 6_000,
            run: |swept| swept.plain(MOST),
        },
    ),
    (
        "bulk",
        Path {
            capacity: 4,
            length: 5_000,
            run: |swept| swept.bulk(7),
        },
    ),
    (
        "nolock",
        Path {
            capacity: 4,
            length: 4_000,
            run: |swept| swept.nolock(3),
        },
    ),
    (
        "prefill",
        Path {
            capacity: 6,
            length: 4_000,
            run: |swept| swept.prefill(6),
        },
    ),
];

/// Objects of one operation at most.
const MOST: usize = 9;

/// A sweep in progress: the cache, and what was seen.
struct Swept<'a> {
    cache: &'a KmemCache<Kernel>,
    /// What a handler allocated, for the next one to free.
    left: AtomicPtr<u8>,
    got: AtomicU64,
    none: AtomicU64,
    damaged: AtomicU64,
}

/// Marks of who has an object.
const THREAD: u64 = 0x7468_7265_6164;
const HANDLER: u64 = 0x6861_6e64_6c65;

impl Swept<'_> {
    /// It was allocated by `who`: nobody else has it.
    fn take(&self, object: Option<NonNull<u8>>, who: u64) -> Option<NonNull<u8>> {
        let count = if object.is_some() {
            &self.got
        } else {
            &self.none
        };
        // Relaxed here and below: read when all is over.
        count.fetch_add(1, Ordering::Relaxed);
        let object = object?;
        // SAFETY: just allocated, of 64 bytes.
        unsafe {
            object
                .cast::<u64>()
                .add(3)
                .write_volatile(who ^ address(object))
        };
        Some(object)
    }

    /// It is about to be freed by who has it.
    fn give(&self, object: NonNull<u8>, who: u64) {
        // SAFETY: the caller's, of 64 bytes.
        let place = unsafe { object.cast::<u64>().add(3) };
        // SAFETY: as above.
        let found = unsafe { place.read_volatile() };
        // SAFETY: as above.
        unsafe { place.write_volatile(0) };
        let damaged = found != who ^ address(object);
        self.damaged
            .fetch_add(u64::from(damaged), Ordering::Relaxed);
    }

    /// Takes so many, then gives them back.
    fn one_by_one(
        &self,
        count: usize,
        alloc: impl Fn() -> Option<NonNull<u8>>,
        free: impl Fn(NonNull<u8>),
    ) {
        let mut held = [None; MOST];
        for place in &mut held[..count] {
            *place = self.take(alloc(), THREAD);
        }
        for object in held.into_iter().flatten() {
            self.give(object, THREAD);
            free(object);
        }
    }

    fn plain(&self, count: usize) {
        // The timer is taken, so nobody sleeps here.
        let alloc = || self.cache.alloc(Gfp::ATOMIC);
        // SAFETY: what `one_by_one` has allocated.
        self.one_by_one(count, alloc, |object| unsafe { self.cache.free(object) });
    }

    fn bulk(&self, count: usize) {
        let mut into = [MaybeUninit::<NonNull<u8>>::uninit(); MOST];
        let got = self.cache.alloc_bulk(Gfp::ATOMIC, &mut into[..count]);
        // SAFETY: so many were filled.
        let objects = unsafe { into[..got].assume_init_ref() };
        for object in objects {
            self.take(Some(*object), THREAD);
        }
        for object in objects {
            self.give(*object, THREAD);
        }
        // SAFETY: allocated above.
        unsafe { self.cache.free_bulk(objects) };
    }

    fn nolock(&self, count: usize) {
        let alloc = || self.cache.alloc_nolock(None);
        // SAFETY: as in `plain`.
        self.one_by_one(count, alloc, |object| unsafe {
            self.cache.free_nolock(object)
        });
    }

    fn prefill(&self, count: usize) {
        let Some(mut sheaf) = self.cache.prefill(Gfp::ATOMIC, count) else {
            return;
        };
        for _ in 0..count / 2 {
            if let Some(object) = self.take(sheaf.alloc(Gfp::empty()), THREAD) {
                self.give(object, THREAD);
                // SAFETY: allocated above.
                unsafe { self.cache.free(object) };
            }
        }
    }

    /// What an interrupt does: allocates one object and leaves it for the next, and frees the one that
    /// it finds.
    fn handle(&self, kind: RawKind) {
        let new = match kind {
            RawKind::Irq => self.cache.alloc(Gfp::ATOMIC),
            RawKind::Nmi => self.cache.alloc_nolock(None),
        };
        let new = self.take(new, HANDLER);
        let new = new.map_or(ptr::null_mut(), NonNull::as_ptr);
        let old = self.left.swap(new, Ordering::Relaxed);
        if let Some(old) = NonNull::new(old) {
            self.give(old, HANDLER);
            // SAFETY: left by an earlier handler, and taken out.
            unsafe {
                match kind {
                    RawKind::Irq => self.cache.free(old),
                    RawKind::Nmi => self.cache.free_nolock(old),
                }
            }
        }
    }
}

fn address(object: NonNull<u8>) -> u64 {
    object.addr().get() as u64
}

fn swept(kind: RawKind, path: Path) -> Outcome {
    let spec = Spec::new("swept", 64)
        .flags(Flags::NO_MERGE)
        .sheaf_capacity(path.capacity);
    let cache = kassert_ok!(slabs().create(&spec));
    let seen = Swept {
        cache,
        left: AtomicPtr::new(ptr::null_mut()),
        got: AtomicU64::new(0),
        none: AtomicU64::new(0),
        damaged: AtomicU64::new(0),
    };
    // A slab or two that those who may not wait find.
    (path.run)(&seen);
    // At every place on the exact machine of one CPU; elsewhere they are met by chance.
    let length = if time::is_exact() && smp::online().count() == 1 {
        path.length
    } else {
        rounds(path.length, path.length / 20)
    };
    let swept = sweep(kind, 1, length as u32, &|| seen.handle(kind), || {
        (path.run)(&seen);
    });
    let last = NonNull::new(seen.left.swap(ptr::null_mut(), Ordering::Relaxed));
    if let Some(object) = last {
        seen.give(object, HANDLER);
        // SAFETY: of the last handler.
        unsafe { cache.free(object) };
    }
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (got, none) = (read(&seen.got), read(&seen.none));
    knote!("{swept:?}: {got} objects, {none} times none");
    kassert_eq!(read(&seen.damaged), 0);
    kassert!(got > 0);
    if kind == RawKind::Irq && none > 0 {
        // Only who may not wait goes without: what is done without locks.
        kassert!(
            ptr::fn_addr_eq(path.run, PATHS[4].1.run),
            "{none} times none"
        );
    }
    cache.shrink();
    for node in mm().nodes() {
        kassert_eq!(cache.node_counts(node).unwrap_or_default().slabs, 0);
    }
    // SAFETY: all objects were freed, and nobody else knows it.
    kassert_ok!(unsafe { slabs().destroy(cache) });
    Ok(())
}

fn by_interrupts(_: &mut Ctx, path: Path) -> Outcome {
    swept(RawKind::Irq, path)
}

fn by_nmis(_: &mut Ctx, path: Path) -> Outcome {
    swept(RawKind::Nmi, path)
}

/// The counters of those who found the sheaves in use are above zero. (The arrows are counted in
/// checked builds.)
fn the_lock_was_taken(_: &mut Ctx) -> Outcome {
    let counts = || {
        let of = |name: &str| slabs().arrows().find(|arrow| arrow.0 == name);
        [
            "alloc.lock_taken",
            "free.lock_taken",
            "nolock.alloc_taken",
            "nolock.free_taken",
        ]
        .map(|name| (name, of(name).map_or(0, |arrow| arrow.1)))
    };
    let before = counts();
    swept(RawKind::Irq, PATHS[0].1)?;
    swept(RawKind::Nmi, PATHS[0].1)?;
    let after = counts();
    for ((name, before), (_, after)) in before.into_iter().zip(after) {
        knote!("{name}: {}", after - before);
        // By chance elsewhere; on several CPUs others' instructions take time, too.
        if cfg!(debug_assertions) && time::is_exact() && smp::online().count() == 1 {
            kassert!(after > before, "{name} is not taken");
        }
    }
    Ok(())
}
