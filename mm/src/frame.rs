//! Page frames and their descriptors.
//!
//! Every frame of every node has a [`Frame`], one cache line, at a place that follows from
//! its number ([`FrameMap`]): from an address to its frame is a shift and an addition. What
//! lies in holes between pieces of memory has descriptors too, all [`State::Hole`].
//!
//! # States
//!
//! The first word of a descriptor says what the frame is: a [`State`], for the first frame
//! of a block its order, and the zone it belongs to. A block of `2^n` frames has its state
//! in its *head*, the first one; the others are *tails*, which know the block's order, so
//! the head is found by rounding their number down.
//!
//! | from | to | who moves it |
//! |---|---|---|
//! | hole | reserved, boot, free | `Mm::new`, once |
//! | boot | free | [`free_boot`](crate::Mm::free_boot) |
//! | free | listed | a refill of a CPU's page lists, under the zone's lock |
//! | free | used | an allocation that goes past the lists, under the zone's lock |
//! | listed | used | an allocation from the CPU's lists, under their local lock |
//! | used | listed | a free to the CPU's lists, under their local lock |
//! | used | free | a free that goes past the lists, under the zone's lock |
//! | used | later | a free that found the zone's lock taken and may not wait |
//! | later | free | the next one to have the zone's lock |
//! | listed | free | a drain, under the zone's lock |
//! | used | bad | a check found the frame damaged; it is never used again |
//!
//! *Used* stands for every [`Use`]. Only the owner of a used block frees it or changes its
//! use, so these moves need no atomic read-modify-write; each looks first whether the word is
//! what the move begins with, and a wrong free ends in a report instead of in a list.

use core::fmt;

use platform::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::machine::Layout;

/// The size of a page frame in bytes.
pub const PAGE_SIZE: usize = 4096;
/// Its logarithm.
pub const PAGE_SHIFT: u32 = 12;
/// The largest block has `2^MAX_ORDER` frames.
pub const MAX_ORDER: usize = 10;
/// How many orders there are.
pub const ORDERS: usize = MAX_ORDER + 1;
/// Frames have numbers below this: memory up to 16 TiB (less a frame) is used.
pub const MAX_FRAMES: u64 = u32::MAX as u64;

/// The number of a page frame: its physical address by the size of a page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Pfn(pub u32);

impl Pfn {
    /// The frame of a physical address, if it is below [`MAX_FRAMES`].
    pub const fn of_phys(address: u64) -> Option<Self> {
        let number = address >> PAGE_SHIFT;
        if number < MAX_FRAMES {
            Some(Self(number as u32))
        } else {
            None
        }
    }

    /// The physical address of its first byte.
    #[inline(always)]
    pub const fn phys(self) -> u64 {
        (self.0 as u64) << PAGE_SHIFT
    }

    /// As an index.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The frame `frames` further on.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, frames: u32) -> Self {
        Self(self.0 + frames)
    }

    /// The first frame of the block of `order` that this lies in.
    #[inline(always)]
    #[must_use]
    pub const fn align_down(self, order: usize) -> Self {
        Self(self.0 & !((1 << order) - 1))
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What allocated frames are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Use {
    /// Plain pages.
    Pages = 0,
    /// Objects of a slab cache.
    Slab = 1,
    /// A large kmalloc.
    Kmalloc = 2,
    /// Mapped in the vmalloc range.
    Vmalloc = 3,
    /// Page tables.
    PageTable = 4,
    /// CPUs' own copies of data.
    PerCpu = 5,
    /// Stacks.
    Stack = 6,
    /// The allocators' own descriptors.
    Meta = 7,
}

/// How many uses there are.
pub const USES: usize = 8;

impl Use {
    /// All uses, in the order in which they are shown.
    pub const ALL: [Self; USES] = [
        Self::Pages,
        Self::Slab,
        Self::Kmalloc,
        Self::Vmalloc,
        Self::PageTable,
        Self::PerCpu,
        Self::Stack,
        Self::Meta,
    ];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pages => "pages",
            Self::Slab => "slab",
            Self::Kmalloc => "large kmalloc",
            Self::Vmalloc => "vmalloc",
            Self::PageTable => "page table",
            Self::PerCpu => "per-CPU",
            Self::Stack => "stack",
            Self::Meta => "descriptors",
        }
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No memory here.
    Hole,
    /// Memory that is the firmware's or damaged.
    Reserved,
    /// In use since before there was an allocator.
    Boot,
    /// Head of a free block in its zone's lists.
    Free,
    /// Head of a block in a CPU's page lists.
    Listed,
    /// Freed, but still to be taken in by whoever has the zone's lock next.
    Later,
    /// Damaged, or freed wrongly: kept out of use.
    Bad,
    /// A frame of a block that is not its head. In a free block it may name the order that a
    /// part of the block had.
    Tail,
    /// Head of a block that somebody uses.
    Used(Use),
}

