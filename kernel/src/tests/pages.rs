//! The page allocator on the machine: blocks, uses, nodes, shortage, wrong frees.

mod interrupted;
mod short;
mod stress;

use alloc::vec::Vec;

use mm::frame::{MAX_ORDER, PAGE_SIZE};
use mm::mm::Counts;
use mm::report::Kind as Wrong;
use mm::{Gfp, Mm, Pages, Pfn, State, Use};
use platform::{CpuId, NodeId};

use super::memory::quiet_audit;
use crate::boot;
use crate::kunit::{
    Ctx, OnlineCpus, Outcome, Stop, kassert, kassert_eq, kassert_ok, kskip, kunit_suite,
};
use crate::machine::Kernel;
use crate::memory::{frame_map, mm};
use crate::report::Kind;
use crate::smp;

kunit_suite! {
    name: "pages",
    cases: [
        every_order => { over: ORDER_TABLE },
        orders_that_there_are_not,
        uses_are_counted,
        zeroed_pages_are_zeros,
        low_pages_are_low,
        near_means_the_nearest_memory => { over: OnlineCpus },
        this_node_means_this_node,
        lists_go_back => { over: OnlineCpus },
        wrong_frees => { expects: [
            Kind::Memory(Wrong::DoubleFree),
            Kind::Memory(Wrong::WrongOrder),
            Kind::Memory(Wrong::WrongUse),
            Kind::Memory(Wrong::NotHead),
            Kind::Memory(Wrong::Foreign),
            Kind::Memory(Wrong::Foreign),
            Kind::Memory(Wrong::Foreign),
        ] },
    ],
}

const ORDER_TABLE: &[(&str, usize)] = &[
    ("0", 0),
    ("1", 1),
    ("2", 2),
    ("3", 3),
    ("4", 4),
    ("5", 5),
    ("6", 6),
    ("7", 7),
    ("8", 8),
    ("9", 9),
    ("10", 10),
];

/// Frames of the uses that only these tests have.
fn used(mm: &Mm<Kernel>) -> [u64; 2] {
    let counts = mm.counts();
    [Use::Pages, Use::Kmalloc].map(|usage| counts.used[usage as usize])
}

/// Nothing that the tests allocated is left, all lists are given back, and everything is
/// merged and counted exactly.
fn all_came_back(before: [u64; 2]) -> Outcome {
    mm().drain_all();
    kassert_eq!(used(mm()), before);
    quiet_audit()
}

/// Blocks are where their size says, marked as a whole, and apart from each other.
fn every_order(_: &mut Ctx, order: usize) -> Outcome {
    let before = used(mm());
    let mut blocks = Vec::new();
    for _ in 0..4 {
        let block = Pages::alloc(mm(), Gfp::KERNEL, order, Use::Pages);
        blocks.push(kassert_ok!(block));
    }
    kassert_eq!(used(mm())[0], before[0] + (4 << order));
    let frames = mm().frames();
    for (number, block) in blocks.iter_mut().enumerate() {
        let start = block.pfn();
        kassert_eq!(start, start.align_down(order));
        kassert_eq!((block.order(), block.len()), (order, PAGE_SIZE << order));
        let word = kassert_ok!(frames.get(start)).word();
        kassert_eq!(word.state(), State::Used(Use::Pages));
        kassert_eq!(word.order(), order);
        for step in 1..1 << order {
            let tail = start.add(step);
            kassert_eq!(kassert_ok!(frames.get(tail)).word().state(), State::Tail);
            kassert_eq!(frames.head_of(tail), Some((start, word)));
        }
        for byte in block.bytes().iter_mut().step_by(512) {
            byte.write(number as u8);
        }
    }
    for (number, block) in blocks.iter_mut().enumerate() {
        // SAFETY: these bytes were written above.
        let wrong = block
            .bytes()
            .iter()
            .step_by(512)
            .find(|byte| unsafe { byte.assume_init_read() } != number as u8);
        kassert!(
            wrong.is_none(),
            "block {number} was written to through another"
        );
    }
    drop(blocks);
    all_came_back(before)
}

