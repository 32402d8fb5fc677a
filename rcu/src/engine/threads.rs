//! The engine's threads.

use alloc::{boxed::Box, sync::Arc};

use platform::{CpuId, Priority, Spawn, SpawnError, sync::Ordering};

use super::{Left, Rcu};
use crate::{Machine, stall::NEVER};

impl<M: Machine> Rcu<M> {
    /// Starts the engine's threads: one that makes grace periods, one for expedited ones that
    /// nobody waits for, and one for each online CPU that runs its callbacks. Until then nothing ends. Task context; once.
    ///
    /// # Errors
    ///
    /// [`SpawnError`]; threads that were started go on, and [`stop`](Self::stop) ends them.
    pub fn start(self: &Arc<Self>) -> Result<(), SpawnError> {
        let spawn = |name| Spawn {
            name,
            cpu: None,
            priority: Priority::Urgent,
        };
        let run: fn(&Self, CpuId) = |this, _| this.make_grace_periods();
        let thread = self.spawn(&spawn("rcu_gp"), CpuId::BOOT, run)?;
        *self.thread.lock() = Some(thread);
        let run: fn(&Self, CpuId) = |this, _| this.make_asked_expedited();
        let thread = self.spawn(&spawn("rcu_exp"), CpuId::BOOT, run)?;
        *self.expedited.thread.lock() = Some(thread);
        M::online_cpus()
            .iter()
            .try_for_each(|cpu| self.cpu_online(cpu))
    }

    /// Makes sure that a CPU has a thread that runs its callbacks. Task context.
    ///
    /// # Errors
    ///
    /// [`SpawnError`].
    pub fn cpu_online(self: &Arc<Self>, cpu: CpuId) -> Result<(), SpawnError> {
        if self.cpus.on(cpu).thread.lock().is_some() {
            return Ok(());
        }
        let spawn = Spawn {
            name: "rcuc",
            cpu: Some(cpu),
            priority: Priority::High,
        };
        let thread = self.spawn(&spawn, cpu, |this, cpu| this.run_callbacks(cpu))?;
        *self.cpus.on(cpu).thread.lock() = Some(thread);
        // What was queued before there was a thread.
        let _ = self.cpus.on(cpu).wake();
        Ok(())
    }

    fn spawn(
        self: &Arc<Self>,
        spawn: &Spawn,
        cpu: CpuId,
        run: fn(&Self, CpuId),
    ) -> Result<M::Thread, SpawnError> {
        let start = crate::memory::try_box(Start {
            rcu: Arc::clone(self),
            cpu,
            run,
        })
        .ok_or(SpawnError::OutOfMemory)?;
        let argument = Box::into_raw(start);
        // Relaxed: the spawned thread, which takes it back, comes after it.
        self.threads.fetch_add(1, Ordering::Relaxed);
        M::spawn(*spawn, Start::<M>::enter, argument as usize).inspect_err(|_| {
            self.threads.fetch_sub(1, Ordering::Relaxed);
            // SAFETY: no thread has it; it came from a box.
            drop(unsafe { Box::from_raw(argument) });
        })
    }

    /// Waits until all callbacks have been run, and ends the engine's threads. For machines
    /// that end. Nobody may queue callbacks or wait for grace periods any more. Task context.
    pub fn stop(&self) {
        self.barrier();
        // Release: the threads see what came before. They are woken after it.
        self.stopping.store(true, Ordering::Release);
        self.wake();
        self.expedited.wake();
        for (_, cpu) in self.cpus.iter() {
            let _ = cpu.wake();
        }
        // Acquire: what they did is over.
        while self.threads.load(Ordering::Acquire) != 0 {
            M::yield_now();
            M::relax();
        }
    }

    /// The engine's thread: makes grace periods that others wait for.
    fn make_grace_periods(&self) {
        // Acquire pairs with the Release in `stop`.
        while !self.stopping.load(Ordering::Acquire) {
            self.step_due.store(NEVER, Ordering::Relaxed);
            match self.drive(false) {
                Left::NotBefore(at) => {
                    self.step_due.store(at, Ordering::Relaxed);
                    M::park_until(at);
                }
                Left::Nothing | Left::Others => M::park(),
            }
        }
    }

    /// The thread that makes grace periods, for reports.
    pub(crate) fn running_threads(&self) -> usize {
        self.threads.load(Ordering::Relaxed)
    }
}

/// What a new thread is given.
struct Start<M: Machine> {
    rcu: Arc<Rcu<M>>,
    cpu: CpuId,
    run: fn(&Rcu<M>, CpuId),
}

impl<M: Machine> Start<M> {
    fn enter(argument: usize) {
        // SAFETY: the spawner made a box of it, for this thread alone.
        let start = unsafe { Box::from_raw(argument as *mut Self) };
        (start.run)(&start.rcu, start.cpu);
        let rcu = Arc::clone(&start.rcu);
        drop(start);
        // Release pairs with the Acquire in `stop`.
        rcu.threads.fetch_sub(1, Ordering::Release);
    }
}