impl State {
    const fn code(self) -> u32 {
        match self {
            Self::Hole => 0,
            Self::Reserved => 1,
            Self::Boot => 2,
            Self::Free => 3,
            Self::Listed => 4,
            Self::Later => 5,
            Self::Bad => 6,
            Self::Tail => 7,
            Self::Used(usage) => 8 + usage as u32,
        }
    }

    const fn of_code(code: u32) -> Self {
        match code {
            0 => Self::Hole,
            1 => Self::Reserved,
            2 => Self::Boot,
            3 => Self::Free,
            4 => Self::Listed,
            5 => Self::Later,
            7 => Self::Tail,
            8..16 => Self::Used(Use::ALL[(code - 8) as usize]),
            _ => Self::Bad,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hole => "hole",
            Self::Reserved => "reserved",
            Self::Boot => "boot",
            Self::Free => "free",
            Self::Listed => "free (page list)",
            Self::Later => "free (deferred)",
            Self::Bad => "bad",
            Self::Tail => "tail",
            Self::Used(usage) => usage.name(),
        })
    }
}

/// The first word of a descriptor: state, order, zone.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Word(u32);

impl Word {
    /// A word. For [`State::Tail`] the order is that of the whole block.
    #[inline(always)]
    pub const fn new(state: State, order: usize, zone: ZoneIndex) -> Self {
        Self(state.code() | (order as u32) << 8 | (zone.0 as u32) << 16)
    }

    /// The word of the same zone with another state and order.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, state: State, order: usize) -> Self {
        Self(self.0 & 0xffff_0000 | state.code() | (order as u32) << 8)
    }

    /// As an integer.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// What the frame is.
    #[inline(always)]
    pub const fn state(self) -> State {
        State::of_code(self.0 & 0xff)
    }

    /// Whether [`state`](Self::state) is `state`; one comparison.
    #[inline(always)]
    pub const fn is(self, state: State) -> bool {
        self.0 & 0xff == state.code()
    }

    /// The order of its block.
    #[inline(always)]
    pub const fn order(self) -> usize {
        (self.0 >> 8 & 0xff) as usize
    }

    /// Whether it differs from `other` in more than the order.
    #[inline(always)]
    pub const fn is_other(self, other: Self) -> bool {
        (self.0 ^ other.0) & !0xff00 != 0
    }

    /// The zone that it belongs to.
    #[inline(always)]
    pub const fn zone(self) -> ZoneIndex {
        ZoneIndex((self.0 >> 16) as u8)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of order {} in {:?}",
            self.state(),
            self.order(),
            self.zone()
        )
    }
}

/// A zone's place in [`Mm`](crate::Mm)'s table: two for each node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ZoneIndex(pub u8);

/// The descriptor of a frame. All zeros is that of a hole.
///
/// The fields but for the first belong to whoever the state says: the zone's lists and the
/// CPUs' lists use `next` and `prev`; the owner of a used block uses the others of its head
/// as it likes. They are words, read and written Relaxed: what orders them is the owner's
/// lock or the hand-over of the block.
#[repr(C)]
#[cfg_attr(not(model), repr(align(64)))]
#[derive(Debug, Default)]
pub struct Frame {
    word: AtomicU32,
    pub(crate) next: AtomicU32,
    pub(crate) prev: AtomicU32,
    /// For the owner.
    pub tag: AtomicU32,
    /// For the owner; 16-byte aligned: a slab's freelist and counters.
    pub pair: [AtomicU64; 2],
    /// For the owner: a cache, an area.
    pub owner: AtomicUsize,
    /// For the owner: links of its lists.
    pub links: [AtomicUsize; 2],
    /// For the owner.
    pub extra: AtomicUsize,
}

#[cfg(not(model))]
const _: () = assert!(size_of::<Frame>() == 64 && core::mem::offset_of!(Frame, pair) == 16);

