//! The life of a cache: who keeps its descriptor, and frees that come after it was destroyed.
//!
//! # States
//!
//! | state | told by | left by | to |
//! |---|---|---|---|
//! | live | `references` > 0 | the last `destroy` (or `destroy_lingering`), under the registry's lock | dying |
//! | dying | [`DYING`](Hooks::DYING); the destroyer holds it | the end of `destroy`, if nothing of it is left | taken apart |
//! | | | the end of `destroy`, with slabs left | zombie |
//! | | | `destroy_lingering`, without waiting for anything | lingering |
//! | lingering: in the [queue](super::linger), which holds it as destroyer | `DYING` | the background, if nothing of it is left | taken apart |
//! | | | the background, with slabs left | zombie |
//! | zombie: listed as `name~id`; objects may still be freed | `DYING`; slabs hold it | who drops the last hold | gone |
//! | gone: nobody holds it | on the list of [`Gone`] | the next one to lock the registry | taken apart |
//!
//! [`Stage`] says it for who looks. From dying on nothing is allocated, and nothing goes into sheaves and barns: what is freed goes
//! back to its slab, and an empty slab to the page allocator. A name is free again from dying on. Nothing
//! is ever merged with what is not live.
//!
//! # Holds
//!
//! | who | from | to |
//! |---|---|---|
//! | the cache while it is live, then its destroyer, which of one that lingers is the background | creation | the end of `destroy` |
//! | each slab, also one that waits for a grace period | [`hold`](KmemCache::hold), before it is published | [`release`](KmemCache::release), after its pages went back |
//! | who takes objects of a zombie off a lane of [`kvfree_rcu`](crate::kvfree_rcu): one that ended before there was an engine of RCU | before the first is freed | after all rest |
//! | each free to a dying cache or a zombie | [`hold`](KmemCache::hold), before anything else | [`release`](KmemCache::release), as the last access |
//!
//! Who frees an object may hold the cache since the object's slab does, until the object is free.
//! Frees of a live cache need no hold: the cache lives at least until `destroy`, and it is
//! in the contract of that ([`Slabs::destroy`]) that none of them is under way then.
//!
//! The last hold may be dropped anywhere, in an NMI too, so the cache is only put on a list then, by compare-and-exchange. It is
//! taken apart by the next thread that creates, destroys or lists caches; until
//! then nobody sees it.

use core::ptr::{NonNull, null_mut};

use platform::sync::{AtomicPtr, Ordering};

use super::{Caches, Hooks, KmemCache, Machine, Slabs};

/// How far the end of a cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// It is used.
    Live = 0,
    /// It is being destroyed, by who asked for that.
    Dying = 1,
    /// It will be, or is being, in the background.
    Lingering = 2,
    /// It was destroyed with objects in use, and waits for them.
    Zombie = 3,
}

impl Stage {
    /// The name in listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Dying => "dying",
            Self::Lingering => "lingering",
            Self::Zombie => "zombie",
        }
    }
}

impl<M: Machine> KmemCache<M> {
    /// How far its end is; out of date at once, but for live with the registry locked. Any context.
    pub fn stage(&self) -> Stage {
        // Relaxed: for who looks; nothing is concluded from it.
        match self.stage.load(Ordering::Relaxed) {
            1 => Stage::Dying,
            2 => Stage::Lingering,
            3 => Stage::Zombie,
            _ => Stage::Live,
        }
    }

    /// Notes it. Its destroyer.
    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }
}

/// Caches that nobody holds, linked by `next_gone`. Pushed to from anywhere; taken as a whole, so
/// that it does no harm if a descriptor comes back (ABA).
pub(crate) struct Gone<M: Machine>(AtomicPtr<KmemCache<M>>);

impl<M: Machine> Gone<M> {
    pub fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// Adds a cache.
    fn push(&self, cache: NonNull<KmemCache<M>>) {
        // Relaxed: the exchange below checks what was read.
        let mut first = self.0.load(Ordering::Relaxed);
        loop {
            // SAFETY: nobody holds the cache, so it is the caller's.
            let next = unsafe { &cache.as_ref().next_gone };
            // Relaxed: published by the exchange.
            next.store(first, Ordering::Relaxed);
            // Release pairs with the Acquire in `take`.
            match self.0.compare_exchange_weak(
                first,
                cache.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Takes all.
    fn take(&self) -> Option<NonNull<KmemCache<M>>> {
        // Relaxed: a look that saves the exchange; what is missed is taken next time.
        if self.0.load(Ordering::Relaxed).is_null() {
            return None;
        }
        NonNull::new(self.0.swap(null_mut(), Ordering::Acquire))
    }
}

impl<M: Machine> KmemCache<M> {
    /// Keeps the descriptor. The caller knows that it is kept already: it owns an object, or
    /// the cache is live. Any context.
    #[inline]
    pub(crate) fn hold(&self) {
        // Relaxed: what keeps it already orders everything.
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    /// The opposite of [`hold`](Self::hold). Any context.
    ///
    /// # Safety
    ///
    /// The caller made a `hold` that nobody else gives back, and does not touch the cache any
    /// more, unless it knows by something else that it is kept.
    #[inline]
    pub(crate) unsafe fn release(&self) {
        let (this, slabs) = (NonNull::from(self), self.slabs);
        // SAFETY: as the caller promises.
        if unsafe { Self::release_last(this) } {
            // SAFETY: the allocator outlives its caches.
            unsafe { slabs.as_ref() }.gone.push(this);
        }
    }

    /// Drops a hold; whether it was the last one: then the cache is the caller's.
    ///
    /// # Safety
    ///
    /// As for [`release`](Self::release).
    pub(super) unsafe fn release_last(this: NonNull<Self>) -> bool {
        // Release: accesses of those who drop their hold come before the end. SAFETY: held.
        let before = unsafe { &this.as_ref().holders }.fetch_sub(1, Ordering::Release);
        debug_assert!(before != 0, "a slab cache is released more often than held");
        if before != 1 {
            return false;
        }
        // Hands keep it, by its destroyer who waits for them, or a hold of their own.
        debug_assert!(
            // SAFETY: the caller's now.
            !unsafe { this.as_ref() }.hands.any(),
            "a slab cache goes while somebody has objects of it in hand"
        );
        // Acquire pairs with these: what is read continues them all. (A fence would do, too, but the thread
        // sanitizer knows of none.) SAFETY: the caller's now.
        unsafe { &this.as_ref().holders }.load(Ordering::Acquire);
        true
    }

    /// Whether it is destroyed, or about to be; for ever once it is. A free that finds it so
    /// [holds](Self::hold) the cache, and goes straight to the slab.
    #[inline]
    pub fn is_dying(&self) -> bool {
        self.hooks().contains(Hooks::DYING)
    }
}

impl<M: Machine> Slabs<M> {
    /// Takes apart what has gone. With the registry locked.
    pub(super) fn take_gone_apart(&self, _locked: &Caches<'_, M>) {
        let mut gone = self.gone.take();
        while let Some(cache) = gone {
            // SAFETY: it was pushed by who dropped the last hold, so it is ours. Relaxed: taken.
            let next = unsafe { &cache.as_ref().next_gone }.load(Ordering::Relaxed);
            gone = NonNull::new(next);
            // SAFETY: as above.
            unsafe { self.take_apart(cache) };
        }
    }
}
