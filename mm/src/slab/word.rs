//! The freelist word of a slab: which objects are free, and how many are not.
//!
//! One 64-bit word in the slab's [frame](crate::Frame):
//!
//! | bits | what |
//! |---|---|
//! | 0..20 | the *head*: where the first free object is, in units of 8 bytes from the slab's beginning; all ones: none is free |
//! | 20..36 | *in use*: objects that are not on the freelist (allocated, in sheaves, deferred) |
//! | 36..52 | *objects*: how many the slab has; never changes |
//!
//! The other free objects follow from the first one by links that lie in the objects
//! ([`freelist`](super::freelist)).
//!
//! # The two moves
//!
//! | move | who | how |
//! |---|---|---|
//! | [`push`](FreelistWord::push) of a chain | whoever owns its objects, from any CPU and any context | links the chain's tail to the head that was read, then compare-and-exchange (Release on success) |
//! | [`take_all`](FreelistWord::take_all) | who took the slab off its node's list, or holds that list's lock | compare-and-exchange to *none free, all in use* (Acquire) |
//!
//! Nothing walks the links while the word may change, so a head that was read, taken, and came
//! back (ABA) does no harm: a push links to what is the head at the moment of its exchange,
//! and *take all* takes what hangs there then. Links and contents that a pusher wrote before
//! (Release) are seen by who takes (Acquire); a push between them is a read-modify-write and
//! continues the release sequence.
//!
//! # Why 64 bits
//!
//! Linux keeps a pointer and counters, 128 bits, and needs `cmpxchg16b`, or a bit lock where the
//! processor lacks it. A slab has at most 4 MiB and objects are aligned to 8 bytes, so
//! 20 bits name a free object, and all fits into one ordinary word: no processor lacks the
//! instruction, there is no second protocol to test, the exchange is inlined, and the model
//! checker runs the very word (`mm/model/tests/freelist.rs`).

use core::fmt;

use platform::sync::{AtomicU64, Ordering};

/// Where a free object is: 8-byte units from its slab's beginning.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Link(u32);

/// Bits of a [`Link`].
const LINK_BITS: u32 = 20;
/// Bits of each count.
const COUNT_BITS: u32 = 16;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const IN_USE: u32 = LINK_BITS;
const OBJECTS: u32 = LINK_BITS + COUNT_BITS;

/// The most objects that a slab may have, as in Linux.
pub const MAX_OBJECTS: usize = 32767;

impl Link {
    /// There is none: the end of a chain.
    pub const NONE: Self = Self((1 << LINK_BITS) - 1);

    /// The object that begins `offset` bytes into its slab: a multiple of 8, below 4 MiB.
    #[inline(always)]
    pub const fn of_offset(offset: usize) -> Self {
        debug_assert!(offset.is_multiple_of(8) && offset < 4 << 20);
        Self((offset >> 3) as u32)
    }

    /// Where it begins, in bytes; not for [`NONE`](Self::NONE).
    #[inline(always)]
    pub const fn offset(self) -> usize {
        (self.0 as usize) << 3
    }

    /// Whether it is [`NONE`](Self::NONE).
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == Self::NONE.0
    }

    /// As a number of [`Self::BITS`] bits.
    #[inline(always)]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// From [`to_bits`](Self::to_bits); `None` if there are more bits than a link has.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits < 1 << LINK_BITS {
            Some(Self(bits as u32))
        } else {
            None
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            f.write_str("none")
        } else {
            write!(f, "+{:#x}", self.offset())
        }
    }
}

/// What the word says at a moment.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Freelist(u64);

impl Freelist {
    /// A freelist.
    #[inline(always)]
    pub const fn new(head: Link, in_use: usize, objects: usize) -> Self {
        Self(head.0 as u64 | (in_use as u64) << IN_USE | (objects as u64) << OBJECTS)
    }

    /// The first free object.
    #[inline(always)]
    pub const fn head(self) -> Link {
        Link((self.0 & ((1 << LINK_BITS) - 1)) as u32)
    }

    /// Objects that are not free.
    #[inline(always)]
    pub const fn in_use(self) -> usize {
        (self.0 >> IN_USE & COUNT_MASK) as usize
    }

    /// Objects that the slab has.
    #[inline(always)]
    pub const fn objects(self) -> usize {
        (self.0 >> OBJECTS & COUNT_MASK) as usize
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

    /// The word after all was taken.
    #[inline(always)]
    #[must_use]
    pub const fn taken(self) -> Self {
        Self::new(Link::NONE, self.objects(), self.objects())
    }

    /// The word after a chain of `count` objects that begins at `head` was pushed.
    #[inline(always)]
    #[must_use]
    pub const fn pushed(self, head: Link, count: usize) -> Self {
        Self::new(head, self.in_use() - count, self.objects())
    }

    /// As an integer.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Freelist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} in use, free from {:?}",
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

    /// Sets the word of a slab that nobody else knows of yet.
    pub fn set(&self, freelist: Freelist) {
        // Relaxed: the slab is published by its list's lock, or its objects by whoever hands them out.
        self.0.store(freelist.0, Ordering::Relaxed);
    }

    /// Takes all free objects: what the word said before, from whose head on the chain is the
    /// caller's. The caller took the slab off its list, or holds the list's lock.
    #[inline]
    pub fn take_all(&self) -> Freelist {
        let mut now = self.load();
        loop {
            // Acquire: links and contents that pushers wrote are seen.
            match self.0.compare_exchange_weak(
                now.0,
                now.taken().0,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return now,
                Err(found) => now = Freelist(found),
            }
        }
    }

    /// One attempt to push a chain on what the word was seen to say: the chain's tail must
    /// be linked to `seen.head()` already. `Err`: what it says now; link and try again.
    ///
    /// The success of a push that leaves nothing in use also acquires: who then discards the
    /// slab sees the last accesses of all who pushed.
    #[inline(always)]
    pub fn push(&self, seen: Freelist, head: Link, count: usize) -> Result<Freelist, Freelist> {
        let new = seen.pushed(head, count);
        // Release: links and contents come before. Acquire: see above.
        self.0
            .compare_exchange_weak(seen.0, new.0, Ordering::AcqRel, Ordering::Relaxed)
            .map(|_| new)
            .map_err(Freelist)
    }
}
