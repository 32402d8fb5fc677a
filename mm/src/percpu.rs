//! Dynamic per-CPU memory: an allocator of *offsets*, each valid on every CPU.
//!
//! Every possible CPU has a window of addresses; an offset names a byte in each of them, the
//! CPU's own memory. Which memory lies there is the business of a [`Backing`]; here it is
//! decided which offsets are whose.
//!
//! Offsets are divided into *chunks* of [`UNIT`] bytes. The first chunk is there from
//! [`start`](PerCpuMemory::start) on, before there is any other allocator, and for ever; it
//! may begin with something that is not ours (the CPU's static data). The others are
//! *populated* when memory is wanted and given back when they are empty, but for one that is
//! kept, so that a pair of alloc and free at a boundary does not map and unmap each time.
//!
//! # States of a chunk
//!
//! | from | to | who moves it |
//! |---|---|---|
//! | absent | growing | an allocation that found no room, by taking the growth mutex |
//! | growing | live | the same, when memory is there; under the lock. It allocates from it at once |
//! | growing | absent | the same, when there is no memory: nothing of it is left |
//! | live | live, empty | a free, under the lock |
//! | live, empty | live | an allocation, under the lock |
//! | live, empty | shrinking | whoever has the growth mutex and finds one too many; under the lock |
//! | shrinking | absent | the same, when the memory is given back |
//!
//! Only live chunks are in the table, so nobody allocates from one that grows or shrinks, and
//! a free of an offset there is refused. Two locks:
//!
//! - the *lock* spins with interrupts off, and protects the table and all bits. Memory is
//!   neither allocated nor cleared under it.
//! - the *growth mutex* sleeps; its holder alone makes chunks and gives them back. Nothing is
//!   reclaimed under it: a reclaim may call those who free per-CPU memory.
//!
//! Who frees may not wait for the mutex (it may be a part of a reclaim), so it only tries;
//! if it fails the holder has to do the work. That none is forgotten: the holder looks again
//! *after* it gave the mutex back. Let F be the section of the lock in which a free left one
//! empty chunk too many, followed by its try, and L the section in which the holder looks,
//! after its unlock. Either F comes before L, and L sees it; or L before F, and then the unlock
//! happens before the try, which succeeds, or meets a later holder, of whom the same holds.
//!
//! # Contexts
//!
//! | | may sleep | in interrupts, under spinning locks | NMI |
//! |---|---|---|---|
//! | [`alloc`](PerCpuMemory::alloc) | yes, to grow | no | no |
//! | [`alloc_atomic`](PerCpuMemory::alloc_atomic) | no | of what is populated | no |
//! | [`free`](PerCpuMemory::free) | only to give chunks back, where it is allowed | yes | no |

mod bits;
mod chunk;
mod table;

use core::{alloc::Layout, fmt, ops::Range, panic::Location, ptr::NonNull};

use platform::{Platform, lock::IrqSpinLock, lock_class, sync::const_unless_model, wait::Mutex};

use crate::report::{Kind, Report};
use chunk::Chunk;
use table::{Table, Wanted, granules};

/// The smallest piece, in bytes; all sizes are rounded up to it.
pub const GRANULE: usize = 16;
/// Bytes of a chunk on each CPU: the largest allocation.
pub const UNIT: usize = 32 * 1024;
/// The largest alignment.
pub const MAX_ALIGN: usize = PAGE;

const GRANULES: usize = UNIT / GRANULE;
const PAGE: usize = 4096;
/// Empty chunks that are kept.
const KEPT: usize = 1;
/// How often an allocation tries to grow, with a reclaim in between.
const ATTEMPTS: usize = 3;

const _: () = assert!(size_of::<Chunk>() <= PAGE && align_of::<Chunk>() <= PAGE);
const _: () = assert!(UNIT.is_multiple_of(PAGE));

lock_class! {
    /// Growing and shrinking dynamic per-CPU memory.
    pub struct PerCpuGrowth = ("per-CPU growth", 6);
    /// Which dynamic per-CPU memory is whose.
    pub struct PerCpuChunks = ("per-CPU chunks", 45);
}

/// There is no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMemory;

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory")
    }
}

impl core::error::Error for NoMemory {}

/// The memory behind the offsets.
///
/// # Safety
///
/// [`PerCpuMemory`] relies on: from a successful [`populate`](Self::populate) until
/// [`depopulate`](Self::depopulate) the offsets are memory on every possible CPU, nobody
/// else's; those of the first chunk for ever. A page of [`alloc_meta`](Self::alloc_meta) is
/// memory of 4 KiB, aligned to as much, nobody else's until [`free_meta`](Self::free_meta).
pub unsafe trait Backing: Send + Sync {
    /// Makes `offsets`, whole pages, memory on every possible CPU; its content may be
    /// anything. Task context, may sleep, may not reclaim; called by one thread at a time.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]: then nothing of it is left.
    fn populate(&self, offsets: Range<usize>) -> Result<(), NoMemory>;

