//! vmalloc and what stands on it: guards by what the processor does, other CPUs'
//! translations, leaks, thread stacks.

use alloc::sync::Arc;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mm::machine::Access;
use mm::report::Kind as Found;
use mm::vmalloc::{Error, RangeState, Request, Source};
use mm::{Gfp, Pfn, Use};
use platform::CpuId;

use crate::arch::interrupts::vector;
use crate::arch::stacks::{self, Owner};
use crate::arch::{paging, probe, tlb};
use crate::kunit::{
    CpuPairs, Ctx, Outcome, Stop, kassert, kassert_eq, kassert_ok, kfail, kskip, kunit_suite,
    rounds,
};
use crate::memory::{mm, vmalloc::vmalloc};
use crate::report::Kind;
use crate::sched::{self, Builder};
use crate::smp;

kunit_suite! {
    name: "vmalloc",
    cases: [
        memory_is_memory,
        guards_fault,
        read_only_is_read_only,
        is_vmalloc,
        find_area,
        remapped_is_seen_by_others => { over: CpuPairs },
        frames_wait_for_the_flush,
        one_flush_for_many,
        cycles_leak_nothing,
        from_all_cpus,
        freed_in_an_interrupt,
        kvmalloc_both_ways,
        huge_requests,
        without_memory,
        wrong_frees => { expects: [
            Kind::Memory(Found::BadVmallocAddress),
            Kind::Memory(Found::BadVmallocAddress),
        ] },
        stack_guards,
        stacks_come_back,
    ],
}

const PAGE: usize = 4096;

/// Frames that areas hold, lazy ones, too.
fn used(usage: Use) -> u64 {
    mm().counts().used[usage as usize]
}

/// Nothing is lazy any more.
fn settle() {
    vmalloc().purge();
}

fn word(address: usize) -> *mut u64 {
    core::ptr::with_exposed_provenance_mut(address)
}

fn direct(pfn: Pfn) -> *mut u64 {
    mm().frames().address_of(pfn).cast()
}

fn fault_at(address: usize) -> Outcome {
    let read = probe::read_u64(address);
    let Err(fault) = read else {
        kfail!("{address:#x} can be read: {read:?}");
    };
    kassert_eq!(
        (fault.vector, fault.address),
        (vector::PAGE_FAULT, address as u64)
    );
    let write = probe::write_u8(address, 0);
    let Err(fault) = write else {
        kfail!("{address:#x} can be written");
    };
    kassert_eq!(fault.address, address as u64);
    Ok(())
}

/// Adjacent, each page a frame of its own, and zeroed where that was asked for.
fn memory_is_memory(_: &mut Ctx) -> Outcome {
    const PAGES: usize = 300;
    for gfp in [Gfp::KERNEL, Gfp::KERNEL | Gfp::ZERO] {
        let area = kassert_ok!(vmalloc().alloc(&Request::new(PAGES * PAGE, gfp)));
        let start = area.memory().start;
        for page in 0..PAGES {
            let address = start + page * PAGE;
            if gfp.contains(Gfp::ZERO) {
                // SAFETY: the area's.
                kassert_eq!(unsafe { word(address).read() }, 0);
            }
            // SAFETY: the area's.
            unsafe { word(address).write(address as u64) };
        }
        let mut count = 0;
        for (page, pfn) in area.frames().enumerate() {
            let address = start + page * PAGE;
            // SAFETY: a frame of the area.
            kassert_eq!(unsafe { direct(pfn).read() }, address as u64);
            let mapping = kassert_ok!(paging::lookup(address as u64));
            kassert_eq!(mapping.phys, pfn.phys());
            kassert!(mapping.writable && !mapping.executable && mapping.global);
            count += 1;
        }
        kassert_eq!(count, PAGES);
    }
    Ok(())
}

