//! Machines of many shapes, and objects that are published, found and reclaimed.

use std::{
    ptr::NonNull,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::*},
    },
    time::Duration,
};

use platform::{
    CpuId, IrqsOff, Mark, Platform, Preempt, Priority, Spawn,
    hosted::{Hosted, Machine},
};
use rcu::{
    Config, Head, Rcu,
    hosted::{make_preemptible, read},
};

/// Under `cargo xtask test --long` and in CI: that percentage of `full`; else `quick`.
pub fn rounds(full: usize, quick: usize) -> usize {
    match std::env::var("GRANARY_PERCENT") {
        Ok(percent) => {
            let percent: usize = percent.parse().expect("GRANARY_PERCENT is no number");
            (full * percent / 100).max(1)
        }
        Err(_) => quick,
    }
}

pub fn cpu(index: usize) -> CpuId {
    CpuId::from_index(index).unwrap()
}

pub fn spawn(cpu: Option<CpuId>, priority: Priority) -> Spawn {
    Spawn {
        name: "spawned",
        cpu,
        priority,
    }
}

/// A machine and its tree.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub cpus: usize,
    pub fanout: usize,
    pub preemptible: bool,
}

impl Shape {
    /// All that are tested.
    pub fn all() -> impl Iterator<Item = Self> {
        let cpus = [1, 2, 4, 8];
        let fanouts = cpus.map(|cpus| [2, 16].map(|fanout| (cpus, fanout)));
        fanouts.into_iter().flatten().flat_map(|(cpus, fanout)| {
            [false, true].map(|preemptible| Self {
                cpus,
                fanout,
                preemptible,
            })
        })
    }

    pub fn machine(self, seed: u64) -> Machine {
        self.machine_that_ends(seed, Duration::from_secs(120))
    }

    /// One that must be done by then.
    pub fn machine_that_ends(self, seed: u64, limit: Duration) -> Machine {
        let builder = Machine::builder().cpus(self.cpus).seed(seed);
        let machine = builder.limit(limit).build();
        if self.preemptible {
            make_preemptible(&machine);
        }
        machine
    }

    /// Times that are short: points come often.
    pub fn config(self) -> Config {
        Config {
            leaf_fanout: self.fanout,
            fanout: self.fanout,
            next_scan_ns: 200_000,
            urge_ns: 500_000,
            min_interval_ns: 50_000,
            batch: 3,
            high_mark: 50,
            slice_ns: 20_000,
            stall_ns: 10_000_000_000,
            ..Config::default()
        }
    }
}

/// A generator of numbers: SplitMix64, shared.
#[derive(Default)]
pub struct Random(AtomicU64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub fn below(&self, bound: usize) -> usize {
        let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as usize % bound
    }
}

/// Something that is published.
#[repr(C)]
#[derive(Default)]
pub struct Object {
    head: Head,
    /// 0 while it is published, 1 once it is not; then one more with each grace period. A
    /// section in which it was found never sees more than 1.
    pipe: AtomicU32,
    /// Another one each time that it is published.
    stamp: AtomicU64,
    /// Nobody has it.
    free: AtomicBool,
    world: Weak<World>,
}

/// Grace periods by callbacks, one after the other, before an object is free.
const PIPE: u32 = 4;

/// What readers and updaters share.
#[derive(Default)]
pub struct World {
    slots: [AtomicPtr<Object>; 3],
    objects: Objects,
    rcu: Weak<Rcu<Hosted>>,
    stamps: AtomicU64,
    pub random: Random,
    pub stop: AtomicBool,
    /// Sections that found something that was published at their end, and that was not.
    pub found: [AtomicUsize; 2],
    /// How often CPUs went and came back.
    pub away: AtomicUsize,
    /// By [`Retire`].
    pub retired: [AtomicUsize; Retire::ALL.len()],
}

/// Objects that are written through pointers, whole heads by the engine.
struct Objects(NonNull<[Object]>);

// SAFETY: shared by pointers; whoever took an object has it for itself, but for atomic fields.
unsafe impl Send for Objects {}
// SAFETY: as above.
unsafe impl Sync for Objects {}

impl Default for Objects {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Objects {
    fn new(objects: Vec<Object>) -> Self {
        Self(NonNull::from(Box::leak(objects.into_boxed_slice())))
    }