    /// Gives back what [`populate`](Self::populate) made of these very offsets. When it
    /// returns no CPU can reach the memory. Task context, may sleep, may not allocate.
    ///
    /// # Safety
    ///
    /// They were populated, and nobody uses them any more.
    unsafe fn depopulate(&self, offsets: Range<usize>);

    /// Writes zeros to `offsets` on every possible CPU. Any context but NMI.
    ///
    /// # Safety
    ///
    /// They are populated, and the caller's.
    unsafe fn clear(&self, offsets: Range<usize>);

    /// A page for the allocator's own use. Task context, may sleep, may not reclaim.
    fn alloc_meta(&self) -> Option<NonNull<u8>>;

    /// Gives it back. Task context.
    ///
    /// # Safety
    ///
    /// It came from [`alloc_meta`](Self::alloc_meta), and nobody uses it any more.
    unsafe fn free_meta(&self, page: NonNull<u8>);

    /// There was not enough memory for a chunk; gets some free, if that can be. Task context,
    /// may sleep, nothing of the allocator's is held. Whether it makes sense to try again.
    fn reclaim(&self) -> bool;

    /// Something is wrong with the use of per-CPU memory. Any context but NMI.
    fn report(&self, report: &Report<'_>);
}

/// Figures of [`PerCpuMemory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Bytes in use on each CPU.
    pub used: usize,
    /// Bytes that are populated on each CPU, less what is reserved in the first chunk.
    pub populated: usize,
    /// Pages of each CPU that were populated beyond the first chunk.
    pub pages: usize,
    /// Chunks, the first included.
    pub chunks: usize,
    /// Chunks beyond the first of which nothing is in use.
    pub empty: usize,
    /// Allocations that were not freed.
    pub allocations: usize,
}

/// Bits and numbers do not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inconsistent {
    /// The chunk's number; `None`: the sums over all.
    pub chunk: Option<usize>,
    /// What is wrong.
    pub what: &'static str,
}

impl fmt::Display for Inconsistent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.chunk {
            Some(chunk) => write!(f, "chunk {chunk}: {}", self.what),
            None => f.write_str(self.what),
        }
    }
}

impl core::error::Error for Inconsistent {}

/// The allocator, of at most `CHUNKS` chunks. See the module's documentation.
pub struct PerCpuMemory<P: Platform, B, const CHUNKS: usize> {
    table: IrqSpinLock<Table<CHUNKS>, P, PerCpuChunks>,
    growth: Mutex<(), P, PerCpuGrowth>,
    backing: B,
}

impl<P: Platform, B: Backing, const CHUNKS: usize> PerCpuMemory<P, B, CHUNKS> {
    const_unless_model! {
        /// Without any memory, until [`start`](Self::start).
        pub fn new(backing: B) -> Self {
            const { assert!(CHUNKS > 0 && GRANULES <= u16::MAX as usize) };
            Self {
                table: IrqSpinLock::new(Table::new()),
                growth: Mutex::new(()),
                backing,
            }
        }
    }

    /// The first chunk's memory is there from now on, but for its first `reserved` bytes,
    /// which are somebody else's.
    ///
    /// # Panics
    ///
    /// If it was called before, or more is reserved than a chunk has.
    pub fn start(&self, reserved: usize) {
        let reserved = reserved.div_ceil(GRANULE);
        assert!(reserved <= GRANULES, "the first chunk is too small");
        assert!(
            self.table.lock().start(reserved),
            "per-CPU memory is started twice"
        );
    }

    /// The memory behind the offsets.
    pub fn backing(&self) -> &B {
        &self.backing
    }

    /// Zeroed memory on every possible CPU; its offset. May sleep. `None`: no memory, or it
    /// is larger than [`UNIT`], or the alignment than [`MAX_ALIGN`].
    #[track_caller]
    pub fn alloc(&self, layout: Layout) -> Option<usize> {
        if P::CHECK_LOCKS {
            P::might_sleep(Location::caller());
        }
        let wanted = Wanted::of(layout)?;
        let place = self.table.lock().alloc(wanted);
        let place = match place {
            Some(place) => place,
            None => self.grow(wanted)?,
        };
        Some(self.hand_out(wanted.at(place)))
    }

    /// [`alloc`](Self::alloc) of what is populated; does not sleep. Any context but NMI.
    pub fn alloc_atomic(&self, layout: Layout) -> Option<usize> {
        let wanted = Wanted::of(layout)?;
        let place = self.table.lock().alloc(wanted)?;
        Some(self.hand_out(wanted.at(place)))
    }

