//! Slabs between their node's list and no list, under a model checker: frees with and without the list
//! lock, refills of all and of a part, discards. The loops are the allocator's own
//! (`mm/src/slab/moves.rs`); list, lock and memory are the model's.
//!
//! What is checked in every order: no slab is lost (one with free objects is listed), none is listed twice, none
//! is discarded while an object of it is in use or somebody is still about to touch it (the
//! checker watches its memory), and no object has two owners.

use std::sync::atomic::{AtomicUsize as Plain, Ordering::SeqCst};

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use mm::slab::moves::NeedsLock;
use mm::slab::word::{Freelist, FreelistWord, Link};

/// Objects that a slab can have.
const MOST: usize = 3;

/// The node's list: by number of the slab.
#[derive(Default)]
struct List {
    partial: Vec<usize>,
    discarded: Vec<usize>,
}

struct Slab {
    word: FreelistWord,
    objects: [UnsafeCell<Link>; MOST],
}

/// The list lock. A try of the checker's own does not fail in every order in which it could, so a
/// holder says that it is one.
struct Lock {
    list: Mutex<List>,
    held: AtomicBool,
}

impl Lock {
    /// Runs `f` with the lock. `None`: it is taken, and `wait` is false.
    fn with<R>(&self, wait: bool, f: impl FnOnce(&mut List) -> R) -> Option<R> {
        let mut list = if wait {
            self.list.lock().unwrap()
        } else if self.held.load(Ordering::Relaxed) {
            return None;
        } else {
            self.list.try_lock().ok()?
        };
        self.held.store(true, Ordering::Relaxed);
        let result = f(&mut list);
        self.held.store(false, Ordering::Relaxed);
        Some(result)
    }
}

struct World {
    list: Lock,
    slabs: Vec<Slab>,
    /// Empty slabs that are kept.
    min_partial: usize,
}

// SAFETY: that accesses to the objects are ordered is what the tests prove.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

/// An object: slab and index. Who has one owns it.
type Object = (usize, usize);

impl World {
    /// Slabs with so many objects, of which the first ones are in use, the others free (and then the slab is listed).
    fn new(min_partial: usize, slabs: &[(usize, usize)]) -> Arc<Self> {
        let mut list = List::default();
        let slabs = slabs
            .iter()
            .enumerate()
            .map(|(number, &(objects, in_use))| {
                let link = |index| {
                    if index < objects {
                        Link::of_index(index)
                    } else {
                        Link::NONE
                    }
                };
                let listed = in_use < objects;
                if listed {
                    list.partial.push(number);
                }
                Slab {
                    word: FreelistWord::new(
                        Freelist::new(link(in_use), in_use, objects).with_listed(listed),
                    ),
                    objects: std::array::from_fn(|index| UnsafeCell::new(link(index + 1))),
                }
            });
        let slabs = slabs.collect();
        Arc::new(Self {
            list: Lock {
                list: Mutex::new(list),
                held: AtomicBool::new(false),
            },
            slabs,
            min_partial,
        })
    }

    fn link(&self, slab: usize, index: usize) -> Link {
        // SAFETY: the object is the caller's; the checker says if not.
        self.slabs[slab].objects[index].with(|link| unsafe { *link })
    }

    fn set_link(&self, slab: usize, index: usize, to: Link) {
        // SAFETY: as above.
        self.slabs[slab].objects[index].with_mut(|link| unsafe { *link = to });
    }

    /// Frees objects of one slab. `false`: `wait` is false, and the lock was taken.
    fn free(&self, slab: usize, indexes: &[usize], wait: bool) -> bool {
        for pair in indexes.windows(2) {
            self.set_link(slab, pair[0], Link::of_index(pair[1]));
        }
        let word = &self.slabs[slab].word;
        let (head, count) = (Link::of_index(indexes[0]), indexes.len());
        let tail = indexes[count - 1];
        let link_tail = |next| self.set_link(slab, tail, next);
        if word.push_unlocked(head, count, link_tail).is_ok() {
            return true;
        }
        let discards = self.list.with(wait, |list| {
            let partial = list.partial.len();
            let keep = |was_listed: bool| partial - usize::from(was_listed) < self.min_partial;
            let pushed = word.push_locked(head, count, keep, link_tail).unwrap();
            if pushed.was_listed && !pushed.listed {
                list.remove(slab);
            }
            if !pushed.was_listed && pushed.listed {
                list.add(slab);
            }
            if !pushed.listed {
                assert!(pushed.empty);
                list.discarded.push(slab);
            }
            !pushed.listed
        });
        if discards == Some(true) {
            self.discard(slab);
        }
        discards.is_some()
    }

