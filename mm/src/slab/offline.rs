//! Taking the sheaves of a CPU that is gone.

use core::ptr::NonNull;

use platform::{CpuId, Preempt};

use super::{KmemCache, Machine, arrows::Arrow, sheaf::Sheaf};

impl<M: Machine> KmemCache<M> {
    /// Flushes the sheaves of `cpu`, and frees them. Not in NMI, no lock of the slab allocator held.
    ///
    /// # Safety
    ///
    /// `cpu` is offline and stays so meanwhile, or the cache is not in use any more: nobody
    /// takes its local lock there.
    pub(crate) unsafe fn flush_cpu_dead(&self, cpu: CpuId) {
        // SAFETY: as the caller promises.
        let Some(mut sheaves) = (unsafe { self.cpus.on(cpu).sheaves.steal() }) else {
            return;
        };
        let taken = sheaves.take();
        // What is in the rcu_free sheaf waits on; so it is not flushed, but closed.
        let lane = self.slabs().kvfree_rcu.lane(cpu);
        let pinned = Preempt::<M>::disable();
        let then = self.close_stolen(lane, &mut sheaves, Arrow::RcuCloseDead);
        drop(sheaves);
        lane.follow(then);
        drop(pinned);
        for sheaf in taken.into_iter().flatten() {
            self.arrow(Arrow::CpuDead);
            // SAFETY: taken out, so nobody else's.
            unsafe { self.flush_and_free(sheaf) };
        }
    }

    /// Flushes a sheaf, and frees it.
    ///
    /// # Safety
    ///
    /// The caller owns the sheaf: a real one.
    pub(super) unsafe fn flush_and_free(&self, sheaf: NonNull<Sheaf>) {
        // SAFETY: as the caller promises.
        unsafe {
            self.flush_sheaf(sheaf);
            self.free_sheaf(sheaf);
        }
    }
}
