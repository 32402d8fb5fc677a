//! The memory that each CPU has for itself.
//!
//! Every possible CPU has a window of addresses. It begins with the CPU's copy of the static
//! data ([`percpu`]); behind that lies what is taken and given back at run time
//! ([`mm::percpu`], which has the protocol), at the same distance on each CPU, so an address
//! in it is used like that of a static: `gs:[address]` is the own CPU's.
//!
//! All memory of a window is of the CPU's node, as far as that has some. The first chunk is
//! mapped together with the static data, before the boot CPU needs its copy, and for ever;
//! others are mapped and unmapped a page at a time in all windows. The end of what is mapped
//! is followed by what is not, so running over an end of the last chunk faults.

use core::{alloc::Layout, fmt, ops::Range, ptr::NonNull, sync::atomic::Ordering};

use arrayvec::ArrayVec;
use kernel_early::layout::{PAGE_SIZE, PERCPU, PERCPU_WINDOW, page_down};
use mm::{
    Gfp, Machine, Pfn, Use,
    percpu::{Backing, NoMemory, PerCpuMemory, Stats, UNIT},
    reclaim::{Shrink, Wanted},
    report::Report,
};
use platform::{CpuId, CpuMask, MAX_CPUS, PerCpuAddr, Platform};

use crate::{
    arch::{paging, paging::Access, percpu},
    machine::Kernel,
    memory::{self, Purpose, mm},
    smp,
};

/// Room for the static data in a window.
const STATIC_MAX: u64 = 256 * 1024;
const UNIT_PAGES: usize = UNIT / PAGE_SIZE as usize;
const CHUNKS: usize = ((PERCPU_WINDOW - STATIC_MAX) / UNIT as u64) as usize;
/// The alignment of the copies, and so that of the first allocation.
const STATIC_ALIGN: usize = 64;

static MEMORY: PerCpuMemory<Kernel, Windows, CHUNKS> = PerCpuMemory::new(Windows);

const _: () = assert!(
    PERCPU.is_multiple_of(1 << 39) && MAX_CPUS as u64 * PERCPU_WINDOW <= 1 << 39,
    "windows lie in one entry of the top table"
);

/// Where the window of `cpu` begins.
fn window(cpu: CpuId) -> u64 {
    PERCPU + cpu.index() as u64 * PERCPU_WINDOW
}

/// How far into a window offset 0 is: in the page where the static data end, so that the
/// rest of that page is not wasted.
fn base() -> u64 {
    let (_, len) = percpu::template();
    page_down(len as u64)
}

/// The address of an offset, as that of a static in the template would be.
fn address_of(offset: usize) -> usize {
    percpu::template().0 + base() as usize + offset
}

/// Where an offset is in the window of `cpu`.
fn place(cpu: CpuId, offset: usize) -> u64 {
    window(cpu) + base() + offset as u64
}

/// Maps the static part and the first chunk of the window of `cpu`. `None`: no memory.
pub fn map_first(cpu: CpuId) -> Option<NonNull<u8>> {
    let len = base() + UNIT as u64;
    assert!(base() + UNIT as u64 <= STATIC_MAX, "too much static data");
    let phys = memory::take_pages(len / PAGE_SIZE, Purpose::PerCpu, Some(cpu))?;
    paging::map_memory(window(cpu), phys, len).ok()?;
    NonNull::new(window(cpu) as *mut u8)
}

/// The first chunk is mapped on all possible CPUs: from here on memory can be had.
pub fn start() {
    let (_, len) = percpu::template();
    MEMORY.start(len.next_multiple_of(STATIC_ALIGN) - base() as usize);
}

/// Zeroed memory on every possible CPU. `None`: there is none, or more is wanted than a chunk
/// has, or the alignment is beyond that of a page. Where the caller may sleep it may sleep;
/// else it does with what is mapped. Any context but NMI.
#[track_caller]
pub fn alloc(layout: Layout) -> Option<PerCpuAddr> {
    let offset = if Kernel::may_sleep() {
        MEMORY.alloc(layout)
    } else {
        MEMORY.alloc_atomic(layout)
    }?;
    Some(PerCpuAddr(address_of(offset)))
}

/// Gives memory back. A wrong free is reported and refused. Any context but NMI; where the
/// caller may sleep it may sleep.
///
/// # Safety
///
/// Nobody uses it any more.
#[track_caller]
pub unsafe fn free(addr: PerCpuAddr, layout: Layout) {
    // What lies before offset 0 becomes an offset beyond all.
    let offset = addr.0.wrapping_sub(address_of(0));
    // SAFETY: as the caller promises.
    unsafe { MEMORY.free(offset, layout) };
}

/// Gives unused chunks back. How many pages became free, of all CPUs together. May sleep.
pub fn trim() -> u64 {
    MEMORY.trim() as u64 * smp::cpus().count() as u64
}

/// Figures, of each CPU.
pub fn stats() -> Stats {
    MEMORY.stats()
}

/// Figures, if the accounts agree; else a text that says where not. For tests.
pub fn audit() -> Result<Stats, mm::percpu::Inconsistent> {
    MEMORY.audit()
}

/// Bytes of memory that CPUs have for themselves, all together: `Percpu:` of `meminfo`.
pub fn total_bytes() -> u64 {
    let each = base() + UNIT as u64 + MEMORY.stats().pages as u64 * PAGE_SIZE;
    each * smp::cpus().count() as u64
}

/// The line of `mem`.
pub struct Summary;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = stats();
        write!(
            f,
            "{:>12} bytes of {} used on each CPU, {} allocations, {} chunks; {} KiB in all",
            stats.used,
            stats.populated,
            stats.allocations,
            stats.chunks,
            total_bytes() >> 10
        )
    }
}

