//! What orders readers, grace periods and those who look at their number, with nothing but the
//! tree: no idle words, whose fences would hide what is missing elsewhere.
#![allow(
    clippy::arc_with_non_send_sync,
    reason = "the checker's threads are coroutines of one thread"
)]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use platform::{
    eqs::Snapshot,
    model::{self, Model, Setup},
    sync::{AtomicBool, Cell, Ordering},
};
use rcu::{
    Seq,
    geometry::Geometry,
    grace_period::{Cpus, GracePeriod, Step, Times, Wanted},
    tree::{Kind, Tree},
};

struct World {
    tree: Tree<Model>,
    published: AtomicBool,
    object: Cell<u32>,
}

impl World {
    /// With CPUs on two leaves, of which those are online.
    fn new(online: &[usize]) -> Arc<Self> {
        let tree = Tree::try_new(Geometry::new(4, 2, 2)).expect("there is memory");
        online.iter().for_each(|cpu| tree.online(*cpu));
        Arc::new(Self {
            tree,
            published: AtomicBool::new(true),
            object: Cell::new(1),
        })
    }

    fn read(&self) {
        // Acquire, as a reader that follows a pointer.
        if self.published.load(Ordering::Acquire) {
            // SAFETY: not freed while it can be found; the model checks it.
            assert_eq!(unsafe { *self.object.shared().get() }, 1);
        }
    }

    fn free(&self) {
        // SAFETY: nobody reads it any more; the model checks it.
        unsafe { *self.object.exclusive().get_mut() = 0 };
    }
}

fn count(counts: &[AtomicUsize; 2], freed: bool) {
    counts[usize::from(freed)].fetch_add(1, SeqCst);
}

fn assert_both(counts: &[AtomicUsize; 2]) {
    let counts = counts.each_ref().map(|count| count.load(SeqCst));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

/// Who finds the grace period over sees what the sections did, by the chain from the reports,
/// on two leaves, to the number.
#[test]
fn what_sections_did_is_seen_after_the_grace_period() {
    let counts: &'static [AtomicUsize; 2] = Box::leak(Box::default());
    Setup::new(3)
        .preemptions(3)
        .blocking_locks()
        .check(move || {
            let world = World::new(&[0, 2]);
            let cookie = Seq::INITIAL.snap();
            let (reads, polls) = (Arc::clone(&world), Arc::clone(&world));
            // CPU 0 of the tree has reported by the time that CPU 2 reads.
            world.tree.begin();
            world.tree.report(0, Kind::Normal);
            let reader = model::cpu(1, move || {
                reads.read();
                reads.tree.report(2, Kind::Normal);
            });
            let poller = model::cpu(2, move || {
                let over = cookie.is_done(polls.tree.seq());
                if over {
                    polls.free();
                }
                count(counts, over);
            });
            if world.tree.is_reported() {
                world.tree.end();
            }
            reader.join();
            poller.join();
        });
    assert_both(counts);
}

/// The CPU that makes the grace period counts as reported, and is in a section when somebody
/// else ends it.
#[test]
fn who_makes_the_grace_period_reads_after_its_report() {
    /// The only CPU, which is busy.
    struct Own;
    impl Cpus for Own {
        fn now_ns(&self) -> u64 {
            0
        }
        fn own(&self) -> Option<usize> {
            Some(0)
        }
        fn busy(&self, cpu: usize) -> Option<Snapshot> {
            unreachable!("CPU {cpu} is not waited for")
        }
        fn passed_since(&self, cpu: usize, _: Snapshot) -> bool {
            unreachable!("CPU {cpu} is not waited for")
        }
        fn ask(&self, cpu: usize) {
            unreachable!("CPU {cpu} is not waited for")
        }
        fn urge(&self, _: &[usize]) {}
        fn begins(&mut self) {}
    }
    const TIMES: Times = Times {
        first_scan: 0,
        next_scan: 1,
        urge: 1,
        stall: 1,
        interval: 0,
    };
    let counts: &'static [AtomicUsize; 2] = Box::leak(Box::default());
    Setup::new(2).blocking_locks().check(move || {
        let world = World::new(&[0]);
        let updates = Arc::clone(&world);
        let updater = model::cpu(1, move || {
            updates.published.store(false, Ordering::Relaxed);
            let cookie = updates.tree.snap();
            if updates.tree.is_reported() {
                updates.tree.end();
            }
            let over = cookie.is_done(updates.tree.seq());
            if over {
                updates.free();
            }
            count(counts, over);
        });
        let mut machine = GracePeriod::try_new(1).expect("there is memory");
        let mut step = |wanted| machine.step(&world.tree, &mut Own, wanted, &TIMES);
        world.read();
        assert_eq!(step(Wanted::Now), Step::Began);
        assert_eq!(step(Wanted::Nothing), Step::Again);
        world.read();
        updater.join();
    });
    assert_both(counts);
}
