//! Caches whose end is left to the background: [`Slabs::destroy_lingering`].
//!
//! Who asks for that waits for nothing but the registry's mutex: the cache is dying, its name is free, and it goes into a queue as
//! *lingering*. A thread, `slab_linger`, takes all that is in the queue and ends it together, so that caches that are destroyed
//! in a row share what there is to be waited for:
//!
//! | step | for all of them | counter |
//! |---|---|---|
//! | drops of boxes that are under way | every CPU is called, once, if one of them ever had boxes | `linger.call` |
//! | what is in flight is closed | one normal grace period, if any is not ripe then | `linger.synchronize` |
//! | it is freed; sheaves and barns are emptied | | |
//! | slabs that wait (TYPESAFE_BY_RCU) | one normal grace period, if there are some | `linger.synchronize_slabs` |
//! | objects in use are reported; the destroyer's hold ends | | `linger.gone`, `linger.zombie` |
//!
//! What comes in flight later (objects that are given to `kfree_rcu` by who knows that the cache is dying) is
//! waited for by the second half of each step, as in `destroy`.
//!
//! | state of the queue | left by | to |
//! |---|---|---|
//! | no thread: nothing is queued, all is done in place (`linger.in_place`) | `start_drainer` makes the thread | open |
//! | open: `linger.queue` adds, the thread takes | `stop_drainers` takes the thread's name away | stopping |
//! | stopping: nothing is added | the thread, when it has ended all | no thread |
//!
//! A queued cache is the thread's, as its destroyer; the queue links caches by what links those that have gone later.

use core::ptr::NonNull;

use platform::{
    Priority, Spawn,
    lock::IrqSpinLock,
    lock_class,
    sync::{AtomicBool, AtomicU64, Ordering},
    wait::WaitQueue,
};

use super::{
    KmemCache, Machine, Slabs, Stage, arrows::Arrow, records::Ending, typed::quiesce::quiesce,
};
use crate::kvfree_rcu::{InFlight, Wait};

lock_class! {
    /// Caches whose end is left to the background, and the thread that sees to it.
    pub struct LingerLock = ("slab lingering", 89);
}

/// What the lock protects.
struct Queue<M: Machine> {
    first: Option<NonNull<KmemCache<M>>>,
    last: Option<NonNull<KmemCache<M>>>,
    /// How many were ever queued.
    queued: u64,
    /// `None`: nothing is queued.
    thread: Option<M::Thread>,
}

// SAFETY: what is queued is the thread's, which has it by this.
unsafe impl<M: Machine> Send for Queue<M> {}

/// See the module.
pub(crate) struct Lingering<M: Machine> {
    queue: IrqSpinLock<Queue<M>, M, LingerLock>,
    /// How many of those that were queued have ended: the first ones.
    ended: AtomicU64,
    /// Those who wait for more.
    waiting: WaitQueue<M>,
    /// The thread is to end.
    stopping: AtomicBool,
    /// It has not.
    runs: AtomicBool,
}

impl<M: Machine> Lingering<M> {
    /// No thread.
    pub fn new() -> Self {
        Self {
            queue: IrqSpinLock::new(Queue {
                first: None,
                last: None,
                queued: 0,
                thread: None,
            }),
            ended: AtomicU64::new(0),
            waiting: WaitQueue::new(),
            stopping: AtomicBool::new(false),
            runs: AtomicBool::new(false),
        }
    }

    /// Queues a cache. `false`: there is no thread.
    ///
    /// # Safety
    ///
    /// The caller is its destroyer, and gives it up.
    unsafe fn push(&self, cache: &KmemCache<M>) -> bool {
        let mut queue = self.queue.lock();
        let Some(thread) = queue.thread.clone() else {
            return false;
        };
        // Relaxed, here and below: with the lock.
        cache
            .next_gone
            .store(core::ptr::null_mut(), Ordering::Relaxed);
        let cache = NonNull::from(cache);
        match queue.last.replace(cache) {
            Some(last) => {
                // SAFETY: queued, so it is there.
                let next = unsafe { &last.as_ref().next_gone };
                next.store(cache.as_ptr(), Ordering::Relaxed);
            }
            None => queue.first = Some(cache),
        }
        queue.queued += 1;
        drop(queue);
        M::unpark(&thread);
        true
    }

