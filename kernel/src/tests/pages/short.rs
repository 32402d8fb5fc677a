//! When memory is short: fallback, watermarks, shrinkers, the report.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mm::frame::MAX_ORDER;
use mm::reclaim::{Shrink, Wanted};
use mm::report::Kind as Wrong;
use mm::{Gfp, Pages, Pfn, Use};
use platform::NodeId;

use super::{all_came_back, needs_nodes, node_of, used};
use crate::kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ne, kassert_ok, kunit_suite};
use crate::machine::Kernel;
use crate::memory::mm;
use crate::report::Kind;

kunit_suite! {
    name: "pages_short",
    cases: [
        full_node_falls_back_by_distance,
        watermarks_keep_some,
        shrinker_is_called,
        no_memory_is_reported => { expects: [Kind::Memory(Wrong::OutOfMemory)] },
    ],
}

/// Blocks that were taken, each with the one before it noted in its memory: the heap is of
/// the same pages, and has none left.
struct Taken(Option<Block>);

/// A block, and at its beginning the one that was taken before it.
#[derive(Clone, Copy)]
struct Block {
    pfn: Pfn,
    order: usize,
}

impl Block {
    fn note(self) -> *mut Option<Self> {
        mm().frames().address_of(self.pfn).cast()
    }
}

impl Taken {
    fn push(&mut self, pages: Pages<'static, Kernel>) {
        let order = pages.order();
        let pfn = pages.into_raw();
        let block = Block { pfn, order };
        // SAFETY: our own memory.
        unsafe { block.note().write(self.0) };
        self.0 = Some(block);
    }

    fn iter(&self) -> impl Iterator<Item = Block> {
        // SAFETY: written by `push`.
        core::iter::successors(self.0, |block| unsafe { block.note().read() })
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        while let Some(block) = self.0 {
            // SAFETY: written by `push`, which had the block from its owner.
            unsafe {
                self.0 = block.note().read();
                mm().free_pages(block.pfn, block.order, Use::Pages);
            }
        }
    }
}

/// Takes all that `gfp` gets, on `node` alone or near it, in the largest blocks.
fn take_all(node: NodeId, gfp: Gfp) -> Taken {
    let mut blocks = Taken(None);
    for order in (0..=MAX_ORDER).rev() {
        while let Some(block) = Pages::alloc_node(mm(), node, gfp, order, Use::Pages) {
            blocks.push(block);
        }
    }
    blocks
}

fn first_node() -> NodeId {
    mm().nodes().first().unwrap_or(NodeId::FIRST)
}

fn full_node_falls_back_by_distance(_: &mut Ctx) -> Outcome {
    needs_nodes()?;
    let before = used(mm());
    for node in mm().nodes() {
        let all = take_all(node, Gfp::NOWAIT | Gfp::THISNODE);
        kassert!(all.iter().all(|block| node_of(block.pfn) == node));
        let gfp = Gfp::NOWAIT | Gfp::THISNODE;
        kassert_eq!(mm().alloc_pages_node(node, gfp, 4, Use::Pages), None);
        let other = Pages::alloc_node(mm(), node, Gfp::NOWAIT, 4, Use::Pages);
        let other = node_of(kassert_ok!(other).pfn());
        kassert_ne!(other, node);
        let mut next = mm().fallback(node).iter().map(|zone| zone.node());
        kassert_eq!(next.find(|next| *next != node), Some(other));
        drop(all);
    }
    all_came_back(before)
}

/// Ordinary allocations leave *min*, those who cannot wait half of it.
fn watermarks_keep_some(_: &mut Ctx) -> Outcome {
    let before = used(mm());
    mm().drain_all();
    let ordinary = take_all(first_node(), Gfp::NOWAIT);
    let mut short = 0;
    for zone in mm().zones() {
        let (free, min) = (zone.free(), zone.watermarks().min);
        kassert!(free + 64 >= min, "{zone:?}: {:?}", zone.watermarks());
        short += free;
    }
    let gfp = Gfp::ATOMIC | Gfp::NOWARN;
    let reserve = take_all(first_node(), gfp);
    kassert!(!reserve.is_empty());
    let mut shorter = 0;
    for zone in mm().zones() {
        let (free, min) = (zone.free(), zone.watermarks().min);
        kassert!(free + 64 >= min / 2, "{zone:?}: {:?}", zone.watermarks());
        shorter += free;
    }
    kassert!(shorter < short);
    drop((ordinary, reserve));
    all_came_back(before)
}