fn guards_fault(_: &mut Ctx) -> Outcome {
    let request = Request::new(3 * PAGE, Gfp::KERNEL).guarded(2, 1);
    let first = kassert_ok!(vmalloc().alloc(&request));
    let second = kassert_ok!(vmalloc().alloc(&request));
    for area in [&first, &second] {
        let (range, memory) = (area.range(), area.memory());
        kassert_eq!(memory.start - range.start, 2 * PAGE);
        kassert_eq!(range.end - memory.end, PAGE);
        kassert_ok!(probe::read_u64(memory.end - 8));
        for address in [range.start, memory.start - 8, memory.end, range.end - 8] {
            fault_at(address)?;
        }
    }
    let memory = first.memory();
    drop(first);
    settle();
    // Everything of it is a guard now.
    for address in memory.step_by(PAGE) {
        fault_at(address)?;
    }
    Ok(())
}

fn read_only_is_read_only(_: &mut Ctx) -> Outcome {
    let pfn = kassert_ok!(mm().alloc_pages(Gfp::KERNEL, 0, Use::Pages));
    // SAFETY: the case's frame.
    unsafe { direct(pfn).write(0x5afe) };
    // SAFETY: the case's frame, and only read through the area.
    let area = kassert_ok!(unsafe { vmalloc().map(&[pfn], Access::Read) });
    let at = area.memory().start;
    kassert_eq!(probe::read_u64(at), Ok(0x5afe));
    kassert!(probe::write_u8(at, 1).is_err());
    drop(area);
    fault_at(at)?;
    // SAFETY: allocated above.
    unsafe { mm().free_pages(pfn, 0, Use::Pages) };
    Ok(())
}

fn is_vmalloc(_: &mut Ctx) -> Outcome {
    let vmalloc = vmalloc();
    let area = kassert_ok!(vmalloc.alloc(&Request::new(1, Gfp::KERNEL)));
    kassert!(vmalloc.is_vmalloc(area.memory().start));
    kassert!(vmalloc.is_vmalloc(area.memory().end));
    let local = core::hint::black_box(0u64);
    // A thread's stack is an area, too.
    kassert!(vmalloc.is_vmalloc(core::ptr::from_ref(&local).addr()));
    let boxed = alloc::boxed::Box::new(0u64);
    for address in [
        core::ptr::from_ref(&*boxed).addr(),
        is_vmalloc as fn(&mut Ctx) -> Outcome as usize,
        0,
        usize::MAX,
    ] {
        kassert!(!vmalloc.is_vmalloc(address), "{address:#x}");
    }
    Ok(())
}

fn find_area(_: &mut Ctx) -> Outcome {
    let vmalloc = vmalloc();
    let area = kassert_ok!(vmalloc.alloc(&Request::new(5 * PAGE, Gfp::KERNEL)));
    let memory = area.memory();
    for address in [memory.start, memory.end - 1, memory.end] {
        let found = kassert_ok!(vmalloc.find_area(address));
        kassert_eq!((found.memory.clone(), found.pages()), (memory.clone(), 5));
        kassert!(found.caller.file().ends_with("vmalloc.rs"));
    }
    drop(area);
    if let Some(found) = vmalloc.find_area(memory.start) {
        kassert_eq!(found.state, RangeState::Lazy);
    }
    let mut text = alloc::string::String::new();
    kassert_ok!(vmalloc.write_info(&mut text));
    kassert!(text.contains(" pages=8 stack\n"), "{text}");
    kassert_ok!(vmalloc.check());
    Ok(())
}

/// One CPU shows a frame, another writes through; the first one takes it away and shows
/// another frame at the same address. The other CPU's next write goes there, and never again
/// to the first frame.
fn remapped_is_seen_by_others(_: &mut Ctx, (from, to): (CpuId, CpuId)) -> Outcome {
    sched::move_to(platform::CpuMask::only(from));
    let mut frames = [Pfn(0); 2];
    for frame in &mut frames {
        *frame = kassert_ok!(mm().alloc_pages(Gfp::KERNEL, 0, Use::Pages));
    }
    let result = write_in_turns(to, frames);
    for frame in frames {
        // SAFETY: allocated above, and shown nowhere any more.
        unsafe { mm().free_pages(frame, 0, Use::Pages) };
    }
    result
}