fn orders_that_there_are_not(_: &mut Ctx) -> Outcome {
    let before = used(mm());
    for order in [MAX_ORDER + 1, 31, 64, usize::MAX] {
        let gfp = Gfp::KERNEL | Gfp::NOWARN;
        kassert_eq!(mm().alloc_pages(gfp, order, Use::Pages), None);
    }
    all_came_back(before)
}

fn uses_are_counted(_: &mut Ctx) -> Outcome {
    // Of these nobody else takes any while the tests run.
    for usage in [Use::Pages, Use::Kmalloc] {
        for order in [0, 3, 4, 9] {
            let count = |counts: Counts| counts.used[usage as usize];
            let before = count(mm().counts());
            let block = kassert_ok!(Pages::alloc(mm(), Gfp::KERNEL, order, usage));
            kassert_eq!(count(mm().counts()), before + (1 << order), "{usage:?}");
            let node = node_of(block.pfn());
            kassert!(mm().node_counts(node).used[usage as usize] >= 1 << order);
            drop(block);
            kassert_eq!(count(mm().counts()), before, "{usage:?}");
        }
    }
    Ok(())
}

fn zeroed_pages_are_zeros(_: &mut Ctx) -> Outcome {
    for order in [0, 2, 6] {
        for _ in 0..3 {
            let mut block = kassert_ok!(Pages::alloc(
                mm(),
                Gfp::KERNEL | Gfp::ZERO,
                order,
                Use::Pages
            ));
            // SAFETY: all of it was zeroed (or this test finds out; any byte is a u8).
            let wrong = block
                .bytes()
                .iter()
                .position(|byte| unsafe { byte.assume_init_read() } != 0);
            kassert_eq!(wrong, None, "order {order}");
            // For the next one, which is likely the same.
            block.bytes().iter_mut().for_each(|byte| {
                byte.write(0x5a);
            });
        }
    }
    Ok(())
}

fn low_pages_are_low(_: &mut Ctx) -> Outcome {
    for order in [0, 3, MAX_ORDER] {
        let gfp = Gfp::KERNEL | Gfp::DMA32;
        let block = kassert_ok!(Pages::alloc(mm(), gfp, order, Use::Pages));
        kassert!(block.pfn().phys() < 1 << 32);
    }
    Ok(())
}

fn node_of(pfn: Pfn) -> NodeId {
    crate::memory::node_at(pfn.phys()).0
}

/// A thread on `cpu` gets memory of the nearest node that has some, and what it frees is its
/// next one.
fn near_means_the_nearest_memory(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let topology = boot::topology();
    let nodes = mm().nodes();
    let nearest = topology.nearest(topology.node_of(cpu));
    let wanted = kassert_ok!(nearest.iter().find(|node| nodes.contains(**node)));
    kassert_eq!(mm().nearest_memory(topology.node_of(cpu)), Some(*wanted));
    let thread = crate::sched::Builder::new()
        .on(cpu)
        .spawn(format_args!("near"), || {
            let got = [0, 0, 3, 5, MAX_ORDER].map(|order| {
                let block = Pages::alloc(mm(), Gfp::KERNEL, order, Use::Pages);
                block.map(|block| block.pfn())
            });
            // Nothing else runs between two uses of the list.
            let _pinned = crate::sched::Pinned::disable();
            let again = [(); 2].map(|()| {
                let pfn = mm().alloc_pages(Gfp::NOWAIT, 0, Use::Pages)?;
                // SAFETY: allocated so, and not used.
                unsafe { mm().free_pages(pfn, 0, Use::Pages) };
                Some(pfn)
            });
            (got, again)
        });
    let (got, again) = kassert_ok!(thread).join();
    for pfn in got {
        kassert_eq!(node_of(kassert_ok!(pfn)), *wanted);
    }
    kassert!(again[0].is_some());
    kassert_eq!(again[0], again[1]);
    Ok(())
}

