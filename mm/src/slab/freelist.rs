//! Links between the free objects of a slab, and walks along them.
//!
//! A link is a word in the free object, at [`ObjectLayout::link`](super::layout::ObjectLayout::link):
//!
//! | link | word | with hardening |
//! |---|---|---|
//! | to the object of index *i* | `!i` | the same, exclusive or the cache's secret, exclusive or the word's own address with its bytes reversed |
//! | to none | 0 | likewise |
//!
//! So what is not a link shows: a word is one if `!word` is below the number of objects, which one
//! comparison finds out. Zeros, small numbers, addresses and text are none; the zeros of an object that was
//! cleared after it was freed end a chain before its time, which the word's count reveals. With hardening a
//! forged link is one by a chance of 1 to 2^49. What is found wrong is reported, and the chain ends there: what hung behind
//! it stays *in use* for ever, rather than being handed out twice.

use core::{
    fmt,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    KmemCache, Machine, Slab,
    word::{Freelist, Link},
};

/// A link that cannot be one: the free object was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// The object that the link lies in, by its index.
    pub index: usize,
    /// What was found there.
    pub found: u64,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the link of free object #{} was overwritten: {:#018x}",
            self.index, self.found
        )
    }
}

/// The word for a link, before it is mixed.
#[inline(always)]
fn to_word(link: Link) -> u64 {
    // No branch: NONE is all ones in 16 bits, other indexes are positive there.
    !(i64::from(link.to_bits() as i16)) as u64
}

/// What links are mixed with that lie at `place`; 0: hardening is off.
#[inline(always)]
fn mask(secret: u64, place: NonNull<u8>) -> u64 {
    secret ^ (place.addr().get() as u64).swap_bytes()
}

/// The word of a link. Relaxed: free objects belong to who took their chain; who only looks finds out
/// what it is worth.
#[inline(always)]
unsafe fn word_at<'a>(place: NonNull<u8>) -> &'a AtomicU64 {
    // SAFETY: links lie at multiples of 8 in slabs (the caller's promise).
    unsafe { AtomicU64::from_ptr(place.as_ptr().cast()) }
}

impl<M: Machine> KmemCache<M> {
    /// Where the first object of a slab is.
    #[inline(always)]
    pub(crate) fn first_object(&self, slab: Slab<M>) -> NonNull<u8> {
        // SAFETY: within the slab.
        unsafe { slab.base().add(self.layout.red_left as usize) }
    }

    /// The object of an index in a slab.
    #[inline(always)]
    pub(crate) fn object_at(&self, slab: Slab<M>, index: usize) -> NonNull<u8> {
        // SAFETY: indexes of objects stay within the slab.
        unsafe {
            self.first_object(slab)
                .add(index * self.layout.size as usize)
        }
    }

    /// The index of an object in its slab; `None`: no object begins at `object` (which may be any
    /// address). No division.
    #[inline(always)]
    pub(crate) fn index_of(&self, slab: Slab<M>, object: NonNull<u8>) -> Option<usize> {
        let index = self.layout.index_at(self.first_object(slab), object);
        (index < slab.freelist().load().objects()).then_some(index)
    }

    /// The link in the free object of an index, decoded and checked. `NONE`: the last one.
    ///
    /// # Errors
    ///
    /// [`Corrupt`].
    ///
    /// # Safety
    ///
    /// The slab is this cache's and lives, and has an object of this index. (Whether what is read is
    /// a link is found out, and may be wrong if somebody allocates or frees meanwhile.)
    pub(crate) unsafe fn read_link(&self, slab: Slab<M>, index: usize) -> Result<Link, Corrupt> {
        let object = self.object_at(slab, index);
        // SAFETY: the object's link.
        let found = unsafe { self.load_link(object) };
        let next = !found as usize;
        if found == 0 {
            Ok(Link::NONE)
        } else if next < slab.freelist().load().objects() {
            Ok(Link::of_index(next))
        } else {
            Err(Corrupt { index, found })
        }
    }

    /// The word of an object's link, mixed no more.
    #[inline(always)]
    unsafe fn load_link(&self, object: NonNull<u8>) -> u64 {
        // SAFETY: an object (contract).
        let place = unsafe { object.add(self.layout.link as usize) };
        // SAFETY: its link.
        let word = unsafe { word_at(place) }.load(Ordering::Relaxed);
        if self.secret == 0 {
            word
        } else {
            word ^ mask(self.secret, place)
        }
    }

    /// Writes the link of a free object.
    ///
    /// # Safety
    ///
    /// The object is the caller's, and nobody uses it.
    #[inline(always)]
    pub(crate) unsafe fn write_link(&self, object: NonNull<u8>, link: Link) {
        let (word, at) = (to_word(link), self.layout.link as usize);
        // SAFETY: passed on.
        unsafe {
            if self.secret == 0 {
                self.write_word::<false>(object, at, word);
            } else {
                self.write_word::<true>(object, at, word);
            }
        }
    }

