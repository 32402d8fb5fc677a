//! Dynamic per-CPU memory: where it lies, that it grows and shrinks, that it may run out.

use alloc::{format, vec::Vec};
use core::{
    alloc::Layout,
    sync::atomic::{AtomicU64, Ordering},
};

use kernel_early::layout::{PAGE_SIZE, phys_to_virt};
use mm::Use;
use mm::percpu::{Stats, UNIT};
use mm::report::Kind as MemoryKind;
use platform::{CpuId, IrqsOff, PerCpuAddr, Platform, Preempt};

use crate::arch::paging;
use crate::kunit::{
    self, Ctx, OnlineCpus, Outcome, Stop, kassert, kassert_eq, kassert_ok, kskip, kunit_suite,
};
use crate::machine::Kernel;
use crate::memory::{self, mm};
use crate::percpu_area;
use crate::report::Kind;
use crate::sched::{Builder, JoinHandle};
use crate::{boot, smp};

const BAD_ADDRESS: Kind = Kind::Memory(MemoryKind::BadPerCpuAddress);

kunit_suite! {
    name: "percpu_area",
    teardown: no_faults,
    cases: [
        starts_out_zero,
        own_copy_by_one_address => { over: OnlineCpus },
        lies_on_the_node_of_its_cpu,
        grows_and_gives_back,
        new_pages_are_seen_at_once,
        every_page_may_be_missing,
        runs_out,
        does_not_sleep_where_it_may_not,
        wrong_frees_are_refused => {
            expects: [BAD_ADDRESS, BAD_ADDRESS, BAD_ADDRESS, BAD_ADDRESS, BAD_ADDRESS],
        },
        free_at_a_boundary_maps_nothing,
        all_cpus_at_once,
    ],
}

fn no_faults(_: &mut Ctx) -> Outcome {
    fail_after(None);
    percpu_area::trim();
    Ok(())
}

/// So many pages can be had from now on, and no more; `None`: all that there are.
fn fail_after(pages: Option<usize>) {
    let set = |faults: &mm::fault::PageFaults<Kernel>, name, value: &str| {
        faults.set(name, value).expect("a knob");
    };
    mm().debug().faults(|faults| match pages {
        None => set(faults, "probability", "0"),
        Some(pages) => {
            for (name, value) in [
                ("verbose", "0"),
                ("ignore-gfp-wait", "0"),
                ("min-order", "0"),
                ("interval", "1"),
                ("times", "-1"),
                // Passes while it is more than what is asked for.
                ("space", &format!("{}", pages + 1)),
                ("probability", "100"),
            ] {
                set(faults, name, value);
            }
        }
    });
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

/// A whole chunk.
fn unit() -> Layout {
    layout(UNIT, PAGE_SIZE as usize)
}

/// SAFETY of all calls: the cases free what they allocated, once, and use it no more; what is
/// wrong about others is refused.
fn free(addr: PerCpuAddr, layout: Layout) {
    // SAFETY: see above.
    unsafe { percpu_area::free(addr, layout) };
}

/// The figures, checked, also against the pages that were taken.
fn audited() -> Result<Stats, Stop> {
    let stats = kassert_ok!(percpu_area::audit());
    // The first chunks' pages are older than the page allocator.
    let pages = mm().counts().used[Use::PerCpu as usize];
    kassert_eq!(
        pages,
        (stats.pages * smp::cpus().count()) as u64,
        "{stats:?}"
    );
    Ok(stats)
}

/// [`audited`], without the chunk that is kept.
fn trimmed() -> Result<Stats, Stop> {
    percpu_area::trim();
    audited()
}

/// Frames in use, but for slabs: what is short of memory makes them give some back.
fn frames() -> u64 {
    let counts = mm().counts();
    counts.used_frames() - counts.used[Use::Slab as usize]
}

fn bytes(addr: PerCpuAddr, cpu: CpuId, len: usize) -> &'static mut [u8] {
    // SAFETY: memory that the case allocated, and uses from one place at a time.
    unsafe { core::slice::from_raw_parts_mut(Kernel::percpu_on(addr, cpu).as_ptr(), len) }
}

/// The word at an address, as its CPU sees it through GS.
fn word_here(addr: PerCpuAddr, cpu: CpuId) -> u64 {
    let word = AtomicU64::new(0);
    smp::call_on(cpu, &|| {
        // SAFETY: memory of the case; on its CPU, in an interrupt.
        let here = unsafe { Kernel::percpu_here(addr).cast::<u64>().read_volatile() };
        word.store(here, Ordering::Relaxed);
    });
    word.load(Ordering::Relaxed)
}

