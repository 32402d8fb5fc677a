//! What a debug cache keeps of an object, behind it: a *state word*, and with STORE_USER two
//! *tracks* (the last allocation, the last free) and the size that was asked for.
//!
//! | offset | what |
//! |---|---|
//! | 0 | the state word |
//! | 8 | the track of the allocation |
//! | 88 | the track of the free |
//! | 168 | the size that was asked for |
//!
//! All of it is written under the list lock of the object's node, or while nobody else knows
//! the object. Linux has no state word: it tells a free object by walking the
//! freelist, and what hangs behind a damaged link is lost. Here a double free is found without a
//! walk, and a damaged freelist is made anew from the objects' states.
//!
//! Stray writes hit these words, too. The state word is mixed with its own address, and a track
//! has a checksum, so that neither is believed by chance.

use core::{
    panic::Location,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::super::{Flags, KmemCache, Machine};
use crate::owner::{self, Event, Record};

/// Return addresses that a track has.
const DEPTH: usize = 6;
/// Bytes of a track.
pub const TRACK_BYTES: usize = size_of::<Words>();

/// Bytes of what lies at [`tracks`](super::super::layout::ObjectLayout::tracks) of each object: in every debug
/// cache the state word, with STORE_USER all. A multiple of 8, aligned to 8; 0 in plain
/// caches, which have nothing there.
pub const fn bytes_behind(flags: Flags) -> usize {
    if !flags.intersects(Flags::DEBUG) {
        0
    } else if flags.contains(Flags::STORE_USER) {
        REQUESTED + 8
    } else {
        8
    }
}

const ALLOCATED_AT: usize = 8;
const FREED_AT: usize = ALLOCATED_AT + TRACK_BYTES;
const REQUESTED: usize = FREED_AT + TRACK_BYTES;

/// What an object of a debug cache is, as its state word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// On its slab's freelist.
    Free,
    /// Somebody's.
    Allocated,
    /// Found damaged while it was free: counted as in use, and never used again.
    Isolated,
}

impl State {
    const ALL: [Self; 3] = [Self::Free, Self::Allocated, Self::Isolated];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Allocated => "allocated",
            Self::Isolated => "isolated",
        }
    }

    /// The word of an object whose state word lies at `address`.
    fn word(self, address: usize) -> u64 {
        let magic = match self {
            Self::Free => 0x6f72_6565_5f6f_626a,
            Self::Allocated => 0x7573_6564_5f6f_626a,
            Self::Isolated => 0x6261_645f_5f6f_626a,
        };
        magic ^ (address as u64).rotate_left(23)
    }
}

/// Which track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Allocation,
    Free,
}

/// A track as it lies in memory; all zeros: nothing happened yet.
#[repr(C)]
struct Words {
    /// The address of a `Location`.
    caller: AtomicU64,
    at_ns: AtomicU64,
    /// Thread, and CPU in the upper half.
    who: AtomicU64,
    stack: [AtomicU64; DEPTH],
    checksum: AtomicU64,
}

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Track {
    /// Who asked for it.
    pub caller: &'static Location<'static>,
    /// When, where, and called by whom.
    pub event: Event,
}

/// A track is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overwritten;

/// The last allocation and the last free; `None`: there was none.
pub type Tracks = [Result<Option<Track>, Overwritten>; 2];

// Relaxed throughout: written under the list lock; who reads without it checks the sum.
impl Words {
    fn values(&self) -> [u64; 3 + DEPTH] {
        let mut values = [0; 3 + DEPTH];
        values[0] = self.caller.load(Relaxed);
        values[1] = self.at_ns.load(Relaxed);
        values[2] = self.who.load(Relaxed);
        for (value, word) in values[3..].iter_mut().zip(&self.stack) {
            *value = word.load(Relaxed);
        }
        values
    }

