//! Callbacks: queueing, naming what they wait for, and running them.
//!
//! Each CPU has a list ([`crate::callbacks`], with the states) under a lock of its own, and
//! a thread that runs what is ripe. Queueing takes that lock and no other; every now and then
//! it also gives the callbacks that have come a name for what they wait for, and asks the
//! tree for it: when nothing on the list has a name yet, so that the first callback after a
//! pause starts a grace period at once, and for every [`NAME_EVERY`]th. Others wait until
//! something on the list is ripe; then the CPU's thread names them.
//!
//! The CPU's thread also makes the grace period, if it can be made without waiting: then no
//! other CPU is woken for it.
//!
//! No ripe callback is forgotten: a CPU publishes the cookie that ripens next, and then asks
//! for it, by its leaf's lock. Whoever ends that grace period comes by that lock, too. If
//! before the CPU, the CPU sees the end and wakes its thread itself; if after it, the CPU's
//! cookie is seen, and its thread is woken.

use core::{ptr::NonNull, sync::atomic::Ordering};

use platform::{
    CpuId, Preempt,
    sync::{Ordering as Order, fence},
};

use crate::{
    Function, Head, Machine, Rcu,
    arrows::Arrow,
    callbacks::{Queue, Segment},
    cpu::{Callbacks, Cpu},
    engine::Left,
    seq::Cookie,
    tree::Request,
};

/// One in so many callbacks names all that have come; the others save the work.
const NAME_EVERY: usize = 64;

impl<M: Machine> Rcu<M> {
    /// Has `run` called with `head` once all sections of now are over: `call_rcu`. It is
    /// called once, by a thread, with preemption off: it may not sleep. Callbacks that one
    /// CPU queues are run in that order, as long as it does not go offline.
    ///
    /// Any context but NMI, also in a section and with interrupts off, with locks of
    /// levels below 87 held.
    ///
    /// # Safety
    ///
    /// The head is valid, not queued, and the engine's until `run` is called with it; `run`
    /// may be called by any thread.
    #[inline]
    pub unsafe fn call(&self, head: NonNull<Head>, run: Function) {
        let pinned = Preempt::<M>::disable();
        let cpu = self.here(&pinned);
        let mut callbacks = cpu.callbacks.lock();
        #[cfg(debug_assertions)]
        // SAFETY: the head is valid.
        if !unsafe { head.as_ref() }.claim() {
            drop(callbacks);
            self.report_twice(head);
            return;
        }
        // SAFETY: as the caller promises.
        unsafe { callbacks.list.push(head, run) };
        let pushed = callbacks.pushed;
        callbacks.pushed = pushed.wrapping_add(1);
        let is_first = callbacks.list.due(Segment::Wait).is_none();
        let name = if is_first || pushed.is_multiple_of(NAME_EVERY) {
            self.name(&mut callbacks)
        } else {
            None
        };
        cpu.publish(&callbacks);
        drop(callbacks);
        // Relaxed: a statistic.
        let queued = cpu.queued.load(Ordering::Relaxed);
        cpu.queued.store(queued + 1, Ordering::Relaxed);
        if let Some(cookie) = name {
            self.request(pinned.cpu(), cpu, cookie);
        }
    }

    #[cfg(debug_assertions)]
    #[cold]
    fn report_twice(&self, head: NonNull<Head>) {
        self.tree.arrows.take(Arrow::CbTwice);
        M::rcu_report(format_args!(
            "the callback head at {head:p} is queued already; it was not queued again"
        ));
    }

    /// Names what the newest callbacks of a list wait for. The cookie, if it must be asked
    /// for: after [`Cpu::publish`], and without the lock.
    pub(crate) fn name(&self, callbacks: &mut Callbacks) -> Option<Cookie> {
        if callbacks.list.len_of(Segment::Next) == 0 {
            return None;
        }
        // What the callbacks are about was unpublished before they were queued, under this
        // lock.
        let cookie = self.tree.snap();
        if !callbacks.list.accelerate(cookie) {
            self.tree.arrows.take(Arrow::CbNoPlace);
            return None;
        }
        self.tree.arrows.take(Arrow::CbName);
        (callbacks.requested != cookie).then(|| {
            callbacks.requested = cookie;
            cookie
        })
    }

    /// Asks for the grace period of a cookie that was published for `cpu`.
    pub(crate) fn request(&self, number: CpuId, cpu: &Cpu<M>, cookie: Cookie) {
        // Relaxed: a hint. Nobody is woken for it: whoever makes the grace period knows by the
        // time that it is over, or within the least time between two.
        if cpu.pending.load(Order::Relaxed) > self.config.high_mark {
            self.hurry_until(cookie);
        }
        match self.tree.request(number.index(), cookie) {
            Request::Wake => self.wake_near(cpu),
            Request::Noted => {}
            Request::Done => {
                self.tree.arrows.take(Arrow::CbRipeAtOnce);
                let _ = cpu.wake();
            }
        }
    }

