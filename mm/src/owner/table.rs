//! The table: an entry for each frame, of which that of a block's head is used.
//!
//! # Protocol
//!
//! An entry is a few words under a sequence number, so that who reads one, in any context
//! and at any time, never takes a mixture of two moments for a record.
//!
//! | sequence | the words |
//! |---|---|
//! | 0 | were never written |
//! | even | are those of one write |
//! | odd | are being written, by whoever made it odd |
//!
//! | from | to | who |
//! |---|---|---|
//! | even | odd | who allocates or frees the block, by compare-exchange |
//! | odd | next even | the same, when the words are stored |
//!
//! *Writers* own the block: one who allocates writes before the block is handed out, one who
//! frees before it is given back. So two write to one entry only where a block is freed
//! twice at the same time, and an NMI never finds a block that is its own half written. The
//! one who finds the sequence odd leaves: its event is lost, and counted. Nobody waits.
//!
//! *Readers* load the sequence, the words, the sequence again, and have a record if both are
//! the same even number. They try a few times, then do without: the writer may be the very
//! code that they interrupted.
//!
//! Ordering is that of [`platform::lock::SeqLock`]: the Release that makes the sequence even
//! with the reader's first, Acquire, load: the words are at least that new. The writer's
//! Release fence behind the odd sequence with the reader's Acquire fence before its second
//! load: who saw a newer word sees a newer sequence. And the writer's compare-exchange is
//! Acquire, from the Release of the write before it, so that the words of two writes come in
//! order.

use core::{
    fmt,
    marker::PhantomData,
    sync::atomic::{AtomicPtr, AtomicU64 as Statistic, AtomicUsize},
};

use platform::{
    Mark, Platform,
    sync::{AtomicU32, AtomicU64, Ordering, fence},
};

use super::{DEPTH, Event, Record};
use crate::{
    frame::{ORDERS, Pfn, Use},
    gfp::Gfp,
    machine::Machine,
};

/// How often a reader tries.
const TRIES: usize = if cfg!(model) { 1 } else { 16 };

const IN_USE: u32 = 1 << 16;
const ALLOCATED: u32 = 1 << 17;
const FREED: u32 = 1 << 18;

/// The words of an [`Event`].
#[derive(Debug, Default)]
struct EventWords {
    at_ns: AtomicU64,
    /// Thread, and CPU in the upper half.
    who: AtomicU64,
    stack: [AtomicU64; DEPTH],
}

/// What is known of the block that begins with a frame. All zeros: nothing.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Entry {
    sequence: AtomicU32,
    /// Order, use, and the flags above.
    what: AtomicU32,
    gfp: AtomicU32,
    allocated: EventWords,
    freed: EventWords,
}

// Relaxed in `EventWords`: the entry's sequence orders its words.
impl EventWords {
    fn store(&self, event: &Event) {
        self.at_ns.store(event.at_ns, Ordering::Relaxed);
        let who = u64::from(event.thread) | u64::from(event.cpu) << 32;
        self.who.store(who, Ordering::Relaxed);
        for (word, address) in self.stack.iter().zip(event.stack) {
            word.store(address as u64, Ordering::Relaxed);
        }
    }

    fn load(&self) -> Event {
        let who = self.who.load(Ordering::Relaxed);
        Event {
            at_ns: self.at_ns.load(Ordering::Relaxed),
            thread: who as u32,
            cpu: (who >> 32) as u32,
            stack: core::array::from_fn(|i| self.stack[i].load(Ordering::Relaxed) as usize),
        }
    }
}