    /// The slab's memory is somebody else's.
    fn discard(&self, slab: usize) {
        assert!(self.slabs[slab].word.load().is_empty());
        for index in 0..MOST {
            self.set_link(slab, index, Link::NONE);
        }
    }

    /// Takes up to `want` objects.
    fn refill(&self, want: usize) -> Vec<Object> {
        let chains = self.list.with(true, |list| {
            let mut chains = Vec::new();
            let mut left = want;
            for slab in list.partial.clone() {
                let chain = self.slabs[slab].word.take_for(left);
                if chain.is_full() {
                    continue;
                }
                if chain.free() <= left {
                    list.remove(slab);
                }
                chains.push((slab, chain));
                left = left.saturating_sub(chain.free());
                if left == 0 {
                    break;
                }
            }
            chains
        });
        let mut got = Vec::new();
        for (slab, chain) in chains.unwrap_or_default() {
            let count = chain.free().min(want - got.len());
            let mut next = chain.head();
            for _ in 0..count {
                let index = next.index();
                next = self.link(slab, index);
                // It is this thread's: it may write.
                self.set_link(slab, index, Link::NONE);
                got.push((slab, index));
            }
            if !next.is_none() {
                self.give_back(slab, (next, chain.free() - count));
            }
        }
        got
    }

    fn give_back(&self, slab: usize, mut rest: (Link, usize)) {
        let join = |theirs: Freelist, first: Link| {
            let mut index = theirs.head().index();
            for _ in 1..theirs.free() {
                index = self.link(slab, index).index();
            }
            self.set_link(slab, index, first);
            theirs.free()
        };
        let word = &self.slabs[slab].word;
        if word.push_rest(&mut rest, false, join) == Err(NeedsLock) {
            self.list.with(true, |list| {
                if word.push_rest(&mut rest, true, join) == Ok(false) {
                    list.add(slab);
                }
            });
        }
    }

    fn discarded(&self) -> Vec<usize> {
        let discarded = self.list.with(true, |list| list.discarded.clone());
        discarded.unwrap()
    }

    /// When all is quiet and `held` are the objects that threads own: lists, words and chains agree.
    fn check(&self, held: &[Object]) {
        self.list.with(true, |list| self.check_with(list, held));
    }

    fn check_with(&self, list: &List, held: &[Object]) {
        for (number, slab) in self.slabs.iter().enumerate() {
            let word = slab.word.load();
            let mut mine: Vec<usize> = held
                .iter()
                .filter(|object| object.0 == number)
                .map(|object| object.1)
                .collect();
            if list.discarded.contains(&number) {
                assert!(
                    mine.is_empty(),
                    "slab {number} is gone with {mine:?} in use"
                );
                assert!(!list.partial.contains(&number));
                continue;
            }
            assert_eq!(word.in_use(), mine.len(), "slab {number} counts its users");
            assert_eq!(word.is_listed(), list.partial.contains(&number));
            assert!(word.is_full() || word.is_listed(), "slab {number} is lost");
            let mut next = word.head();
            while !next.is_none() {
                mine.push(next.index());
                next = self.link(number, next.index());
            }
            mine.sort_unstable();
            let all: Vec<usize> = (0..word.objects()).collect();
            assert_eq!(mine, all, "objects of slab {number}");
        }
    }
}

impl List {
    fn add(&mut self, slab: usize) {
        assert!(!self.partial.contains(&slab), "slab {slab} is listed twice");
        assert!(!self.discarded.contains(&slab), "slab {slab} is gone");
        self.partial.push(slab);
    }

    fn remove(&mut self, slab: usize) {
        let at = self.partial.iter().position(|other| *other == slab);
        self.partial.remove(at.expect("it is listed"));
    }
}

fn check(preemptions: Option<usize>, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(body);
}

/// Counts outcomes, so that a test can say that it met them all.
fn outcomes<const N: usize>() -> &'static [Plain; N] {
    Box::leak(Box::new(std::array::from_fn(|_| Plain::new(0))))
}

