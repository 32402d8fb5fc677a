//! Memory of the host behind the offsets, which knows what of it is populated.

use std::{
    alloc::Layout,
    collections::BTreeSet,
    ops::Range,
    ptr::NonNull,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use mm::{
    percpu::{Backing, Inconsistent, NoMemory, PerCpuMemory, Stats, UNIT},
    report::{Kind, Report},
};
use platform::{
    CpuId, Platform,
    hosted::{Hosted, Machine},
};

pub const PAGE: usize = 4096;
/// Chunks of the allocators that are tested.
pub const CHUNKS: usize = 6;
/// What fresh memory is full of.
const FRESH: u8 = 0xaa;
/// What memory is full of that was given back.
const GONE: u8 = 0x55;

/// The allocator on memory of the host.
pub type Memory = PerCpuMemory<Hosted, HostMemory, CHUNKS>;

pub struct HostMemory {
    /// A window for each possible CPU.
    windows: Vec<NonNull<u8>>,
    state: Mutex<State>,
    /// This many requests for a page can be served.
    pub pages_left: AtomicUsize,
    /// What a reclaim adds to that, once.
    pub reclaimable: AtomicUsize,
    pub reports: Mutex<Vec<String>>,
    /// Called once, in the middle of a populate: what another CPU does meanwhile.
    pub in_populate: Mutex<Option<Hook>>,
    /// Called once, in a reclaim.
    pub in_reclaim: Mutex<Option<Hook>>,
}

pub type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    /// Numbers of pages, the first chunk's excluded.
    populated: BTreeSet<usize>,
    meta: BTreeSet<usize>,
    pages: usize,
}

// SAFETY: the windows are plain memory, handed out in pieces by the allocator.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

const WINDOW: Layout = match Layout::from_size_align(CHUNKS * UNIT, PAGE) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};
const META: Layout = match Layout::from_size_align(PAGE, PAGE) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

impl HostMemory {
    /// For a machine with so many possible CPUs.
    pub fn new(cpus: usize) -> Self {
        let window = |_| {
            // SAFETY: not of size 0.
            let window = NonNull::new(unsafe { std::alloc::alloc(WINDOW) }).unwrap();
            // SAFETY: as long as the window.
            unsafe { window.write_bytes(FRESH, WINDOW.size()) };
            window
        };
        Self {
            windows: (0..cpus).map(window).collect(),
            state: Mutex::default(),
            pages_left: AtomicUsize::new(usize::MAX),
            reclaimable: AtomicUsize::new(0),
            reports: Mutex::default(),
            in_populate: Mutex::default(),
            in_reclaim: Mutex::default(),
        }
    }

    fn take_page(&self, state: &mut State) -> Result<(), NoMemory> {
        let take = |left: usize| left.checked_sub(1);
        self.pages_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .map_err(|_| NoMemory)?;
        state.pages += 1;
        Ok(())
    }

    fn give_page(&self, state: &mut State) {
        state.pages -= 1;
        self.pages_left.fetch_add(1, Ordering::Relaxed);
    }

    /// Pages that are in use, of all CPUs and for the allocator itself.
    pub fn pages(&self) -> usize {
        self.state.lock().unwrap().pages
    }

    /// The byte at an offset, which has to be populated.
    pub fn at(&self, cpu: CpuId, offset: usize) -> *mut u8 {
        let populated = offset < UNIT
            || self
                .state
                .lock()
                .unwrap()
                .populated
                .contains(&(offset / PAGE));
        assert!(populated, "offset {offset:#x} is used, but not populated");
        // SAFETY: within the window.
        unsafe { self.windows[cpu.index()].add(offset).as_ptr() }
    }

    /// Every byte of an allocation on every CPU.
    pub fn write(&self, offsets: Range<usize>, tag: u8) {
        for (cpu, _) in self.each() {
            let start = self.at(cpu, offsets.start);
            // SAFETY: an allocation of the test's.
            unsafe { start.write_bytes(tag.wrapping_add(cpu.index() as u8), offsets.len()) };
        }
    }

    /// Checks what `write` wrote.
    pub fn check(&self, offsets: Range<usize>, tag: u8) {
        for (cpu, _) in self.each() {
            self.check_on(cpu, offsets.clone(), tag.wrapping_add(cpu.index() as u8));
        }
    }

    pub fn check_zero(&self, offsets: Range<usize>) {
        for (cpu, _) in self.each() {
            self.check_on(cpu, offsets.clone(), 0);
        }
    }

    fn check_on(&self, cpu: CpuId, offsets: Range<usize>, wanted: u8) {
        let start = self.at(cpu, offsets.start);
        // SAFETY: an allocation of the test's.
        let bytes = unsafe { std::slice::from_raw_parts(start, offsets.len()) };
        let wrong = bytes.iter().position(|byte| *byte != wanted);
        assert_eq!(wrong, None, "in {offsets:x?} of cpu{cpu}: not {wanted:#x}");
    }

    fn each(&self) -> impl Iterator<Item = (CpuId, NonNull<u8>)> + '_ {
        let cpu = |index| CpuId::new(index as u32).unwrap();
        (self.windows.iter().enumerate()).map(move |(index, window)| (cpu(index), *window))
    }
}

