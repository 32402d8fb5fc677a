//! A machine with memory, a page allocator that can be made to fail, and a vmalloc range.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

use mm::{
    Block, BlockKind, Config, Frame, Gfp, Mm, Pfn, Use,
    debug::Debug,
    frame::{FrameMap, PAGE_SIZE},
    hosted::Memory,
    vmalloc::{Source, Vmalloc},
};
use platform::{
    NodeId,
    hosted::{Hosted, Machine},
};

/// A page allocator in front of [`Mm`]: counts, fails when asked, and looks at what comes
/// back.
pub struct Frames<'m> {
    pub mm: &'m Mm<Hosted>,
    pub memory: &'m Memory,
    /// Allocations until one fails; `u64::MAX`: none does.
    pub fail_in: AtomicU64,
    /// Blocks of several frames are refused.
    pub no_blocks: AtomicBool,
    /// Blocks allocated and not freed.
    pub out: AtomicUsize,
    /// Nobody else maps or unmaps: frames of areas come back only when nothing is stale.
    pub alone: bool,
}

// SAFETY: what `Mm` promises.
unsafe impl Source for Frames<'_> {
    fn alloc(&self, node: Option<NodeId>, gfp: Gfp, order: usize, usage: Use) -> Option<Pfn> {
        let left = |left: u64| (left != u64::MAX).then(|| left.wrapping_sub(1));
        if order > 0 && self.no_blocks.load(SeqCst) {
            return None;
        }
        if self.fail_in.fetch_update(SeqCst, SeqCst, left) == Ok(0) {
            return None;
        }
        let pfn = self.mm.alloc(node, gfp, order, usage)?;
        self.out.fetch_add(1, SeqCst);
        Some(pfn)
    }

    unsafe fn free(&self, pfn: Pfn, order: usize, usage: Use) {
        let frame = self.mm.frames().get(pfn).unwrap();
        let virt = frame.extra.swap(0, SeqCst);
        // What was given to somebody (see `claim_frames`) was mapped: no CPU may know it.
        assert!(
            !(self.alone && virt != 0) || self.memory.stale_pages() == 0,
            "frame {pfn} comes back before a flush"
        );
        self.out.fetch_sub(1, SeqCst);
        // SAFETY: as the caller promises.
        unsafe { self.mm.free_pages(pfn, order, usage) };
    }

    fn frame(&self, pfn: Pfn) -> Option<&Frame> {
        self.mm.frames().get(pfn)
    }

    fn address_of(&self, pfn: Pfn) -> *mut u8 {
        self.mm.frames().address_of(pfn)
    }

    fn block_at(&self, address: usize) -> Option<(Pfn, usize, Use)> {
        self.mm.block_at(address)
    }

    fn total(&self) -> u64 {
        self.mm.total()
    }
}

/// The range under test.
pub type Range<'m> = Vmalloc<Hosted, Frames<'m>>;

/// An area of it.
pub type Area<'v, 'm> = mm::vmalloc::Area<'v, Hosted, Frames<'m>>;

/// What a test has.
pub struct World<'m> {
    pub machine: &'m Machine,
    pub memory: &'m Memory,
    pub vmalloc: Range<'m>,
}

/// What a machine shall be.
#[derive(Clone, Copy)]
pub struct Shape {
    pub cpus: usize,
    pub pages: usize,
    pub range_pages: usize,
    pub lazy_limit: usize,
    pub alone: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            cpus: 2,
            pages: 4096,
            range_pages: 1024,
            lazy_limit: 64,
            alone: true,
        }
    }
}

/// Makes a machine and runs `f` on CPU 0 with it. Afterwards all must be back: frames,
/// addresses, descriptors.
pub fn run(shape: Shape, f: impl FnOnce(&World<'_>)) {
    let memory = Memory::builder()
        .node((shape.pages * PAGE_SIZE) as u64)
        .vmalloc_bytes(shape.range_pages * PAGE_SIZE)
        .build();
    let machine = Machine::builder().cpus(shape.cpus).build();
    machine.run(|| {
        let blocks = memory.pieces().iter().map(|piece| Block {
            start: Pfn::of_phys(piece.region.start()).unwrap(),
            end: Pfn::of_phys(piece.region.end()).unwrap(),
            node: piece.node,
            kind: BlockKind::Free,
        });
        let config = Config {
            min_free: Some(16),
            debug: Debug::off(),
        };
        // SAFETY: all of the memory has descriptors of its own and is free, and it outlives
        // the allocator.
        let map = unsafe { FrameMap::new(memory.layout(), memory.end()) };
        // SAFETY: as above.
        let mm = unsafe { Mm::new(map, config, blocks) }.unwrap();
        let before = mm.counts().free_frames();
        let frames = Frames {
            mm: &mm,
            memory: &memory,
            fail_in: AtomicU64::new(u64::MAX),
            no_blocks: AtomicBool::new(false),
            out: AtomicUsize::new(0),
            alone: shape.alone,
        };
        let vmalloc = Vmalloc::new(memory.layout(), frames, shape.lazy_limit, || ()).unwrap();
        let world = World {
            machine: &machine,
            memory: &memory,
            vmalloc,
        };
        f(&world);
        world.assert_empty();
        drop(world);
        assert_eq!(memory.mapped_pages(), 0);
        mm.drain_all();
        assert_eq!(mm.counts().free_frames(), before, "frames are lost");
        mm.audit().unwrap();
    });
}

impl World<'_> {
    pub fn frames(&self) -> &Frames<'_> {
        self.vmalloc.source()
    }

    /// Everything is back: the range is one free piece again.
    pub fn assert_empty(&self) {
        self.vmalloc.purge();
        self.vmalloc.check().unwrap();
        let stats = self.vmalloc.stats();
        assert_eq!((stats.areas, stats.mapped), (0, 0));
        assert_eq!((stats.lazy, stats.held), (0, 0));
        assert_eq!(stats.largest_free, stats.total, "free ranges did not merge");
        // One page with the descriptor of the whole range, one that is kept.
        assert!(stats.descriptors <= 2, "{stats:?}");
        assert_eq!(self.frames().out.load(SeqCst), stats.descriptors);
        assert_eq!(self.memory.stale_pages(), 0);
    }
}

/// Marks the frames of an area as mapped, for [`Frames::free`].
pub fn claim_frames(area: &Area<'_, '_>, world: &World<'_>) {
    for pfn in area.frames() {
        let frame = world.frames().frame(pfn).unwrap();
        frame.extra.store(1, SeqCst);
    }
}