fn starts_out_zero(_: &mut Ctx) -> Outcome {
    for size in [1, 16, 100, 4096, UNIT] {
        for _ in 0..2 {
            let addr = kassert_ok!(percpu_area::alloc(layout(size, 16)), "{size} bytes");
            for cpu in smp::cpus() {
                let bytes = bytes(addr, cpu, size);
                kassert!(
                    bytes.iter().all(|byte| *byte == 0),
                    "{size} bytes of {cpu:?}"
                );
                bytes.fill(0xa5);
            }
            free(addr, layout(size, 16));
        }
    }
    audited()?;
    Ok(())
}

/// One address, in the first chunk and in one that came later: an addition through GS goes to
/// the own CPU's copy and no other.
fn own_copy_by_one_address(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let first = kassert_ok!(percpu_area::alloc(layout(8, 8)));
    let large = kassert_ok!(percpu_area::alloc(unit()));
    let last = PerCpuAddr(large.0 + UNIT - 8);
    for addr in [first, large, last] {
        smp::call_on(cpu, &|| {
            for _ in 0..5 {
                // SAFETY: an atomic word of the case's.
                unsafe { Kernel::percpu_add(addr, 3) };
            }
        });
        kassert_eq!(word_here(addr, cpu), 15);
        for other in smp::cpus() {
            // SAFETY: a word of the case's.
            let there = unsafe { Kernel::percpu_on(addr, other).cast::<u64>().read_volatile() };
            kassert_eq!(there, if other == cpu { 15 } else { 0 }, "{other:?}");
        }
    }
    free(large, unit());
    free(first, layout(8, 8));
    Ok(())
}

fn lies_on_the_node_of_its_cpu(_: &mut Ctx) -> Outcome {
    if boot::acpi().memory.is_empty() {
        kskip!("the machine does not say where memory is");
    }
    let addrs = [unit(), layout(64, 64)].map(|layout| (percpu_area::alloc(layout), layout));
    for (addr, layout) in addrs {
        let addr = kassert_ok!(addr);
        for cpu in smp::cpus() {
            for offset in (0..layout.size()).step_by(PAGE_SIZE as usize) {
                let place = Kernel::percpu_on(PerCpuAddr(addr.0 + offset), cpu);
                let mapping = kassert_ok!(paging::lookup(place.addr().get() as u64));
                kassert!(mapping.writable && !mapping.executable);
                kassert_eq!(
                    memory::node_at(mapping.phys).0,
                    Kernel::node_of(cpu),
                    "{cpu:?}"
                );
            }
        }
        free(addr, layout);
    }
    Ok(())
}

fn is_mapped(addr: PerCpuAddr, cpu: CpuId) -> bool {
    paging::lookup(Kernel::percpu_on(addr, cpu).addr().get() as u64).is_some()
}

fn grows_and_gives_back(_: &mut Ctx) -> Outcome {
    const CHUNKS: usize = 5;
    let before = trimmed()?;
    let total = percpu_area::total_bytes();
    let mut all = Vec::new();
    for number in 0..CHUNKS {
        let addr = kassert_ok!(percpu_area::alloc(unit()));
        for cpu in smp::cpus() {
            bytes(addr, cpu, UNIT).fill((number * 8 + cpu.index()) as u8);
        }
        all.push(addr);
    }
    let grown = audited()?;
    kassert_eq!(grown.chunks, before.chunks + CHUNKS);
    let each = (CHUNKS * UNIT * smp::cpus().count()) as u64;
    kassert_eq!(percpu_area::total_bytes(), total + each);
    for (number, addr) in all.iter().enumerate() {
        for cpu in smp::cpus() {
            let wanted = (number * 8 + cpu.index()) as u8;
            kassert!(bytes(*addr, cpu, UNIT).iter().all(|byte| *byte == wanted));
            // What is behind the last chunk is not mapped.
            let behind = PerCpuAddr(addr.0 + UNIT);
            kassert_eq!(is_mapped(behind, cpu), number + 1 < CHUNKS, "{cpu:?}");
        }
    }
    for addr in &all {
        free(*addr, unit());
    }
    kassert_eq!(trimmed()?, before);
    kassert_eq!(percpu_area::total_bytes(), total);
    for addr in all {
        for cpu in smp::cpus() {
            kassert!(!is_mapped(addr, cpu), "{addr:?} of {cpu:?}");
        }
    }
    Ok(())
}

