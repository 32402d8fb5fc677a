//! Objects that know whether somebody may look at them, and destructors that can be held up.

use std::{
    ptr::NonNull,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use mm::kvfree_rcu::Head;
use platform::{Platform, hosted::Hosted};

use crate::common::wait_until;

/// The lower half of the canary of one that may be found; above it is a number that no other has.
const LIVE: u64 = 0x11fe;
const HALF: u32 = 16;
static NEXT: AtomicU64 = AtomicU64::new(0);
/// One whose grace period is over.
const DEAD: u64 = 0xdead_dead_dead_dead;

/// What a test and the destructors of its objects share.
#[derive(Default)]
pub struct Shared {
    /// Objects that were destructed.
    pub ended: AtomicU64,
    /// Destructors wait at their beginning as long as this is set.
    pub hold: AtomicBool,
    /// Destructors that have come there.
    pub held: AtomicU64,
    /// Destructors that run.
    pub running: AtomicU64,
}

impl Shared {
    /// One that is there for ever: objects name it.
    pub fn new() -> &'static Self {
        Box::leak(Box::default())
    }

    /// Objects that were destructed so far.
    pub fn ended(&self) -> u64 {
        self.ended.load(Acquire)
    }

    /// Waits until a destructor is held.
    pub fn wait_held(&self) {
        wait_until(|| self.held.load(Acquire) > 0);
    }
}

/// An object of the caches of this suite.
#[repr(C)]
pub struct Object {
    head: Head,
    pub canary: AtomicU64,
    pub shared: Option<&'static Shared>,
}

/// The destructor of [`create`].
///
/// # Safety
///
/// It is an [`Object`], and nobody else's.
pub unsafe fn end(object: NonNull<u8>) {
    // SAFETY: as the caller promises.
    let object = unsafe { object.cast::<Object>().as_ref() };
    let was = object.canary.swap(DEAD, AcqRel);
    assert!(is_live(was), "{object:p} is destructed, and not in use");
    let Some(shared) = object.shared else { return };
    shared.running.fetch_add(1, AcqRel);
    if shared.hold.load(Acquire) {
        shared.held.fetch_add(1, AcqRel);
        // Asleep: a drainer that spins keeps its CPU from all that has a lower priority.
        while shared.hold.load(Acquire) {
            Hosted::park_until(Hosted::now_ns() + 100_000);
        }
    }
    shared.ended.fetch_add(1, AcqRel);
    shared.running.fetch_sub(1, AcqRel);
}

fn is_live(canary: u64) -> bool {
    canary & ((1 << HALF) - 1) == LIVE
}

/// Makes what an allocation gave an object that may be found.
pub fn make(memory: NonNull<u8>, shared: &'static Shared) -> NonNull<u8> {
    make_for(memory, Some(shared))
}

/// The same; `None`: memory that is no cache's of this suite.
pub fn make_for(memory: NonNull<u8>, shared: Option<&'static Shared>) -> NonNull<u8> {
    let object = Object {
        head: Head::new(),
        canary: AtomicU64::new(NEXT.fetch_add(1, Relaxed) << HALF | LIVE),
        shared,
    };
    // SAFETY: the caller's, and large enough.
    unsafe { memory.cast::<Object>().write(object) };
    memory
}

/// What a reader does with an object that it found: which one it is. Panics if its grace period is over.
///
/// # Safety
///
/// It is an [`Object`], or was one.
#[track_caller]
pub unsafe fn look(object: NonNull<Object>) -> u64 {
    // SAFETY: as the caller promises; the canary is atomic.
    let canary = unsafe { &(*object.as_ptr()).canary }.load(Acquire);
    assert!(is_live(canary), "{object:?} was freed early: {canary:#x}");
    canary
}
