//! Memory that is adjacent in the address space but not in the machine: areas of pages,
//! mapped in a range of addresses of their own, each with unmapped guard pages.
//!
//! [`Vmalloc`] has the range. An [`Area`] is an owner whose drop frees; the raw functions
//! ([`Vmalloc::vmalloc`], [`Vmalloc::vfree`], ...) are Linux's.
//!
//! # States of a range of addresses
//!
//! Every byte of the range belongs to exactly one descriptor; all of them are in one tree
//! ([`tree`]). What moves under *the lock* moves under the areas lock.
//!
//! | from | to | who moves it |
//! |---|---|---|
//! | free | claimed | an allocation, under the lock; splits the free range |
//! | claimed | free | the same, when there were no frames: nothing was mapped |
//! | claimed | busy | the same, when all is mapped; under the lock |
//! | claimed | lazy | the same, when there were no page tables: a part may have been mapped for a while, and CPUs may have looked |
//! | busy | leaving | a free, under the lock: one of two wins, the other is reported |
//! | leaving | lazy | the same, when nothing is mapped any more; under the lock |
//! | lazy | purging | the holder of the purge mutex takes all lazy ranges, under the lock |
//! | purging | free | the same, after a flush on every CPU, when the frames are back; under the lock. Merges with free neighbours |
//!
//! While a range is claimed, leaving or purging, its frames and its entries in page tables
//! belong to the thread that moves it.
//!
//! # Frames and addresses are reused only after a flush
//!
//! A range becomes free, and its frames go back to the page allocator, only in the last line
//! of the table. The order is: entries are cleared; then the range becomes lazy, under the
//! lock; a purger that finds it there, under the lock, therefore comes after the clearing;
//! then it flushes all CPUs; then it frees. So no frame is somebody else's, and no address
//! means something else, while any CPU can still translate the one to the other. (Linux
//! gives back frames at once, and only keeps addresses.)
//!
//! One flush serves many areas: ranges stay lazy until there are too many pages of them
//! ([`lazy_limit`]), until addresses or memory run out (a purge then comes before failure,
//! and [`Shrink`](crate::reclaim::Shrink) offers it to reclaim), or until somebody calls
//! [`Vmalloc::purge`]. What was mapped by [`Vmalloc::map`] is flushed before the call that
//! unmaps it returns: its frames belong to somebody who may pass them on at once.
//!
//! # Contexts
//!
//! Allocation: a thread that may sleep, whatever the flags (page tables are allocated as
//! [`Gfp::KERNEL`]). Freeing: any context. Where it may not sleep the area is put on a list
//! ([`later`]), in its own memory, `kick` is called, and the next thread that comes by (any
//! allocation, free or purge) frees it.
//!
//! # Locks
//!
//! Purge mutex ([`PurgeLock`]), then areas lock ([`Areas`]), then the page allocator's.
//! Nothing is allocated under either, and nothing mapped under the areas lock. The purge
//! mutex is above other sleeping locks, since who holds those may allocate; reclaim only
//! tries it.

mod area;
mod frames;
mod free;
mod later;
mod node;
mod pool;
mod raw;
mod show;
mod source;
mod space;
mod tree;

use core::{fmt, panic::Location, ptr::NonNull};

use platform::{NodeId, lock::SpinLock, lock_class, wait::Mutex};

pub use area::Area;
pub use node::{Kind, Range as RangeState};
pub use show::{AreaInfo, VmStats};
pub use source::Source;

use crate::{
    frame::{PAGE_SIZE, Use},
    gfp::Gfp,
    machine::{Access, Layout, Machine},
    report::{self, Report},
};
use later::List;
use space::Space;

lock_class! {
    /// Whoever purges lazy ranges.
    pub struct PurgeLock = ("vmalloc purge", 39);
    /// The vmalloc address space.
    pub struct Areas = ("vmalloc areas", 40);
}

/// A wish for an area.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Bytes; rounded up to pages.
    pub size: usize,
    /// The area, with the guard below it, begins at a multiple of this: a power of two, and
    /// at least a page.
    pub align: usize,
    /// Pages below the memory that are never mapped.
    pub guard_below: u32,
    /// Pages above it.
    pub guard_above: u32,
    /// How to get the frames.
    pub gfp: Gfp,
    /// Near which node; `None`: that of the CPU.
    pub node: Option<NodeId>,
    /// What the frames are said to be used for.
    pub usage: Use,
    /// What the memory may be used for.
    pub access: Access,
}

impl Request {
    /// `size` bytes to read and write, with a guard page above.
    pub const fn new(size: usize, gfp: Gfp) -> Self {
        Self {
            size,
            align: PAGE_SIZE,
            guard_below: 0,
            guard_above: 1,
            gfp,
            node: None,
            usage: Use::Vmalloc,
            access: Access::ReadWrite,
        }
    }

    /// The same at a multiple of `align` (see [`align`](Self::align)).
    pub const fn aligned(self, align: usize) -> Self {
        Self { align, ..self }
    }

    /// The same with other guards, in pages.
    pub const fn guarded(self, below: u32, above: u32) -> Self {
        Self {
            guard_below: below,
            guard_above: above,
            ..self
        }
    }

    /// The same near a node.
    pub const fn near(self, node: Option<NodeId>) -> Self {
        Self { node, ..self }
    }