/// Gives the chunk that is kept back when memory is short.
struct Spare;

impl Shrink for Spare {
    fn name(&self) -> &'static str {
        "per-CPU memory"
    }

    fn count(&self) -> u64 {
        (stats().empty * UNIT_PAGES * smp::cpus().count()) as u64
    }

    fn scan(&self, _: Wanted) -> u64 {
        trim()
    }
}

/// Has spare memory given back when memory is short. Once, when threads run.
pub fn register_shrinker() {
    let registered = mm().register_shrinker(&Spare);
    registered.expect("there is room for the first shrinkers");
}

/// The windows as what lies behind the offsets.
struct Windows;

impl Windows {
    /// What pages are asked for with: what is reclaimed is reclaimed without the growth mutex.
    const GFP: Gfp = Gfp::NOWAIT;

    /// Maps a page for each of `offsets` in the window of `cpu`.
    fn populate_on(cpu: CpuId, offsets: &Range<usize>) -> Result<(), NoMemory> {
        let node = Kernel::node_of(cpu);
        let mut pages = ArrayVec::<Pfn, UNIT_PAGES>::new();
        let mut missing = offsets.len() / PAGE_SIZE as usize;
        while missing > 0
            && let Some(page) = mm().alloc_pages_node(node, Self::GFP, 0, Use::PerCpu)
        {
            pages.push(page);
            missing -= 1;
        }
        let start = place(cpu, offsets.start);
        let mut frames = pages.iter().map(|page| page.phys());
        if missing == 0 && paging::map_frames(start, &mut frames, Access::ReadWrite).is_ok() {
            return Ok(());
        }
        for page in pages {
            // SAFETY: allocated above; no window shows it (any more).
            unsafe { mm().free_pages(page, 0, Use::PerCpu) };
        }
        Err(NoMemory)
    }

    /// Unmaps these offsets in the windows of `cpus`, in which they are populated, and gives
    /// the pages back.
    fn depopulate_on(cpus: CpuMask, offsets: &Range<usize>) {
        // The pages are free only when no CPU can reach them: until then they are a chain,
        // through the word of their descriptors that is for the owner.
        let mut chain = None::<Pfn>;
        for cpu in cpus {
            for offset in offsets.clone().step_by(PAGE_SIZE as usize) {
                let mapping = paging::lookup(place(cpu, offset));
                let phys = mapping.expect("per-CPU memory is mapped").phys;
                let page = Pfn::of_phys(phys).expect("pages have numbers");
                let tag = chain.map_or(NO_PAGE, |next| next.0);
                frame(page).tag.store(tag, Ordering::Relaxed);
                chain = Some(page);
            }
            paging::clear(place(cpu, offsets.start), offsets.len() as u64);
        }
        if chain.is_none() {
            return;
        }
        // One call for all windows; CPUs drop everything.
        smp::flush_tlb(PERCPU, MAX_CPUS as u64 * PERCPU_WINDOW);
        while let Some(page) = chain {
            let next = frame(page).tag.load(Ordering::Relaxed);
            chain = (next != NO_PAGE).then_some(Pfn(next));
            // SAFETY: allocated by `populate_on`, and mapped nowhere any more.
            unsafe { mm().free_pages(page, 0, Use::PerCpu) };
        }
    }
}

/// The end of a chain of pages: no frame has this number.
const NO_PAGE: u32 = u32::MAX;

fn frame(page: Pfn) -> &'static mm::Frame {
    let frame = mm().frames().get(page);
    frame.expect("an allocated page has a descriptor")
}

// SAFETY: `populate` maps fresh pages of its own in every possible CPU's window, and the first
// chunk was mapped by `map_first` before `start`; allocated pages are nobody else's, and the
// physical map shows them.
unsafe impl Backing for Windows {
    fn populate(&self, offsets: Range<usize>) -> Result<(), NoMemory> {
        let mut done = CpuMask::EMPTY;
        for cpu in smp::cpus() {
            if let Err(error) = Self::populate_on(cpu, &offsets) {
                Self::depopulate_on(done, &offsets);
                return Err(error);
            }
            done = done.with(cpu);
        }
        Ok(())
    }

    unsafe fn depopulate(&self, offsets: Range<usize>) {
        Self::depopulate_on(smp::cpus(), &offsets);
    }

    unsafe fn clear(&self, offsets: Range<usize>) {
        for cpu in smp::cpus() {
            let start = place(cpu, offsets.start) as *mut u8;
            // SAFETY: mapped, and the caller's.
            unsafe { start.write_bytes(0, offsets.len()) };
        }
    }

    fn alloc_meta(&self) -> Option<NonNull<u8>> {
        let page = mm().alloc_pages(Self::GFP, 0, Use::Meta)?;
        NonNull::new(mm().frames().address_of(page))
    }

    unsafe fn free_meta(&self, page: NonNull<u8>) {
        let page = mm().frames().pfn_of_address(page.addr().get());
        let page = page.expect("the page came from the page allocator");
        // SAFETY: allocated by `alloc_meta`, and nobody uses it any more.
        unsafe { mm().free_pages(page, 0, Use::Meta) };
    }

    fn reclaim(&self) -> bool {
        let wanted = Wanted {
            frames: (UNIT_PAGES * smp::cpus().count() + 1) as u64,
            gfp: Gfp::KERNEL,
        };
        mm().reclaim(wanted).is_some_and(|freed| freed > 0)
    }

    fn report(&self, report: &Report<'_>) {
        Kernel::memory_report(report);
    }
}
