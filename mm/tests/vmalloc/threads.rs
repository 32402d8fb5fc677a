//! Many CPUs at once. A CPU that uses a translation from before a flush fails the machine
//! ([`mm::hosted::Memory::access`]).

use mm::{
    Gfp, Pfn, Use,
    frame::PAGE_SIZE,
    machine::Access,
    vmalloc::{Request, Source, Vmalloc},
};
use platform::{
    CpuId, Platform,
    hosted::{Hosted, Machine},
};

/// A generator; any will do.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Areas are made, read by every CPU in turn, and freed, some by others than who made them.
#[test]
fn areas_from_all_cpus() {
    let rounds: usize = std::env::var("GRANARY_ROUNDS").map_or(300, |text| text.parse().unwrap());
    let memory = mm::hosted::Memory::builder()
        .node(8 << 20)
        .vmalloc_bytes(2 << 20)
        .build();
    let machine = Machine::builder().cpus(4).build();
    let mm = machine.run(|| {
        let blocks = memory.pieces().iter().map(|piece| mm::Block {
            start: Pfn::of_phys(piece.region.start()).unwrap(),
            end: Pfn::of_phys(piece.region.end()).unwrap(),
            node: piece.node,
            kind: mm::BlockKind::Free,
        });
        let config = mm::Config {
            min_free: Some(16),
            debug: mm::debug::Debug::off(),
        };
        // SAFETY: all of the memory has descriptors of its own and is free, and it outlives
        // the allocator.
        let map = unsafe { mm::frame::FrameMap::new(memory.layout(), memory.end()) };
        // SAFETY: as above.
        unsafe { mm::Mm::<Hosted>::new(map, config, blocks) }.unwrap()
    });
    let before = (&mm).total();
    let vmalloc =
        machine.run(|| Vmalloc::<Hosted, _>::new(memory.layout(), &mm, 60, || ()).unwrap());
    let shared = std::sync::Mutex::new(Vec::new());
    machine.run_on_all(|cpu: CpuId| {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ cpu.index() as u64);
        for _ in 0..rounds {
            let pages = random.below(6) + 1;
            let request = Request::new(pages * PAGE_SIZE, Gfp::KERNEL | Gfp::NOWARN);
            if let Ok(area) = vmalloc.alloc(&request) {
                for page in area.memory().step_by(PAGE_SIZE) {
                    // Pinned from the look to the write, as on a CPU.
                    let _pinned = platform::Preempt::<Hosted>::disable();
                    memory.access(Hosted::current_cpu(), page).unwrap();
                    let at = core::ptr::with_exposed_provenance_mut::<usize>(page);
                    // SAFETY: a page of the area, which is ours.
                    unsafe { at.write(page) };
                }
                shared.lock().unwrap().push(area);
            }
            let taken = {
                let mut shared = shared.lock().unwrap();
                let len = shared.len();
                (len > 8 || random.below(2) == 0)
                    .then(|| shared.swap_remove(random.below(len.max(1)).min(len - 1)))
            };
            if let Some(area) = taken {
                for page in area.memory().step_by(PAGE_SIZE) {
                    let _pinned = platform::Preempt::<Hosted>::disable();
                    memory.access(Hosted::current_cpu(), page).unwrap();
                    let at = core::ptr::with_exposed_provenance::<usize>(page);
                    // SAFETY: as above; the area was handed over.
                    assert_eq!(unsafe { at.read() }, page, "somebody else's memory");
                }
            }
            if random.below(50) == 0 {
                vmalloc.purge();
            }
            if random.below(20) == 0
                && let Some(pfn) = mm.alloc_pages(Gfp::KERNEL | Gfp::NOWARN, 0, Use::Pages)
            {
                // SAFETY: the frame is this thread's, and freed when nothing shows it.
                unsafe {
                    if let Some(shown) = vmalloc.vmap(&[pfn], Access::ReadWrite) {
                        vmalloc.vunmap(shown);
                    }
                    mm.free_pages(pfn, 0, Use::Pages);
                }
            }
        }
    });
    machine.run(|| drop(shared));
    machine.run(|| {
        vmalloc.purge();
        vmalloc.check().unwrap();
        let mut left = String::new();
        vmalloc.write_info(&mut left).unwrap();
        assert_eq!(left, "", "areas are left");
        let stats = vmalloc.stats();
        assert_eq!((stats.areas, stats.mapped, stats.lazy), (0, 0, 0));
        assert_eq!(stats.largest_free, stats.total);
        assert!(stats.flushed / stats.flushes > 10, "no batches: {stats:?}");
        drop(vmalloc);
    });
    machine.run(|| {
        mm.drain_all();
        assert_eq!(mm.counts().free_frames(), before);
        mm.audit().unwrap();
        drop(mm);
    });
}