    fn at(&self, index: usize) -> NonNull<Object> {
        assert!(index < self.0.len());
        // SAFETY: within the slice.
        unsafe { self.0.cast::<Object>().add(index) }
    }

    fn is_free(&self, index: usize) -> &AtomicBool {
        // SAFETY: there as long as this, and shared.
        unsafe { &(*self.at(index).as_ptr()).free }
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // SAFETY: leaked by `new`; nobody has an object any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// How an updater waits.
#[derive(Clone, Copy, Debug)]
pub enum Retire {
    Call,
    Synchronize,
    Expedited,
    Poll,
    PollExpedited,
    PollFull,
    SnapFull,
    Cond,
    CondExpedited,
}

impl Retire {
    pub const ALL: [Self; 9] = [
        Self::Call,
        Self::Synchronize,
        Self::Expedited,
        Self::Poll,
        Self::PollExpedited,
        Self::PollFull,
        Self::SnapFull,
        Self::Cond,
        Self::CondExpedited,
    ];
}

/// A turn of a wait in which others run.
pub fn pause() {
    Hosted::yield_now();
    Hosted::relax();
}

/// As many callbacks were run as were queued: once they are counted, which a barrier does not
/// wait for.
pub fn assert_all_counted(rcu: &Rcu<Hosted>) {
    let counts = || {
        let stats = rcu.stats();
        let queued = stats.queued + stats.barrier_callbacks;
        (queued, stats.invoked, stats.pending)
    };
    while counts().1 < counts().0 {
        pause();
    }
    let (queued, invoked, pending) = counts();
    assert_eq!((invoked, pending), (queued, 0));
}

impl World {
    pub fn new(rcu: &Arc<Rcu<Hosted>>, seed: u64) -> Arc<Self> {
        Arc::new_cyclic(|world| {
            let object = |_| Object {
                free: AtomicBool::new(true),
                world: Weak::clone(world),
                ..Object::default()
            };
            let objects: Vec<Object> = (0..48).map(object).collect();
            let this = Self {
                objects: Objects::new(objects),
                rcu: Arc::downgrade(rcu),
                random: Random::new(seed),
                ..Self::default()
            };
            for slot in &this.slots {
                let first = this.take().expect("there are enough");
                slot.store(first.as_ptr(), Relaxed);
            }
            this
        })
    }

    fn rcu(&self) -> Arc<Rcu<Hosted>> {
        self.rcu
            .upgrade()
            .expect("the engine outlives what it tests")
    }

    /// Takes a free object.
    fn take(&self) -> Option<NonNull<Object>> {
        let count = self.objects.0.len();
        let start = self.random.below(count);
        let index = (0..count)
            .map(|index| (start + index) % count)
            .find(|index| self.objects.is_free(*index).swap(false, Acquire))?;
        let object = self.objects.at(index);
        // SAFETY: there as long as this; these fields are shared.
        let (pipe, stamp) = unsafe {
            let object = object.as_ptr();
            (&(*object).pipe, &(*object).stamp)
        };
        pipe.store(0, Relaxed);
        stamp.store(self.stamps.fetch_add(1, Relaxed), Relaxed);
        Some(object)
    }

    /// A section of one of several kinds. Any context.
    pub fn read(&self, turns: usize) {
        match self.random.below(7) {
            0 => {
                let _section = Preempt::<Hosted>::disable();
                self.look(turns);
            }
            1 => {
                let _section = IrqsOff::<Hosted>::disable();
                self.look(turns);
            }
            2 => {
                let _outer = read();
                drop(read());
                self.look(turns);
            }
            3 => {
                let _outer = read();
                let _inner = Preempt::<Hosted>::disable();
                self.look(turns);
            }
            4 => {
                // A section that goes on as one of another kind.
                let first = read();
                self.look_and(turns, || {
                    let then = Preempt::<Hosted>::disable();
                    drop(first);
                    then
                });
            }
            _ => {
                let _section = read();
                self.look(turns);
            }
        }
    }

    /// In a section.
    fn look(&self, turns: usize) {
        self.look_and(turns, || ());
    }

    /// The same; in the middle of it the section becomes another one.
    fn look_and<T>(&self, turns: usize, change: impl FnOnce() -> T) {
        let slot = &self.slots[self.random.below(self.slots.len())];
        // Acquire, as a reader that follows a pointer.
        let found = slot.load(Acquire);
        // SAFETY: objects are there as long as the world; these fields are shared.
        let (pipe, stamp) = unsafe { (&(*found).pipe, &(*found).stamp) };
        let first = stamp.load(Relaxed);
        let look = || {
            for _ in 0..turns {
                assert!(pipe.load(Relaxed) <= 1, "reclaimed while it is read");
                Hosted::mark(Mark::Step);
            }
        };
        look();
        let _section = change();
        look();
        let seen = pipe.load(Relaxed);
        assert!(seen <= 1, "reclaimed while it is read");
        assert_eq!(stamp.load(Relaxed), first, "used anew while it is read");
        self.found[seen as usize].fetch_add(1, Relaxed);
    }

    /// Publishes another object, and has the old one reclaimed.
    pub fn update(&self, how: Retire) {
        let Some(new) = self.take() else {
            pause();
            return;
        };
        let slot = &self.slots[self.random.below(self.slots.len())];
        // Release: it is ready. Acquire: the old one was.
        let old = slot.swap(new.as_ptr(), AcqRel);
        let old = NonNull::new(old).expect("something is always published");
        // SAFETY: not published any more, so this updater's; these fields are shared.
        let object = unsafe { old.as_ref() };
        object.pipe.store(1, Relaxed);
        self.retired[how as usize].fetch_add(1, Relaxed);
        let rcu = self.rcu();
        let poll = |ripe: &dyn Fn() -> bool| {
            while !ripe() {
                pause();
            }
        };
        match how {
            Retire::Call => {
                // SAFETY: the object is its own until the callback frees it.
                unsafe { rcu.call(old.cast(), Object::ran) };
                return;
            }
            Retire::Synchronize => rcu.synchronize(),
            Retire::Expedited => rcu.synchronize_expedited(),
            Retire::Poll => {
                let cookie = rcu.start_poll();
                poll(&|| rcu.poll(cookie));
            }
            Retire::PollExpedited => {
                let cookie = rcu.start_poll_expedited();
                poll(&|| rcu.poll_expedited(cookie));
            }
            Retire::PollFull => {
                let cookie = rcu.start_poll_full();
                poll(&|| rcu.poll_full(cookie));
            }
            Retire::SnapFull => {
                let cookie = rcu.snap_full();
                // Ripens by what others wait for, if they do.
                for _ in 0..20 {
                    pause();
                }
                rcu.cond_synchronize_full(cookie);
            }
            Retire::Cond => {
                let cookie = rcu.snap();
                pause();
                rcu.cond_synchronize(cookie);
            }
            Retire::CondExpedited => {
                let cookie = rcu.snap_expedited();
                pause();
                rcu.cond_synchronize_expedited(cookie);
            }
        }
        object.pipe.store(2, Relaxed);
        Hosted::mark(Mark::Step);
        object.free.store(true, Release);
    }

    /// Everything that is not published is free: once all callbacks have run.
    pub fn assert_all_free(&self) {
        let count = self.objects.0.len();
        let used = (0..count).filter(|index| !self.objects.is_free(*index).load(Acquire));
        assert_eq!(used.count(), self.slots.len(), "objects that got lost");
    }
}

impl Object {
    /// A grace period after it was unpublished, or after the last one.
    ///
    /// # Safety
    ///
    /// The head of an object that was given to `call`.
    unsafe fn ran(head: NonNull<Head>) {
        let object = head.cast::<Self>();
        // SAFETY: objects are there as long as the world, which waits for callbacks; these
        // fields are shared.
        let (pipe, free, world) = unsafe {
            let object = object.as_ptr();
            (&(*object).pipe, &(*object).free, &(*object).world)
        };
        assert!(!Hosted::may_sleep(), "callbacks run with preemption off");
        if pipe.fetch_add(1, Relaxed) + 1 < PIPE {
            let world = world.upgrade().expect("it waits for callbacks");
            // SAFETY: popped, so the object's own again.
            unsafe { world.rcu().call(head, Self::ran) };
        } else {
            free.store(true, Release);
        }
    }
}
