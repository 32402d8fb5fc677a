//! Callbacks: queueing, naming what they wait for, and running them.
//!
//! Queueing takes no lock: a callback *arrives* on a stack of its CPU
//! ([`crate::callbacks::arrivals`], with the states). Each CPU has a list
//! ([`crate::callbacks`], with the states) under a lock of its own, and a thread that runs
//! what is ripe. Whoever has the lock *takes over* what has arrived, gives it a name for what
//! it waits for, and asks the tree for that. Who queues does so when nobody else will: when
//! nothing on the list has a name yet, so that the first callback after a pause starts a
//! grace period at once; and for every [`NAME_EVERY`]th. Otherwise something on the list
//! waits, and when that is ripe the CPU's thread comes.
//!
//! The CPU's thread also makes the grace period, if it can be made without waiting: then no
//! other CPU is woken for it.
//!
//! No ripe callback is forgotten: a CPU publishes the cookie that ripens next, and then asks
//! for it, by its leaf's lock. Whoever ends that grace period comes by that lock, too. If
//! before the CPU, the CPU sees the end and wakes its thread itself; if after it, the CPU's
//! cookie is seen, and its thread is woken.
//!
//! So what holds when the lock is given back is: if nobody will come for what arrives (nothing
//! on the list has a name), the stack says so, and who pushes next comes ([`Rcu::settle`]).
//! A barrier that takes over leaves that for the moment until it comes a second time.

use core::{ptr::NonNull, sync::atomic::Ordering};

use platform::{
    CpuId, Preempt,
    sync::{Ordering as Order, fence},
};

use crate::{
    Function, Head, Machine, Rcu,
    arrows::Arrow,
    callbacks::{
        List, Queue, Segment,
        arrivals::{Rest, Taken},
    },
    cpu::{Callbacks, Cpu},
    engine::Left,
    seq::Cookie,
    tree::Request,
};

/// One in so many callbacks takes over and names all that have come; the others save the
/// work. It bounds what is turned round with interrupts off.
const NAME_EVERY: u64 = 64;

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
        #[cfg(debug_assertions)]
        // SAFETY: the head is valid.
        if !unsafe { head.as_ref() }.claim() {
            self.report_twice(head);
            return;
        }
        // SAFETY: as the caller promises.
        let nobody_comes = unsafe { cpu.arrivals.push::<M>(head, run) };
        // Relaxed: an interrupt's may get lost. That only puts the next turn off.
        let turn = cpu.turns.load(Ordering::Relaxed).wrapping_add(1);
        cpu.turns.store(turn, Ordering::Relaxed);
        if nobody_comes || turn.is_multiple_of(NAME_EVERY) {
            self.come(pinned.cpu(), cpu, nobody_comes);
        }
    }

    /// Takes over and names what has arrived here.
    #[cold]
    #[inline(never)]
    fn come(&self, number: CpuId, cpu: &Cpu<M>, nobody_else: bool) {
        if !nobody_else {
            self.tree.arrows.take(Arrow::CbMany);
        }
        let mut callbacks = cpu.callbacks.lock();
        self.take_over(cpu, &mut callbacks);
        let request = self.settle(cpu, &mut callbacks);
        drop(callbacks);
        if let Some(cookie) = request {
            self.request(number, cpu, cookie);
        }
    }

    /// Puts what has arrived behind the callbacks of the list. [`settle`](Self::settle) is to
    /// follow, perhaps after the lock was given back meanwhile.
    pub(crate) fn take_over(&self, cpu: &Cpu<M>, callbacks: &mut Callbacks) {
        let Some(Taken {
            mut queue,
            was_idle,
        }) = cpu.arrivals.take()
        else {
            return;
        };
        self.tree.arrows.take(if was_idle {
            Arrow::CbFirst
        } else {
            Arrow::CbLater
        });
        // Relaxed: statistics; this one is changed under the lock.
        let count = queue.len() as u64;
        self.tree.arrows.add(Arrow::CbTakeOver, count);
        let queued = cpu.queued.load(Ordering::Relaxed);
        cpu.queued.store(queued + count, Ordering::Relaxed);
        callbacks.list.append(&mut queue);
    }

    /// Names what has no name, and tells those without the lock what changed; then, if nobody
    /// will come, sees to it that who pushes next does. To be done before the lock is given
    /// back. The cookie, if it must be asked for: without the lock.
    #[must_use = "the cookie is to be asked for"]
    pub(crate) fn settle(&self, cpu: &Cpu<M>, callbacks: &mut Callbacks) -> Option<Cookie> {
        let mut request = self.name(callbacks);
        cpu.publish(callbacks);
        // What has no name has no place for one, so something has.
        while callbacks.list.due(Segment::Wait).is_none() {
            match cpu.arrivals.rest() {
                Rest::Now => {
                    self.tree.arrows.take(Arrow::CbRest);
                    break;
                }
                Rest::Already => break,
                Rest::Arrived => {
                    self.take_over(cpu, callbacks);
                    request = self.name(callbacks);
                    cpu.publish(callbacks);
                }
            }
        }
        request
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
    fn name(&self, callbacks: &mut Callbacks) -> Option<Cookie> {
        if callbacks.list.len_of(Segment::Next) == 0 {
            return None;
        }
        // What the callbacks are about was unpublished before they were pushed, and they were
        // taken over before this.
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
            if self.stopping.load(Order::Acquire) && cpu.has_none() {
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
        self.take_over(cpu, &mut callbacks);
        let waiting = callbacks.list.due(Segment::Wait).is_some();
        // Acquire, in `seq`: what the sections did comes before the callbacks.
        let ripe = callbacks.list.advance(self.tree.seq());
        if waiting && ripe {
            self.tree.arrows.take(Arrow::CbRipe);
        }
        #[cfg(debug_assertions)]
        if self.faults.contains(crate::Faults::EARLY_SEGMENT) {
            // Every other time: those that queue themselves would run for ever, and nobody else
            // on their CPU.
            callbacks.early = !callbacks.early;
            if callbacks.early {
                callbacks.list.ripen_too_early();
            }
        }
        let ripe = callbacks.list.take_done();
        callbacks.running += ripe.len();
        (ripe, self.settle(cpu, &mut callbacks))
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
        let mut moved = List::new();
        {
            let mut callbacks = gone.callbacks.lock_under(&moving);
            loop {
                self.take_over(gone, &mut callbacks);
                moved.adopt(&mut callbacks.list);
                gone.publish(&callbacks);
                if gone.arrivals.rest() != Rest::Arrived {
                    break;
                }
            }
            // Should it come back soon, what it asked for is not known of its new callbacks.
            callbacks.requested = Cookie::COMPLETED;
        }
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
        let request = self.settle(own, &mut callbacks);
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
