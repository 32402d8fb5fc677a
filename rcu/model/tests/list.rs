//! Lists and pointers: readers against insertion, removal and what becomes of what was
//! removed.
#![allow(
    clippy::arc_with_non_send_sync,
    reason = "the checker's threads are coroutines of one thread"
)]

mod world;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use platform::{
    Platform, lock_class,
    model::{self, Model, Setup},
    sync::Cell,
};
use rcu::{
    Pointer, RcuBox, Retired,
    list::{Element, List},
    model::{begin_cpu, end_cpu, switch},
};
use world::World;

lock_class! { struct Values = ("values", 10); }

/// A number that the model watches: written when it is made and when it is dropped.
struct Value(Cell<u32>);

// SAFETY: who makes and drops it has it alone, and readers only read; the model checks it.
unsafe impl Send for Value {}
// SAFETY: as above.
unsafe impl Sync for Value {}

impl Value {
    fn new(number: u32) -> Self {
        let value = Self(Cell::new(0));
        // SAFETY: nobody else has it.
        unsafe { *value.0.exclusive().get_mut() = number };
        value
    }

    fn number(&self) -> u32 {
        // SAFETY: not dropped while it can be found; the model checks it.
        let number = unsafe { *self.0.shared().get() };
        assert_ne!(number, 0);
        number
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: nobody else has it any more; the model checks it.
        unsafe { *self.0.exclusive().get_mut() = 0 };
    }
}

struct Lists {
    world: Arc<World>,
    list: List<Value, Model, Values>,
}

impl Lists {
    fn new(numbers: &[u32]) -> Arc<Self> {
        let this = Self {
            world: World::new(false),
            list: List::new(),
        };
        let mut updater = this.list.lock();
        for number in numbers.iter().rev() {
            updater.push_front(element(*number));
        }
        drop(updater);
        Arc::new(this)
    }

    /// A section: what it meets.
    fn walk(&self) -> Vec<u32> {
        let section = rcu::read();
        self.list.iter(&section).map(Value::number).collect()
    }

    /// The grace period of what is retired ends, since the other CPUs have been idle.
    fn reclaim<'r, T: Send + Sync + 'static>(
        &self,
        retired: impl IntoIterator<Item = Retired<'r, T, Model>>,
    ) {
        let retired: Vec<_> = retired.into_iter().collect();
        retired.iter().for_each(Retired::start_poll);
        // The time for a look comes.
        Model::park_until(Model::now_ns() + 5_000_000);
        self.world.rcu.make_by_hand();
        let (_, left) = take_ripe(retired);
        assert!(left.is_empty(), "the grace period does not end");
    }
}

fn element(number: u32) -> RcuBox<Element<Value>> {
    Element::try_new(Value::new(number)).unwrap()
}

/// Drops what may be. How many that were, and what is left.
fn take_ripe<T: Send + Sync + 'static>(
    retired: Vec<Retired<'_, T, Model>>,
) -> (usize, Vec<Retired<'_, T, Model>>) {
    let count = retired.len();
    let left: Vec<_> = retired
        .into_iter()
        .filter_map(|retired| retired.try_take().err())
        .collect();
    (count - left.len(), left)
}