fn write_in_turns(to: CpuId, frames: [Pfn; 2]) -> Outcome {
    let mut places = [0; 2];
    for turn in 0..20u64 {
        let (now, other) = (frames[turn as usize % 2], frames[(turn as usize + 1) % 2]);
        // SAFETY: frames of the case; nobody writes to them but as below.
        unsafe {
            direct(now).write(0);
            direct(other).write(u64::MAX);
        }
        // SAFETY: as above.
        let area = kassert_ok!(unsafe { vmalloc().map(&[now], Access::ReadWrite) });
        let at = area.memory().start;
        places[turn as usize % 2] = at;
        let fault = AtomicBool::new(false);
        // Relaxed: the end of the call orders it before the read below.
        smp::call_on(to, &|| {
            let bad = probe::write_u8(at, turn as u8 + 1).is_err();
            fault.store(bad, Ordering::Relaxed);
        });
        kassert!(!fault.load(Ordering::Relaxed), "turn {turn}");
        // SAFETY: as above.
        let (seen, untouched) = unsafe { (direct(now).read(), direct(other).read()) };
        kassert_eq!(seen, turn + 1, "turn {turn} at {at:#x}");
        kassert_eq!(
            untouched,
            u64::MAX,
            "turn {turn}: the old frame was written"
        );
        drop(area);
        // Gone for the other CPU, too.
        smp::call_on(to, &|| {
            fault.store(probe::read_u64(at).is_err(), Ordering::Relaxed);
        });
        kassert!(
            fault.load(Ordering::Relaxed),
            "turn {turn}: still to be read"
        );
    }
    kassert_eq!(places[0], places[1], "else it proves nothing");
    Ok(())
}

/// The frames of a freed area are used, by the page allocator's account, until the flush.
fn frames_wait_for_the_flush(_: &mut Ctx) -> Outcome {
    settle();
    let area = kassert_ok!(vmalloc().alloc(&Request::new(4 * PAGE, Gfp::KERNEL)));
    let mut frames = [Pfn(0); 4];
    for (place, pfn) in frames.iter_mut().zip(area.frames()) {
        *place = pfn;
    }
    let memory = area.memory();
    let all = |state: fn(mm::State) -> bool| {
        frames.iter().all(|pfn| {
            let frame = mm().frames().get(*pfn);
            frame.is_some_and(|frame| state(frame.word().state()))
        })
    };
    let in_use: fn(mm::State) -> bool = |state| state == mm::State::Used(Use::Vmalloc);
    drop(area);
    // Not with the bound of laziness so near that this was too much.
    kassert!(all(in_use), "the frames are back before a flush");
    kassert!(paging::lookup(memory.start as u64).is_none());
    settle();
    kassert!(all(|state| state != mm::State::Used(Use::Vmalloc)));
    kassert_eq!(vmalloc().stats().held, 0);
    Ok(())
}

/// What the CPUs are told, since TCG forgives what they are not: one interrupt each for many
/// areas, in which every page of them is dropped.
fn one_flush_for_many(_: &mut Ctx) -> Outcome {
    const AREAS: usize = 10;
    sched::move_to(platform::CpuMask::only(CpuId::BOOT));
    settle();
    let request = Request::new(PAGE, Gfp::KERNEL);
    let mut areas = alloc::vec::Vec::new();
    for _ in 0..AREAS {
        areas.push(kassert_ok!(vmalloc().alloc(&request)));
    }
    let first = areas.iter().map(|area| area.memory().start).min();
    let last = areas.iter().map(|area| area.memory().end).max();
    let span = (last.unwrap_or(0) - first.unwrap_or(0)) / PAGE;
    let online = || smp::online().iter();
    let before: alloc::vec::Vec<_> = online()
        .map(|cpu| (smp::ipi_counts(cpu).shootdown, tlb::flushes(cpu)))
        .collect();
    let flushes = vmalloc().stats().flushes;
    areas.clear();
    kassert_eq!(vmalloc().stats().flushes, flushes, "flushed without need");
    for (cpu, (interrupts, _)) in online().zip(&before) {
        kassert_eq!(smp::ipi_counts(cpu).shootdown, *interrupts, "cpu{cpu}");
    }
    settle();
    kassert_eq!(vmalloc().stats().flushes, flushes + 1);
    for (cpu, (interrupts, flushed)) in online().zip(&before) {
        let others = u64::from(cpu != CpuId::BOOT);
        kassert_eq!(
            smp::ipi_counts(cpu).shootdown,
            interrupts + others,
            "cpu{cpu}"
        );
        let now = tlb::flushes(cpu);
        let whole = now.all - flushed.all;
        let pages = now.pages - flushed.pages;
        kassert!(
            whole == 1 || pages >= span as u64,
            "cpu{cpu} dropped {pages} pages of {span}"
        );
    }
    Ok(())
}