impl Entry {
    /// The owner of the block has allocated it. `false`: somebody else is writing here; the
    /// event is lost.
    pub fn note_alloc<P: Platform>(
        &self,
        event: &Event,
        order: usize,
        usage: Use,
        gfp: Gfp,
    ) -> bool {
        self.write::<P>(|entry| {
            // Relaxed, here and below: the sequence orders the words.
            let freed = entry.what.load(Ordering::Relaxed) & FREED;
            let what = order as u32 | (usage as u32) << 8 | IN_USE | ALLOCATED | freed;
            entry.what.store(what, Ordering::Relaxed);
            entry.gfp.store(gfp.bits(), Ordering::Relaxed);
            P::mark(Mark::Step);
            entry.allocated.store(event);
        })
    }

    /// The owner of the block is giving it back. `false`: as for
    /// [`note_alloc`](Self::note_alloc).
    pub fn note_free<P: Platform>(&self, event: &Event, order: usize, usage: Use) -> bool {
        self.write::<P>(|entry| {
            let allocated = entry.what.load(Ordering::Relaxed) & ALLOCATED;
            let what = order as u32 | (usage as u32) << 8 | FREED | allocated;
            entry.what.store(what, Ordering::Relaxed);
            entry.freed.store(event);
        })
    }

    /// Runs `store` as the only writer. `false`: another one is at it.
    fn write<P: Platform>(&self, store: impl FnOnce(&Self)) -> bool {
        let before = self.sequence.load(Ordering::Relaxed);
        if !before.is_multiple_of(2) {
            return false;
        }
        // Acquire: our words come after those of the write before.
        let claim = self.sequence.compare_exchange(
            before,
            before.wrapping_add(1),
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        if claim.is_err() {
            return false;
        }
        // Pairs with the reader's fence: who sees a word of ours sees the odd sequence.
        fence(Ordering::Release);
        P::mark(Mark::Step);
        store(self);
        P::mark(Mark::Step);
        // Not 0 again, which would mean that nothing is known.
        let after = match before.wrapping_add(2) {
            0 => 2,
            after => after,
        };
        // Release: who sees this sequence sees the words.
        self.sequence.store(after, Ordering::Release);
        true
    }

    /// The record; `None` if there is none, or it is being changed and this went on.
    pub fn read(&self) -> Option<Record> {
        (0..TRIES).find_map(|_| self.try_read())?
    }

    /// `None`: it was being changed.
    fn try_read(&self) -> Option<Option<Record>> {
        // Acquire: no word is older than this.
        let before = self.sequence.load(Ordering::Acquire);
        if before == 0 {
            return Some(None);
        }
        if !before.is_multiple_of(2) {
            return None;
        }
        // Relaxed: what they are good for is decided below.
        let what = self.what.load(Ordering::Relaxed);
        let gfp = self.gfp.load(Ordering::Relaxed);
        let event = |flag, words: &EventWords| (what & flag != 0).then(|| words.load());
        let allocated = event(ALLOCATED, &self.allocated);
        let freed = event(FREED, &self.freed);
        // Pairs with the writer's fence: if a word was newer, so is the sequence now.
        fence(Ordering::Acquire);
        // Relaxed: ordered by the fence.
        if self.sequence.load(Ordering::Relaxed) != before {
            return None;
        }
        Some(Some(Record {
            gfp: Gfp::from_bits_retain(gfp),
            order: what as u8,
            usage: Use::ALL.get((what >> 8 & 0xff) as usize).copied(),
            in_use: what & IN_USE != 0,
            allocated,
            freed,
        }))
    }
}

/// Who allocated and freed every block: nothing, until it is given memory.
pub struct Owners<M> {
    /// The table; null while there is none.
    entries: AtomicPtr<Entry>,
    /// How many entries; stored before `entries`.
    frames: AtomicUsize,
    /// When [`mark`](Self::mark) was last called.
    pub(super) marked_ns: Statistic,
    /// Events that found another writer.
    lost: Statistic,
    machine: PhantomData<fn(M)>,
}

/// How much memory the table of so many frames takes.
pub const fn bytes_for(frames: usize) -> usize {
    frames * size_of::<Entry>()
}

impl<M: Machine> Owners<M> {
    /// Nothing is recorded.
    pub const fn new() -> Self {
        Self {
            entries: AtomicPtr::new(core::ptr::null_mut()),
            frames: AtomicUsize::new(0),
            marked_ns: Statistic::new(0),
            lost: Statistic::new(0),
            machine: PhantomData,
        }
    }