    fn hand_out(&self, offsets: Range<usize>) -> usize {
        let start = offsets.start;
        // SAFETY: of a live chunk, which stays so while something in it is used, and marked
        // as the caller's.
        unsafe { self.backing.clear(offsets) };
        start
    }

    /// Gives memory back. Wrong ones are reported and refused; sizes are told apart as far
    /// as their number of granules differs. Any context but NMI; where the caller may sleep
    /// it may.
    ///
    /// # Safety
    ///
    /// Nobody uses the memory any more.
    #[track_caller]
    pub unsafe fn free(&self, offset: usize, layout: Layout) {
        let result = self.table.lock().free(offset, granules(layout));
        match result {
            Ok(false) => {}
            Ok(true) => {
                if P::may_sleep() {
                    self.shrink(KEPT);
                }
            }
            Err(wrong) => self.backing.report(&Report {
                kind: Kind::BadPerCpuAddress,
                frame: None,
                details: format_args!("{} bytes at offset {offset:#x}: {wrong}", layout.size()),
                caller: Some(Location::caller()),
                owner: None,
            }),
        }
    }

    /// Gives all empty chunks back, also the one that is kept otherwise: for those who
    /// reclaim memory. May sleep; does nothing if another thread is growing or shrinking. How
    /// many pages of each CPU became free.
    pub fn trim(&self) -> usize {
        self.shrink(0) * (UNIT / PAGE)
    }

    /// Finds room in a new chunk, or in one that became live meanwhile.
    #[cold]
    fn grow(&self, wanted: Wanted) -> Option<(usize, usize)> {
        for attempt in 1..=ATTEMPTS {
            let growth = self.growth.lock();
            let result = self.grow_once(wanted);
            drop(growth);
            // Frees that found the mutex taken leave it to us; see the module.
            self.shrink(KEPT);
            match result {
                Ok(place) => return place,
                Err(NoMemory) if attempt < ATTEMPTS && self.backing.reclaim() => {}
                Err(NoMemory) => return None,
            }
        }
        None
    }

    /// With the growth mutex held. `Ok(None)`: all offsets are in use.
    fn grow_once(&self, wanted: Wanted) -> Result<Option<(usize, usize)>, NoMemory> {
        let number = {
            let mut table = self.table.lock();
            if let Some(place) = table.alloc(wanted) {
                return Ok(Some(place));
            }
            match table.absent() {
                Some(number) => number,
                None => return Ok(None),
            }
        };
        let page = self.backing.alloc_meta().ok_or(NoMemory)?;
        let chunk = page.cast::<Chunk>();
        // SAFETY: a page of our own, in which a chunk fits (asserted above).
        unsafe { chunk.write(Chunk::new()) };
        if let Err(error) = self.backing.populate(chunk_offsets(number)) {
            // SAFETY: allocated above, and known to nobody else.
            unsafe { self.backing.free_meta(page) };
            return Err(error);
        }
        let mut table = self.table.lock();
        table.insert(number, chunk);
        Ok(table.alloc(wanted))
    }

    /// Gives back empty chunks beyond `keep`, if nobody else has the growth mutex; else that
    /// one does it. How many.
    fn shrink(&self, keep: usize) -> usize {
        let mut gone = 0;
        while self.table.lock().empty > keep {
            let Some(growth) = self.growth.try_lock() else {
                break;
            };
            gone += self.shrink_held(keep);
            // And look again, now that it is given back.
            drop(growth);
        }
        gone
    }

    fn shrink_held(&self, keep: usize) -> usize {
        let mut gone = 0;
        loop {
            let taken = self.table.lock().take_empty(keep);
            let Some((number, chunk)) = taken else {
                return gone;
            };
            // SAFETY: populated when it became live; it was empty and is in the table no
            // more, so nobody uses it.
            unsafe { self.backing.depopulate(chunk_offsets(number)) };
            // SAFETY: from `alloc_meta`, by the invariant of slots.
            unsafe { self.backing.free_meta(chunk.cast()) };
            gone += 1;
        }
    }

    /// Figures. Any context but NMI.
    pub fn stats(&self) -> Stats {
        self.table.lock().stats()
    }

    /// [`stats`](Self::stats), if bits and counts agree. For tests: takes long with
    /// interrupts off.
    ///
    /// # Errors
    ///
    /// The first that does not.
    pub fn audit(&self) -> Result<Stats, Inconsistent> {
        self.table.lock().audit()
    }
}

impl<P: Platform, B, const CHUNKS: usize> fmt::Debug for PerCpuMemory<P, B, CHUNKS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table.lock().stats().fmt(f)
    }
}

fn chunk_offsets(number: usize) -> Range<usize> {
    number * UNIT..(number + 1) * UNIT
}