    /// Takes all; they follow each other by `next_gone`.
    fn take(&self) -> Option<NonNull<KmemCache<M>>> {
        let mut queue = self.queue.lock();
        queue.last = None;
        queue.first.take()
    }

    /// One more has ended.
    fn note_end(&self) {
        // Release pairs with the Acquire of who waits: what was done to it is seen.
        self.ended.fetch_add(1, Ordering::Release);
        self.waiting.wake_all();
    }
}

/// Caches that were taken from the queue, in its order.
struct Batch<M: Machine>(NonNull<KmemCache<M>>);

impl<M: Machine> Batch<M> {
    /// The caches. The next one is looked up before the caller has this one, which it may let go.
    fn all(&self) -> impl Iterator<Item = NonNull<KmemCache<M>>> + use<M> {
        let mut next = Some(self.0);
        core::iter::from_fn(move || {
            let cache = next?;
            // SAFETY: the destroyer's, until it has let it go. Relaxed: ordered by the queue's lock.
            next = NonNull::new(unsafe { cache.as_ref() }.next_gone.load(Ordering::Relaxed));
            Some(cache)
        })
    }

    /// Calls `each` with each of them, and what its end did so far.
    fn for_each(&self, mut each: impl FnMut(&KmemCache<M>, &mut InFlight)) {
        for cache in self.all() {
            // SAFETY: the destroyer's, and what it did, too.
            unsafe {
                let cache = cache.as_ref();
                each(cache, &mut cache.ending.exclusive().get_mut().did);
            }
        }
    }
}

impl<M: Machine> Slabs<M> {
    /// [`destroy`](Self::destroy) that waits for nothing: the name is free at once, the rest is done in the background, together with
    /// that of all others that linger. Objects that are in use then are reported there. Task context; takes the registry's mutex, so may
    /// sleep that long. (Before there is an engine of RCU, and its threads, it is done at once.)
    ///
    /// # Safety
    ///
    /// The cache is one of this allocator's, and the caller has a reference that it got from
    /// [`create`](Self::create). Nobody uses the cache by that reference any more but to free
    /// objects, of which none is under way; who frees one later knows of this call (it happens before).
    pub unsafe fn destroy_lingering(&self, cache: &KmemCache<M>) {
        // SAFETY: as the caller promises.
        unsafe { self.linger(cache, None) };
    }

    /// [`destroy_lingering`](Self::destroy_lingering) by the name that the cache was created with, which it loses
    /// if it is one of its further ones.
    ///
    /// # Safety
    ///
    /// As [`destroy_lingering`](Self::destroy_lingering), or boxes were [noted](KmemCache::note_boxes) of the cache: drops of those
    /// may be under way.
    pub unsafe fn destroy_lingering_named(&self, cache: &KmemCache<M>, name: &str) {
        // SAFETY: as the caller promises.
        unsafe { self.linger(cache, Some(name)) };
    }

    /// # Safety
    ///
    /// As [`destroy_lingering_named`](Self::destroy_lingering_named).
    unsafe fn linger(&self, cache: &KmemCache<M>, name: Option<&str>) {
        let now = M::now_ns();
        if !self.unreference(cache, name) {
            return;
        }
        let mut ending = Ending::begin(cache, now);
        ending.lingers_ns = Some(M::now_ns().saturating_sub(now));
        // SAFETY: the last reference is gone, so this is the destroyer.
        unsafe {
            *cache.ending.exclusive().get_mut() = ending;
            cache.set_stage(Stage::Lingering);
            if self.lingering.push(cache) {
                return self.arrow(Arrow::LingerQueue);
            }
            self.arrow(Arrow::LingerInPlace);
            cache.set_stage(Stage::Dying);
            ending.lingers_ns = None;
            // Reported there.
            let _ = self.finish(NonNull::from(cache), &mut ending);
        }
    }

    /// Waits until all caches have ended that lingered before. Task context, may sleep; not from a destructor.
    pub fn sync_lingering(&self) {
        let queued = self.lingering.queue.lock().queued;
        // Acquire pairs with the Release in `note_end`.
        let ended = || self.lingering.ended.load(Ordering::Acquire) >= queued;
        if !ended() {
            self.lingering.waiting.wait_until(ended);
        }
    }

