//! The memory of hosted machines: what is shown where, simulated TLBs, reports.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mm::{
    Layout, Machine as _, Pfn, State,
    frame::FrameMap,
    hosted::{Fault, HostedLayout, Memory, Reports, called_from},
    machine::{Access, NoTables},
    report::{Kind, Report},
};
use platform::{
    CpuId, NodeId, Platform,
    hosted::{Hosted, Machine},
    sync::Ordering::Relaxed,
};

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;

/// What `f` panics with.
fn panic_text(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("should have panicked");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().unwrap().to_string(),
    }
}

fn frames_of(memory: &Memory) -> FrameMap<HostedLayout> {
    // SAFETY: the memory outlives the map in every test here.
    unsafe { FrameMap::new(memory.layout(), memory.end()) }
}

/// Maps frames at the page `page` of the vmalloc range.
fn map(memory: &Memory, page: usize, frames: &[Pfn], access: Access) -> Result<(), NoTables> {
    let virt = memory.layout().vmalloc().start + page * PAGE;
    // SAFETY: pages of tests that nobody else uses; what is wrong in it is to be noticed.
    unsafe { Hosted::map(memory.layout(), virt, &mut frames.iter().copied(), access) }
}

fn unmap(memory: &Memory, page: usize, pages: usize) {
    let virt = memory.layout().vmalloc().start + page * PAGE;
    // SAFETY: as above.
    unsafe { Hosted::unmap(memory.layout(), virt, pages) };
}

fn flush(memory: &Memory, page: usize, pages: usize) {
    let virt = memory.layout().vmalloc().start + page * PAGE;
    Hosted::flush(memory.layout(), virt..virt + pages * PAGE);
}

/// The byte of the vmalloc range at the beginning of page `page`.
fn byte(memory: &Memory, page: usize) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(memory.layout().vmalloc().start + page * PAGE)
}

/// Around 4 GiB, with nodes that take turns, and the same file seen everywhere.
#[test]
fn pieces_holes_and_descriptors() {
    let node = |index| NodeId::from_index(index).unwrap();
    let memory = Memory::builder()
        .start((4 << 30) - 8 * MIB)
        .node(16 * MIB)
        .hole(3 * MIB)
        .piece(node(2), MIB)
        .hole(1 << 30)
        .piece(node(0), 2 * MIB)
        .more(MIB)
        .build();
    let nodes: Vec<_> = memory
        .pieces()
        .iter()
        .map(|piece| piece.node.index())
        .collect();
    assert_eq!(nodes, [0, 2, 0, 0]);
    let last = memory.pieces()[3].region;
    assert_eq!(memory.end().phys(), last.end());

    let frames = frames_of(&memory);
    let in_memory = |pfn: Pfn| {
        let has = |piece: &mm::hosted::Piece| piece.region.contains(pfn.phys());
        memory.pieces().iter().any(has)
    };
    for number in 0..memory.end().0 {
        let pfn = Pfn(number);
        let frame = frames.get(pfn).expect("below the end");
        assert_eq!(frame.word().state(), State::Hole, "{pfn}");
        assert_eq!(frames.pfn_of(frame), pfn);
        if !in_memory(pfn) {
            continue;
        }
        let address = frames.address_of(pfn);
        assert_eq!(frames.pfn_of_address(address.addr() + PAGE - 1), Some(pfn));
        // What belongs to frames can be written.
        frame.tag.store(number, Relaxed);
        // SAFETY: memory that nobody else uses.
        unsafe { address.cast::<u32>().write(number) };
    }
    assert!(frames.get(memory.end()).is_none());
    for number in 0..memory.end().0 {
        if in_memory(Pfn(number)) {
            let frame = frames.get(Pfn(number)).unwrap();
            assert_eq!(frame.tag.load(Relaxed), number);
            // SAFETY: as above.
            let read = unsafe { frames.address_of(Pfn(number)).cast::<u32>().read() };
            assert_eq!(read, number);
        }
    }
}