    /// Writes the word of a link, at `link` in its object; `MIXED`: hardening is on.
    ///
    /// # Safety
    ///
    /// As for [`write_link`](Self::write_link).
    #[inline(always)]
    pub(crate) unsafe fn write_word<const MIXED: bool>(
        &self,
        object: NonNull<u8>,
        link: usize,
        mut word: u64,
    ) {
        // SAFETY: an object (contract).
        let place = unsafe { object.add(link) };
        if MIXED {
            word ^= mask(self.secret, place);
        }
        // SAFETY: its link.
        unsafe { word_at(place) }.store(word, Ordering::Relaxed);
    }

    /// Walks along a chain that was taken, and writes its first `count` objects to `into`: how many there
    /// were, and where the chain goes on. Fewer than `count`: it was cut, which has been reported.
    ///
    /// # Safety
    ///
    /// The chain that begins at `chain.head()` is the caller's, of the slab, and has `count` objects
    /// (1 or more); `into` has room for them.
    #[inline(always)]
    pub(crate) unsafe fn walk(
        &self,
        slab: Slab<M>,
        chain: Freelist,
        into: *mut NonNull<u8>,
        count: usize,
    ) -> (usize, Link) {
        if self.secret == 0 {
            // SAFETY: passed on.
            unsafe { self.walk_mixed::<false>(slab, chain, into, count) }
        } else {
            // SAFETY: passed on.
            unsafe { self.walk_mixed::<true>(slab, chain, into, count) }
        }
    }

    /// # Safety
    ///
    /// As for [`walk`](Self::walk).
    #[inline(always)]
    unsafe fn walk_mixed<const MIXED: bool>(
        &self,
        slab: Slab<M>,
        chain: Freelist,
        into: *mut NonNull<u8>,
        count: usize,
    ) -> (usize, Link) {
        let first = self.first_object(slab).as_ptr();
        let (size, link) = (self.layout.size as usize, self.layout.link as usize);
        // `first + i * size`, from the word `!i`, as one multiplication and one addition.
        let before_first = first.wrapping_sub(size);
        let minus_size = size.wrapping_neg();
        // Words of links are this or above.
        let least = (chain.objects() as u64).wrapping_neg();
        let mut object = first.wrapping_add(chain.head().index() * size);
        // Counts up to 0: the addition that counts says when it is over.
        let mut left = (count as isize).wrapping_neg();
        // SAFETY: one behind the last place.
        let end = unsafe { into.add(count) };
        loop {
            // SAFETY: objects of the slab, free and the caller's; the place is before `end`.
            let word = unsafe {
                end.offset(left).write(NonNull::new_unchecked(object));
                let place = NonNull::new_unchecked(object.add(link));
                let word = word_at(place).load(Ordering::Relaxed);
                if MIXED {
                    word ^ mask(self.secret, place)
                } else {
                    word
                }
            };
            left += 1;
            if left == 0 || word < least {
                let got = count.wrapping_add_signed(left);
                return (got, self.end_of_walk(slab, chain, object, word, got));
            }
            object = before_first.wrapping_add((word as usize).wrapping_mul(minus_size));
        }
    }

    /// What `word`, the link of the `got`-th object of a chain, says: where the chain goes on.
    #[inline]
    fn end_of_walk(
        &self,
        slab: Slab<M>,
        chain: Freelist,
        object: *mut u8,
        word: u64,
        got: usize,
    ) -> Link {
        let next = !word as usize;
        let ends_in_time = got == chain.free();
        if word == 0 && ends_in_time {
            return Link::NONE;
        }
        if next < chain.objects() && !ends_in_time {
            return Link::of_index(next);
        }
        // SAFETY: an object of the slab.
        let object = unsafe { NonNull::new_unchecked(object) };
        let index = self.layout.index_at(self.first_object(slab), object);
        let corrupt = Corrupt { index, found: word };
        self.report_corrupt(slab, corrupt, chain.free() - got);
        Link::NONE
    }

    /// The last object of a chain that was taken, and how many objects it has. A chain that is cut ends at the
    /// cut, which has been reported.
    ///
    /// # Safety
    ///
    /// The chain is the caller's, of the slab, and not empty.
    pub(crate) unsafe fn tail_of(&self, slab: Slab<M>, chain: Freelist) -> (NonNull<u8>, usize) {
        let first = self.first_object(slab);
        let mut object = self.object_at(slab, chain.head().index());
        for got in 1.. {
            // SAFETY: of the chain.
            let word = unsafe { self.load_link(object) };
            let next = !word as usize;
            if got == chain.free() || next >= chain.objects() {
                self.end_of_walk(slab, chain, object.as_ptr(), word, got);
                return (object, got);
            }
            // SAFETY: an object of the slab.
            object = unsafe { first.add(next * self.layout.size as usize) };
        }
        unreachable!("a chain has an end")
    }
}