/// As many as the issue asks for; nothing is lost, and page tables do not pile up.
fn cycles_leak_nothing(_: &mut Ctx) -> Outcome {
    let cycles = rounds(100_000, 3_000);
    settle();
    drop(vmalloc().alloc(&Request::new(PAGE, Gfp::KERNEL)));
    settle();
    let before = (used(Use::Vmalloc), vmalloc().stats().areas);
    let (tables, meta) = (used(Use::PageTable), used(Use::Meta));
    let flushes = vmalloc().stats().flushes;
    for cycle in 0..cycles {
        let pages = cycle as usize % 3 + 1;
        let area = kassert_ok!(vmalloc().alloc(&Request::new(pages * PAGE, Gfp::KERNEL)));
        // SAFETY: the area's.
        unsafe { word(area.memory().end - 8).write(cycle) };
    }
    let made = vmalloc().stats().flushes - flushes;
    kassert!(made < cycles / 100, "{made} flushes for {cycles} areas");
    settle();
    kassert_eq!((used(Use::Vmalloc), vmalloc().stats().areas), before);
    // Tables stay for the addresses that were lazy at a time. Pages of descriptors stay while
    // one in them is of a range that is left; a leak would be a hundred.
    kassert!(used(Use::PageTable) <= tables + 64, "page tables pile up");
    kassert!(used(Use::Meta) <= meta + 16, "descriptors pile up");
    kassert_ok!(vmalloc().check());
    Ok(())
}

/// Every CPU makes, fills, looks at and frees areas.
fn from_all_cpus(_: &mut Ctx) -> Outcome {
    let cycles = rounds(20_000, 400);
    settle();
    let before = used(Use::Vmalloc);
    let mut threads = alloc::vec::Vec::new();
    for cpu in smp::online() {
        let thread = Builder::new()
            .on(cpu)
            .spawn(format_args!("areas"), move || {
                let mut kept = None;
                for cycle in 0..cycles {
                    let size = (cycle as usize * 7 + cpu.index()) % 5 * PAGE + 1;
                    let Ok(area) = vmalloc().alloc(&Request::new(size, Gfp::KERNEL)) else {
                        return Err("no memory");
                    };
                    let mark = cycle << 8 | u64::from(cpu.number());
                    for page in area.memory().step_by(PAGE) {
                        // SAFETY: the area's.
                        unsafe { word(page).write(mark) };
                    }
                    if let Some((area, mark)) = kept.replace((area, mark)) {
                        let area: crate::memory::vmalloc::Area = area;
                        for page in area.memory().step_by(PAGE) {
                            // SAFETY: the area's.
                            if unsafe { word(page).read() } != mark {
                                return Err("somebody else wrote to the area");
                            }
                        }
                    }
                    if cycle % 64 == 0 {
                        vmalloc().purge();
                    }
                }
                Ok(())
            });
        threads.push(kassert_ok!(thread));
    }
    for thread in threads {
        kassert_ok!(thread.join());
    }
    settle();
    kassert_eq!(used(Use::Vmalloc), before);
    kassert_ok!(vmalloc().check());
    Ok(())
}