/// Hundreds of machines come and go; the host gets back what they had.
#[test]
fn memory_is_given_back() {
    let maps = || std::fs::read_to_string("/proc/self/maps").unwrap();
    for _ in 0..300 {
        let memory = Memory::builder().node(MIB).hole(MIB).node(MIB).build();
        let frames = frames_of(&memory);
        for piece in memory.pieces() {
            let first = Pfn::of_phys(piece.region.start()).unwrap();
            // SAFETY: memory that nobody else uses.
            unsafe { frames.address_of(first).write_bytes(7, PAGE) };
        }
    }
    let left = maps()
        .lines()
        .filter(|line| line.contains("granary-memory"))
        .count();
    // Those of the tests that run beside this one.
    assert!(left < 100, "{left} mappings are left");
}

/// A layout does not keep its memory, and says so.
#[test]
fn a_layout_without_memory() {
    let layout = Memory::builder().node(MIB).build().layout();
    let _other = Memory::builder().node(MIB).build();
    let machine = Machine::builder().build();
    machine.run(|| {
        let text = panic_text(|| Hosted::flush(layout, layout.vmalloc()));
        assert!(text.contains("memory of this layout was dropped"), "{text}");
    });
}

/// What is written in one place is read in the other.
#[test]
fn mapped_frames_are_the_memory() {
    let memory = Memory::builder().node(MIB).build();
    let frames = frames_of(&memory);
    let first = Pfn::of_phys(memory.pieces()[0].region.start()).unwrap();
    // Neighbours in another order, and one twice.
    let shown = [3, 4, 5, 1, 0, 9, 3].map(|number| first.add(number));
    Machine::builder().build().run(|| {
        map(&memory, 10, &shown, Access::ReadWrite).unwrap();
        assert_eq!(memory.mapped_pages(), 7);
        for (index, frame) in shown.iter().enumerate() {
            // SAFETY: mapped, and nobody else's.
            unsafe { byte(&memory, 10 + index).write(index as u8 + 1) };
            // SAFETY: the test's own memory.
            let seen = unsafe { frames.address_of(*frame).read() };
            assert_eq!(seen, index as u8 + 1);
        }
        // SAFETY: mapped. It is the frame that was written last.
        assert_eq!(unsafe { byte(&memory, 10).read() }, 7);
        unmap(&memory, 10, 3);
        unmap(&memory, 13, 4);
        assert_eq!((memory.mapped_pages(), memory.stale_pages()), (0, 7));
        flush(&memory, 0, 15);
        assert_eq!(memory.stale_pages(), 2);
        flush(&memory, 15, 2);
        assert_eq!(memory.stale_pages(), 0);
        assert_eq!(memory.take_flushes().len(), 2);
        map(&memory, 10, &shown[..1], Access::Read).unwrap();
        unmap(&memory, 10, 1);
    });
}

/// A CPU that accessed a page keeps its translation until it is flushed, and is caught if it
/// uses it; one that did not access it sees what is there.
#[test]
fn stale_translations_are_caught() {
    let memory = Memory::builder().node(MIB).build();
    let first = Pfn::of_phys(memory.pieces()[0].region.start()).unwrap();
    let at = memory.layout().vmalloc().start + 5 * PAGE + 17;
    let (zero, one) = (CpuId::BOOT, CpuId::new(1).unwrap());
    Machine::builder().cpus(2).build().run(|| {
        assert_eq!(memory.access(zero, at), Err(Fault));
        map(&memory, 5, &[first], Access::ReadWrite).unwrap();
        assert_eq!(memory.access(zero, at), Ok(first));
        assert_eq!(memory.access(zero, at + PAGE), Err(Fault));
        unmap(&memory, 5, 1);
        assert_eq!(memory.access(one, at), Err(Fault));
        let text = panic_text(|| _ = memory.access(zero, at));
        assert!(text.contains("by a translation from before"), "{text}");
        flush(&memory, 5, 1);
        assert_eq!(memory.access(zero, at), Err(Fault));
        // A flush of the neighbour is none.
        map(&memory, 5, &[first], Access::ReadWrite).unwrap();
        assert_eq!(memory.access(one, at), Ok(first));
        unmap(&memory, 5, 1);
        flush(&memory, 6, 1);
        let text = panic_text(|| _ = memory.access(one, at));
        assert!(text.contains("by a translation from before"), "{text}");
    });
}

