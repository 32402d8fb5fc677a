//! The freelist word of a slab under a model checker: every order of a few pushes and takes, with
//! the memory orders that its source names, and with what lies in the objects.

use std::sync::atomic::{AtomicUsize as Plain, Ordering::SeqCst};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use mm::slab::word::{Freelist, FreelistWord, Link};

/// Objects of the slab.
const OBJECTS: usize = 4;

/// A slab, whose objects' memory the checker watches.
struct Slab {
    word: FreelistWord,
    /// The link in each object, and what its owners did there: one memory, in truth.
    objects: [UnsafeCell<(Link, u32)>; OBJECTS],
}

// SAFETY: that accesses to the objects are ordered is what the tests prove.
unsafe impl Sync for Slab {}
// SAFETY: as above.
unsafe impl Send for Slab {}

impl Slab {
    /// All objects are in use.
    fn new() -> Arc<Self> {
        let full = Freelist::new(Link::NONE, OBJECTS, OBJECTS).with_listed(true);
        Arc::new(Self {
            word: FreelistWord::new(full),
            objects: std::array::from_fn(|_| UnsafeCell::new((Link::NONE, 0))),
        })
    }

    fn change(&self, index: usize, change: impl FnOnce(&mut (Link, u32))) {
        // SAFETY: the object is the caller's; the checker says if not.
        self.objects[index].with_mut(|object| change(unsafe { &mut *object }));
    }

    /// The owner of objects writes to them, links them and frees them.
    fn free(&self, indexes: &[usize]) {
        for pair in indexes.windows(2) {
            self.change(pair[0], |object| {
                object.0 = Link::of_index(pair[1]);
                object.1 += 1;
            });
        }
        let (head, tail) = (indexes[0], indexes[indexes.len() - 1]);
        self.change(tail, |object| object.1 += 1);
        let mut seen = self.word.load();
        loop {
            self.change(tail, |object| object.0 = seen.head());
            let head = Link::of_index(head);
            match self.word.push(seen, head, indexes.len(), true) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
    }

    /// Takes all, and reads and writes what is in them: their indexes.
    fn take(&self) -> Vec<usize> {
        let chain = self.word.take(|now| now.is_listed());
        let mut taken = Vec::new();
        let mut next = chain.head();
        while !next.is_none() {
            let index = next.index();
            self.change(index, |object| {
                assert_eq!(object.1, 1, "object {index} is not as it was freed");
                object.1 += 100;
                next = object.0;
            });
            taken.push(index);
        }
        assert_eq!(taken.len(), chain.free(), "the count is that of the chain");
        taken
    }
}

fn check(preemptions: Option<usize>, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(body);
}

/// Two free, a third one takes: each object comes out once, and with what was written to it.
#[test]
fn nothing_is_lost_or_doubled() {
    let met: &'static [Plain; 4] = Box::leak(Box::default());
    check(None, move || {
        let slab = Slab::new();
        let freeing: Vec<_> = [&[0, 1][..], &[2]]
            .map(|objects| {
                let slab = Arc::clone(&slab);
                thread::spawn(move || slab.free(objects))
            })
            .into();
        let mut all = slab.take();
        met[all.len()].fetch_add(1, SeqCst);
        for thread in freeing {
            thread.join().unwrap();
        }
        all.extend(slab.take());
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
        let word = slab.word.load();
        assert_eq!((word.in_use(), word.is_full()), (OBJECTS, true));
    });
    for (count, times) in met.iter().enumerate() {
        assert!(
            times.load(SeqCst) > 0,
            "no order in which {count} were taken"
        );
    }
}

/// Two take at once while a third one frees: who takes an object is its only owner.
#[test]
fn takers_share_nothing() {
    check(None, || {
        let slab = Slab::new();
        slab.free(&[3]);
        let there = Arc::clone(&slab);
        let freeing = thread::spawn(move || there.free(&[0]));
        let there = Arc::clone(&slab);
        let taking = thread::spawn(move || there.take());
        let mut all = slab.take();
        freeing.join().unwrap();
        all.extend(taking.join().unwrap());
        all.extend(slab.take());
        all.sort_unstable();
        assert_eq!(all, [0, 3]);
    });
}

/// The head comes back while another one pushes: the object is taken, freed again, and is the head once
/// more under the first one's exchange (ABA).
#[test]
fn a_head_that_comes_back_does_no_harm() {
    let met: &'static Plain = Box::leak(Box::default());
    check(Some(4), move || {
        let slab = Slab::new();
        slab.free(&[0]);
        let there = Arc::clone(&slab);
        let freeing = thread::spawn(move || there.free(&[1]));
        let first = slab.take();
        assert!(first.contains(&0));
        let mut left = first.clone();
        if first == [0] {
            // A second one below it, so that a lost link shows.
            slab.free(&[2]);
            slab.change(0, |object| object.1 = 0);
            slab.free(&[0]);
            left.clear();
            met.fetch_add(1, SeqCst);
        }
        freeing.join().unwrap();
        left.extend(slab.take());
        left.sort_unstable();
        if first == [0] {
            assert_eq!(left, [0, 1, 2]);
        } else {
            assert_eq!(left, [0, 1]);
        }
    });
    assert!(met.load(SeqCst) > 0);
}

/// Whose push leaves nothing in use sees what all others did to their objects before they freed them: the memory may
/// be anything else then.
#[test]
fn who_empties_a_slab_has_it_alone() {
    check(None, || {
        let slab = Slab::new();
        slab.free(&[2]);
        slab.free(&[3]);
        let there = Arc::clone(&slab);
        let freeing = thread::spawn(move || {
            there.change(0, |object| object.1 += 7);
            push_and_look(&there, 0)
        });
        slab.change(1, |object| object.1 += 7);
        let emptied_here = push_and_look(&slab, 1);
        let emptied_there = freeing.join().unwrap();
        assert!(emptied_here != emptied_there, "one of the two was the last");
    });
}

/// Frees an object; if nothing is in use by that very push, writes to the whole slab.
fn push_and_look(slab: &Slab, index: usize) -> bool {
    let mut seen = slab.word.load();
    let now = loop {
        slab.change(index, |object| object.0 = seen.head());
        match slab.word.push(seen, Link::of_index(index), 1, true) {
            Ok(now) => break now,
            Err(now) => seen = now,
        }
    };
    if now.is_empty() {
        for index in 0..OBJECTS {
            slab.change(index, |object| *object = (Link::NONE, 0));
        }
    }
    now.is_empty()
}
