//! `rcu_barrier`: waiting until the callbacks that were queued before have run.
//!
//! A barrier goes from CPU to CPU and queues a callback of its own behind those that are
//! there, to wait for nothing that they do not wait for. The last of its callbacks that runs
//! wakes it. One barrier at a time; a caller that finds, when its turn comes, that another
//! one began after its call and has ended, is done.
//!
//! | a CPU, when the barrier comes by | what it does |
//! |---|---|
//! | no callback that has not been run | nothing, and without the lock of its list |
//! | callbacks on its list | queues one behind the last of them |
//! | all of them are being run | queues a ripe one, which runs behind them |
//!
//! The barrier counts: one for itself, so that callbacks which run at once do not end it,
//! and one for each callback of its own. Why a CPU that seems to have no callbacks has none
//! that were queued before is said at `Cpu::has_none`. Elsewhere what has arrived is taken
//! over first, and the barrier's goes behind it.
//!
//! Callbacks of a CPU that goes offline are moved under a lock that the barrier holds as it
//! goes from CPU to CPU, so it sees them in one place or the other.

use core::{cell::UnsafeCell, ptr::NonNull, sync::atomic::AtomicPtr};

use platform::{
    CpuId, CpuMask,
    lock::{IrqSpinGuard, IrqSpinLock},
    lock_class,
    sync::{AtomicU64, AtomicUsize, Ordering, fence},
    wait::{Mutex, WaitQueue},
};

use crate::{Head, Machine, Rcu, arrows::Arrow, cpu::Cpu, seq::Seq};

lock_class! {
    /// Whose barrier it is.
    pub struct BarrierOwner = ("rcu barrier", 7);
    /// Callbacks may not move from CPU to CPU.
    pub struct Moving = ("rcu moving callbacks", 86);
}

/// What the engine has for barriers.
pub(crate) struct Barrier<M: Machine> {
    owner: Mutex<(), M, BarrierOwner>,
    /// Counts barriers. Under the owner's lock.
    seq: AtomicU64,
    pub moving: IrqSpinLock<(), M, Moving>,
    /// The barrier's callbacks that have not run, and 1 while it goes from CPU to CPU.
    left: AtomicUsize,
    all_ran: WaitQueue<M>,
}

/// A CPU's callback of the barrier.
#[repr(C)]
pub(crate) struct CpuHead<M: Machine> {
    /// At the beginning: its address is the whole's.
    head: UnsafeCell<Head>,
    /// Whose it is; written before the head is queued.
    rcu: AtomicPtr<Rcu<M>>,
}

// SAFETY: the head is the barrier's while it is not queued, under the owner's lock, and the
// list's from then until its function is called.
unsafe impl<M: Machine> Send for CpuHead<M> {}
// SAFETY: as above.
unsafe impl<M: Machine> Sync for CpuHead<M> {}