    /// The same for another use.
    pub const fn used_for(self, usage: Use) -> Self {
        Self { usage, ..self }
    }
}

/// Why there is no area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No bytes, an alignment that is no power of two, or flags that cannot be met here
    /// ([`Gfp::NOLOCK`]).
    BadRequest,
    /// More than all memory or all addresses.
    TooLarge,
    /// No free addresses.
    NoSpace,
    /// No frames.
    NoMemory,
    /// No memory for page tables.
    NoTables,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadRequest => "a request that cannot be met",
            Self::TooLarge => "more than there is altogether",
            Self::NoSpace => "no free addresses",
            Self::NoMemory => "no free pages",
            Self::NoTables => "no memory for page tables",
        })
    }
}

impl core::error::Error for Error {}

/// Pages that may be lazy on a machine with `cpus` CPUs and `frames` frames of memory: as
/// Linux's, 32 MiB times the CPUs' bits, but at most a 64th of memory, since here lazy pages
/// hold frames.
pub const fn lazy_limit(cpus: usize, frames: u64) -> usize {
    let bits = (usize::BITS - cpus.leading_zeros()) as usize;
    let by_cpus = bits * (32 << 20) / PAGE_SIZE;
    let by_memory = frames / 64;
    if (by_cpus as u64) < by_memory {
        by_cpus
    } else {
        by_memory as usize
    }
}

/// A range of addresses in which areas are mapped. See the module.
pub struct Vmalloc<M: Machine, S: Source> {
    layout: M::Layout,
    source: S,
    space: SpinLock<Space, M, Areas>,
    purging: Mutex<(), M, PurgeLock>,
    /// What was freed where nothing could be done about it.
    later: List,
    /// Called when `later` ceases to be empty.
    kick: fn(),
    /// Lazy pages beyond which there is a purge.
    limit: usize,
}

impl<M: Machine, S: Source> Vmalloc<M, S> {
    /// The range that `layout` names, all of it free. At most `lazy_limit` pages (see
    /// [`lazy_limit`]), or some more for a moment, are lazy. `kick` is called, in any
    /// context, when something was freed that a thread has to take care of; the thread shall
    /// call [`drain`](Self::drain). `None`: no memory.
    pub fn new(layout: M::Layout, source: S, lazy_limit: usize, kick: fn()) -> Option<Self> {
        let vmalloc = Self {
            layout,
            source,
            space: SpinLock::new(Space::new()),
            purging: Mutex::new(()),
            later: List::new(),
            kick,
            limit: lazy_limit,
        };
        vmalloc.add_descriptors(Gfp::KERNEL).ok()?;
        let range = layout.vmalloc();
        vmalloc.space.lock().begin(range)?;
        Some(vmalloc)
    }

    /// Where the frames come from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Whether `address` is one of the range, mapped or not. Any context.
    pub fn is_vmalloc(&self, address: usize) -> bool {
        self.layout.vmalloc().contains(&address)
    }

    /// Gets a page of descriptors. No lock held.
    fn add_descriptors(&self, gfp: Gfp) -> Result<(), Error> {
        let gfp = gfp.difference(Gfp::ZERO | Gfp::DMA32 | Gfp::THISNODE) | Gfp::NOWARN;
        let pfn = self
            .source
            .alloc(None, gfp, 0, Use::Meta)
            .ok_or(Error::NoMemory)?;
        // The direct map does not begin at 0.
        let memory = NonNull::new(self.source.address_of(pfn)).ok_or(Error::NoMemory)?;
        // SAFETY: the page was just allocated; `free_retired` frees it when the pool has
        // named it.
        unsafe { self.space.lock().pool.add(memory, pfn) };
        self.free_retired();
        Ok(())
    }

    /// Frees pages of descriptors that are not needed any more.
    fn free_retired(&self) {
        loop {
            let retired = self.space.lock().pool.retired();
            let Some(pfn) = retired else { return };
            // SAFETY: allocated in `add_descriptors`, and nobody's since the pool named it.
            unsafe { self.source.free(pfn, 0, Use::Meta) };
        }
    }

    /// Says that an allocation failed, unless its flags say not to.
    fn failed(&self, size: usize, gfp: Gfp, error: Error, caller: &'static Location<'static>) {
        if !gfp.intersects(Gfp::NOWARN | Gfp::NOLOCK) {
            M::memory_report(&Report {
                kind: report::Kind::OutOfMemory,
                frame: None,
                details: format_args!("vmalloc of {size} bytes ({gfp}): {error}"),
                caller: Some(caller),
                owner: None,
            });
        }
    }

    /// Says that an address was freed that cannot be.
    fn bad_free(
        &self,
        address: usize,
        what: impl fmt::Display,
        caller: &'static Location<'static>,
    ) {
        M::memory_report(&Report {
            kind: report::Kind::BadVmallocAddress,
            frame: None,
            details: format_args!("{address:#x}: {what}"),
            caller: Some(caller),
            owner: None,
        });
    }
}

impl<M: Machine, S: Source> Drop for Vmalloc<M, S> {
    /// Flushes, and gives back all frames but those of areas that were never freed.
    fn drop(&mut self) {
        self.purge();
        self.space.lock().end();
        self.free_retired();
    }
}

impl<M: Machine, S: Source> fmt::Debug for Vmalloc<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vmalloc")
            .field("range", &self.layout.vmalloc())
            .finish_non_exhaustive()
    }
}
