//! The freelist word of a slab: which objects are free, how many are not, and whether the slab
//! is listed.
//!
//! One 64-bit word in the slab's [frame](crate::Frame):
//!
//! | bits | what |
//! |---|---|
//! | 0..16 | the *head*: the index of the first free object; all ones: none is free |
//! | 16..32 | *in use*: objects that are not on the freelist (allocated, in sheaves, deferred) |
//! | 32..48 | *objects*: how many the slab has; never changes |
//! | 48 | *listed*: the slab is on its node's list of partial slabs |
//!
//! The other free objects follow from the first one by links that lie in the objects
//! ([`freelist`](super::freelist)).
//!
//! # The moves
//!
//! | move | who | how |
//! |---|---|---|
//! | [`push`](FreelistWord::push) of a chain | whoever owns its objects, from any CPU and any context; on a slab that is not listed, or if nothing stays in use, only with its node's list lock | links the chain's tail to the head that was read, then compare-and-exchange (Release on success) |
//! | [`take`](FreelistWord::take) of all that is free | who owns objects of the slab, or holds the list lock | compare-and-exchange to *none free, all in use* (Acquire) |
//! | *listed* changes | who holds the list lock, with a push or a take | the same exchange |
//!
//! Nothing walks the links while the word may change, so a head that was read, taken, and came
//! back (ABA) does no harm: a push links to what is the head at the moment of its exchange,
//! and a take gets what hangs there then. Links and contents that a pusher wrote before
//! (Release) are seen by who takes (Acquire); a push between them is a read-modify-write and
//! continues the release sequence.
//!
//! # Why the word says *listed*
//!
//! A free must take the list lock when the slab is on no list, and only then (or when it leaves
//! the slab empty). A bit in the word decides that by the very exchange that frees: a
//! push on a word that says *listed* cannot succeed on a slab that has left its list meanwhile.
//! It also lets who refills take a part of a slab's objects, and leave the slab on
//! its list without any for a moment: what is too much goes back by a plain push.
//!
//! # Why 64 bits
//!
//! Linux keeps a pointer and counters, 128 bits, and needs `cmpxchg16b`, or a bit lock where the
//! processor lacks it. A slab has at most 32767 objects, so
//! an index of 16 bits names a free object, and all fits into one ordinary word: no processor lacks the
//! instruction, there is no second protocol to test, the exchange is inlined, and the model
//! checker runs the very word (`mm/model/tests/freelist.rs`). An index, unlike an address or an offset, also
//! names an object whenever it is small enough: one comparison checks a link.

use core::fmt;

use platform::sync::{AtomicU64, Ordering};

/// A free object, by its index in its slab; or none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Link(u16);

/// Bits of each part.
const BITS: u32 = 16;
const MASK: u64 = (1 << BITS) - 1;
const IN_USE: u32 = BITS;
const OBJECTS: u32 = 2 * BITS;
const LISTED: u64 = 1 << (3 * BITS);

/// The most objects that a slab may have, as in Linux.
pub const MAX_OBJECTS: usize = 32767;

impl Link {
    /// There is none: the end of a chain.
    pub const NONE: Self = Self(u16::MAX);

    /// The object of this index, which is below [`MAX_OBJECTS`].
    #[inline(always)]
    pub const fn of_index(index: usize) -> Self {
        debug_assert!(index < MAX_OBJECTS);
        Self(index as u16)
    }

    /// Its index; not for [`NONE`](Self::NONE).
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// As a number of 16 bits; [`NONE`](Self::NONE): all ones.
    #[inline(always)]
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// Whether it is [`NONE`](Self::NONE).
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == Self::NONE.0
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            f.write_str("none")
        } else {
            write!(f, "#{}", self.0)
        }
    }
}

/// What the word says at a moment.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Freelist(u64);

impl Freelist {
    /// A freelist of a slab that is on no list.
    #[inline(always)]
    pub const fn new(head: Link, in_use: usize, objects: usize) -> Self {
        Self(head.0 as u64 | (in_use as u64) << IN_USE | (objects as u64) << OBJECTS)
    }

    /// The first free object.
    #[inline(always)]
    pub const fn head(self) -> Link {
        Link((self.0 & MASK) as u16)
    }

    /// Objects that are not free.
    #[inline(always)]
    pub const fn in_use(self) -> usize {
        (self.0 >> IN_USE & MASK) as usize
    }

    /// Objects that the slab has.
    #[inline(always)]
    pub const fn objects(self) -> usize {
        (self.0 >> OBJECTS & MASK) as usize
    }

    /// Objects that are free.
    #[inline(always)]
    pub const fn free(self) -> usize {
        self.objects() - self.in_use()
    }