impl<M: Machine> CpuHead<M> {
    pub fn new() -> Self {
        Self {
            head: UnsafeCell::new(Head::new()),
            rcu: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// The callback.
    ///
    /// # Safety
    ///
    /// `head` is that of a `CpuHead` that a barrier queued.
    unsafe fn run(head: NonNull<Head>) {
        // SAFETY: the head is at the beginning of a `CpuHead`, part of an engine, which lives
        // as long as its threads, which run callbacks. Relaxed: the list's lock orders it.
        unsafe { &*head.cast::<Self>().as_ref().rcu.load(Ordering::Relaxed) }
            .barrier_callback_ran();
    }
}

impl<M: Machine> Barrier<M> {
    pub fn new() -> Self {
        Self {
            owner: Mutex::new(()),
            seq: AtomicU64::new(Seq::INITIAL.to_bits()),
            moving: IrqSpinLock::new(()),
            left: AtomicUsize::new(0),
            all_ran: WaitQueue::new(),
        }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        let seq = Seq::from_bits(self.seq.load(Ordering::Relaxed));
        seq.completed_since(Seq::INITIAL)
    }
}

impl<M: Machine> Rcu<M> {
    /// Waits until all callbacks that were queued before this call have been run. Grace
    /// periods that they wait for begin at once. Task context, may sleep, not in a section,
    /// nor from a callback.
    pub fn barrier(&self) {
        self.assert_may_wait();
        let barrier = &self.barrier;
        // SeqCst: callbacks that the caller knows of come before the number is read, so a
        // barrier that begins after that finds them.
        fence(Ordering::SeqCst);
        let cookie = Seq::from_bits(barrier.seq.load(Ordering::Acquire)).snap();
        let owner = barrier.owner.lock();
        // Relaxed: under the owner's lock.
        let seq = Seq::from_bits(barrier.seq.load(Ordering::Relaxed));
        if cookie.is_done(seq) {
            self.tree.arrows.take(Arrow::BarrierShared);
            return;
        }
        barrier.seq.store(seq.start().to_bits(), Ordering::Release);
        // SeqCst: pairs with the fence above. A caller that read the number before this began
        // has its callbacks found.
        fence(Ordering::SeqCst);
        self.queue_and_wait();
        barrier
            .seq
            .store(seq.start().end().to_bits(), Ordering::Release);
        drop(owner);
    }

    fn queue_and_wait(&self) {
        let barrier = &self.barrier;
        // Relaxed: the callbacks, which count down, are queued by locks after this.
        barrier.left.store(1, Ordering::Relaxed);
        let mut queued = CpuMask::EMPTY;
        {
            let moving = barrier.moving.lock();
            for (number, cpu) in self.cpus.iter() {
                if cpu.has_none() {
                    self.tree.arrows.take(Arrow::BarrierNone);
                    continue;
                }
                if self.go_behind(cpu, &moving) {
                    queued = queued.with(number);
                }
            }
        }
        if queued.is_empty() {
            self.tree.arrows.take(Arrow::BarrierEmpty);
            return;
        }
        // All of them wait for this or less; the wake-ups come after it.
        self.hurry_until(self.tree.snap());
        for number in queued {
            self.hasten(number);
        }
        self.help();
        // Release: with the callbacks' decrements; Acquire: what they did is seen.
        if barrier.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            let all_ran = || barrier.left.load(Ordering::Acquire) == 0;
            barrier.all_ran.wait_until(all_ran);
        }
    }

    /// Queues the barrier's callback of a CPU behind all that are there. `false`: none are.
    #[inline(never)]
    fn go_behind(&self, cpu: &Cpu<M>, moving: &IrqSpinGuard<'_, (), M, Moving>) -> bool {
        let mut callbacks = cpu.callbacks.lock_under(moving);
        // `hasten` settles it.
        self.take_over(cpu, &mut callbacks);
        if callbacks.list.len() + callbacks.running == 0 {
            self.tree.arrows.take(Arrow::BarrierNone);
            return false;
        }
        // Relaxed: the list's lock orders it before the callback.
        let rcu = core::ptr::from_ref(self).cast_mut();
        cpu.barrier.rcu.store(rcu, Ordering::Relaxed);
        let head = NonNull::from(&cpu.barrier).cast::<Head>();
        self.barrier.left.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the head is part of the engine, and not queued: the callbacks of the barrier
        // before this one have run.
        if unsafe { callbacks.list.entrain(head, CpuHead::<M>::run) } {
            self.tree.arrows.take(Arrow::BarrierQueued);
        } else {
            self.tree.arrows.take(Arrow::BarrierBehindRunning);
            // SAFETY: as above.
            unsafe { callbacks.list.push_done(head, CpuHead::<M>::run) };
        }
        cpu.publish(&callbacks);
        true
    }

    /// What waits on a CPU is asked for, and what is ripe there runs.
    fn hasten(&self, number: CpuId) {
        let cpu = self.cpus.on(number);
        let request = {
            let mut callbacks = cpu.callbacks.lock();
            self.take_over(cpu, &mut callbacks);
            self.settle(cpu, &mut callbacks)
        };
        if let Some(cookie) = request {
            self.request(number, cpu, cookie);
        }
        let _ = cpu.wake();
    }

    fn barrier_callback_ran(&self) {
        // Release: what the callbacks before it did; Acquire for the last one, who passes
        // on what the others released.
        if self.barrier.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tree.arrows.take(Arrow::BarrierLast);
            self.barrier.all_ran.wake_all();
        }
    }
}