/// The same addresses show other pages each time; no CPU may see those from before.
fn new_pages_are_seen_at_once(_: &mut Ctx) -> Outcome {
    for round in 0..kunit::rounds(1_000, 20) {
        let two = [(); 2].map(|()| percpu_area::alloc(unit()));
        for addr in two {
            let addr = kassert_ok!(addr);
            for cpu in smp::online() {
                let place = Kernel::percpu_on(addr, cpu).addr().get() as u64;
                let frame = kassert_ok!(paging::lookup(place)).phys;
                let value = round << 8 | cpu.index() as u64;
                // SAFETY: the frame is the case's, and the physical map shows it.
                unsafe { (phys_to_virt(frame) as *mut u64).write_volatile(value) };
                kassert_eq!(word_here(addr, cpu), value, "{cpu:?}, round {round}");
            }
        }
        // Freed in another order each time, so that pages come back at other places.
        for number in [round as usize % 2, (round as usize + 1) % 2] {
            free(kassert_ok!(two[number]), unit());
            percpu_area::trim();
        }
    }
    audited()?;
    Ok(())
}

/// The n-th page cannot be had, for every n: nothing stays behind.
fn every_page_may_be_missing(_: &mut Ctx) -> Outcome {
    let before = trimmed()?;
    let used = frames();
    let needed = UNIT / PAGE_SIZE as usize * smp::cpus().count() + 1;
    for pages in 0..=needed {
        fail_after(Some(pages));
        let addr = percpu_area::alloc(unit());
        fail_after(None);
        kassert_eq!(addr.is_some(), pages == needed, "{pages} of {needed} pages");
        if let Some(addr) = addr {
            free(addr, unit());
        }
        kassert_eq!(trimmed()?, before, "{pages} of {needed} pages");
        kassert_eq!(frames(), used, "{pages} of {needed} pages");
    }
    Ok(())
}

/// No memory is a normal event, and what is there stays in use.
fn runs_out(_: &mut Ctx) -> Outcome {
    const SIZE: Layout = Layout::new::<[u64; 96]>();
    let before = trimmed()?;
    let chunk = UNIT / PAGE_SIZE as usize * smp::cpus().count() + 1;
    // Room first: from then on there are so many pages, for whoever asks.
    let mut all = Vec::with_capacity(3 * UNIT / SIZE.size());
    fail_after(Some(2 * chunk));
    while let Some(addr) = percpu_area::alloc(SIZE) {
        all.push(addr);
    }
    let full = percpu_area::stats();
    kassert_eq!(full.chunks, before.chunks + 2);
    kassert!(full.populated - full.used < (before.chunks + 2) * (SIZE.size() + 512));
    kassert_eq!(percpu_area::alloc(unit()), None);
    let Some(last) = all.pop() else {
        kskip!("there was nothing at all");
    };
    free(last, SIZE);
    kassert_eq!(percpu_area::alloc(SIZE), Some(last));
    all.push(last);
    kassert_eq!(percpu_area::alloc(layout(UNIT + 1, 1)), None);
    kassert_eq!(percpu_area::alloc(layout(8, 8192)), None);
    fail_after(None);
    for addr in all {
        free(addr, SIZE);
    }
    kassert_eq!(trimmed()?, before);
    Ok(())
}

/// With preemption or interrupts off there is what is mapped, and no more.
fn does_not_sleep_where_it_may_not(_: &mut Ctx) -> Outcome {
    let before = trimmed()?;
    let pinned = Preempt::<Kernel>::disable();
    let small = percpu_area::alloc(layout(64, 8));
    let large = percpu_area::alloc(unit());
    drop(pinned);
    let irqs_off = IrqsOff::<Kernel>::disable();
    let other = percpu_area::alloc(layout(64, 8));
    let large = large.or_else(|| percpu_area::alloc(unit()));
    if let Some(other) = other {
        free(other, layout(64, 8));
    }
    drop(irqs_off);
    kassert!(other.is_some());
    kassert_eq!(large, None);
    free(kassert_ok!(small), layout(64, 8));
    kassert_eq!(audited()?, before);
    // What is freed there is given back later.
    let two = [(); 2].map(|()| percpu_area::alloc(unit()));
    let pinned = Preempt::<Kernel>::disable();
    for addr in two.into_iter().flatten() {
        free(addr, unit());
    }
    drop(pinned);
    kassert_eq!(audited()?.empty, 2);
    let addr = kassert_ok!(percpu_area::alloc(layout(64, 8)));
    free(addr, layout(64, 8));
    kassert_eq!(trimmed()?, before);
    Ok(())
}