/// What the contract of `map`, `unmap` and `flush` forbids.
#[test]
fn wrong_mappings_are_refused() {
    let memory = Memory::builder().node(MIB).hole(MIB).more(MIB).build();
    let first = Pfn::of_phys(memory.pieces()[0].region.start()).unwrap();
    let says = |needle: &str, f: &dyn Fn()| {
        let text = panic_text(f);
        assert!(text.contains(needle), "{text}");
    };
    let rw = |page, frame| map(&memory, page, &[frame], Access::ReadWrite).unwrap();
    Machine::builder().build().run(|| {
        rw(1, first);
        says("is mapped already", &|| rw(1, first));
        says("is not mapped", &|| unmap(&memory, 2, 1));
        unmap(&memory, 1, 1);
        says("is not mapped", &|| unmap(&memory, 1, 1));
        says("unmapped and not flushed", &|| rw(1, first));
        says("is no memory", &|| rw(3, first.add(256)));
        says("not in the vmalloc range", &|| rw(1 << 18, first));
        says("preemption or interrupts off", &|| {
            let _pinned = platform::Preempt::<Hosted>::disable();
            flush(&memory, 1, 1);
        });
        // Nothing was changed by what was refused.
        assert_eq!((memory.mapped_pages(), memory.stale_pages()), (0, 1));
    });
}

/// The n-th mapping fails, if asked, and leaves nothing.
#[test]
fn mappings_fail_when_asked() {
    let memory = Memory::builder().node(MIB).build();
    let first = Pfn::of_phys(memory.pieces()[0].region.start()).unwrap();
    Machine::builder().build().run(|| {
        memory.fail_map(1);
        map(&memory, 0, &[first], Access::ReadWrite).unwrap();
        let failed = map(&memory, 1, &[first, first], Access::ReadWrite);
        assert_eq!(failed, Err(NoTables));
        assert_eq!((memory.mapped_pages(), memory.stale_pages()), (1, 0));
        map(&memory, 1, &[first, first], Access::ReadWrite).unwrap();
        unmap(&memory, 0, 3);
    });
}

fn report(kind: Kind) {
    Hosted::memory_report(&Report {
        kind,
        frame: Some(Pfn(5)),
        details: format_args!("planted"),
        caller: None,
        owner: None,
    });
}

/// Reports go to their machine, in NMI too; one that nobody expected fails it.
#[test]
fn reports_are_kept_by_their_machine() {
    let (one, other) = (Machine::builder().build(), Machine::builder().build());
    one.run(|| report(Kind::DoubleFree));
    assert!(Reports::of(&other).take().is_empty());
    let said = Reports::of(&one).expect(Kind::DoubleFree);
    assert_eq!(
        said.text,
        "double free of pages: frame 0x5 at 0x5000: planted"
    );
    {
        let _nmi = one.on_nmi(1, || report(Kind::Poison));
        one.run(|| Hosted::mark(platform::Mark::Step));
    }
    assert!(Reports::of(&one).take().len() > 1);
    one.run(|| {
        report(Kind::OutOfMemory);
        let text = panic_text(|| drop(Reports::here().expect(Kind::Foreign)));
        assert!(text.contains("instead of Foreign"), "{text}");
        report(Kind::Foreign);
    });
    let text = panic_text(|| drop(one));
    assert!(text.contains("free of what was never allocated"), "{text}");
}

/// Backtraces are what a test says.
#[test]
fn stacks_are_what_tests_say() {
    let mut stack = [0; 4];
    assert_eq!(Hosted::backtrace(&mut stack), 0);
    let shown = called_from(1, || called_from(2, || Hosted::backtrace(&mut stack)));
    assert_eq!((shown, stack), (2, [2, 1, 0, 0]));
    let mut short = [0; 1];
    assert_eq!(called_from(3, || Hosted::backtrace(&mut short)), 1);
    Machine::builder().build().run(|| {
        let number = Hosted::thread_number();
        assert_eq!(number, Hosted::thread_number());
        let other = Machine::builder().build();
        drop(other);
        assert_ne!(number, 0);
    });
}
