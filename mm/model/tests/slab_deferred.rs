//! The stack of deferred frees under a model checker: pushes from several CPUs, takes, and
//! one who waits until nothing is counted and then takes it all apart.

use std::{
    ptr::NonNull,
    sync::atomic::{AtomicUsize as Plain, Ordering::SeqCst},
};

use loom::{cell::UnsafeCell, sync::Arc, thread};
use mm::slab::deferred::Objects;
use platform::sync::{AtomicPtr, AtomicU64, Ordering};

/// An object, as who frees it sees it.
struct Object {
    link: AtomicPtr<u8>,
    /// What its user wrote; also who frees it touches it.
    contents: UnsafeCell<u32>,
}

struct World {
    objects: [Object; 2],
    stack: Objects,
    count: AtomicU64,
}

// SAFETY: that accesses to the contents are ordered is what the tests prove.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            objects: std::array::from_fn(|_| Object {
                link: AtomicPtr::new(std::ptr::null_mut()),
                contents: UnsafeCell::new(0),
            }),
            stack: Objects::new(),
            count: AtomicU64::new(0),
        })
    }

    /// Objects are known by these addresses.
    fn address(number: usize) -> NonNull<u8> {
        NonNull::without_provenance((number * 8 + 8).try_into().expect("not 0"))
    }

    fn free(&self, number: usize) {
        let object = &self.objects[number];
        // SAFETY: the freer's.
        object
            .contents
            .with_mut(|contents| unsafe { *contents += 1 });
        // SAFETY: given up here; the link is in the object.
        unsafe {
            self.stack
                .push(&self.count, Self::address(number), &object.link);
        }
    }

    /// What the work does. How many objects it found.
    fn run(&self) -> usize {
        let mut found = 0;
        let mut next = self.stack.take();
        while let Some(address) = next {
            let object = &self.objects[address.addr().get() / 8 - 1];
            next = NonNull::new(object.link.load(Ordering::Relaxed));
            // SAFETY: taken, so this one's.
            object
                .contents
                .with_mut(|contents| unsafe { *contents += 10 });
            Objects::rests(&self.count);
            found += 1;
        }
        found
    }
}

/// Two push, one of them (as the CPU's interrupt does) takes at any time, also in between: each
/// object is taken once, whole.
#[test]
fn each_is_taken_once() {
    static FOUND: [Plain; 3] = [const { Plain::new(0) }; 3];
    loom::model(|| {
        let world = World::new();
        let there = Arc::clone(&world);
        let other = thread::spawn(move || {
            there.free(1);
        });
        world.free(0);
        let found = world.run();
        FOUND[found].fetch_add(1, SeqCst);
        other.join().unwrap();
        assert_eq!(found + world.run(), 2);
        for object in &world.objects {
            // SAFETY: nobody else is left.
            object
                .contents
                .with(|contents| assert_eq!(unsafe { *contents }, 11));
        }
        assert_eq!(world.count.load(Ordering::Relaxed), 0);
    });
    assert!(FOUND[1].load(SeqCst) > 0 && FOUND[2].load(SeqCst) > 0);
}

/// Who knows that a free was made, and then reads 0, may take the object's memory: the work is
/// done with it. While it reads more, the free is still to be made.
#[test]
fn counted_until_it_rests() {
    static OUTCOMES: [Plain; 2] = [const { Plain::new(0) }; 2];
    loom::model(|| {
        let world = World::new();
        let there = Arc::clone(&world);
        // Told by a word, as a destroyer is told by its caller that all frees were made.
        let told = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let tell = Arc::clone(&told);
        let work = Arc::clone(&world);
        let freer = thread::spawn(move || {
            there.free(0);
            tell.store(true, Ordering::Release);
        });
        let runner = thread::spawn(move || {
            work.run();
        });
        if told.load(Ordering::Acquire) {
            let done = world.count.load(Ordering::Acquire) == 0;
            OUTCOMES[usize::from(done)].fetch_add(1, SeqCst);
            if done {
                // SAFETY: nobody touches it any more; the checker watches.
                let contents = &world.objects[0].contents;
                // SAFETY: as above.
                contents.with_mut(|contents| assert_eq!(unsafe { *contents }, 11));
            }
        }
        freer.join().unwrap();
        runner.join().unwrap();
    });
    assert!(OUTCOMES.iter().all(|times| times.load(SeqCst) > 0));
}