fn wrong_frees_are_refused(_: &mut Ctx) -> Outcome {
    let addr = kassert_ok!(percpu_area::alloc(layout(64, 16)));
    let before = trimmed()?;
    free(PerCpuAddr(addr.0 + 16), layout(48, 16));
    free(addr, layout(128, 16));
    // Static data, and nothing at all.
    free(PerCpuAddr(crate::arch::percpu::template().0), layout(8, 8));
    free(PerCpuAddr(0), layout(16, 16));
    kassert_eq!(audited()?, before);
    free(addr, layout(64, 16));
    let after = audited()?;
    free(addr, layout(64, 16));
    kassert_eq!(audited()?, after);
    Ok(())
}

/// One more and one less than a chunk has: the chunk stays.
fn free_at_a_boundary_maps_nothing(_: &mut Ctx) -> Outcome {
    let addr = kassert_ok!(percpu_area::alloc(unit()));
    free(addr, unit());
    let kept = audited()?;
    kassert_eq!(kept.empty, 1);
    let shootdowns = smp::ipi_counts(CpuId::BOOT).shootdown;
    for _ in 0..100 {
        let again = kassert_ok!(percpu_area::alloc(unit()));
        kassert_eq!(again, addr);
        free(again, unit());
    }
    kassert_eq!(smp::ipi_counts(CpuId::BOOT).shootdown, shootdowns);
    kassert_eq!(audited()?, kept);
    percpu_area::trim();
    Ok(())
}

/// A thread of each CPU takes and gives pieces, each marked as its own on every CPU; chunks
/// come and go.
fn all_cpus_at_once(ctx: &mut Ctx) -> Outcome {
    let before = trimmed()?;
    let rounds = kunit::rounds(20_000, 400);
    let mut threads: Vec<JoinHandle<Result<(), &'static str>>> = Vec::new();
    for cpu in smp::online() {
        let seed = ctx.rng().next_u64();
        let thread = Builder::new()
            .on(cpu)
            .spawn(format_args!("percpu {cpu}"), move || {
                stress(seed, rounds, 1 + cpu.index() as u8)
            });
        threads.push(kassert_ok!(thread));
    }
    for thread in threads {
        kassert_eq!(thread.join(), Ok(()));
    }
    kassert!(audited()?.empty <= 1, "a chunk too many is kept");
    kassert_eq!(trimmed()?, before);
    Ok(())
}

fn stress(seed: u64, rounds: u64, mark: u8) -> Result<(), &'static str> {
    let mut rng = kernel_base::rng::Rng::new(seed);
    let mut held: Vec<(PerCpuAddr, usize)> = Vec::new();
    let check = |(addr, size): (PerCpuAddr, usize), wanted: u8| {
        smp::cpus().iter().all(|cpu| {
            let bytes = bytes(addr, cpu, size);
            // The ends are looked at; all of it would take long.
            [0, size / 2, size - 1]
                .iter()
                .all(|at| bytes[*at] == wanted)
        })
    };
    for round in 0..rounds {
        // Tides, so that chunks become empty.
        let most = if round / 64 % 2 == 0 { 24 } else { 2 };
        while held.len() as u64 > rng.below(most) {
            let piece = held.swap_remove(rng.below(held.len() as u64) as usize);
            if !check(piece, mark) {
                return Err("somebody else wrote to it");
            }
            free(piece.0, layout(piece.1, 16));
        }
        let most = if round % 8 == 0 { 9_000 } else { 400 };
        let size = 1 + rng.below(most) as usize;
        let Some(addr) = percpu_area::alloc(layout(size, 16)) else {
            return Err("no memory");
        };
        if !check((addr, size), 0) {
            return Err("it is not zeroed");
        }
        for cpu in smp::cpus() {
            bytes(addr, cpu, size).fill(mark);
        }
        held.push((addr, size));
    }
    for piece in held {
        if !check(piece, mark) {
            return Err("somebody else wrote to it");
        }
        free(piece.0, layout(piece.1, 16));
    }
    Ok(())
}
