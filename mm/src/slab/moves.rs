//! The moves of a slab between *on its node's list* and *off it*, as loops around the
//! [freelist word](super::word): what the allocator and the model checker
//! (`mm/model/tests/slab_list.rs`) both run. The state table is in `docs/slab.md`.
//!
//! Rules, with *locked* meaning that the caller has the list lock of the slab's node:
//!
//! 1. *Listed* changes only locked, in one exchange with the freelist, and the caller
//!    changes the list itself before it gives the lock back.
//! 2. A slab that is not listed has no free objects. So a push on one is made locked, and lists it (or
//!    takes it for discarding, if nothing is in use then).
//! 3. A push that leaves nothing in use is made locked: nobody can discard a slab between the push
//!    and the look at it.
//! 4. A take needs the lock, or objects of the slab, which keep it from being discarded.

use super::word::{Freelist, FreelistWord, Link};

/// The push must be made under the list lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeedsLock;

/// More objects are freed than are in use: the slab's counts are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// What a push under the list lock did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The slab was listed.
    pub was_listed: bool,
    /// It is to be.
    pub listed: bool,
    /// Nothing is in use. Not listed and empty: it is the caller's, to discard.
    pub empty: bool,
}

impl FreelistWord {
    /// Pushes a chain of `count` objects that begins at `head`, without the list lock.
    /// `link_tail` links its last object.
    ///
    /// # Errors
    ///
    /// [`NeedsLock`]: nothing was changed, but for the link.
    #[inline(always)]
    pub fn push_unlocked(
        &self,
        head: Link,
        count: usize,
        mut link_tail: impl FnMut(Link),
    ) -> Result<(), NeedsLock> {
        let mut seen = self.load();
        loop {
            // Whether it is listed is decided by the exchange: it fails if that changed.
            if !seen.is_listed() || seen.in_use() <= count {
                return Err(NeedsLock);
            }
            link_tail(seen.head());
            match self.push(seen, head, count, true) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    /// The same under the list lock. `keep_empty` says, by whether the slab was listed, whether
    /// it is kept (listed) if nothing is in use. The caller then changes the list.
    ///
    /// # Errors
    ///
    /// [`TooMany`].
    pub fn push_locked(
        &self,
        head: Link,
        count: usize,
        keep_empty: impl Fn(bool) -> bool,
        mut link_tail: impl FnMut(Link),
    ) -> Result<Pushed, TooMany> {
        let mut seen = self.load();
        loop {
            if seen.in_use() < count {
                return Err(TooMany);
            }
            let empty = seen.in_use() == count;
            let listed = !empty || keep_empty(seen.is_listed());
            link_tail(seen.head());
            match self.push(seen, head, count, listed) {
                Ok(_) => {
                    return Ok(Pushed {
                        was_listed: seen.is_listed(),
                        listed,
                        empty,
                    });
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Takes all free objects of a listed slab, under the list lock: what the word said. If there were not more than `want`
    /// (and at least one), the slab is not listed any more, and the caller takes it off the list. Else it
    /// stays, and what is too much comes back by [`push_rest`](Self::push_rest).
    #[inline(always)]
    pub fn take_for(&self, want: usize) -> Freelist {
        self.take(|now| stays_listed(now, want))
    }

    /// Pushes back the rest of a chain that was taken: it ends in an object without a next
    /// one. The caller owns further objects of the slab, and has the list lock if it
    /// says `locked`. `join`, if others freed objects meanwhile: links the last object of theirs to the rest's
    /// first one, and says how many theirs were. Whether the slab was listed; if not, the caller puts it on the list.
    ///
    /// # Errors
    ///
    /// [`NeedsLock`]: the chain, which may have grown, is still the caller's.
    pub fn push_rest(
        &self,
        rest: &mut (Link, usize),
        locked: bool,
        mut join: impl FnMut(Freelist, Link) -> usize,
    ) -> Result<bool, NeedsLock> {
        let mut seen = self.load();
        loop {
            if !locked && !seen.is_listed() {
                return Err(NeedsLock);
            }
            if seen.is_full() {
                match self.push(seen, rest.0, rest.1, true) {
                    Ok(_) => return Ok(seen.is_listed()),
                    Err(now) => seen = now,
                }
            } else {
                let theirs = self.take(Freelist::is_listed);
                if !theirs.is_full() {
                    let count = join(theirs, rest.0);
                    *rest = (theirs.head(), rest.1 + count);
                }
                seen = self.load();
            }
        }
    }
}

/// Whether a listed slab stays so when `want` objects are taken: if some are left, or there were none
/// (somebody has them all and is about to push some back).
#[inline(always)]
pub fn stays_listed(now: Freelist, want: usize) -> bool {
    now.is_full() || now.free() > want
}
