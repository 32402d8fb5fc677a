//! A machine of one CPU, which is this program's only thread: as cheap as a kernel, so that
//! figures are the allocator's. Hosted machines ([`platform::hosted`]) are for tests: what
//! they do at each lock costs more than an allocation.
//!
//! Memory appears where the layout's constants say, as in the kernel; a CPU's own data is
//! found by one thread-local word, as in the kernel by a segment's base.

mod platform;

use std::{cell::Cell, ops::Range, ptr, sync::OnceLock};

use ::platform::NodeId;
use mm::{
    Block, BlockKind, Config, Mm, PAGE_SIZE, Pfn,
    debug::Debug,
    frame::{Frame, FrameMap},
    machine::{Access, Layout, Machine, NoTables},
    report::Report,
    slab::Slabs,
};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

pub use self::platform::Lone;

/// Where physical memory and the descriptors of frames appear: far from what the host
/// chooses by itself.
const DIRECT_MAP: usize = 0x1000_0000_0000;
const FRAME_MAP: usize = 0x1100_0000_0000;
/// Memory.
const START: u64 = 16 << 20;
const END: u64 = START + (512 << 20);
/// A CPU's own data.
const PERCPU_BYTES: usize = 16 << 20;

/// Where all that is.
#[derive(Clone, Copy, Debug)]
pub struct Constants;

impl Layout for Constants {
    #[inline(always)]
    fn direct_map(self) -> usize {
        DIRECT_MAP
    }

    #[inline(always)]
    fn frame_map(self) -> usize {
        FRAME_MAP
    }

    fn vmalloc(self) -> Range<usize> {
        0..0
    }
}

// SAFETY: nothing is ever mapped.
unsafe impl Machine for Lone {
    type Layout = Constants;

    unsafe fn map(
        _: Constants,
        _: usize,
        _: &mut dyn Iterator<Item = Pfn>,
        _: Access,
    ) -> Result<(), NoTables> {
        Err(NoTables)
    }

    unsafe fn unmap(_: Constants, _: usize, _: usize) {}

    fn flush(_: Constants, _: Range<usize>) {}

    fn backtrace(_: &mut [usize]) -> usize {
        0
    }

    fn memory_report(report: &Report<'_>) {
        eprintln!("{report}");
    }

    fn thread_number() -> u32 {
        0
    }

    #[inline(always)]
    fn node_here() -> NodeId {
        NodeId::FIRST
    }
}

/// Fresh zeros.
fn zeros(at: Option<usize>, bytes: usize) -> usize {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    let (at, flags) = match at {
        Some(at) => (at, flags | MapFlags::FIXED_NOREPLACE),
        None => (0, flags),
    };
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let at = ptr::with_exposed_provenance_mut(at);
    // SAFETY: a new mapping, in the place of no other.
    let mapped = unsafe { mmap_anonymous(at, bytes, access, flags) };
    mapped.expect("the host gives memory").expose_provenance()
}

/// The allocator and what it lies on, for the whole life of the program.
struct World {
    mm: Mm<Lone>,
    slabs: OnceLock<Slabs<Lone>>,
}

/// The machine's slab allocator; the first call starts it. The thread that calls is the CPU.
pub fn slabs() -> &'static Slabs<Lone> {
    thread_local! {
        static SLABS: Cell<Option<&'static Slabs<Lone>>> = const { Cell::new(None) };
    }
    SLABS.get().unwrap_or_else(|| {
        let slabs = start();
        SLABS.set(Some(slabs));
        slabs
    })
}

fn start() -> &'static Slabs<Lone> {
    platform::start(zeros(None, PERCPU_BYTES), PERCPU_BYTES);
    zeros(Some(DIRECT_MAP + START as usize), (END - START) as usize);
    let end = Pfn((END / PAGE_SIZE) as u32);
    zeros(Some(FRAME_MAP), end.index() * size_of::<Frame>());
    let block = Block {
        start: Pfn::of_phys(START).expect("a frame"),
        end,
        node: NodeId::FIRST,
        kind: BlockKind::Free,
    };
    let config = Config {
        min_free: None,
        debug: Debug::off(),
    };
    // SAFETY: memory and descriptors are fresh, and there for ever.
    let mm = unsafe { Mm::new(FrameMap::new(Constants, end), config, [block].into_iter()) };
    let world: &'static World = Box::leak(Box::new(World {
        mm: mm.expect("per-CPU memory"),
        slabs: OnceLock::new(),
    }));
    // SAFETY: both are leaked.
    let slabs = world.slabs.get_or_init(|| unsafe { Slabs::new(&world.mm) });
    // SAFETY: once, and where it stays.
    unsafe { slabs.start() }.expect("memory for the first caches");
    slabs
}
