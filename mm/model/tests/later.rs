//! The stack of deferred frees under a model checker: every order of a few pushes and takes,
//! with the memory orders that its source names.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize as Plain, Ordering::SeqCst};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use mm::{Frame, Layout, Pfn, frame::FrameMap, later::Later};

/// How many frames a model has.
const FRAMES: usize = 4;

/// Where a model's descriptors are.
#[derive(Clone, Copy, Debug)]
struct Descriptors(usize);

impl Layout for Descriptors {
    fn direct_map(self) -> usize {
        unreachable!("no memory is touched")
    }

    fn frame_map(self) -> usize {
        self.0
    }

    fn vmalloc(self) -> Range<usize> {
        unreachable!("nothing is mapped")
    }
}

/// The stack, the descriptors, and what the owners of frames wrote to them: the checker
/// reports a race on that.
struct World {
    later: Later,
    frames: Box<[Frame]>,
    contents: [UnsafeCell<u32>; FRAMES],
}

// SAFETY: that accesses to the contents are ordered is what the tests prove.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            later: Later::new(),
            frames: (0..FRAMES).map(|_| Frame::default()).collect(),
            contents: std::array::from_fn(|_| UnsafeCell::new(0)),
        })
    }

    fn map(&self) -> FrameMap<Descriptors> {
        let layout = Descriptors(self.frames.as_ptr().expose_provenance());
        // SAFETY: the map is used while the world is there.
        unsafe { FrameMap::new(layout, Pfn(FRAMES as u32)) }
    }

    /// The owner of a frame writes to it and frees it.
    fn free(&self, number: u32) {
        self.contents[number as usize].with_mut(|content| {
            // SAFETY: the frame is ours.
            unsafe { *content += 1 };
        });
        // SAFETY: the frame has a descriptor, and is on no list.
        unsafe { self.later.push(&self.map(), Pfn(number)) };
    }

    /// Takes all, and reads and writes what is in them. By number, in the order of the stack.
    fn take(&self) -> Vec<u32> {
        let mut taken = Vec::new();
        self.later.take(&self.map(), |pfn| taken.push(pfn.0));
        for &number in &taken {
            self.contents[number as usize].with_mut(|content| {
                // SAFETY: the frame is ours now.
                unsafe { *content += 100 };
            });
        }
        taken
    }
}

fn check(preemptions: Option<usize>, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(body);
}

/// Two free, a third one takes: each block comes out once, and with what was written to it.
#[test]
fn nothing_is_lost_or_doubled() {
    let met: &'static [Plain; 4] = Box::leak(Box::default());
    check(None, move || {
        let world = World::new();
        let freeing: Vec<_> = [0, 1]
            .map(|number| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.free(number))
            })
            .into();
        let mut all = world.take();
        met[all.len()].fetch_add(1, SeqCst);
        for thread in freeing {
            thread.join().unwrap();
        }
        all.extend(world.take());
        all.sort_unstable();
        assert_eq!(all, [0, 1]);
        assert!(world.later.is_empty());
    });
    // The take came before, between and after the frees.
    for (count, times) in met.iter().enumerate().take(3) {
        assert!(
            times.load(SeqCst) > 0,
            "no order in which {count} were taken"
        );
    }
}

/// Two take at once while a third one frees: who takes a block is its only owner.
#[test]
fn takers_share_nothing() {
    check(Some(3), || {
        let world = World::new();
        world.free(2);
        let there = Arc::clone(&world);
        let freeing = thread::spawn(move || there.free(0));
        let there = Arc::clone(&world);
        let taking = thread::spawn(move || there.take());
        let mut all = world.take();
        freeing.join().unwrap();
        all.extend(taking.join().unwrap());
        all.extend(world.take());
        all.sort_unstable();
        assert_eq!(all, [0, 2]);
    });
}

/// The head comes back while another one pushes: the block is taken, freed again, and is the
/// head once more under the first one's compare-and-exchange (ABA).
#[test]
fn a_head_that_comes_back_does_no_harm() {
    let met: &'static Plain = Box::leak(Box::default());
    check(Some(4), move || {
        let world = World::new();
        world.free(0);
        let there = Arc::clone(&world);
        let freeing = thread::spawn(move || there.free(1));
        let first = world.take();
        assert!(first.contains(&0));
        if first == [0] {
            // A second one below it, so that a lost link shows.
            world.free(2);
            world.free(0);
            met.fetch_add(1, SeqCst);
        }
        freeing.join().unwrap();
        let mut all = world.take();
        all.extend(
            first
                .iter()
                .filter(|number| first.len() > 1 && **number > 0),
        );
        all.sort_unstable();
        if first == [0] {
            assert_eq!(all, [0, 1, 2]);
        } else {
            assert_eq!(all, [1]);
        }
    });
    assert!(met.load(SeqCst) > 0);
}
