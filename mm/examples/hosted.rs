//! The page allocator on the host: two CPUs on two nodes, with memory above 4 GiB on one.
//!
//!     cargo run -p granary-mm --example hosted

use mm::{
    Block, BlockKind, Config, Gfp, Mm, Pfn, Use, debug::Debug, frame::FrameMap, hosted::Memory,
    pages::Pages,
};
use platform::hosted::{Hosted, Machine};

fn main() {
    // The memory is made first, so that it goes last.
    let memory = Memory::builder()
        .start((4 << 30) - (16 << 20))
        .node(32 << 20)
        .node(16 << 20);
    let memory = memory.build();
    let machine = Machine::builder().cpus(2).nodes(2).build();
    let blocks = memory.pieces().iter().map(|piece| Block {
        start: Pfn::of_phys(piece.region.start()).expect("a frame"),
        end: Pfn::of_phys(piece.region.end()).expect("a frame"),
        node: piece.node,
        kind: BlockKind::Free,
    });
    let config = Config {
        min_free: None,
        debug: Debug::off(),
    };
    let mm: Mm<Hosted> = machine.run(|| {
        // SAFETY: the memory and its descriptors are there for as long as `mm`, and new.
        unsafe { Mm::new(FrameMap::new(memory.layout(), memory.end()), config, blocks) }
            .expect("per-CPU memory for the page lists")
    });
    machine.run_on_all(|cpu| {
        // Dropped, the block is free again.
        let mut block = Pages::alloc(&mm, Gfp::KERNEL, 2, Use::Pages).expect("memory");
        block.bytes().fill(std::mem::MaybeUninit::new(1));
        let zone = mm.frames().get(block.pfn()).expect("a frame").word().zone();
        println!(
            "cpu{cpu} has {block:?} of node {} {}",
            zone.node(),
            zone.kind()
        );
    });
    machine.run(|| {
        println!("{}", mm::oom::State::of(&mm));
        // Its lists are per-CPU memory of the machine.
        drop(mm);
    });
}
