//! Data of which every CPU has its own: [`PerCpu`], and [`Counter`], of which a sum is read.
//!
//! What makes it cheap is that nobody else writes to a CPU's copy, so its owner needs
//! neither a lock nor an atomic read-modify-write. Two things still come between: the code
//! may be moved to another CPU, against which a [`Preempt`] guard is asked for as evidence;
//! and an interrupt of the same CPU may come in the middle, so shared references are all
//! that is given out. What must be changed as a whole goes into a
//! [`LocalLock`](crate::lock::LocalLock).

use core::{alloc::Layout, fmt, marker::PhantomData};

use crate::{
    CpuId, PerCpuAddr, Platform, Preempt,
    sync::{AtomicU64, Ordering},
};

/// One `T` on each possible CPU, in memory of the CPU's node.
pub struct PerCpu<T, P: Platform> {
    addr: PerCpuAddr,
    owns: PhantomData<(T, fn(P))>,
}

// SAFETY: it owns its values, which are then used and dropped by another thread.
unsafe impl<T: Send, P: Platform> Send for PerCpu<T, P> {}
// SAFETY: shared references to the values go to all threads. Send, too: which thread uses a
// CPU's value is not fixed.
unsafe impl<T: Send + Sync, P: Platform> Sync for PerCpu<T, P> {}

impl<T, P: Platform> PerCpu<T, P> {
    /// Of each copy. Never empty, so that copies have addresses of their own.
    const LAYOUT: Layout = if size_of::<T>() == 0 {
        // The smallest that is a multiple of its alignment.
        match Layout::from_size_align(align_of::<T>(), align_of::<T>()) {
            Ok(layout) => layout,
            Err(_) => unreachable!(),
        }
    } else {
        Layout::new::<T>()
    };

    /// Makes each CPU's value by `init`, which is called on this CPU for all of them. `None`:
    /// no memory. May sleep. (Should `init` panic, what was made until then is leaked.)
    pub fn try_new(mut init: impl FnMut(CpuId) -> T) -> Option<Self> {
        let addr = P::percpu_alloc(Self::LAYOUT)?;
        for cpu in P::possible_cpus().iter() {
            // SAFETY: memory of the layout of a `T`, which nobody else knows of.
            unsafe { P::percpu_on(addr, cpu).cast().write(init(cpu)) };
        }
        Some(Self {
            addr,
            owns: PhantomData,
        })
    }

    /// The value of the CPU that runs this. It stays that CPU's while `guard` is there, but
    /// interrupts of this CPU may use it in between. Any context.
    #[inline(always)]
    pub fn here<'g>(&'g self, _guard: &'g Preempt<P>) -> &'g T {
        // SAFETY: a value is initialised as long as this lives; pinned by the guard.
        unsafe { P::percpu_here(self.addr).cast().as_ref() }
    }

    /// The value of `cpu`. Any context.
    ///
    /// # Panics
    ///
    /// If `cpu` can never run.
    pub fn on(&self, cpu: CpuId) -> &T {
        assert!(P::possible_cpus().contains(cpu), "cpu{cpu} is not possible");
        // SAFETY: every possible CPU's value is initialised as long as this lives.
        unsafe { P::percpu_on(self.addr, cpu).cast().as_ref() }
    }

    /// All values, with their CPUs (possible ones, not just those that are online). Any
    /// context.
    pub fn iter(&self) -> impl Iterator<Item = (CpuId, &T)> {
        let cpus = P::possible_cpus();
        cpus.iter().map(|cpu| (cpu, self.on(cpu)))
    }

    /// All values, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (CpuId, &mut T)> {
        let addr = self.addr;
        let cpus = P::possible_cpus();
        // SAFETY: as in `on`; each CPU's value is given out once, under the exclusive borrow.
        cpus.iter()
            .map(move |cpu| (cpu, unsafe { P::percpu_on(addr, cpu).cast().as_mut() }))
    }

    /// The values' address, for [`Platform::percpu_add`] on a field.
    pub fn addr(&self) -> PerCpuAddr {
        self.addr
    }
}

impl<T, P: Platform> Drop for PerCpu<T, P> {
    /// May sleep.
    fn drop(&mut self) {
        for cpu in P::possible_cpus().iter() {
            // SAFETY: initialised, and dropped here alone.
            unsafe { P::percpu_on(self.addr, cpu).cast::<T>().drop_in_place() };
        }
        // SAFETY: allocated with this layout; borrows of values ended with that of this.
        unsafe { P::percpu_free(self.addr, Self::LAYOUT) };
    }
}

impl<T: fmt::Debug, P: Platform> fmt::Debug for PerCpu<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// A counter that CPUs add to without getting in each other's way.
///
/// [`sum`](Self::sum) reads one CPU's part after the other, so it is not a moment's truth:
/// of additions that are made meanwhile it sees some and not others, also a later one
/// without an earlier one. What it does see: every addition that came before it (that is,
/// which the reader knows of by some other synchronisation), once. If what was added on one
/// CPU is taken back on another the sum may so be short of the truth, and even wrap below 0;
/// it is exact once nobody adds.
pub struct Counter<P: Platform>(PerCpu<AtomicU64, P>);

impl<P: Platform> Counter<P> {
    /// A counter at 0. `None`: no memory. May sleep.
    pub fn try_new() -> Option<Self> {
        PerCpu::try_new(|_| AtomicU64::new(0)).map(Self)
    }

    /// Adds to this CPU's part. Wraps, so `add(n.wrapping_neg())` takes away. Any context;
    /// orders nothing.
    #[inline(always)]
    pub fn add(&self, value: u64) {
        // SAFETY: an atomic word in per-CPU memory, alive as long as this; others read only.
        unsafe { P::percpu_add(self.0.addr(), value) };
    }

    /// All parts together; see the type. Any context.
    pub fn sum(&self) -> u64 {
        // Relaxed: nothing is concluded from a part about other memory.
        let parts = self.0.iter().map(|(_, part)| part.load(Ordering::Relaxed));
        parts.fold(0, u64::wrapping_add)
    }

    /// The part of `cpu`, which may be anything where CPUs also take away. Any context.
    ///
    /// # Panics
    ///
    /// If `cpu` can never run.
    pub fn on(&self, cpu: CpuId) -> u64 {
        // Relaxed: as above.
        self.0.on(cpu).load(Ordering::Relaxed)
    }
}

impl<P: Platform> fmt::Debug for Counter<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counter").field(&self.sum()).finish()
    }
}