    /// Records from now on, for ever, in `entries` (all zeros, one for every frame from
    /// number 0 on; events of frames beyond are not recorded). `false`: it did already.
    pub fn start(&self, entries: &'static [Entry]) -> bool {
        // Relaxed: the winner of this exchange alone goes on.
        if entries.is_empty()
            || self
                .frames
                .compare_exchange(0, entries.len(), Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            return false;
        }
        // Release: who sees the table sees its length and its zeros.
        self.entries
            .store(entries.as_ptr().cast_mut(), Ordering::Release);
        true
    }

    /// Whether events are recorded.
    pub fn is_on(&self) -> bool {
        !self.table().is_empty()
    }

    pub(super) fn table(&self) -> &'static [Entry] {
        // Acquire: pairs with `start`.
        let entries = self.entries.load(Ordering::Acquire);
        if entries.is_null() {
            return &[];
        }
        let frames = self.frames.load(Ordering::Relaxed);
        // SAFETY: both are of the slice that `start` was given, for ever.
        unsafe { core::slice::from_raw_parts(entries, frames) }
    }

    /// The caller has allocated a block and not handed it out yet. Any context.
    #[inline(never)]
    pub fn note_alloc(&self, pfn: Pfn, order: usize, usage: Use, gfp: Gfp) {
        let Some(entry) = self.table().get(pfn.index()) else {
            return;
        };
        let event = Event::now::<M>();
        self.count_lost(entry.note_alloc::<M>(&event, order, usage, gfp));
    }

    /// The caller is about to free a block that is its own. Any context.
    #[inline(never)]
    pub fn note_free(&self, pfn: Pfn, order: usize, usage: Use) {
        let Some(entry) = self.table().get(pfn.index()) else {
            return;
        };
        let event = Event::now::<M>();
        self.count_lost(entry.note_free::<M>(&event, order, usage));
    }

    fn count_lost(&self, written: bool) {
        if !written {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events that were not recorded, because two concerned one block at the same time.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// What is known of the block that begins with this frame, now or the last time that one
    /// did. `None`: nothing, or it is changing just now. Any context.
    pub fn record(&self, pfn: Pfn) -> Option<Record> {
        self.table().get(pfn.index())?.read()
    }

    /// What happened last to a frame, be it a block's head or tail: the newest record of a
    /// block that it belongs or belonged to, with the block's head. Any context.
    pub fn last_of(&self, pfn: Pfn) -> Option<(Pfn, Record)> {
        (0..ORDERS)
            .filter(|order| *order == 0 || pfn.align_down(*order) != pfn.align_down(*order - 1))
            .filter_map(|order| {
                let head = pfn.align_down(order);
                Some((head, self.record(head)?))
            })
            .filter(|(head, record)| u64::from(pfn.0 - head.0) < record.pages())
            .max_by_key(|(_, record)| record.last_ns())
    }

    /// Blocks that are in use, as far as is known, in the order of their frames. What is
    /// allocated or freed meanwhile may or may not be among them.
    pub fn blocks(&self) -> impl Iterator<Item = (Pfn, Record)> {
        self.table()
            .iter()
            .enumerate()
            .filter_map(|(number, entry)| Some((Pfn(number as u32), entry.read()?)))
            .filter(|(_, record)| record.in_use)
    }

    /// From now on [`leaks`](Self::leaks) begins here.
    pub fn mark(&self) {
        self.marked_ns.store(M::now_ns(), Ordering::Relaxed);
    }
}

impl<M: Machine> Default for Owners<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> fmt::Debug for Owners<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owners")
            .field("frames", &self.table().len())
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}