/// What is met is initialised, and there is no gap: in front, in the middle, instead of one.
#[test]
fn a_reader_meets_whole_elements() {
    let counts: &'static [AtomicUsize; 4] = Box::leak(Box::default());
    Setup::new(2)
        .preemptions(4)
        .blocking_locks()
        .check(move || {
            let lists = Lists::new(&[3]);
            let reads = Arc::clone(&lists);
            let reader = model::cpu(1, move || {
                begin_cpu();
                let met = reads.walk();
                let which = match *met {
                    [3] => 0,
                    [1, 3] => 1,
                    [1, 2, 3] => 2,
                    [1, 4, 3] => 3,
                    _ => panic!("{met:?}"),
                };
                counts[which].fetch_add(1, SeqCst);
                end_cpu();
            });
            let mut updater = lists.list.lock();
            updater.push_front(element(1));
            let mut cursor = updater.cursor();
            cursor.move_next();
            cursor.insert(element(2));
            let old = cursor.replace(element(4), &lists.world.rcu).ok();
            drop(updater);
            reader.join();
            lists.reclaim(old);
        });
    let counts = counts.each_ref().map(|count| count.load(SeqCst));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

/// A reader that stands on what is removed goes on to what is removed after that. Nothing is
/// dropped under it.
#[test]
fn what_is_removed_stays_for_those_who_stand_on_it() {
    /// What the first section met, or how many were ripe while the reader ran.
    const OUTCOMES: usize = 4;
    let counts: &'static [[AtomicUsize; OUTCOMES]; 2] = Box::leak(Box::default());
    Setup::new(2)
        .preemptions(4)
        .blocking_locks()
        .check(move || {
            let lists = Lists::new(&[1, 2]);
            let reads = Arc::clone(&lists);
            let reader = model::cpu(1, move || {
                begin_cpu();
                let met = reads.walk();
                assert!([&[1, 2][..], &[2], &[]].contains(&&*met), "{met:?}");
                counts[0][met.len()].fetch_add(1, SeqCst);
                switch(&reads.world.rcu);
                assert!(reads.walk().len() <= met.len());
                end_cpu();
            });
            let mut retired = Vec::new();
            for _ in 0..2 {
                retired.extend(lists.list.lock().cursor().remove(&lists.world.rcu));
            }
            retired[0].start_poll();
            lists.world.rcu.make_by_hand();
            lists.world.rcu.make_by_hand();
            let (ripe, left) = take_ripe(retired);
            counts[1][ripe].fetch_add(1, SeqCst);
            reader.join();
            lists.reclaim(left);
        });
    let counts = counts
        .each_ref()
        .map(|counts| counts.each_ref().map(|count| count.load(SeqCst)));
    assert!(counts[0][..3].iter().all(|count| *count > 0), "{counts:?}");
    assert!(counts[1][0] > 0 && counts[1][2] > 0, "{counts:?}");
}

/// The same, with a grace period that others make, and that may begin and end while the
/// element is being removed: it counts only if it began after that.
#[test]
fn a_grace_period_that_began_before_the_removal_does_not_count() {
    let counts: &'static [AtomicUsize; 2] = Box::leak(Box::default());
    let setup = Setup::new(3).preemptions(3).blocking_locks();
    setup.check(move || {
        let lists = Lists::new(&[1]);
        let (reads, updates) = (Arc::clone(&lists), Arc::clone(&lists));
        let reader = model::cpu(1, move || {
            begin_cpu();
            reads.walk();
            switch(&reads.world.rcu);
            reads.walk();
            end_cpu();
        });
        let updater = model::cpu(2, move || {
            let old = updates.list.lock().cursor().remove(&updates.world.rcu);
            let left = old.and_then(|old| old.try_take().err());
            counts[usize::from(left.is_none())].fetch_add(1, SeqCst);
            // It stays: this CPU waits for nothing.
            core::mem::forget(left);
        });
        lists.world.rcu.start_poll();
        lists.world.rcu.make_by_hand();
        lists.walk();
        lists.world.rcu.make_by_hand();
        reader.join();
        updater.join();
    });
    let counts = counts.each_ref().map(|count| count.load(SeqCst));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

/// One CPU inserts behind an element, another one removes that: a reader that finds the
/// inserted one by the link that was stored by the removal finds it initialised.
#[test]
fn a_removal_passes_on_what_was_inserted() {
    let counts: &'static [AtomicUsize; 3] = Box::leak(Box::default());
    Setup::new(3)
        .preemptions(4)
        .blocking_locks()
        .check(move || {
            let lists = Lists::new(&[1]);
            let (inserts, reads) = (Arc::clone(&lists), Arc::clone(&lists));
            let inserter = model::cpu(1, move || {
                let mut updater = inserts.list.lock();
                let mut cursor = updater.cursor();
                cursor.move_next();
                cursor.insert(element(2));
            });
            let reader = model::cpu(2, move || {
                begin_cpu();
                let met = reads.walk();
                let which = match *met {
                    [1] => 0,
                    [1, 2] => 1,
                    [2] => 2,
                    [] => 0,
                    _ => panic!("{met:?}"),
                };
                counts[which].fetch_add(1, SeqCst);
                end_cpu();
            });
            let old = lists.list.lock().cursor().remove(&lists.world.rcu);
            inserter.join();
            reader.join();
            lists.reclaim(old);
        });
    let counts = counts.each_ref().map(|count| count.load(SeqCst));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

/// Two updaters retire two values between them, each once; a reader finds whole ones.
#[test]
fn each_value_of_a_pointer_is_retired_once() {
    let counts: &'static [AtomicUsize; 4] = Box::leak(Box::default());
    Setup::new(3)
        .preemptions(4)
        .blocking_locks()
        .check(move || {
            let boxed = |number| RcuBox::try_new(Value::new(number));
            let lists = Lists::new(&[]);
            let pointer = Arc::new(Pointer::<Value, Model>::from(boxed(1)));
            let (updates, swaps) = (Arc::clone(&lists), Arc::clone(&pointer));
            let taken = Arc::new(AtomicUsize::new(0));
            let tells = Arc::clone(&taken);
            let updater = model::cpu(1, move || {
                let old = swaps.replace(boxed(2), &updates.world.rcu).unwrap();
                tells.store(old.number() as usize, SeqCst);
                // It stays: this CPU waits for nothing.
                core::mem::forget(old);
            });
            let finds = Arc::clone(&pointer);
            let reader = model::cpu(2, move || {
                begin_cpu();
                let section = rcu::read();
                let number = finds.read(&section).unwrap().number();
                counts[number as usize].fetch_add(1, SeqCst);
                drop(section);
                end_cpu();
            });
            let old = pointer.replace(boxed(3), &lists.world.rcu).unwrap();
            updater.join();
            reader.join();
            let both = (old.number(), taken.load(SeqCst));
            assert!(both == (1, 3) || both == (2, 1), "{both:?}");
            lists.reclaim([old]);
        });
    let counts = counts.each_ref().map(|count| count.load(SeqCst));
    assert!(counts[1..].iter().all(|count| *count > 0), "{counts:?}");
}