    /// Makes sure that there is a thread for those that linger. Without one they do not.
    pub(crate) fn start_lingering(&self) {
        // AcqRel: of several callers one makes it; a thread before it has ended.
        if self.lingering.runs.swap(true, Ordering::AcqRel) {
            return;
        }
        let spawn = Spawn {
            name: "slab_linger",
            cpu: None,
            priority: Priority::Normal,
        };
        let argument = core::ptr::from_ref(self).expose_provenance();
        match M::spawn(spawn, Self::end_lingering, argument) {
            Ok(thread) => self.lingering.queue.lock().thread = Some(thread),
            Err(_) => self.lingering.runs.store(false, Ordering::Release),
        }
    }

    /// Ends all that linger, then the thread. Task context.
    pub(crate) fn stop_lingering(&self) {
        let Some(thread) = self.lingering.queue.lock().thread.take() else {
            return;
        };
        // Release pairs with the Acquire in `end_lingering`: after it nothing is queued.
        self.lingering.stopping.store(true, Ordering::Release);
        M::unpark(&thread);
        // Acquire: what it did is over.
        while self.lingering.runs.load(Ordering::Acquire) {
            M::yield_now();
            M::relax();
        }
    }

    /// The thread.
    fn end_lingering(argument: usize) {
        let slabs = core::ptr::with_exposed_provenance::<Self>(argument);
        // SAFETY: the allocator outlives the thread (`stop_lingering`).
        let slabs = unsafe { &*slabs };
        loop {
            // Acquire pairs with the Release in `stop_lingering`. Before the look at the queue.
            let stopping = slabs.lingering.stopping.load(Ordering::Acquire);
            match slabs.lingering.take() {
                Some(first) => slabs.end_batch(&Batch(first)),
                None if stopping => break,
                None => M::park(),
            }
        }
        // Release pairs with the Acquire in `stop_lingering`. Nothing is touched after it.
        slabs.lingering.runs.store(false, Ordering::Release);
    }

    /// Ends caches together.
    fn end_batch(&self, batch: &Batch<M>) {
        let mut boxes = true;
        batch.for_each(|cache, did| {
            // Relaxed: written before the registry was locked.
            if boxes && cache.boxes.load(Ordering::Relaxed) {
                self.arrow(Arrow::LingerCall);
                did.calls += quiesce::<M>();
                boxes = false;
            }
        });
        let mut waiting = None;
        // SAFETY: the destroyer of all of them; drops that were under way are over.
        batch.for_each(|cache, did| unsafe {
            if self.close_in_flight(cache, did) {
                waiting.get_or_insert(NonNull::from(cache));
            }
        });
        self.synchronize_for(waiting, Arrow::LingerSynchronize);
        let mut waiting = None;
        let rcu = self.rcu();
        batch.for_each(|cache, did| {
            // SAFETY: as above.
            unsafe { self.end_objects(cache, Wait::Normal, did) };
            if rcu.is_some() && cache.make_due() {
                waiting.get_or_insert(NonNull::from(cache));
            }
        });
        self.synchronize_for(waiting, Arrow::LingerSynchronizeSlabs);
        for cache in batch.all() {
            // SAFETY: as above. What is due has had its grace period (without an engine nothing is).
            unsafe {
                let at = cache.as_ref();
                let mut ending = *at.ending.exclusive().get();
                ending.did.slabs += at.free_kept(true);
                self.end_slabs(at, Wait::Normal, &mut ending.did);
                let ended = self.end(cache, &ending);
                self.arrow(match ended {
                    Ok(()) => Arrow::LingerGone,
                    Err(_) => Arrow::LingerZombie,
                });
            }
            self.lingering.note_end();
        }
    }

    /// A grace period for all, which is noted in the record of the first that needs it.
    fn synchronize_for(&self, cache: Option<NonNull<KmemCache<M>>>, why: Arrow) {
        if let Some(cache) = cache
            && let Some(rcu) = self.rcu()
        {
            self.arrow(why);
            // SAFETY: the destroyer's, and what it did, too.
            let ending = unsafe { cache.as_ref() }.ending.exclusive();
            // SAFETY: the same.
            unsafe { ending.get_mut() }
                .did
                .synchronize(rcu, Wait::Normal);
        }
    }
}
