//! Flushing a CPU's sheaves, by itself or when it is gone.

use platform::CpuId;

use super::{KmemCache, Machine};

impl<M: Machine> KmemCache<M> {
    /// Flushes the sheaves of the CPU that runs this, and frees them. Not in NMI. Nothing, if they are in use by
    /// what this has interrupted.
    pub(crate) fn flush_cpu_here(&self) {
        panic!("not written yet")
    }

    /// Flushes the sheaves of `cpu`, and frees them. Not in NMI.
    ///
    /// # Safety
    ///
    /// `cpu` is offline and stays so meanwhile, or the cache is not in use any more: nobody
    /// takes its local lock there.
    pub(crate) unsafe fn flush_cpu_dead(&self, cpu: CpuId) {
        let _ = cpu;
        panic!("not written yet")
    }
}
