//! The memory of a hosted machine ([`platform::hosted`]): real memory of the host, so that
//! tests may write to what they allocate.
//!
//! ```
//! # #[cfg(feature = "hosted")] {
//! use mm::{Layout, hosted::Memory};
//!
//! // Two nodes of 16 MiB, the second one behind a hole.
//! let memory = Memory::builder().node(16 << 20).hole(64 << 20).node(16 << 20).build();
//! let [first, second] = memory.pieces() else { panic!() };
//! assert_eq!(second.region.start(), first.region.end() + (64 << 20));
//! let page = (memory.layout().direct_map() as u64 + second.region.start()) as *mut u8;
//! // SAFETY: memory of the machine, which nobody else uses yet.
//! unsafe { page.write(1) };
//! # }
//! ```
//!
//! # What there is
//!
//! | | made of |
//! |---|---|
//! | physical memory | an unnamed file; frames have their place in it by their number, holes take nothing |
//! | the direct map | the file, mapped piece by piece; an access to a hole is a fault of the host |
//! | the frame map | addresses for the descriptors of all frames below the end: zeros that can only be read, and where memory is, fresh zeros that can be written |
//! | the vmalloc range | addresses without access; [`Machine::map`](crate::Machine::map) maps pages of the file there, and [`Machine::unmap`](crate::Machine::unmap) takes the access away |
//!
//! What is touched takes memory of the host, nothing else does, so memory may lie around
//! 4 GiB ([`Builder::start`]), and nodes far apart.
//!
//! # Lifetime
//!
//! A [`HostedLayout`] is plain numbers and does not keep the memory. When the [`Memory`] is
//! dropped the host gets everything back, and addresses that came from it are no memory any
//! more: whatever was made with its layout must be gone by then. In a test, `let memory`
//! stands above the machine and above what uses them. `map`, `unmap` and `flush` with the
//! layout of a dropped memory panic.
//!
//! # Translations
//!
//! The host keeps its own TLBs right, so a forgotten [`Machine::flush`](crate::Machine::flush) would do no harm here.
//! What the processor of a real machine may do is simulated beside: see [`Memory::access`].

mod host;
mod reports;
mod seam;
mod tlb;

use core::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    vec::Vec,
};

use platform::{CpuId, NodeId};

use self::{host::Mappings, tlb::Translations};
use crate::{
    frame::{MAX_FRAMES, Pfn},
    machine::Layout,
    region::Region,
};

pub use reports::{Reports, Said};
pub use seam::called_from;
pub use tlb::Fault;

const PAGE: u64 = crate::PAGE_SIZE;

/// Memory of one node without a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The node.
    pub node: NodeId,
    /// Where it is, by physical addresses: whole pages.
    pub region: Region,
}

/// A machine's memory. See the module's documentation for how long it must live.
#[derive(Debug)]
pub struct Memory(Arc<Inner>);

/// Memory to be.
#[derive(Clone, Debug)]
pub struct Builder {
    next: u64,
    pieces: Vec<Piece>,
    vmalloc_bytes: usize,
}

/// Where the memory of a hosted machine appears: plain numbers.
#[derive(Clone, Copy, Debug)]
pub struct HostedLayout {
    direct_map: usize,
    frame_map: usize,
    vmalloc: (usize, usize),
    /// Which memory.
    id: u64,
}

impl Layout for HostedLayout {
    #[inline(always)]
    fn direct_map(self) -> usize {
        self.direct_map
    }

    #[inline(always)]
    fn frame_map(self) -> usize {
        self.frame_map
    }

    #[inline(always)]
    fn vmalloc(self) -> Range<usize> {
        self.vmalloc.0..self.vmalloc.1
    }
}

/// The next `id`: no two memories of a process have the same.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The memories that there are, by the `id` of their layouts.
static MEMORIES: Mutex<BTreeMap<u64, Weak<Inner>>> = Mutex::new(BTreeMap::new());

fn memories() -> MutexGuard<'static, BTreeMap<u64, Weak<Inner>>> {
    MEMORIES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Inner {
    layout: HostedLayout,
    pieces: Vec<Piece>,
    mappings: Mappings,
    translations: Mutex<Translations>,
}

impl HostedLayout {
    /// The memory that this is the layout of.
    ///
    /// # Panics
    ///
    /// If it was dropped.
    fn memory(self) -> Arc<Inner> {
        let memory = memories().get(&self.id).and_then(Weak::upgrade);
        memory.expect("the memory of this layout was dropped")
    }
}

impl Builder {
    /// Where the next piece begins: a physical address. The first one begins at 16 MiB,
    /// unless said.
    ///
    /// # Panics
    ///
    /// If that is not the address of a page, or not behind the pieces so far.
    #[must_use]
    pub fn start(mut self, address: u64) -> Self {
        assert!(
            address.is_multiple_of(PAGE),
            "{address:#x} is within a page"
        );
        let end = self.pieces.last().map_or(0, |piece| piece.region.end());
        assert!(address >= end, "{address:#x} is below the end of memory");
        self.next = address;
        self
    }