// SAFETY: the windows are memory all the time; pages are the host's.
unsafe impl Backing for HostMemory {
    fn populate(&self, offsets: Range<usize>) -> Result<(), NoMemory> {
        assert!(Hosted::may_sleep(), "populates where it may not sleep");
        assert!(offsets.start >= UNIT && offsets.end <= WINDOW.size());
        let hook = self.in_populate.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        let mut done = Vec::new();
        for number in offsets.start / PAGE..offsets.end / PAGE {
            for _ in self.each() {
                let state = &mut *self.state.lock().unwrap();
                if self.take_page(state).is_err() {
                    for number in done {
                        state.populated.remove(&number);
                        self.give_page(state);
                    }
                    return Err(NoMemory);
                }
                done.push(number);
            }
            let fresh = self.state.lock().unwrap().populated.insert(number);
            assert!(fresh, "page {number:#x} is populated twice");
            Hosted::mark(platform::Mark::Step);
        }
        for (_, window) in self.each() {
            // SAFETY: within the window, and nobody's but ours.
            unsafe { window.add(offsets.start).write_bytes(FRESH, offsets.len()) };
        }
        Ok(())
    }

    unsafe fn depopulate(&self, offsets: Range<usize>) {
        assert!(Hosted::may_sleep(), "depopulates where it may not sleep");
        assert!(offsets.start >= UNIT);
        for (_, window) in self.each() {
            // SAFETY: as above.
            unsafe { window.add(offsets.start).write_bytes(GONE, offsets.len()) };
        }
        for number in offsets.start / PAGE..offsets.end / PAGE {
            let state = &mut *self.state.lock().unwrap();
            assert!(
                state.populated.remove(&number),
                "page {number:#x} is not populated"
            );
            for _ in self.each() {
                self.give_page(state);
            }
        }
    }

    unsafe fn clear(&self, offsets: Range<usize>) {
        for (cpu, _) in self.each() {
            let last = self.at(cpu, offsets.end - 1);
            let start = self.at(cpu, offsets.start);
            assert_eq!(last.addr() - start.addr(), offsets.len() - 1);
            // SAFETY: the caller's.
            unsafe { start.write_bytes(0, offsets.len()) };
        }
    }

    fn alloc_meta(&self) -> Option<NonNull<u8>> {
        let state = &mut *self.state.lock().unwrap();
        self.take_page(state).ok()?;
        // SAFETY: not of size 0.
        let page = NonNull::new(unsafe { std::alloc::alloc(META) }).unwrap();
        // SAFETY: as long as that.
        unsafe { page.write_bytes(FRESH, PAGE) };
        state.meta.insert(page.addr().get());
        Some(page)
    }

    unsafe fn free_meta(&self, page: NonNull<u8>) {
        let state = &mut *self.state.lock().unwrap();
        assert!(
            state.meta.remove(&page.addr().get()),
            "{page:?} is no meta page"
        );
        self.give_page(state);
        // SAFETY: allocated so.
        unsafe {
            page.write_bytes(GONE, PAGE);
            std::alloc::dealloc(page.as_ptr(), META);
        }
    }

    fn reclaim(&self) -> bool {
        let more = self.reclaimable.swap(0, Ordering::Relaxed);
        self.pages_left.fetch_add(more, Ordering::Relaxed);
        let hook = self.in_reclaim.lock().unwrap().take();
        let called = hook.is_some();
        if let Some(hook) = hook {
            hook();
        }
        more > 0 || called
    }

    fn report(&self, report: &Report<'_>) {
        assert_eq!(report.kind, Kind::BadPerCpuAddress);
        assert!(
            report
                .caller
                .is_some_and(|at| at.file() == file!() || at.file().contains("percpu"))
        );
        self.reports.lock().unwrap().push(report.to_string());
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        for window in &self.windows {
            // SAFETY: allocated so.
            unsafe { std::alloc::dealloc(window.as_ptr(), WINDOW) };
        }
    }
}

pub fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// A machine and an allocator for it, with so many bytes of the first chunk reserved.
pub fn machine(cpus: usize, seed: u64, reserved: usize) -> (Machine, Memory) {
    let machine = Machine::builder()
        .cpus(cpus)
        .possible(cpus + 1)
        .seed(seed)
        .build();
    let memory = Memory::new(HostMemory::new(cpus + 1));
    machine.run(|| memory.start(reserved));
    (machine, memory)
}

/// The figures, checked, and against what the host gave.
pub fn audited(memory: &Memory) -> Result<Stats, Inconsistent> {
    let stats = memory.audit()?;
    let windows = memory.backing().windows.len();
    let wanted = stats.pages * windows + (stats.chunks - 1);
    assert_eq!(memory.backing().pages(), wanted, "{stats:?}");
    Ok(stats)
}

/// How often a long test does something: `full` times with `GRANARY_PERCENT=100`, and `quick`
/// times without the variable.
pub fn rounds(full: usize, quick: usize) -> usize {
    match std::env::var("GRANARY_PERCENT") {
        Ok(percent) => {
            let percent: usize = percent.parse().expect("GRANARY_PERCENT is no number");
            (full * percent / 100).max(1)
        }
        Err(_) => quick,
    }
}