impl Frame {
    /// What it is. May be out of date at once, unless the caller owns the frame or holds
    /// what the table of states names.
    #[inline(always)]
    pub fn word(&self) -> Word {
        // Relaxed: see the type.
        Word(self.word.load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub(crate) fn set_word(&self, word: Word) {
        self.word.store(word.0, Ordering::Relaxed);
    }

    /// Notes the use of a block that is freed, for who counts it later; see
    /// [`State::Later`].
    pub(crate) fn note_use(&self, usage: Use) {
        self.prev.store(usage as u32, Ordering::Relaxed);
    }

    /// What [`note_use`](Self::note_use) noted.
    pub(crate) fn noted_use(&self) -> Use {
        Use::ALL[self.prev.load(Ordering::Relaxed) as usize % USES]
    }

    /// Moves from one word to another if nobody was faster; else says what it is. For checks
    /// that must tell two frees at the same time apart.
    pub(crate) fn exchange_word(&self, from: Word, to: Word) -> Result<(), Word> {
        self.word
            .compare_exchange(from.0, to.0, Ordering::Relaxed, Ordering::Relaxed)
            .map(|_| ())
            .map_err(Word)
    }
}

/// Where all descriptors are.
#[derive(Clone, Copy, Debug)]
pub struct FrameMap<L> {
    layout: L,
    /// Frames with numbers below this have descriptors.
    end: Pfn,
}

impl<L: Layout> FrameMap<L> {
    /// The map of `layout`.
    ///
    /// # Safety
    ///
    /// From [`Layout::frame_map`] on there is a valid [`Frame`] for every number below
    /// `end`, for ever (those of frames in holes may be one and the same memory, which
    /// nobody writes to).
    pub const unsafe fn new(layout: L, end: Pfn) -> Self {
        Self { layout, end }
    }

    /// Frames with numbers below this have descriptors.
    pub const fn end(&self) -> Pfn {
        self.end
    }

    /// The machine's layout.
    #[inline(always)]
    pub const fn layout(&self) -> L {
        self.layout
    }

    /// The descriptor of a frame; `None` beyond the end of memory.
    pub fn get(&self, pfn: Pfn) -> Option<&Frame> {
        // SAFETY: below the end.
        (pfn < self.end).then(|| unsafe { self.at(pfn) })
    }

    /// The descriptor of a frame.
    ///
    /// # Safety
    ///
    /// `pfn` is below [`end`](Self::end).
    #[inline(always)]
    pub unsafe fn at(&self, pfn: Pfn) -> &Frame {
        debug_assert!(pfn < self.end);
        let address = self.layout.frame_map() + pfn.index() * size_of::<Frame>();
        // SAFETY: `new` was promised a descriptor there.
        unsafe { &*core::ptr::with_exposed_provenance::<Frame>(address) }
    }

    /// The descriptors of `count` frames from `pfn` on; `None` if memory ends before.
    pub fn several(&self, pfn: Pfn, count: usize) -> Option<&[Frame]> {
        let fits = count <= self.end.index().checked_sub(pfn.index())?;
        let address = self.layout.frame_map() + pfn.index() * size_of::<Frame>();
        // SAFETY: `new` was promised a descriptor for each frame below the end, in a row; all
        // that changes in them is atomic.
        fits.then(|| unsafe {
            core::slice::from_raw_parts(core::ptr::with_exposed_provenance(address), count)
        })
    }

    /// The number of the frame that a descriptor describes.
    #[inline(always)]
    pub fn pfn_of(&self, frame: &Frame) -> Pfn {
        let offset = core::ptr::from_ref(frame).addr() - self.layout.frame_map();
        Pfn((offset / size_of::<Frame>()) as u32)
    }

    /// Where a frame's memory appears.
    #[inline(always)]
    pub fn address_of(&self, pfn: Pfn) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(
            self.layout.direct_map() + (pfn.index() << PAGE_SHIFT),
        )
    }

    /// The frame of an address in the direct map; `None` if it is not there.
    #[inline]
    pub fn pfn_of_address(&self, address: usize) -> Option<Pfn> {
        let number = address.checked_sub(self.layout.direct_map())? >> PAGE_SHIFT;
        (number < self.end.index()).then_some(Pfn(number as u32))
    }

    /// The head of the block that a frame belongs to, with its word: the frame itself, but
    /// for tails. In a free block, the head of the block that is free. `None` in holes and
    /// beyond the end. May be out of date at once, like [`Frame::word`].
    pub fn head_of(&self, pfn: Pfn) -> Option<(Pfn, Word)> {
        let word = self.get(pfn)?.word();
        match word.state() {
            State::Hole => None,
            State::Tail => {
                // A used block's tails name its order; a free block's may name a smaller.
                (1..ORDERS)
                    .map(|order| (order, pfn.align_down(order)))
                    .filter_map(|(order, head)| {
                        let word = self.get(head)?.word();
                        (word.state() != State::Tail && word.order() >= order)
                            .then_some((head, word))
                    })
                    .next()
            }
            _ => Some((pfn, word)),
        }
    }
}