    /// The next piece begins so many bytes further on.
    #[must_use]
    pub fn hole(self, bytes: u64) -> Self {
        let next = self.next + bytes;
        self.start(next)
    }

    /// A further node, with so much memory.
    ///
    /// # Panics
    ///
    /// If that is no number of pages, or there are as many nodes as there can be.
    #[must_use]
    pub fn node(self, bytes: u64) -> Self {
        let number = self.pieces.iter().map(|piece| piece.node.index() + 1).max();
        let node = NodeId::from_index(number.unwrap_or(0)).expect("too many nodes");
        self.piece(node, bytes)
    }

    /// Memory of the node that the last piece belongs to.
    ///
    /// # Panics
    ///
    /// If there is none, or `bytes` is no number of pages.
    #[must_use]
    pub fn more(self, bytes: u64) -> Self {
        let last = self.pieces.last().expect("there is no node yet");
        let node = last.node;
        self.piece(node, bytes)
    }

    /// Memory of any node: nodes may be left out, and take turns.
    ///
    /// # Panics
    ///
    /// If `bytes` is no number of pages, or there is memory where no frame can be.
    #[must_use]
    pub fn piece(mut self, node: NodeId, bytes: u64) -> Self {
        assert!(bytes.is_multiple_of(PAGE), "{bytes} bytes are no pages");
        let region = Region::with_size(self.next, bytes).expect("a piece of memory");
        assert!(
            region.end() / PAGE <= MAX_FRAMES,
            "frames have no numbers up there"
        );
        self.next = region.end();
        self.pieces.push(Piece { node, region });
        self
    }

    /// How large the vmalloc range is. 1 GiB, unless said.
    ///
    /// # Panics
    ///
    /// If that is no number of pages.
    #[must_use]
    pub fn vmalloc_bytes(self, vmalloc_bytes: usize) -> Self {
        assert!(vmalloc_bytes.is_multiple_of(PAGE as usize) && vmalloc_bytes > 0);
        Self {
            vmalloc_bytes,
            ..self
        }
    }

    /// The memory.
    ///
    /// # Panics
    ///
    /// If there is no piece, or the host refuses.
    pub fn build(self) -> Memory {
        let Self {
            pieces,
            vmalloc_bytes,
            ..
        } = self;
        let mappings = Mappings::new(&pieces, vmalloc_bytes).expect("the host gives no memory");
        // Relaxed: only to be different.
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let layout = mappings.layout(id);
        let inner = Arc::new(Inner {
            layout,
            pieces,
            mappings,
            translations: Mutex::new(Translations::new(layout.vmalloc())),
        });
        memories().insert(id, Arc::downgrade(&inner));
        Memory(inner)
    }
}

impl Memory {
    /// Memory to be: no node yet.
    pub fn builder() -> Builder {
        Builder {
            next: 16 << 20,
            pieces: Vec::new(),
            vmalloc_bytes: 1 << 30,
        }
    }

    /// Where it appears.
    pub fn layout(&self) -> HostedLayout {
        self.0.layout
    }

    /// What there is, by ascending address.
    pub fn pieces(&self) -> &[Piece] {
        &self.0.pieces
    }

    /// Frames with numbers below this have descriptors.
    pub fn end(&self) -> Pfn {
        self.0.mappings.end()
    }

    /// What happens when `cpu` accesses the vmalloc address `address`: the frame that it
    /// finds there, which from then on it knows by a translation of its own until that is
    /// flushed. Call it before the access itself.
    ///
    /// # Errors
    ///
    /// [`Fault`]: nothing is mapped there; a guard page, say.
    ///
    /// # Panics
    ///
    /// If the CPU has a translation that is no longer true: it was not flushed, and a real
    /// processor would have accessed memory that is somebody else's. Also, if `address` is no
    /// vmalloc address.
    pub fn access(&self, cpu: CpuId, address: usize) -> Result<Pfn, Fault> {
        self.0.translations().access(cpu, address)
    }

    /// How many pages are mapped in the vmalloc range.
    pub fn mapped_pages(&self) -> usize {
        self.0.translations().mapped()
    }

    /// How many pages were unmapped and not flushed since, so that any CPU may still have
    /// translations of them.
    pub fn stale_pages(&self) -> usize {
        self.0.translations().stale()
    }

    /// The ranges that were flushed since this was last called, in order.
    pub fn take_flushes(&self) -> Vec<Range<usize>> {
        self.0.translations().take_flushes()
    }

    /// From now on as if there were only such a number of page tables: the `nth` call of
    /// [`Machine::map`](crate::Machine::map) from here on (0: the next one) fails, once.
    pub fn fail_map(&self, nth: u64) {
        self.0.translations().fail_map(nth);
    }
}

impl Inner {
    fn translations(&self) -> MutexGuard<'_, Translations> {
        self.translations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, frame: Pfn) -> bool {
        let has = |piece: &Piece| piece.region.contains(frame.phys());
        self.pieces.iter().any(has)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        memories().remove(&self.layout.id);
    }
}
