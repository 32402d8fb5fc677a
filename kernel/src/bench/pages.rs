//! Page allocation, by the contract's names.

use alloc::vec::Vec;
use core::hint::black_box;

use mm::{Gfp, Pfn, Use};

use super::{Outcome, Run, Stop, bench};
use crate::memory::mm;

bench! {
    name: "page/0",
    ops: 50_000,
    run: pair::<0>,
}

bench! {
    name: "page/3",
    ops: 50_000,
    run: pair::<3>,
}

bench! {
    name: "page_batch/0/1000",
    ops: 50_000,
    run: batch,
}

fn no_memory() -> Stop {
    Stop::Failed("no memory for pages".into())
}

/// Allocates a block and frees it.
fn pair<const ORDER: usize>(run: &mut Run) -> Outcome {
    let ops = run.ops();
    let mut failed = false;
    run.time(|| {
        for _ in 0..ops {
            match mm().alloc_pages(Gfp::KERNEL, black_box(ORDER), Use::Pages) {
                // SAFETY: just allocated, and used by nobody.
                Some(pfn) => unsafe {
                    mm().free_pages(black_box(pfn), black_box(ORDER), Use::Pages)
                },
                None => failed = true,
            }
        }
    });
    if failed { Err(no_memory()) } else { Ok(()) }
}

/// Allocates 1000 pages, then frees them in the same order.
fn batch(run: &mut Run) -> Outcome {
    const PAGES: usize = 1000;
    let rounds = run.ops() / PAGES as u64;
    let mut pages: Vec<Pfn> = Vec::new();
    pages.try_reserve_exact(PAGES).map_err(|_| no_memory())?;
    let mut failed = false;
    run.time(|| {
        for _ in 0..rounds {
            for _ in 0..PAGES {
                match mm().alloc_pages(Gfp::KERNEL, 0, Use::Pages) {
                    Some(pfn) => pages.push(pfn),
                    None => failed = true,
                }
            }
            for pfn in pages.drain(..) {
                // SAFETY: just allocated, and used by nobody.
                unsafe { mm().free_pages(pfn, 0, Use::Pages) };
            }
        }
    });
    if failed { Err(no_memory()) } else { Ok(()) }
}
