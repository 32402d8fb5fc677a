//! The word of a spinning lock: 0 is free, else the holder's CPU number plus one.
//!
//! | state | meaning | who leaves it |
//! |---|---|---|
//! | 0 | free | any CPU, to its own number + 1 (Acquire) |
//! | n + 1 | held by CPU n | the holder, to 0 (Release) |
//!
//! The Acquire of who takes it pairs with the Release of who gave it back: a holder sees
//! what earlier holders did. A lock may be given back by any code that runs on the holder's
//! CPU, since preemption stays off in between; that it is this CPU is checked in builds that
//! check locks. The number also shows a CPU that waits for itself.
//!
//! Waiters look without writing, and try to take the lock when it looks free, in no order.
//! CPUs may be virtual, and stopped by their host at any instruction. In a fair lock (a
//! ticket, a queue) the next one in line may be one that is stopped, and all behind it wait
//! for it though the lock is free; here any that runs can have it. Sections are short, and
//! locks that are fought for are kept per CPU or per node, so nobody starves.
//!
//! The crates `spin` and `lock_api` do not serve: the word must be the model checker's in
//! the model build (`lock_api` wants a constant initial value, which the checker's words
//! cannot be), and must name its holder.

use core::fmt;

use super::LockClass;
use crate::{
    CpuId, Platform,
    sync::{AtomicU32, Ordering, const_unless_model},
};

const FREE: u32 = 0;

fn held_by(cpu: CpuId) -> u32 {
    cpu.number() + 1
}

/// The word. See the module.
pub(super) struct LockWord(AtomicU32);

impl LockWord {
    const_unless_model! {
        /// A free lock's.
        pub(super) fn new() -> Self {
            Self(AtomicU32::new(FREE))
        }
    }

    /// Takes the lock for `cpu`, which is the own one, if it is free.
    #[inline(always)]
    pub(super) fn try_take(&self, cpu: CpuId) -> bool {
        // Acquire: what earlier holders did is seen. Relaxed: nothing is done on failure.
        self.0
            .compare_exchange(FREE, held_by(cpu), Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes the lock for `cpu`, which is the own one.
    ///
    /// # Panics
    ///
    /// If this CPU has it: the wait would not end.
    #[inline(always)]
    #[track_caller]
    pub(super) fn take<P: Platform>(&self, cpu: CpuId, class: &'static LockClass) {
        if !self.try_take(cpu) {
            self.wait::<P>(cpu, class);
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn wait<P: Platform>(&self, cpu: CpuId, class: &'static LockClass) {
        loop {
            #[cfg(model)]
            if crate::model::block_on(self.address()) {
                if self.try_take(cpu) {
                    return;
                }
                continue;
            }
            // Relaxed: a guess, which the exchange checks. The own number cannot be out of
            // date: only this CPU writes it, and what it wrote later it sees.
            let word = self.0.load(Ordering::Relaxed);
            if word == held_by(cpu) {
                recursion::<P>(cpu, class);
            }
            if word == FREE && self.try_take(cpu) {
                return;
            }
            P::relax();
        }
    }

    /// Gives the lock back from `cpu`, which is the own one.
    #[inline(always)]
    pub(super) fn give_back<P: Platform>(&self, cpu: impl FnOnce() -> CpuId, class: &LockClass) {
        if P::CHECK_LOCKS {
            let cpu = cpu();
            // Relaxed: a CPU sees its own last write, and no other writes to a held lock.
            let word = self.0.load(Ordering::Relaxed);
            if word != held_by(cpu) {
                not_holder::<P>(cpu, word, class);
            }
        }
        // Release: the next holder sees what this one did.
        self.0.store(FREE, Ordering::Release);
        #[cfg(model)]
        crate::model::unblock(self.address());
    }

    #[cfg(model)]
    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// Who holds it. For those who watch: may be out of date at once.
    pub(super) fn holder(&self) -> Option<CpuId> {
        // Relaxed: nothing is concluded from it.
        CpuId::new(self.0.load(Ordering::Relaxed).checked_sub(1)?)
    }
}

impl fmt::Debug for LockWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.holder() {
            Some(cpu) => write!(f, "held by cpu{cpu}"),
            None => f.write_str("free"),
        }
    }
}

#[cold]
#[inline(never)]
#[track_caller]
fn recursion<P: Platform>(cpu: CpuId, class: &LockClass) -> ! {
    let name = class.name;
    let at = core::panic::Location::caller();
    if P::CHECK_LOCKS {
        P::report(format_args!(
            "recursion: cpu{cpu} takes lock \"{name}\", which it holds, at {at}"
        ));
    }
    panic!("cpu{cpu} waits for lock \"{name}\", which it holds itself");
}

#[cold]
#[inline(never)]
fn not_holder<P: Platform>(cpu: CpuId, word: u32, class: &LockClass) {
    let name = class.name;
    match word.checked_sub(1) {
        Some(holder) => P::report(format_args!(
            "unlock by another CPU: cpu{cpu} gives back lock \"{name}\", held by cpu{holder}"
        )),
        None => P::report(format_args!(
            "unlock of a free lock: cpu{cpu} gives back lock \"{name}\", which nobody holds"
        )),
    }
}
