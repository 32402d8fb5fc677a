//! Figures of the portable allocators on the host, as lines of [`kernel_base::bench`]; run by
//! `cargo xtask bench --machine host`.
//!
//!     cargo run --release -p granary-mm --example bench -- 5 'page/*,malloc'
//!
//! The machine is a hosted one of one CPU without chance. Beside each workload stands the same
//! with the host's allocator.

use std::{
    alloc::{Layout, alloc, dealloc},
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant},
};

use kernel_base::bench::{Figures, Said, Tenths, matches, median};
use mm::{
    Block, BlockKind, Config, Gfp, Mm, Pfn, Use, debug::Debug, frame::FrameMap, hosted::Memory,
};
use platform::hosted::{Hosted, Machine};

/// Operations in a round.
const OPS: u64 = 50_000;
/// Pages of a batch.
const BATCH: u64 = 1000;

/// Does so many operations; how long that took. `Err`: what went wrong.
type Workload = fn(&Mm<Hosted>, u64) -> Result<Duration, &'static str>;

const WORKLOADS: [(&str, Workload); 6] = [
    ("page/0", pair::<0>),
    ("page/3", pair::<3>),
    ("page_batch/0/1000", batch),
    ("malloc/4096", malloc::<4096>),
    ("malloc/32768", malloc::<32768>),
    ("malloc_batch/4096/1000", malloc_batch),
];

fn pair<const ORDER: usize>(mm: &Mm<Hosted>, ops: u64) -> Result<Duration, &'static str> {
    let begun = Instant::now();
    for _ in 0..ops {
        let pfn = mm.alloc_pages(Gfp::KERNEL, black_box(ORDER), Use::Pages);
        let pfn = pfn.ok_or("no memory for pages")?;
        // SAFETY: just allocated, and used by nobody.
        unsafe { mm.free_pages(black_box(pfn), black_box(ORDER), Use::Pages) };
    }
    Ok(begun.elapsed())
}

/// Allocates 1000 pages, then frees them in the same order.
fn batch(mm: &Mm<Hosted>, ops: u64) -> Result<Duration, &'static str> {
    let mut pages: Vec<Pfn> = Vec::with_capacity(BATCH as usize);
    let begun = Instant::now();
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
    Ok(begun.elapsed())
}

const fn pages_of(bytes: usize) -> Layout {
    match Layout::from_size_align(bytes, 16) {
        Ok(layout) => layout,
        Err(_) => panic!("too large"),
    }
}

fn malloc<const BYTES: usize>(_: &Mm<Hosted>, ops: u64) -> Result<Duration, &'static str> {
    let layout = const { pages_of(BYTES) };
    let begun = Instant::now();
    for _ in 0..ops {
        // SAFETY: not of size 0.
        let block = black_box(unsafe { alloc(black_box(layout)) });
        if block.is_null() {
            return Err("no memory from the host");
        }
        // SAFETY: just allocated, and used by nobody.
        unsafe { dealloc(block, layout) };
    }
    Ok(begun.elapsed())
}

fn malloc_batch(_: &Mm<Hosted>, ops: u64) -> Result<Duration, &'static str> {
    let layout = const { pages_of(4096) };
    let mut blocks: Vec<*mut u8> = Vec::with_capacity(BATCH as usize);
    let begun = Instant::now();
    for _ in 0..ops / BATCH {
        for _ in 0..BATCH {
            // SAFETY: not of size 0.
            blocks.push(black_box(unsafe { alloc(black_box(layout)) }));
        }
        for block in blocks.drain(..) {
            if block.is_null() {
                return Err("no memory from the host");
            }
            // SAFETY: just allocated, and used by nobody.
            unsafe { dealloc(block, layout) };
        }
    }
    Ok(begun.elapsed())
}

/// Warms up, then measures `rounds` rounds.
fn figures(
    mm: &Mm<Hosted>,
    name: &'static str,
    work: Workload,
    rounds: u32,
) -> Result<Figures<'static>, String> {
    work(mm, OPS / 10)?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let took = work(mm, OPS)?;
        times.push(Tenths::per_op(took.as_nanos() as u64, 1, OPS));
    }
    let (&figure, min, max) = median(&mut times, |time| *time).ok_or("no rounds")?;
    Figures::new(name, 1, OPS, figure)
        .and_then(|figures| figures.with_range(min, max))
        .map_err(|error| error.to_string())
}

/// Runs what `patterns` mean. Whether all went well.
fn run(mm: &Mm<Hosted>, patterns: &[&str], rounds: u32) -> bool {
    let say = |said: &Said<'_>| println!("{said}");
    say(&Said::Begin {
        checked: cfg!(debug_assertions),
        rounds,
        cpus: 1,
    });
    let (mut measured, mut failed) = (0, 0);
    for pattern in patterns {
        if !WORKLOADS.iter().any(|(name, _)| matches(pattern, name)) {
            say(&Said::NoMatch(pattern));
            failed += 1;
        }
    }
    for (name, work) in WORKLOADS {
        if !patterns.iter().any(|pattern| matches(pattern, name)) {
            continue;
        }
        say(&Said::Run(name));
        match figures(mm, name, work, rounds) {
            Ok(figures) => {
                measured += 1;
                say(&Said::Figures(figures));
            }
            Err(reason) => {
                failed += 1;
                say(&Said::Fail {
                    name,
                    reason: &reason,
                });
            }
        }
    }
    say(&Said::End {
        measured,
        skipped: 0,
        failed,
    });
    failed == 0
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().map_or(Ok(5), |text| text.parse());
    let Ok(rounds) = rounds else {
        eprintln!("usage: bench [ROUNDS [GLOB,GLOB...]]");
        return ExitCode::from(2);
    };
    let patterns = arguments.next().unwrap_or_else(|| "*".into());
    let patterns: Vec<&str> = patterns.split(',').collect();
    let memory = Memory::builder().node(256 << 20).build();
    let machine = Machine::builder()
        .steady()
        .limit(Duration::from_secs(24 * 3600))
        .build();
    let good = machine.run(|| {
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
        run(&mm.expect("per-CPU memory"), &patterns, rounds)
    });
    ExitCode::from(u8::from(!good))
}
