//! All CPUs at once: they allocate on each other's nodes, and each frees what others have
//! allocated.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel_base::rng::Rng;
use mm::{Gfp, Pfn, Use};
use platform::NodeId;

use super::{all_came_back, needs_nodes, node_of, used};
use crate::kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok, knote, kunit_suite, rounds};
use crate::memory::mm;
use crate::{sched, smp};

kunit_suite! {
    name: "pages_stress",
    cases: [
        every_cpu_on_every_node,
        with_interrupts,
        remote_frees_only,
    ],
}

/// Blocks that lie between the CPUs.
const SLOTS: usize = 512;
static SLOT: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];

/// A block as a word that is not 0, and back.
fn pack(pfn: Pfn, order: usize) -> u64 {
    1 << 63 | (order as u64) << 32 | u64::from(pfn.0)
}

fn unpack(word: u64) -> Option<(Pfn, usize)> {
    (word != 0).then_some((Pfn(word as u32), (word >> 32 & 0x1f) as usize))
}

/// Words of every page of a block that are written.
const WORDS: [usize; 2] = [0, 511];

fn places(pfn: Pfn, order: usize) -> impl Iterator<Item = *mut u64> {
    (0..1 << order).flat_map(move |step| {
        let page = mm().frames().address_of(pfn.add(step)).cast::<u64>();
        // SAFETY: inside the page.
        WORDS.map(|word| unsafe { page.add(word) })
    })
}

fn write(pfn: Pfn, order: usize) {
    for place in places(pfn, order) {
        // SAFETY: the block is the caller's.
        unsafe { place.write_volatile(place as u64 ^ pack(pfn, order)) };
    }
}

/// Whether the block is as [`write()`] left it.
fn is_whole(pfn: Pfn, order: usize) -> bool {
    places(pfn, order).all(|place| {
        // SAFETY: the block is the caller's.
        (unsafe { place.read_volatile() }) == place as u64 ^ pack(pfn, order)
    })
}

fn free(pfn: Pfn, order: usize) {
    // SAFETY: allocated so, and the caller's.
    unsafe { mm().free_pages(pfn, order, Use::Pages) };
}

/// What a thread saw.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    allocated: u64,
    none: u64,
    damaged: u64,
    wrong_node: u64,
    remote: u64,
}

fn random_order(rng: &mut Rng) -> usize {
    match rng.below(16) {
        0..=8 => 0,
        9..=12 => rng.below(4) as usize,
        13..=14 => 4 + rng.below(3) as usize,
        _ => rng.below(mm::frame::ORDERS as u64) as usize,
    }
}

/// Allocates, puts the block where another CPU finds it, and frees what was there.
fn step(rng: &mut Rng, nodes: &[NodeId], seen: &mut Seen) {
    let order = random_order(rng);
    let node = nodes[rng.below(nodes.len() as u64) as usize];
    let this_node = rng.below(2) == 0;
    let mut gfp = match rng.below(4) {
        0 => Gfp::NOWAIT,
        1 => Gfp::ATOMIC | Gfp::NOWARN,
        2 => Gfp::NOLOCK,
        _ => Gfp::KERNEL | Gfp::NOWARN,
    };
    gfp.set(Gfp::THISNODE, this_node);
    let block = mm().alloc_pages_node(node, gfp, order, Use::Pages);
    let word = match block {
        None => {
            seen.none += 1;
            0
        }
        Some(pfn) => {
            seen.allocated += 1;
            seen.wrong_node += u64::from(this_node && node_of(pfn) != node);
            write(pfn, order);
            pack(pfn, order)
        }
    };
    let slot = &SLOT[rng.below(SLOTS as u64) as usize];
    // AcqRel: what was written to the block goes with it.
    if let Some((pfn, order)) = unpack(slot.swap(word, Ordering::AcqRel)) {
        seen.damaged += u64::from(!is_whole(pfn, order));
        let own = <crate::machine::Kernel as mm::Machine>::node_here();
        seen.remote += u64::from(node_of(pfn) != own);
        free(pfn, order);
    }
}

/// Frees what is left between the CPUs. How many blocks were damaged.
fn empty_slots() -> u64 {
    let mut damaged = 0;
    for slot in &SLOT {
        if let Some((pfn, order)) = unpack(slot.swap(0, Ordering::AcqRel)) {
            damaged += u64::from(!is_whole(pfn, order));
            free(pfn, order);
        }
    }
    damaged
}