/// Waits until `done`, at most some seconds.
fn wait_for(mut done: impl FnMut() -> bool) -> bool {
    for _ in 0..2000 {
        if done() {
            return true;
        }
        sched::sleep_ns(5_000_000);
    }
    done()
}

/// The thread `vmalloc` frees what an interrupt handler could not.
fn freed_in_an_interrupt(_: &mut Ctx) -> Outcome {
    for cpu in smp::online() {
        let address = kassert_ok!(vmalloc().vmalloc(3 * PAGE, Gfp::KERNEL));
        let raw = address.addr().get();
        smp::call_on(cpu, &|| {
            let address = NonNull::new(word(raw).cast::<u8>());
            // SAFETY: nobody uses it any more.
            address
                .into_iter()
                .for_each(|address| unsafe { vmalloc().vfree(address) });
        });
        // By the tables: this CPU may have a translation until the flush.
        let gone = wait_for(|| paging::lookup(raw as u64).is_none());
        kassert!(gone, "cpu{cpu}: nobody freed the area");
        // Who has unmapped it may not yet have put it where `settle` finds it.
        let forgotten = wait_for(|| {
            settle();
            probe::read_u64(raw).is_err()
        });
        kassert!(forgotten, "cpu{cpu}: the area can still be read");
        fault_at(raw)?;
    }
    Ok(())
}

fn kvmalloc_both_ways(_: &mut Ctx) -> Outcome {
    settle();
    let vmalloc = vmalloc();
    // More than the largest block cannot come from the direct map.
    for (size, by_vmalloc) in [(100, false), (3 * PAGE, false), (5 << 20, true)] {
        let before = (used(Use::Kmalloc), used(Use::Vmalloc));
        let address = kassert_ok!(vmalloc.kvmalloc(size, Gfp::KERNEL));
        let number = address.addr().get();
        kassert_eq!(vmalloc.is_vmalloc(number), by_vmalloc, "{size} bytes");
        // SAFETY: just allocated, so large.
        unsafe { address.write_bytes(0xa5, size) };
        // SAFETY: nobody uses it any more.
        unsafe { vmalloc.kvfree(address) };
        settle();
        kassert_eq!((used(Use::Kmalloc), used(Use::Vmalloc)), before);
    }
    Ok(())
}

/// What cannot be fails at once, and takes nothing for it.
fn huge_requests(_: &mut Ctx) -> Outcome {
    let all = mm().total() as usize * PAGE;
    let before = used(Use::Vmalloc);
    for size in [all + 1, 1 << 45, usize::MAX] {
        let request = Request::new(size, Gfp::KERNEL | Gfp::NOWARN);
        kassert_eq!(vmalloc().alloc(&request).err(), Some(Error::TooLarge));
    }
    kassert_eq!(used(Use::Vmalloc), before);
    // Nearly all there is, which others have a part of: fails, and gives back what it took.
    if all > (2 << 30) {
        kskip!("too much memory to use it up");
    }
    let request = Request::new(all - PAGE, Gfp::KERNEL | Gfp::NOWARN);
    kassert_eq!(vmalloc().alloc(&request).err(), Some(Error::NoMemory));
    kassert_eq!(used(Use::Vmalloc), before);
    kassert_ok!(vmalloc().alloc(&Request::new(16 * PAGE, Gfp::KERNEL)));
    Ok(())
}

/// Each allocation of a sequence fails once, the first, the second, ...; nothing is lost.
fn without_memory(_: &mut Ctx) -> Outcome {
    let own = alloc::format!("{}", sched::current_ref().id);
    settle();
    let before = (used(Use::Vmalloc), vmalloc().stats().areas);
    let arm = |nth| {
        mm().debug().faults(|faults| {
            faults.fail_nth(nth);
            faults
                .set("task", if nth == 0 { "off" } else { &own })
                .is_ok()
        })
    };
    let mut failed = 0;
    for nth in 1..1000 {
        kassert!(arm(nth));
        let request = Request::new(9 * PAGE, Gfp::KERNEL | Gfp::NOWARN);
        let areas = [(); 4].map(|()| vmalloc().alloc(&request));
        let pending = mm().debug().faults(|faults| faults.pending());
        arm(0);
        failed += areas.iter().filter(|area| area.is_err()).count();
        drop(areas);
        settle();
        kassert_eq!(
            (used(Use::Vmalloc), vmalloc().stats().areas),
            before,
            "{nth}"
        );
        kassert_ok!(vmalloc().check());
        if pending {
            kassert!(failed >= 36, "{failed} failures were felt, of {nth}");
            return Ok(());
        }
    }
    kfail!("the sequence has no end")
}

