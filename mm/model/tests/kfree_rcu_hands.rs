//! Hand-over between a lane, those who drain it, and those who wait, under a model checker: who finds nothing on the lane and nothing in
//! hands knows that all rests; a barrier waits for what was there before it, and not for ever; what
//! rests may be gone at once. The counts are the engine's own.

use std::sync::{
    Arc,
    atomic::{AtomicUsize as Plain, Ordering::SeqCst},
};

use loom::cell::UnsafeCell;
use mm::kvfree_rcu::hands::Hands;
use platform::{
    lock::IrqSpinLock,
    lock_class,
    model::{self, Model, Setup},
    sync::{AtomicU64, Ordering},
    wait::WaitQueue,
};

lock_class! {
    /// The lane.
    pub struct Lane = ("a lane", 85);
}

/// Orders with few preemptions.
fn setup(cpus: usize) -> Setup {
    let bound = if cpus > 2 { 2 } else { 3 };
    Setup::new(cpus).blocking_locks().preemptions(bound)
}

/// Objects of one cache, which wait on a lane; each has a cell that who frees it writes.
struct World {
    /// Numbers of objects that wait, by bits.
    lane: IrqSpinLock<u32, Model, Lane>,
    /// How many, for those without the lock: as `Part::objects`.
    objects: AtomicU64,
    hands: Hands,
    rested: WaitQueue<Model>,
    contents: [UnsafeCell<u32>; 2],
}

// SAFETY: that accesses to the contents are ordered is what the tests prove.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    /// With so many objects on the lane.
    fn new(objects: u32) -> Arc<Self> {
        Arc::new(Self {
            lane: IrqSpinLock::new((1 << objects) - 1),
            objects: AtomicU64::new(u64::from(objects)),
            hands: Hands::new(),
            rested: WaitQueue::new(),
            contents: std::array::from_fn(|_| UnsafeCell::new(0)),
        })
    }

    /// `kfree_rcu` of an object.
    fn queue(&self, number: u32) {
        let mut lane = self.lane.lock();
        *lane |= 1 << number;
        self.objects
            .store(u64::from(lane.count_ones()), Ordering::Release);
    }

    /// Takes one off, as `Lane::take_ripe` does, and frees it. Whether there was one.
    fn drain_one(&self) -> bool {
        let mut lane = self.lane.lock();
        if *lane == 0 {
            return false;
        }
        let number = lane.trailing_zeros();
        *lane &= !(1 << number);
        // First into the hands, then off the lane.
        let ticket = self.hands.take(1);
        self.objects
            .store(u64::from(lane.count_ones()), Ordering::Release);
        drop(lane);
        // SAFETY: taken off, so this one's.
        self.contents[number as usize].with_mut(|contents| unsafe { *contents += 1 });
        if self.hands.rest(ticket, 1) {
            self.rested.wake_all();
        }
        true
    }

    /// All that was freed is the caller's: the checker watches.
    fn owns(&self, number: usize) -> u32 {
        // SAFETY: as the caller has found out.
        self.contents[number].with_mut(|contents| unsafe { *contents })
    }
}

/// A look at the lane and then at the hands, without a lock: nothing means that all rests.
#[test]
fn nothing_found_means_all_rests() {
    static OUTCOMES: [Plain; 2] = [const { Plain::new(0) }; 2];
    setup(2).check(|| {
        let world = World::new(1);
        let there = Arc::clone(&world);
        let drainer = model::cpu(1, move || {
            there.drain_one();
        });
        let nothing = world.objects.load(Ordering::Acquire) == 0 && !world.hands.any();
        OUTCOMES[usize::from(nothing)].fetch_add(1, SeqCst);
        if nothing {
            assert_eq!(world.owns(0), 1);
        }
        drainer.join();
    });
    assert!(OUTCOMES.iter().all(|times| times.load(SeqCst) > 0));
}

/// A destroyer frees what it finds on the lane, and waits for what others have; then all is its own.
#[test]
fn a_destroyer_waits_for_hands() {
    setup(2).check(|| {
        let world = World::new(2);
        let there = Arc::clone(&world);
        let drainer = model::cpu(1, move || {
            there.drain_one();
        });
        while world.drain_one() {}
        world.hands.wait_all(&world.rested);
        assert_eq!((world.owns(0), world.owns(1)), (1, 1));
        drainer.join();
    });
}

/// A barrier waits for what was queued before it, while others go on queueing and draining.
#[test]
fn a_barrier_waits_for_the_phase_before() {
    setup(3).check(|| {
        let world = World::new(1);
        let (there, elsewhere) = (Arc::clone(&world), Arc::clone(&world));
        let drainer = model::cpu(1, move || {
            there.drain_one();
        });
        let user = model::cpu(2, move || {
            elsewhere.queue(1);
            elsewhere.drain_one();
        });
        // As `kvfree_rcu_barrier_on_cache`: what was queued before is off the lane when the phase ends; whoever has the lock
        // after this takes in the new phase.
        while world.drain_one() {}
        let phase = world.hands.flip();
        drop(world.lane.lock());
        world.hands.wait(phase, &world.rested);
        assert_eq!(world.owns(0), 1);
        drainer.join();
        user.join();
    });
}

/// Whoever takes the last object off the hands touches nothing afterwards: the cache goes at once.
#[test]
fn the_last_access_is_the_count() {
    setup(2).check(|| {
        let world = World::new(1);
        let there = Arc::clone(&world);
        let drainer = model::cpu(1, move || {
            there.drain_one();
        });
        while world.drain_one() {}
        world.hands.wait_all(&world.rested);
        drainer.join();
        let mut world = Arc::into_inner(world).expect("nobody else has it");
        // Exclusive use of the words, as of memory that is freed.
        assert!(!world.hands.any());
        assert_eq!(*world.lane.get_mut(), 0);
    });
}