/// Runs `steps` on every CPU; `meanwhile` runs here until all have ended.
fn run(ctx: &mut Ctx, steps: u64, mut meanwhile: impl FnMut()) -> Result<Seen, crate::kunit::Stop> {
    static LEFT: AtomicU64 = AtomicU64::new(0);
    let seed = ctx.rng().below(u64::MAX);
    let cpus = smp::online();
    LEFT.store(cpus.count() as u64, Ordering::Relaxed);
    let mut threads = Vec::new();
    for cpu in cpus {
        let thread = sched::Builder::new()
            .on(cpu)
            .spawn(format_args!("pages {cpu}"), move || {
                let mut rng = Rng::new(seed ^ u64::from(cpu.number()) << 32);
                let nodes: Vec<NodeId> = mm().nodes().iter().collect();
                let mut seen = Seen::default();
                for _ in 0..steps {
                    step(&mut rng, &nodes, &mut seen);
                }
                LEFT.fetch_sub(1, Ordering::Relaxed);
                seen
            });
        threads.push(kassert_ok!(thread));
    }
    while LEFT.load(Ordering::Relaxed) > 0 {
        meanwhile();
        sched::sleep_ns(1_000_000);
    }
    let mut all = Seen::default();
    for thread in threads {
        let seen = thread.join();
        all.allocated += seen.allocated;
        all.none += seen.none;
        all.damaged += seen.damaged;
        all.wrong_node += seen.wrong_node;
        all.remote += seen.remote;
    }
    all.damaged += empty_slots();
    Ok(all)
}

fn judge(seen: &Seen, before: [u64; 2]) -> Outcome {
    knote!("{seen:?}");
    kassert_eq!((seen.damaged, seen.wrong_node), (0, 0));
    // Memory is not short; but who may not wait for a lock gets nothing now and then.
    kassert!(seen.allocated > seen.none);
    if mm().nodes().count() > 1 {
        kassert!(seen.remote > 0);
    }
    all_came_back(before)
}

fn every_cpu_on_every_node(ctx: &mut Ctx) -> Outcome {
    let before = used(mm());
    let seen = run(ctx, rounds(1_000_000, 4_000), || {})?;
    judge(&seen, before)
}

/// The same with interrupts on all CPUs that allocate and free, and with lists drained.
fn with_interrupts(ctx: &mut Ctx) -> Outcome {
    let before = used(mm());
    let failed = AtomicU64::new(0);
    let mut round = 0;
    let seen = run(ctx, rounds(300_000, 2_000), || {
        round += 1;
        smp::call_all(&|| {
            for order in [0, 2, 4] {
                match mm().alloc_pages(Gfp::ATOMIC | Gfp::NOWARN, order, Use::Pages) {
                    None => {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(pfn) => {
                        write(pfn, order);
                        if !is_whole(pfn, order) {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                        free(pfn, order);
                    }
                }
            }
        });
        if round % 8 == 0 {
            mm().drain_all();
        }
    })?;
    kassert_eq!(failed.load(Ordering::Relaxed), 0);
    judge(&seen, before)
}

/// One CPU allocates, another one of another node frees: the counts of the nodes are exact
/// all the same.
fn remote_frees_only(_: &mut Ctx) -> Outcome {
    needs_nodes()?;
    let before = used(mm());
    let topology = crate::boot::topology();
    let pages = rounds(50_000, 2_000);
    for node in mm().nodes() {
        let Some(cpu) = smp::online()
            .iter()
            .find(|cpu| topology.node_of(*cpu) != node)
        else {
            continue;
        };
        let used_there = || mm().node_counts(node).used[Use::Pages as usize];
        let at_first = used_there();
        let mut blocks = Vec::with_capacity(pages as usize);
        for index in 0..pages {
            let order = (index % 5 % 4) as usize;
            let gfp = Gfp::KERNEL | Gfp::THISNODE | Gfp::NOWARN;
            let Some(pfn) = mm().alloc_pages_node(node, gfp, order, Use::Pages) else {
                break;
            };
            blocks.push((pfn, order));
        }
        let taken: u64 = blocks.iter().map(|(_, order)| 1 << order).sum();
        kassert_eq!(used_there(), at_first + taken);
        let thread = sched::Builder::new()
            .on(cpu)
            .spawn(format_args!("remote"), move || {
                for (pfn, order) in blocks {
                    free(pfn, order);
                }
            });
        kassert_ok!(thread).join();
        // What waits among the strays counts as free.
        kassert_eq!(used_there(), at_first, "frames of {node:?}");
    }
    all_came_back(before)
}