    /// Nothing is free.
    #[inline(always)]
    pub const fn is_full(self) -> bool {
        self.head().is_none()
    }

    /// Nothing is in use.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.in_use() == 0
    }

    /// The slab is on its node's list of partial slabs.
    #[inline(always)]
    pub const fn is_listed(self) -> bool {
        self.0 & LISTED != 0
    }

    /// The same, listed or not.
    #[inline(always)]
    #[must_use]
    pub const fn with_listed(self, listed: bool) -> Self {
        if listed {
            Self(self.0 | LISTED)
        } else {
            Self(self.0 & !LISTED)
        }
    }

    /// The word after all was taken.
    #[inline(always)]
    #[must_use]
    pub const fn taken(self) -> Self {
        let objects = self.0 >> OBJECTS & MASK;
        Self(self.0 & LISTED | objects << OBJECTS | objects << IN_USE | Link::NONE.0 as u64)
    }

    /// The word after a chain of `count` objects that begins at `head` was pushed.
    #[inline(always)]
    #[must_use]
    pub const fn pushed(self, head: Link, count: usize) -> Self {
        debug_assert!(count <= self.in_use());
        Self((self.0 & !MASK | head.0 as u64) - ((count as u64) << IN_USE))
    }

    /// As an integer.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Freelist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = if self.is_listed() { ", listed" } else { "" };
        write!(
            f,
            "{} of {} in use, free from {:?}{listed}",
            self.in_use(),
            self.objects(),
            self.head()
        )
    }
}

/// The word itself. See the module.
#[derive(Debug)]
#[repr(transparent)]
pub struct FreelistWord(AtomicU64);

impl FreelistWord {
    /// A word that says `freelist`.
    pub fn new(freelist: Freelist) -> Self {
        Self(AtomicU64::new(freelist.0))
    }

    /// The word that lies in a frame.
    #[inline(always)]
    pub(crate) fn in_frame(word: &AtomicU64) -> &Self {
        // SAFETY: transparent around the same type.
        unsafe { &*core::ptr::from_ref(word).cast::<Self>() }
    }

    /// What it says. May be out of date at once, but for who keeps others from moving it.
    #[inline(always)]
    pub fn load(&self) -> Freelist {
        // Relaxed: a glance; the moves order what they move.
        Freelist(self.0.load(Ordering::Relaxed))
    }

    /// Sets the word of a slab that nobody else knows of.
    pub fn set(&self, freelist: Freelist) {
        // Relaxed: the slab is published by its list's lock.
        self.0.store(freelist.0, Ordering::Relaxed);
    }

    /// Takes all free objects: what the word said before, from whose head on the chain is the
    /// caller's. `listed` says, by what the word says, whether the slab is listed from then on. The
    /// caller has the list lock; without it, it owns objects of the slab, and leaves *listed* as
    /// it is.
    #[inline(always)]
    pub fn take(&self, listed: impl Fn(Freelist) -> bool) -> Freelist {
        let mut now = self.load();
        loop {
            let new = now.taken().with_listed(listed(now));
            // Acquire: links and contents that pushers wrote are seen. No Release: a take hands
            // nothing on, and as a read-modify-write it continues what the pushes before it released.
            let (from, to) = (now.0, new.0);
            match self
                .0
                .compare_exchange_weak(from, to, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return now,
                Err(found) => now = Freelist(found),
            }
        }
    }

    /// One attempt to push a chain on what the word was seen to say: the chain's tail must
    /// be linked to `seen.head()` already. The slab is `listed` from then on, which only who
    /// has the list lock may change. `Err`: what it says now; link and try again.
    ///
    /// The success of a push also acquires: who then discards the
    /// slab because nothing is in use sees the last accesses of all who pushed.
    #[inline(always)]
    pub fn push(
        &self,
        seen: Freelist,
        head: Link,
        count: usize,
        listed: bool,
    ) -> Result<Freelist, Freelist> {
        let new = seen.pushed(head, count).with_listed(listed);
        // Release: links and contents come before. Acquire: see above.
        self.0
            .compare_exchange_weak(seen.0, new.0, Ordering::AcqRel, Ordering::Relaxed)
            .map(|_| new)
            .map_err(Freelist)
    }

    /// Unlists a slab without taking anything. With the list lock. What it says then.
    pub fn unlist(&self) -> Freelist {
        // Relaxed: the bit is ordered by the lock, and the exchange continues the pushers'
        // release sequences.
        Freelist(self.0.fetch_and(!LISTED, Ordering::Relaxed) & !LISTED)
    }
}