    /// A CPU's thread.
    pub(crate) fn run_callbacks(&self, number: CpuId) {
        let cpu = self.cpus.on(number);
        loop {
            if self.run_ripe(number) {
                continue;
            }
            // Acquire pairs with the Release in `stop`.
            if self.stopping.load(Order::Acquire) && cpu.pending.load(Order::Relaxed) == 0 {
                return;
            }
            match self.drive(true) {
                Left::Nothing => M::park(),
                Left::NotBefore(at) => M::park_until(at),
                Left::Others => {
                    self.wake();
                    M::park();
                }
            }
        }
    }

    /// Names what has no name, and runs what is ripe. Whether there was anything.
    pub(crate) fn run_ripe(&self, number: CpuId) -> bool {
        let cpu = self.cpus.on(number);
        let (ripe, request) = self.take_ripe(cpu);
        if let Some(cookie) = request {
            self.request(number, cpu, cookie);
        }
        let any = !ripe.is_empty();
        if any {
            self.run(cpu, ripe);
        }
        any
    }

    /// Takes what is ripe, and names what has no name. The cookie, if it must be asked for.
    fn take_ripe(&self, cpu: &Cpu<M>) -> (Queue, Option<Cookie>) {
        let mut callbacks = cpu.callbacks.lock();
        let waiting = callbacks.list.due(Segment::Wait).is_some();
        // Acquire, in `seq`: what the sections did comes before the callbacks.
        let ripe = callbacks.list.advance(self.tree.seq());
        if waiting && ripe {
            self.tree.arrows.take(Arrow::CbRipe);
        }
        #[cfg(debug_assertions)]
        if self.faults.contains(crate::Faults::EARLY_SEGMENT) {
            callbacks.list.ripen_too_early();
        }
        let request = self.name(&mut callbacks);
        let ripe = callbacks.list.take_done();
        callbacks.running += ripe.len();
        cpu.publish(&callbacks);
        (ripe, request)
    }

    /// Runs what was taken, in batches with preemption off.
    fn run(&self, cpu: &Cpu<M>, mut ripe: Queue) {
        let mut start = M::now_ns();
        while !ripe.is_empty() {
            let mut count = 0;
            {
                let _batch = Preempt::<M>::disable();
                while count < self.config.batch.max(1)
                    && let Some((head, run)) = ripe.pop()
                {
                    // SAFETY: who queued it vouched for it (`call`), and all sections of then
                    // are over.
                    unsafe { run(head) };
                    count += 1;
                }
            }
            {
                let mut callbacks = cpu.callbacks.lock();
                callbacks.running -= count;
                cpu.publish(&callbacks);
            }
            self.tree.arrows.take(Arrow::CbRun);
            // Relaxed: a statistic.
            cpu.invoked.fetch_add(count as u64, Ordering::Relaxed);
            let took = M::now_ns() - start;
            if took > self.config.slice_ns {
                M::yield_now();
                start = M::now_ns();
            }
        }
    }

    /// The callbacks of a CPU that is gone go to the CPU that runs this; they wait anew.
    /// Task context, after [`cpu_dying`](Self::cpu_dying); the CPU runs nothing.
    pub fn cpu_dead(&self, number: CpuId) {
        let gone = self.cpus.on(number);
        let pinned = Preempt::<M>::disable();
        let own = self.here(&pinned);
        // A barrier that looks from CPU to CPU sees them here or there.
        let moving = self.barrier.moving.lock();
        let mut moved = {
            let mut callbacks = gone.callbacks.lock_under(&moving);
            let moved = core::mem::take(&mut callbacks.list);
            gone.publish(&callbacks);
            moved
        };
        if moved.is_empty() {
            return;
        }
        #[cfg(debug_assertions)]
        if self.faults.contains(crate::Faults::DROP_ON_HOTPLUG) {
            moved.drop_one();
        }
        self.tree.arrows.take(Arrow::CbAdopt);
        let mut callbacks = own.callbacks.lock_under(&moving);
        callbacks.list.adopt(&mut moved);
        let request = self.name(&mut callbacks);
        own.publish(&callbacks);
        drop(callbacks);
        drop(moving);
        if let Some(cookie) = request {
            self.request(pinned.cpu(), own, cookie);
        }
        // Some may have been ripe.
        let _ = own.wake();
    }
}

/// Orders a report by the own CPU before its later sections; see `tree`.
#[inline]
pub(crate) fn reported() {
    // SeqCst: pairs with the fence in `Tree::snap`.
    fence(Order::SeqCst);
}