#[track_caller]
fn assert_met(met: &[Plain]) {
    for (outcome, times) in met.iter().enumerate() {
        assert!(times.load(SeqCst) > 0, "no order led to outcome {outcome}");
    }
}

/// The first free of a full slab against the free of its last object: one lists it, one discards it, whichever
/// comes first.
#[test]
fn first_and_last_free_of_a_full_slab() {
    check(None, || {
        let world = World::new(0, &[(2, 2)]);
        let there = Arc::clone(&world);
        let freeing = thread::spawn(move || there.free(0, &[0], true));
        world.free(0, &[1], true);
        freeing.join().unwrap();
        world.check(&[]);
        assert_eq!(world.discarded(), [0]);
    });
}

/// The first free of a full slab against a refill and the free of another object.
#[test]
fn first_free_against_refill() {
    let met = outcomes::<3>();
    check(Some(3), move || {
        let world = World::new(1, &[(2, 2)]);
        let freeing: Vec<_> = (0..2)
            .map(|index| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.free(0, &[index], true))
            })
            .collect();
        let held = world.refill(2);
        met[held.len()].fetch_add(1, SeqCst);
        for thread in freeing {
            thread.join().unwrap();
        }
        world.check(&held);
    });
    assert_met(met);
}

/// The last free of a slab, which discards it, against a refill that wants its objects.
#[test]
fn discard_against_refill() {
    let met = outcomes::<3>();
    check(None, move || {
        let world = World::new(0, &[(2, 1)]);
        let there = Arc::clone(&world);
        let freeing = thread::spawn(move || there.free(0, &[0], true));
        let held = world.refill(2);
        met[held.len()].fetch_add(1, SeqCst);
        freeing.join().unwrap();
        world.check(&held);
    });
    // 0: discarded before. 1: refilled before the free. (2 cannot be: an empty slab is not kept.)
    assert_met(&met[..2]);
    assert_eq!(met[2].load(SeqCst), 0);
}

/// A refill of a part, whose rest comes back, against a free and a refill of all.
#[test]
fn rest_against_free_and_refill() {
    let met = outcomes::<4>();
    check(Some(3), move || {
        let world = World::new(1, &[(3, 1)]);
        let there = Arc::clone(&world);
        let freeing = thread::spawn(move || there.free(0, &[0], true));
        let there = Arc::clone(&world);
        let taking = thread::spawn(move || there.refill(2));
        let mut held = world.refill(1);
        freeing.join().unwrap();
        let more = taking.join().unwrap();
        met[more.len()].fetch_add(1, SeqCst);
        held.extend(more);
        world.check(&held);
    });
    assert_met(&met[..3]);
}

/// A refill of a part against two frees, the last of which would empty the slab but for what was taken.
#[test]
fn rest_keeps_a_slab() {
    check(Some(3), || {
        let world = World::new(0, &[(3, 1)]);
        let there = Arc::clone(&world);
        let freeing = thread::spawn(move || there.free(0, &[0], true));
        let held = world.refill(1);
        for (slab, index) in held {
            world.free(slab, &[index], true);
        }
        freeing.join().unwrap();
        world.check(&[]);
        assert_eq!(world.discarded(), [0]);
    });
}

/// A free that may not wait against a refill and a free that may: it either frees, or keeps its object.
#[test]
fn free_without_waiting() {
    let met = outcomes::<2>();
    check(Some(3), move || {
        let world = World::new(0, &[(2, 2)]);
        let there = Arc::clone(&world);
        let freeing = thread::spawn(move || there.free(0, &[0], true));
        let there = Arc::clone(&world);
        let refilling = thread::spawn(move || there.refill(1));
        let freed = world.free(0, &[1], false);
        met[usize::from(freed)].fetch_add(1, SeqCst);
        freeing.join().unwrap();
        let mut held = refilling.join().unwrap();
        if !freed {
            held.push((0, 1));
        }
        world.check(&held);
    });
    assert_met(met);
}

/// A refill over several slabs against frees that list a further one, and discard one.
#[test]
fn refill_of_several_slabs() {
    check(Some(2), || {
        let world = World::new(0, &[(2, 1), (2, 2), (2, 1)]);
        let there = Arc::clone(&world);
        let freeing = thread::spawn(move || {
            there.free(1, &[0], true);
            there.free(0, &[0], true);
        });
        let mut held = world.refill(3);
        freeing.join().unwrap();
        held.extend([(1, 1), (2, 0)]);
        world.check(&held);
    });
}