/// Keeps pages until it is asked for some.
struct Hoard {
    /// Numbers of single pages, plus 1; 0: none.
    pages: [AtomicU64; Self::SIZE],
    asked: AtomicU64,
    wrong_context: AtomicBool,
}

impl Hoard {
    const SIZE: usize = 256;

    fn fill(&self) -> u64 {
        let mut filled = 0;
        for place in &self.pages {
            let Some(pfn) = mm().alloc_pages(Gfp::NOWAIT, 0, Use::Kmalloc) else {
                break;
            };
            place.store(u64::from(pfn.0) + 1, Ordering::Relaxed);
            filled += 1;
        }
        filled
    }

    fn free(&self, most: u64) -> u64 {
        let mut freed = 0;
        for place in &self.pages {
            if freed == most {
                break;
            }
            let number = place.swap(0, Ordering::Relaxed);
            if number != 0 {
                let pfn = Pfn((number - 1) as u32);
                // SAFETY: allocated so by `fill`, and taken out of its place.
                unsafe { mm().free_pages(pfn, 0, Use::Kmalloc) };
                freed += 1;
            }
        }
        freed
    }
}

impl Shrink for Hoard {
    fn name(&self) -> &'static str {
        "hoard"
    }

    fn count(&self) -> u64 {
        let kept = |place: &&AtomicU64| place.load(Ordering::Relaxed) != 0;
        self.pages.iter().filter(kept).count() as u64
    }

    fn scan(&self, wanted: Wanted) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if !<Kernel as platform::Platform>::may_sleep() {
            self.wrong_context.store(true, Ordering::Relaxed);
        }
        self.free(wanted.frames)
    }
}

static HOARD: Hoard = Hoard {
    pages: [const { AtomicU64::new(0) }; Hoard::SIZE],
    asked: AtomicU64::new(0),
    wrong_context: AtomicBool::new(false),
};

fn shrinker_is_called(_: &mut Ctx) -> Outcome {
    let before = used(mm());
    kassert!(HOARD.fill() > 0);
    kassert_ok!(mm().register_shrinker(&HOARD));
    let mut got = Taken(None);
    let all = take_all(first_node(), Gfp::NOWAIT);
    let asked = HOARD.asked.load(Ordering::Relaxed);
    // As long as there is something in the hoard, there is memory. Others are asked before it.
    let mut count = 0;
    while count < 64 || HOARD.asked.load(Ordering::Relaxed) == asked {
        let page = Pages::alloc(mm(), Gfp::KERNEL | Gfp::NOWARN, 0, Use::Pages);
        got.push(kassert_ok!(page, "after {count} pages"));
        count += 1;
    }
    let asked = HOARD.asked.load(Ordering::Relaxed) - asked;
    // Who may not sleep does not get it.
    let left = HOARD.count();
    drop(take_all(first_node(), Gfp::ATOMIC | Gfp::NOWARN));
    kassert_eq!(HOARD.count(), left);
    kassert!(mm().unregister_shrinker(&HOARD));
    kassert!(!mm().unregister_shrinker(&HOARD));
    HOARD.free(u64::MAX);
    kassert!(asked > 0 && !HOARD.wrong_context.load(Ordering::Relaxed));
    drop((all, got));
    all_came_back(before)
}

/// An allocation that fails says so, once, and comes to an end.
fn no_memory_is_reported(_: &mut Ctx) -> Outcome {
    let before = used(mm());
    let failures = mm().failures();
    let all = take_all(first_node(), Gfp::KERNEL | Gfp::NOWARN);
    kassert_eq!(mm().alloc_pages(Gfp::KERNEL, MAX_ORDER, Use::Pages), None);
    // Those who do not want a report get none.
    for gfp in [Gfp::NOWAIT, Gfp::NOLOCK, Gfp::KERNEL | Gfp::NOWARN] {
        kassert_eq!(mm().alloc_pages(gfp, MAX_ORDER, Use::Pages), None);
    }
    kassert_eq!(mm().failures(), failures + 1);
    drop(all);
    all_came_back(before)
}
