//! The page allocator, through the guards of a hosted machine, which cost more than it does.
//! Beside it the host's allocator, with blocks of pages.

use std::{hint::black_box, rc::Rc, time::Duration};

use mm::{
    Block, BlockKind, Config, Gfp, Mm, Pfn, Use, debug::Debug, frame::FrameMap, hosted::Memory,
};
use platform::hosted::{Hosted, Machine};

use crate::{Clock, Failure, Row};

const OPS: u64 = 50_000;
/// Pages of a batch.
const BATCH: u64 = 1000;

/// The machine, made when it is first needed.
fn with_pages(work: impl FnOnce(&Mm<Hosted>) -> Result<(), Failure>) -> Result<(), Failure> {
    let memory = Memory::builder().node(256 << 20).build();
    let machine = Machine::builder()
        .steady()
        .limit(Duration::from_secs(24 * 3600))
        .build();
    machine.run(|| {
        let config = Config {
            min_free: None,
            debug: Debug::off(),
        };
        let blocks = memory.pieces().iter().map(|piece| Block {
            start: Pfn::of_phys(piece.region.start()).expect("a frame"),
            end: Pfn::of_phys(piece.region.end()).expect("a frame"),
            node: piece.node,
            kind: BlockKind::Free,
        });
        // SAFETY: the memory and its descriptors outlive the allocator, and are new.
        let mm = unsafe { Mm::new(FrameMap::new(memory.layout(), memory.end()), config, blocks) };
        let mm = mm.ok_or("no per-CPU memory")?;
        // What is touched for the first time is not what is measured.
        batch(&mm, &Clock::watch(), BATCH)?;
        work(&mm)
    })
}

fn pair(mm: &Mm<Hosted>, clock: &Clock, order: usize, ops: u64) -> Result<(), Failure> {
    clock.time(|| {
        for _ in 0..ops {
            let pfn = mm.alloc_pages(Gfp::KERNEL, black_box(order), Use::Pages);
            let pfn = pfn.ok_or("no memory for pages")?;
            // SAFETY: just allocated, and used by nobody.
            unsafe { mm.free_pages(black_box(pfn), black_box(order), Use::Pages) };
        }
        Ok(())
    })
}

/// Allocates 1000 pages, then frees them in the same order.
fn batch(mm: &Mm<Hosted>, clock: &Clock, ops: u64) -> Result<(), Failure> {
    let mut pages: Vec<Pfn> = Vec::with_capacity(BATCH as usize);
    clock.time(|| {
        for _ in 0..ops / BATCH {
            for _ in 0..BATCH {
                let pfn = mm.alloc_pages(Gfp::KERNEL, 0, Use::Pages);
                pages.push(pfn.ok_or("no memory for pages")?);
            }
            for pfn in pages.drain(..) {
                // SAFETY: just allocated, and used by nobody.
                unsafe { mm.free_pages(pfn, 0, Use::Pages) };
            }
        }
        Ok(())
    })
}

pub fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = [0, 3]
        .map(|order| {
            Row::new(format!("page/{order}"), OPS, None, move |clock, ops| {
                with_pages(|mm| pair(mm, clock, order, ops))
            })
        })
        .into();
    rows.push(Row::new("page_batch/0/1000", OPS, None, |clock, ops| {
        with_pages(|mm| batch(mm, clock, ops))
    }));
    let heap = Rc::new(crate::others::Malloc);
    for bytes in [4096, 32768] {
        let heap = Rc::clone(&heap);
        rows.push(Row::new(
            format!("malloc/{bytes}"),
            OPS,
            None,
            move |clock, ops| crate::others::pair(&*heap, clock, bytes, ops),
        ));
    }
    rows.push(Row::new(
        "malloc_batch/4096/1000",
        OPS,
        None,
        move |clock, ops| crate::others::batch(&*heap, clock, 4096, BATCH, ops),
    ));
    rows
}