fn wrong_frees(_: &mut Ctx) -> Outcome {
    let address = kassert_ok!(vmalloc().vmalloc(2 * PAGE, Gfp::KERNEL));
    // SAFETY: inside an area: refused.
    unsafe { vmalloc().vfree(address.add(PAGE)) };
    kassert_ok!(probe::read_u64(address.addr().get()));
    // SAFETY: the second is one too many: refused.
    unsafe {
        vmalloc().vfree(address);
        vmalloc().vfree(address);
    }
    Ok(())
}

/// A thread's stack has unmapped memory below it, and says whose it is.
fn stack_guards(_: &mut Ctx) -> Outcome {
    let go_on = Arc::new(AtomicU64::new(0));
    let waiting = Arc::clone(&go_on);
    let thread = Builder::new().spawn(format_args!("digger"), move || {
        while waiting.load(Ordering::Acquire) == 0 {
            sched::park();
        }
    });
    let handle = kassert_ok!(thread);
    let thread = handle.thread().clone();
    let result = look_at_stack(&thread);
    go_on.store(1, Ordering::Release);
    sched::unpark(&thread);
    handle.join();
    result?;
    // Afterwards it is nobody's.
    let stack = kassert_ok!(thread.own_stack);
    if let Some(slot) = stacks::slot_of(stack.top - 8) {
        let another = core::ptr::from_ref(&*thread).addr();
        kassert!(slot.owner != Owner::Thread(another), "{slot:?}");
    }
    Ok(())
}

fn look_at_stack(thread: &sched::Thread) -> Result<(), Stop> {
    let stack = kassert_ok!(thread.own_stack);
    let address = core::ptr::from_ref(thread).addr();
    for at in [stack.bottom, stack.top - 8] {
        kassert_ok!(probe::read_u64(at as usize));
        let slot = kassert_ok!(stacks::slot_of(at));
        kassert_eq!((slot.owner, slot.stack), (Owner::Thread(address), stack));
        kassert!(!slot.is_guard(at));
    }
    for at in [stack.bottom - 8, stack.bottom - 4096] {
        fault_at(at as usize)?;
        let slot = kassert_ok!(stacks::slot_of(at));
        kassert_eq!(slot.owner, Owner::Thread(address));
        kassert!(slot.is_guard(at));
    }
    let area = kassert_ok!(vmalloc().find_area(stack.bottom as usize));
    kassert_eq!(area.usage, Use::Stack);
    Ok(())
}

/// 10 000 threads, in waves that are more than what is kept for the next: every page of their
/// stacks comes back.
fn stacks_come_back(_: &mut Ctx) -> Outcome {
    const AT_ONCE: u64 = 100;
    let threads = rounds(10_000, 1_000);
    let empty = || {
        sched::free_unused_stacks();
        settle();
        (used(Use::Stack), vmalloc().stats().areas)
    };
    let before = empty();
    for _ in 0..threads / AT_ONCE {
        let mut wave = alloc::vec::Vec::new();
        for number in 0..AT_ONCE {
            let thread = Builder::new().spawn(format_args!("one of many"), move || number);
            wave.push(kassert_ok!(thread));
        }
        for (number, thread) in wave.into_iter().enumerate() {
            kassert_eq!(thread.join(), number as u64);
        }
    }
    kassert_eq!(empty(), before);
    kassert_ok!(vmalloc().check());
    Ok(())
}