fn this_node_means_this_node(_: &mut Ctx) -> Outcome {
    let before = used(mm());
    for node in boot::topology().nodes() {
        let has_memory = mm().nodes().contains(node);
        for order in [0, 3, 4, MAX_ORDER] {
            let gfp = Gfp::KERNEL | Gfp::THISNODE | Gfp::NOWARN;
            let block = Pages::alloc_node(mm(), node, gfp, order, Use::Pages);
            kassert_eq!(block.is_some(), has_memory, "order {order} of {node:?}");
            if let Some(block) = block {
                kassert_eq!(node_of(block.pfn()), node);
            }
            // Without the flag there is always some.
            let block = Pages::alloc_node(mm(), node, Gfp::KERNEL, order, Use::Pages);
            let wanted = kassert_ok!(mm().nearest_memory(node));
            kassert_eq!(node_of(kassert_ok!(block).pfn()), wanted);
        }
    }
    all_came_back(before)
}

/// What lies in a CPU's lists goes back to the zones, wherever it came from.
fn lists_go_back(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let before = used(mm());
    let thread = crate::sched::Builder::new()
        .on(cpu)
        .spawn(format_args!("lists"), || {
            for node in mm().nodes() {
                let blocks: Vec<_> = (0..40)
                    .map(|index| Pages::alloc_node(mm(), node, Gfp::KERNEL, index % 4, Use::Pages))
                    .collect();
                drop(blocks);
            }
            let own = smp::this_cpu();
            let lists = mm().page_lists().find(|(cpu, _)| *cpu == own);
            lists.map(|(_, lists)| lists.frames())
        });
    let listed = kassert_ok!(kassert_ok!(thread).join());
    kassert!(listed > 0);
    all_came_back(before)?;
    let lists = kassert_ok!(mm().page_lists().find(|(other, _)| *other == cpu)).1;
    // Other threads may have allocated meanwhile.
    kassert!(lists.frames() < listed.max(200), "{lists:?}");
    kassert!(lists.refills > 0 && lists.drains > 0, "{lists:?}");
    Ok(())
}

fn free(pfn: Pfn, order: usize, usage: Use) {
    // SAFETY: allocated so, or it is wrong, which is reported and does nothing.
    unsafe { mm().free_pages(pfn, order, usage) };
}

/// A frame in this state that is not the allocator's.
fn frame_in(state: State) -> Result<Pfn, Stop> {
    let numbers = (0..frame_map::end().0).map(Pfn);
    let found = numbers
        .rev()
        .find(|pfn| (mm().frames().get(*pfn)).is_some_and(|frame| frame.word().state() == state));
    Ok(kassert_ok!(found, "no frame is {state}"))
}

/// Each is reported once and does nothing.
fn wrong_frees(_: &mut Ctx) -> Outcome {
    let before = used(mm());
    let block = |order| mm().alloc_pages(Gfp::KERNEL, order, Use::Pages);
    // A large one, so that nobody else has it in between.
    let twice = kassert_ok!(block(MAX_ORDER));
    free(twice, MAX_ORDER, Use::Pages);
    free(twice, MAX_ORDER, Use::Pages);

    let good = kassert_ok!(block(2));
    free(good, 1, Use::Pages);
    free(good, 2, Use::Kmalloc);
    free(good.add(1), 0, Use::Pages);
    kassert_eq!(used(mm())[0], before[0] + 4);
    free(good, 2, Use::Pages);

    free(frame_in(State::Boot)?, 0, Use::Pages);
    free(frame_in(State::Reserved)?, 0, Use::Pages);
    free(frame_map::end(), 0, Use::Pages);
    all_came_back(before)
}

/// Skips a case that needs several nodes with memory.
fn needs_nodes() -> Outcome {
    if mm().nodes().count() < 2 {
        kskip!("only one node has memory");
    }
    Ok(())
}
