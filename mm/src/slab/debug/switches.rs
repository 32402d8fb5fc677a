//! What can be switched on for all caches of an allocator, and what a cache keeps of it.
//!
//! | switch | takes effect |
//! |---|---|
//! | `slub_debug` | on caches that are created after it was set |
//! | hardening | the same |
//! | shuffling | on slabs that are made from then on |
//! | zero-on-alloc, zero-on-free, faults | on all caches at once: an operation that has begun may not see it yet |
//!
//! The last three are bits of each cache's [`Hooks`], so that nobody pays for them while
//! they are off. A bit follows its switch: who changes the switch then changes the bits of all caches with the
//! registry locked, and a cache that is created gets its bits with the registry locked, too, so
//! none is forgotten; of two who change a switch at a time, who comes last to the registry
//! has seen both changes.

use core::{
    fmt,
    sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::super::{Flags, Hooks, KmemCache, Machine, Slabs};
use super::options::{self, BadOption};
use crate::{Gfp, fault::SlabFaults};

/// What debugging keeps with a cache.
#[derive(Debug, Default)]
pub struct CacheDebug {
    /// Faults found. Relaxed: a statistic.
    found: AtomicU64,
    /// The round of validation, begun or over; slabs have the number of the last one that
    /// looked at them.
    round: AtomicU32,
    /// With the knob `cache-filter`, allocations of this one may be made to fail. Relaxed: a switch
    /// takes effect soon.
    failslab: AtomicBool,
}

impl CacheDebug {
    /// Of a fresh cache.
    pub const fn new() -> Self {
        Self {
            found: AtomicU64::new(0),
            round: AtomicU32::new(0),
            failslab: AtomicBool::new(false),
        }
    }

    /// Faults found so far.
    pub fn found(&self) -> u64 {
        self.found.load(Relaxed)
    }

    pub(super) fn count(&self) {
        self.found.fetch_add(1, Relaxed);
    }

    pub(super) fn round(&self) -> u32 {
        // Relaxed: a slab that misses the newest round is looked at once more.
        self.round.load(Relaxed)
    }

    /// Begins a round: its number.
    pub(super) fn next_round(&self) -> u32 {
        self.round.fetch_add(1, Relaxed).wrapping_add(1)
    }
}

/// The bits that follow switches.
const FOLLOWING: Hooks = Hooks::ZERO_ON_ALLOC
    .union(Hooks::ZERO_ON_FREE)
    .union(Hooks::FAULTS);

/// The switches: nothing is on at first.
pub struct Switches<M: Machine> {
    /// `slub_debug=`: where it begins (null: nothing was set), and its length, stored before.
    slub_debug: AtomicPtr<u8>,
    slub_debug_len: AtomicUsize,
    // Relaxed: switches take effect soon, and stand for nothing else.
    zero_on_alloc: AtomicBool,
    zero_on_free: AtomicBool,
    hardened: AtomicBool,
    shuffled: AtomicBool,
    /// Random numbers drawn, times an odd constant, from the seed on.
    random: AtomicU64,
    faults: SlabFaults<M>,
}

impl<M: Machine> Switches<M> {
    /// All off.
    pub const fn new() -> Self {
        Self {
            slub_debug: AtomicPtr::new(core::ptr::null_mut()),
            slub_debug_len: AtomicUsize::new(0),
            zero_on_alloc: AtomicBool::new(false),
            zero_on_free: AtomicBool::new(false),
            hardened: AtomicBool::new(false),
            shuffled: AtomicBool::new(false),
            random: AtomicU64::new(0x6a09_e667_f3bc_c908),
            faults: SlabFaults::new(),
        }
    }

    /// Which caches that are created from now on are debug caches: `slub_debug=` as on
    /// Linux (`FZPU`, `P,kmalloc-*`, `-`); [`options`] has the grammar. To be set once, by who boots.
    ///
    /// # Errors
    ///
    /// [`BadOption`]; then nothing has changed.
    pub fn set_slub_debug(&self, text: &'static str) -> Result<(), BadOption<'static>> {
        options::check(text)?;
        self.slub_debug_len.store(text.len(), Relaxed);
        // Release: who sees the address sees the length.
        self.slub_debug.store(text.as_ptr().cast_mut(), Release);
        Ok(())
    }

    /// What was set.
    fn slub_debug(&self) -> Option<&'static str> {
        let start = self.slub_debug.load(Acquire);
        if start.is_null() {
            return None;
        }
        // SAFETY: `set_slub_debug` took both from one text, which is there for ever.
        unsafe {
            let bytes = core::slice::from_raw_parts(start, self.slub_debug_len.load(Relaxed));
            Some(core::str::from_utf8_unchecked(bytes))
        }
    }

    /// What random numbers begin with: so hard to guess are secrets and orders.
    pub fn set_seed(&self, seed: u64) {
        self.random.store(seed, Relaxed);
    }

    /// Whether caches that are created from now on mix the links of free objects with a
    /// secret of their own.
    pub fn set_hardened(&self, on: bool) {
        self.hardened.store(on, Relaxed);
    }

    /// Whether slabs that are made from now on link their objects in a random order.
    pub fn set_shuffled(&self, on: bool) {
        self.shuffled.store(on, Relaxed);
    }

    /// Whether they do.
    pub fn shuffled(&self) -> bool {
        self.shuffled.load(Relaxed)
    }

    /// Whether caches that are created have secrets.
    pub fn hardened(&self) -> bool {
        self.hardened.load(Relaxed)
    }

    /// Whether objects are zeroed when they are allocated.
    pub fn zero_on_alloc(&self) -> bool {
        self.zero_on_alloc.load(Relaxed)
    }

    /// Whether objects are zeroed when they are freed.
    pub fn zero_on_free(&self) -> bool {
        self.zero_on_free.load(Relaxed)
    }

    /// The flags of a cache that is created with `flags`: with the debug flags that
    /// `slub_debug=` has for its name. To be asked first of all at creation.
    pub(crate) fn flags_for(&self, name: &str, flags: Flags) -> Flags {
        match self.slub_debug() {
            Some(text) => flags | options::flags_for(text, name),
            None => flags,
        }
    }

    /// The hooks that a fresh cache with these (final) flags begins with, as to zeroing,
    /// faults and DEBUG. With the registry locked.
    pub(crate) fn hooks_for(&self, flags: Flags, has_constructor: bool) -> Hooks {
        let mut hooks = self.zeroing(flags, has_constructor);
        hooks.set(Hooks::FAULTS, self.faults_for(flags, false));
        hooks.set(Hooks::DEBUG, flags.intersects(Flags::DEBUG));
        hooks
    }

    /// Who is zeroed: not what is read or expected to be as it was while it is free, nor what
    /// poison lies in (as on Linux).
    fn zeroing(&self, flags: Flags, has_constructor: bool) -> Hooks {
        let mut hooks = Hooks::empty();
        if !has_constructor && !flags.intersects(Flags::TYPESAFE_BY_RCU | Flags::POISON) {
            hooks.set(Hooks::ZERO_ON_ALLOC, self.zero_on_alloc());
            hooks.set(Hooks::ZERO_ON_FREE, self.zero_on_free());
        }
        hooks
    }

    fn faults_for(&self, flags: Flags, chosen: bool) -> bool {
        // As on Linux not what caches are made of.
        !flags.contains(Flags::NO_SHEAVES)
            && self.faults.attr.is_armed()
            && (chosen || !self.faults.cache_filter())
    }

    /// What links of a fresh cache are mixed with: random with hardening, else 0.
    pub(crate) fn secret(&self) -> u64 {
        if self.hardened() {
            self.draw().max(1)
        } else {
            0
        }
    }

    /// Whether the freelists of fresh slabs are to be shuffled: then a random number to begin with.
    pub(crate) fn shuffle(&self) -> Option<u64> {
        self.shuffled().then(|| self.draw())
    }

    /// A random number, by the splitmix64 generator: as hard to guess as the seed.
    fn draw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        // Relaxed: no two are to be the same, that is all.
        let mut z = self.random.fetch_add(STEP, Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl<M: Machine> Default for Switches<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> fmt::Debug for Switches<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switches")
            .field("slub_debug", &self.slub_debug())
            .field("zero_on_alloc", &self.zero_on_alloc())
            .field("zero_on_free", &self.zero_on_free())
            .field("hardened", &self.hardened())
            .field("shuffled", &self.shuffled())
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl<M: Machine> Slabs<M> {
    /// The switches. Those of zeroing and faults are changed by the functions here.
    pub fn debug(&self) -> &Switches<M> {
        &self.debug
    }

    /// Objects are zeroed when they are allocated, from now on or not any more. Not those of caches with a
    /// constructor, TYPESAFE_BY_RCU or POISON. May sleep.
    pub fn set_zero_on_alloc(&self, on: bool) {
        self.debug.zero_on_alloc.store(on, Relaxed);
        self.follow_switches();
    }

    /// The same when they are freed.
    pub fn set_zero_on_free(&self, on: bool) {
        self.debug.zero_on_free.store(on, Relaxed);
        self.follow_switches();
    }

    /// Calls `f` with the knobs of `failslab`, to look at or to set. May sleep.
    pub fn faults<R>(&self, f: impl FnOnce(&SlabFaults<M>) -> R) -> R {
        let result = f(&self.debug.faults);
        self.follow_switches();
        result
    }

    /// Whether, with the knob `cache-filter`, allocations of the cache called `name` may be made to fail.
    /// `false`: there is none. May sleep.
    pub fn set_failslab(&self, name: &str, on: bool) -> bool {
        let found = match self.caches().find(name) {
            Some(cache) => {
                cache.debug.failslab.store(on, Relaxed);
                true
            }
            None => false,
        };
        self.follow_switches();
        found
    }

    /// Sets the bits of all caches by the switches.
    fn follow_switches(&self) {
        for cache in self.caches().iter() {
            let wanted = self.debug.zeroing(cache.flags, cache.constructor.is_some());
            let mut wanted = wanted & FOLLOWING;
            let chosen = cache.debug.failslab.load(Relaxed);
            wanted.set(Hooks::FAULTS, self.debug.faults_for(cache.flags, chosen));
            // Relaxed: see the module; the registry's lock keeps others from these bits.
            cache.hooks.fetch_or(wanted.bits(), Relaxed);
            let unwanted = FOLLOWING & !wanted;
            cache.hooks.fetch_and(!unwanted.bits(), Relaxed);
        }
    }
}

impl<M: Machine> KmemCache<M> {
    /// Whether this allocation is made to fail. Asked where [`Hooks::FAULTS`] is on. Any context.
    pub(crate) fn should_fail(&self, gfp: Gfp) -> bool {
        let size = self.layout.object_size as usize;
        self.slabs().debug.faults.should_fail(gfp, size)
    }

    /// Whether `cache-filter` lets its allocations fail.
    pub fn failslab(&self) -> bool {
        self.debug.failslab.load(Relaxed)
    }
}
