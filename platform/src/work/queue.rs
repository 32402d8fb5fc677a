//! Queues: the workers of all CPUs.

use alloc::{sync::Arc, vec::Vec};
use core::{fmt, panic::Location};

use super::{
    Stats,
    pool::{Pool, PoolState},
};
use crate::{CpuId, CpuMask, Platform, Priority, Spawn, SpawnError};

/// A worker thread for each CPU, for items of [`Work`](super::Work).
pub struct Queue<P: Platform> {
    workers: Arc<Workers<P>>,
}

/// The pools of a queue, by CPU number. Items keep them.
pub(super) struct Workers<P: Platform> {
    pools: Vec<Option<Arc<Pool<P>>>>,
}

impl<P: Platform> Queue<P> {
    /// A queue with a worker on each CPU that is online. `name` and `priority` are those of
    /// the threads. Allocates; may sleep.
    ///
    /// # Errors
    ///
    /// [`SpawnError`], and then no worker is left.
    pub fn new(name: &'static str, priority: Priority) -> Result<Self, SpawnError> {
        Self::on(name, priority, P::online_cpus())
    }

    /// A queue with a worker on each of `cpus`, of which there is at least one. Allocates;
    /// may sleep.
    ///
    /// # Errors
    ///
    /// [`SpawnError`], and then no worker is left.
    ///
    /// # Panics
    ///
    /// If `cpus` is empty.
    pub fn on(name: &'static str, priority: Priority, cpus: CpuMask) -> Result<Self, SpawnError> {
        let last = cpus.iter().next_back().expect("a queue needs a worker");
        let mut pools = Vec::new();
        pools
            .try_reserve_exact(last.index() + 1)
            .map_err(|_| SpawnError::OutOfMemory)?;
        pools.resize_with(last.index() + 1, || None);
        for cpu in cpus.iter() {
            let pool = Arc::new(Pool::new(cpu));
            if let Err(error) = spawn(&pool, name, priority) {
                // Those that have a worker.
                end(&pools);
                return Err(error);
            }
            pools[cpu.index()] = Some(pool);
        }
        Ok(Self {
            workers: Arc::new(Workers { pools }),
        })
    }

    /// Waits until every run has ended that was pending or going on at the call, and due.
    /// May sleep.
    ///
    /// Must not be called from an item's function in the same queue, whose worker would wait
    /// for itself: that is reported, and that worker is not waited for.
    #[track_caller]
    pub fn flush(&self) {
        let at = Location::caller();
        if P::CHECK_LOCKS {
            P::might_sleep(at);
        }
        for pool in self.workers.all() {
            let own = pool.lock().is_worker();
            if own {
                P::report(format_args!(
                    "a worker waits for itself: flush of a work queue, at {at}"
                ));
            } else {
                pool.flush();
            }
        }
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        for pool in self.workers.all() {
            let stats = pool.lock().stats;
            sum.queued += stats.queued;
            sum.run += stats.run;
            sum.cancelled += stats.cancelled;
            sum.refused += stats.refused;
            sum.longest_ns = sum.longest_ns.max(stats.longest_ns);
        }
        sum
    }

    pub(super) fn workers(&self) -> &Arc<Workers<P>> {
        &self.workers
    }
}

impl<P: Platform> Drop for Queue<P> {
    /// Runs what is pending, refuses and cancels the rest, and ends the workers. May sleep.
    /// Must not happen in an item's function: that is reported, and its worker is left to end
    /// by itself.
    fn drop(&mut self) {
        end(&self.workers.pools);
    }
}

/// Ends the workers of `pools`.
fn end<P: Platform>(pools: &[Option<Arc<Pool<P>>>]) {
    for pool in pools.iter().flatten() {
        pool.close();
    }
    for pool in pools.iter().flatten() {
        let own = pool.lock().is_worker();
        if own {
            P::report(format_args!(
                "a worker waits for itself: a work queue is dropped in its own work"
            ));
        } else {
            pool.ended.wait();
        }
    }
}

impl<P: Platform> Workers<P> {
    /// All pools.
    fn all(&self) -> impl Iterator<Item = &Arc<Pool<P>>> {
        self.pools.iter().flatten()
    }

    /// That of the first CPU that has one.
    pub(super) fn first(&self) -> &Pool<P> {
        self.all().next().expect("a queue has a worker")
    }

    /// That of `cpu`, or else the first.
    pub(super) fn of(&self, cpu: CpuId) -> &Pool<P> {
        let pool = self.pools.get(cpu.index()).and_then(Option::as_ref);
        pool.map_or_else(|| self.first(), Arc::as_ref)
    }

    /// That of a CPU that has one.
    pub(super) fn at(&self, index: usize) -> &Pool<P> {
        self.pools[index].as_ref().expect("a home has a worker")
    }

    /// See [`PoolState::wake_flushers`].
    pub(super) fn wake_flushers(&self, index: usize, state: &mut PoolState<P>) {
        state.wake_flushers(self.at(index));
    }
}

/// Starts a pool's worker, which has a reference to the pool.
fn spawn<P: Platform>(
    pool: &Arc<Pool<P>>,
    name: &'static str,
    priority: Priority,
) -> Result<(), SpawnError> {
    let spawn = Spawn {
        name,
        cpu: Some(pool.cpu),
        priority,
    };
    let argument = Arc::into_raw(Arc::clone(pool));
    P::spawn(spawn, worker::<P>, argument.expose_provenance())
        .map(drop)
        .inspect_err(|_| {
            // SAFETY: made by `into_raw` above, and no thread has it.
            drop(unsafe { Arc::from_raw(argument) });
        })
}

/// A worker, from its beginning to its end.
fn worker<P: Platform>(argument: usize) {
    let pool = core::ptr::with_exposed_provenance::<Pool<P>>(argument);
    // SAFETY: made by `into_raw` in `spawn`, for this thread.
    let pool = unsafe { Arc::from_raw(pool) };
    pool.work();
    pool.ended.complete();
}

impl<P: Platform> fmt::Debug for Queue<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("stats", &self.stats())
            .finish()
    }
}