    /// Of words that stand at this address: a track that was copied elsewhere is wrong there.
    fn sum(&self, values: &[u64; 3 + DEPTH]) -> u64 {
        let start = core::ptr::from_ref(self).addr() as u64;
        values.iter().fold(start, |sum, value| {
            (sum.rotate_left(9) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
    }

    fn write(&self, track: &Track) {
        let caller = core::ptr::from_ref(track.caller).expose_provenance();
        self.caller.store(caller as u64, Relaxed);
        self.at_ns.store(track.event.at_ns, Relaxed);
        let who = u64::from(track.event.thread) | u64::from(track.event.cpu) << 32;
        self.who.store(who, Relaxed);
        for (word, address) in self.stack.iter().zip(track.event.stack) {
            word.store(address as u64, Relaxed);
        }
        self.checksum.store(self.sum(&self.values()), Relaxed);
    }

    fn clear(&self) {
        self.caller.store(0, Relaxed);
        self.at_ns.store(0, Relaxed);
        self.who.store(0, Relaxed);
        self.stack.iter().for_each(|word| word.store(0, Relaxed));
        self.checksum.store(0, Relaxed);
    }

    /// `None`: nothing happened yet.
    fn read(&self) -> Result<Option<Track>, Overwritten> {
        let values = self.values();
        let checksum = self.checksum.load(Relaxed);
        if checksum == 0 && values == [0; 3 + DEPTH] {
            return Ok(None);
        }
        if checksum != self.sum(&values) || values[0] == 0 {
            return Err(Overwritten);
        }
        let caller = core::ptr::with_exposed_provenance::<Location<'static>>(values[0] as usize);
        let mut stack = owner::Stack::default();
        for (address, value) in stack.iter_mut().zip(&values[3..]) {
            *address = *value as usize;
        }
        Ok(Some(Track {
            // SAFETY: the checksum says that `write` put it here, whose `Location` is there
            // for ever.
            caller: unsafe { &*caller },
            event: Event {
                at_ns: values[1],
                thread: values[2] as u32,
                cpu: (values[2] >> 32) as u32,
                stack,
            },
        }))
    }
}

impl Track {
    /// What happens here and now. Any context.
    #[inline]
    pub(crate) fn now<M: Machine>(caller: &'static Location<'static>) -> Self {
        let event = Event {
            at_ns: M::now_ns(),
            thread: <M as crate::machine::Machine>::thread_number(),
            cpu: M::current_cpu().number(),
            stack: owner::capture::<M>(),
        };
        Self { caller, event }
    }
}

impl<M: Machine> KmemCache<M> {
    /// A word of what is kept behind an object.
    ///
    /// # Safety
    ///
    /// `object` is an object of this cache, which is a debug cache, in a slab that lives; the
    /// word is one that the cache's flags have.
    #[inline]
    unsafe fn behind(&self, object: NonNull<u8>, offset: usize) -> &AtomicU64 {
        debug_assert!(self.layout.tracks != 0 && offset < bytes_behind(self.flags));
        // SAFETY: reserved in the layout, aligned to 8.
        unsafe {
            let word = object.add(self.layout.tracks as usize + offset);
            AtomicU64::from_ptr(word.as_ptr().cast())
        }
    }

    /// What the state word says; `Err`: nothing that it could.
    ///
    /// # Safety
    ///
    /// As for [`behind`](Self::behind).
    pub(crate) unsafe fn state_of(&self, object: NonNull<u8>) -> Result<State, u64> {
        // SAFETY: as the caller promises.
        let word = unsafe { self.behind(object, 0) };
        let (found, address) = (word.load(Relaxed), word.as_ptr().addr());
        let state = State::ALL
            .into_iter()
            .find(|state| state.word(address) == found);
        state.ok_or(found)
    }

    /// Writes the state word. Under the list lock, or of an object that nobody else knows.
    ///
    /// # Safety
    ///
    /// As for [`behind`](Self::behind).
    pub(crate) unsafe fn set_state(&self, object: NonNull<u8>, state: State) {
        // SAFETY: as the caller promises.
        let word = unsafe { self.behind(object, 0) };
        word.store(state.word(word.as_ptr().addr()), Relaxed);
    }

    /// # Safety
    ///
    /// As for [`behind`](Self::behind), with STORE_USER.
    unsafe fn words(&self, object: NonNull<u8>, which: Which) -> &Words {
        let offset = match which {
            Which::Allocation => ALLOCATED_AT,
            Which::Free => FREED_AT,
        };
        // SAFETY: as the caller promises: the words of a track follow each other.
        unsafe { &*core::ptr::from_ref(self.behind(object, offset)).cast::<Words>() }
    }

    /// Notes what happens to an object, if that is kept. Under the list lock.
    ///
    /// # Safety
    ///
    /// As for [`behind`](Self::behind).
    pub(crate) unsafe fn set_track(&self, object: NonNull<u8>, which: Which, track: &Track) {
        if self.flags.contains(Flags::STORE_USER) {
            // SAFETY: as the caller promises.
            unsafe { self.words(object, which) }.write(track);
        }
    }

    /// Forgets a track that was overwritten. Under the list lock.
    ///
    /// # Safety
    ///
    /// As for [`behind`](Self::behind), with STORE_USER.
    pub(crate) unsafe fn clear_track(&self, object: NonNull<u8>, which: Which) {
        // SAFETY: as the caller promises.
        unsafe { self.words(object, which) }.clear();
    }

    /// A track; `None`: nothing happened yet, or nothing is kept. True under the list lock.
    ///
    /// # Safety
    ///
    /// As for [`behind`](Self::behind).
    pub(crate) unsafe fn track_of(
        &self,
        object: NonNull<u8>,
        which: Which,
    ) -> Result<Option<Track>, Overwritten> {
        if !self.flags.contains(Flags::STORE_USER) {
            return Ok(None);
        }
        // SAFETY: as the caller promises.
        unsafe { self.words(object, which) }.read()
    }

    /// Who last allocated and freed an object, with STORE_USER, and who is not told by a
    /// damaged track. Any context.
    ///
    /// # Safety
    ///
    /// `object` is an object of this cache, free or not, in a slab that lives.
    pub unsafe fn record_of(&self, object: NonNull<u8>) -> Option<Record> {
        if !self.flags.contains(Flags::STORE_USER) {
            return None;
        }
        // SAFETY: as the caller promises.
        let event = |which| unsafe { self.track_of(object, which) }.ok().flatten();
        // SAFETY: as the caller promises.
        let state = unsafe { self.state_of(object) };
        Some(Record {
            in_use: state == Ok(State::Allocated),
            allocated: event(Which::Allocation).map(|track| track.event),
            freed: event(Which::Free).map(|track| track.event),
            ..Record::default()
        })
    }

    /// The last allocation and the last free of an object, with STORE_USER. Any context; true under
    /// the list lock.
    ///
    /// # Safety
    ///
    /// As for [`record_of`](Self::record_of).
    pub(crate) unsafe fn tracks_of(&self, object: NonNull<u8>) -> Option<Tracks> {
        self.flags.contains(Flags::STORE_USER).then(|| {
            // SAFETY: as the caller promises.
            [Which::Allocation, Which::Free].map(|which| unsafe { self.track_of(object, which) })
        })
    }

    /// The word with the size that was asked for.
    ///
    /// # Safety
    ///
    /// As for [`behind`](Self::behind), with STORE_USER.
    pub(super) unsafe fn requested_word(&self, object: NonNull<u8>) -> &AtomicU64 {
        // SAFETY: as the caller promises.
        unsafe { self.behind(object, REQUESTED) }
    }
}
