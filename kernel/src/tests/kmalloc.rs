//! kmalloc, and what `alloc` makes of it.

use alloc::{boxed::Box, vec::Vec};
use core::{
    alloc::Layout,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use mm::{
    Gfp, Use,
    report::Kind as Wrong,
    slab::{
        ZERO_SIZE,
        kmalloc::{MAX_CACHED, SIZES},
    },
};

use crate::{
    heap,
    kunit::{Ctx, Outcome, kassert, kassert_eq, kassert_ok, knote, kunit_suite, rounds},
    memory::{mm, slab::slabs, vmalloc::vmalloc},
    report::Kind,
    sched::Builder,
    smp,
    sweep::sweep,
    timer::RawKind,
};

kunit_suite! {
    name: "kmalloc",
    cases: [
        sizes,
        layouts,
        alloc_uses_it,
        what_the_boot_heap_gave_is_told_by_its_address,
        krealloc,
        kvmalloc,
        from_interrupts,
        from_nmis,
        random_on_all_cpus,
        no_memory_is_an_error,
        wrong_addresses_are_refused => { expects: [
            Kind::Memory(Wrong::BadKmallocAddress),
            Kind::Memory(Wrong::BadKmallocAddress),
            Kind::Memory(Wrong::BadKmallocAddress),
        ] },
    ],
}

fn free(memory: NonNull<u8>) {
    // SAFETY: the case's, and not used any more.
    unsafe { slabs().kfree(memory) };
}

fn fill(memory: NonNull<u8>, size: usize, byte: u8) {
    // SAFETY: the case's, and so large.
    unsafe { memory.write_bytes(byte, size) };
}

fn is_all(memory: NonNull<u8>, size: usize, byte: u8) -> bool {
    // SAFETY: the case's, written to, and so large.
    let bytes = unsafe { core::slice::from_raw_parts(memory.as_ptr(), size) };
    bytes.iter().all(|found| *found == byte)
}

fn sizes(_: &mut Ctx) -> Outcome {
    for size in (1..2 * MAX_CACHED)
        .step_by(61)
        .chain(SIZES)
        .chain([100_000])
    {
        let memory = kassert_ok!(slabs().kmalloc(size, Gfp::KERNEL));
        // SAFETY: the case's.
        let usable = unsafe { slabs().ksize(memory) };
        kassert!(usable >= size, "{usable} of {size} bytes");
        if size.is_power_of_two() {
            kassert!(memory.addr().get().is_multiple_of(size.min(4096)), "{size}");
        }
        fill(memory, size, 0xa5);
        free(memory);
        let zeroed = kassert_ok!(slabs().kzalloc(size, Gfp::KERNEL));
        kassert!(is_all(zeroed, size, 0), "{size}");
        free(zeroed);
    }
    kassert_eq!(slabs().kmalloc(0, Gfp::KERNEL), Some(ZERO_SIZE));
    free(ZERO_SIZE);
    kassert_eq!(slabs().kcalloc(usize::MAX, 2, Gfp::KERNEL), None);
    Ok(())
}

/// By the global allocator's own interface, with every alignment.
fn layouts(_: &mut Ctx) -> Outcome {
    for align in (0..=16).map(|shift| 1_usize << shift) {
        for size in [1, 9, 90, 180, 3000, 5000, 9000] {
            let layout = kassert_ok!(Layout::from_size_align(size, align));
            // SAFETY: the size is not 0; what is allocated is freed with the same layout.
            unsafe {
                let memory = alloc::alloc::alloc_zeroed(layout);
                let memory = kassert_ok!(NonNull::new(memory));
                kassert!(memory.addr().get().is_multiple_of(align), "{layout:?}");
                kassert!(is_all(memory, size, 0), "{layout:?}");
                fill(memory, size, 7);
                let larger = alloc::alloc::realloc(memory.as_ptr(), layout, 3 * size);
                let larger = kassert_ok!(NonNull::new(larger));
                kassert!(larger.addr().get().is_multiple_of(align), "{layout:?}");
                kassert!(is_all(larger, size, 7), "{layout:?}");
                let layout = kassert_ok!(Layout::from_size_align(3 * size, align));
                alloc::alloc::dealloc(larger.as_ptr(), layout);
            }
        }
    }
    Ok(())
}

/// The use of what an address lies in; `None`: in no page that is in use.
fn use_at(address: usize) -> Option<Use> {
    let frames = mm().frames();
    let (_, word) = frames.head_of(frames.pfn_of_address(address)?)?;
    match word.state() {
        mm::State::Used(usage) => Some(usage),
        _ => None,
    }
}

fn alloc_uses_it(_: &mut Ctx) -> Outcome {
    let (used, _) = heap::usage();
    let boxed = Box::new([1_u64; 10]);
    kassert_eq!(use_at(boxed.as_ptr().addr()), Some(Use::Slab));
    let large: Vec<u8> = Vec::with_capacity(3 * MAX_CACHED);
    kassert_eq!(use_at(large.as_ptr().addr()), Some(Use::Kmalloc));
    kassert_eq!(heap::usage().0, used);
    Ok(())
}

fn what_the_boot_heap_gave_is_told_by_its_address(_: &mut Ctx) -> Outcome {
    let (used, _) = heap::usage();
    let layout = Layout::new::<[u64; 100]>();
    let early = kassert_ok!(heap::alloc_early(layout));
    kassert!(heap::usage().0 > used);
    kassert_eq!(use_at(early.addr().get()), None);
    fill(early, layout.size(), 9);
    // SAFETY: of the boot heap with this layout; then of kmalloc.
    unsafe {
        let moved = alloc::alloc::realloc(early.as_ptr(), layout, 2 * layout.size());
        let moved = kassert_ok!(NonNull::new(moved));
        kassert_eq!(use_at(moved.addr().get()), Some(Use::Slab));
        kassert!(is_all(moved, layout.size(), 9));
        free(moved);
    }
    kassert_eq!(heap::usage().0, used);
    let early = kassert_ok!(heap::alloc_early(layout));
    // SAFETY: of the boot heap with this layout.
    unsafe { alloc::alloc::dealloc(early.as_ptr(), layout) };
    kassert_eq!(heap::usage().0, used);
    Ok(())
}

fn krealloc(_: &mut Ctx) -> Outcome {
    let gfp = Gfp::KERNEL | Gfp::ZERO;
    let mut memory = kassert_ok!(slabs().kmalloc(10, gfp));
    let mut size = 10;
    for next in [16, 12, 100, 96, 70, 9000, 8500, 40] {
        fill(memory, size, 3);
        // SAFETY: the case's.
        memory = kassert_ok!(unsafe { slabs().krealloc(Some(memory), next, gfp) });
        let kept = size.min(next);
        kassert!(is_all(memory, kept, 3), "{size} to {next}");
        // SAFETY: of the same memory.
        let new = unsafe { memory.add(kept) };
        kassert!(is_all(new, next - kept, 0), "{size} to {next}");
        size = next;
    }
    free(memory);
    Ok(())
}

fn kvmalloc(_: &mut Ctx) -> Outcome {
    for size in [100, 5000, 100_000, 5 << 20] {
        let memory = kassert_ok!(slabs().kvmalloc(vmalloc(), size, Gfp::KERNEL));
        fill(memory, size, 1);
        let is_virtual = vmalloc().is_vmalloc(memory.addr().get());
        kassert!(is_virtual || size <= 4 << 20, "{size}");
        // SAFETY: the case's, and not used any more.
        unsafe { slabs().kvfree(vmalloc(), memory) };
    }
    Ok(())
}

/// Boxes, too: what they may do is found out where they are made.
fn from_interrupts(_: &mut Ctx) -> Outcome {
    let damaged = AtomicU64::new(0);
    for round in 0..rounds(10_000, 100) {
        smp::call_all(&|| {
            let boxes: [_; 6] =
                core::array::from_fn(|at| heap::try_box([round; 7].map(|it| it + at as u64)));
            for (at, boxed) in boxes.iter().enumerate() {
                let sound = boxed
                    .as_ref()
                    .is_some_and(|words| **words == [round + at as u64; 7]);
                damaged.fetch_add(u64::from(!sound), Ordering::Relaxed);
            }
        });
    }
    kassert_eq!(damaged.load(Ordering::Relaxed), 0);
    Ok(())
}

/// NMIs in the middle of kmalloc and kfree that allocate and free themselves, with the
/// functions that are for that, and with boxes.
fn from_nmis(_: &mut Ctx) -> Outcome {
    let (got, none, damaged) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let handler = || {
        for size in [24, 64, 500] {
            let Some(memory) = slabs().kmalloc_nolock(size, Gfp::ZERO, None) else {
                none.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            got.fetch_add(1, Ordering::Relaxed);
            damaged.fetch_add(u64::from(!is_all(memory, size, 0)), Ordering::Relaxed);
            fill(memory, size, 0xdd);
            // SAFETY: just allocated.
            unsafe { slabs().kfree_nolock(memory) };
        }
        drop(heap::try_box([0_u64; 12]));
    };
    let length = rounds(6_000, 1_500) as u32;
    let swept = sweep(RawKind::Nmi, 1, length, &handler, || {
        let memory = slabs().kmalloc(64, Gfp::ATOMIC);
        let other = slabs().kmalloc(500, Gfp::ATOMIC);
        for (memory, size) in [(memory, 64), (other, 500)] {
            let Some(memory) = memory else { continue };
            fill(memory, size, 0x33);
            damaged.fetch_add(u64::from(!is_all(memory, size, 0x33)), Ordering::Relaxed);
            // SAFETY: just allocated.
            unsafe { slabs().kfree(memory) };
        }
    });
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    knote!("{swept:?}: {} got, {} not", read(&got), read(&none));
    kassert_eq!(read(&damaged), 0);
    kassert!(read(&got) > 0);
    Ok(())
}

/// Threads take and give back all sizes, and give to each other what another one frees.
fn random_on_all_cpus(ctx: &mut Ctx) -> Outcome {
    type Held = Vec<(usize, usize)>;
    fn turn(seed: u64, mut held: Held) -> Result<Held, &'static str> {
        let mut rng = kernel_base::rng::Rng::new(seed);
        let at = |address| {
            let memory = core::ptr::with_exposed_provenance_mut::<u8>(address);
            NonNull::new(memory).ok_or("null")
        };
        for _ in 0..400 {
            if held.len() < 40 || rng.below(2) == 0 {
                let most = 8 << rng.below(12);
                let size = 1 + rng.below(most) as usize;
                let memory = slabs().kmalloc(size, Gfp::KERNEL).ok_or("no memory")?;
                fill(memory, size, size as u8);
                held.push((memory.as_ptr().expose_provenance(), size));
            } else {
                let (address, size) = held.swap_remove(rng.below(held.len() as u64) as usize);
                if !is_all(at(address)?, size, size as u8) {
                    return Err("damaged");
                }
                free(at(address)?);
            }
        }
        Ok(held)
    }
    let mut all: Vec<Held> = Vec::new();
    for _ in 0..rounds(50, 4) {
        let mut threads = Vec::new();
        for cpu in smp::online() {
            let (seed, held) = (ctx.rng().next_u64(), all.pop().unwrap_or_default());
            let thread = Builder::new()
                .on(cpu)
                .spawn(format_args!("kmalloc"), move || turn(seed, held));
            threads.push(kassert_ok!(thread));
        }
        for thread in threads {
            all.push(kassert_ok!(thread.join()));
        }
        all.rotate_left(1);
    }
    for (address, size) in all.into_iter().flatten() {
        let memory = core::ptr::with_exposed_provenance_mut::<u8>(address);
        let memory = kassert_ok!(NonNull::new(memory));
        kassert!(is_all(memory, size, size as u8));
        free(memory);
    }
    Ok(())
}

fn no_memory_is_an_error(_: &mut Ctx) -> Outcome {
    let gfp = Gfp::KERNEL | Gfp::NOWARN;
    for size in [(4 << 20) + 1, 1 << 40, usize::MAX] {
        kassert_eq!(slabs().kmalloc(size, gfp), None);
    }
    mm().debug().faults(|page| {
        page.fail_nth(0);
        page.attr.configure(&mm::fault::Knobs {
            probability: 100,
            times: -1,
            ..mm::fault::Knobs::OFF
        });
    });
    // As many as there are without a fresh page, linked through themselves.
    let mut last: Option<NonNull<u8>> = None;
    let mut count = 0;
    while let Some(memory) = slabs().kmalloc(4096, gfp) {
        // SAFETY: just allocated.
        unsafe { memory.cast::<Option<NonNull<u8>>>().write(last) };
        last = Some(memory);
        count += 1;
    }
    let large = slabs().kmalloc(20_000, gfp);
    let boxed = heap::try_box([0_u8; 20_000]).is_some();
    mm().debug()
        .faults(|page| page.attr.configure(&mm::fault::Knobs::OFF));
    while let Some(memory) = last {
        // SAFETY: written above.
        last = unsafe { memory.cast::<Option<NonNull<u8>>>().read() };
        free(memory);
    }
    knote!("{count} objects without a fresh page");
    kassert_eq!(large, None);
    kassert!(!boxed);
    Ok(())
}

fn wrong_addresses_are_refused(_: &mut Ctx) -> Outcome {
    static CONSTANT: u64 = 0;
    let page = kassert_ok!(mm().alloc_pages(Gfp::KERNEL, 0, Use::Pages));
    let page_at = kassert_ok!(NonNull::new(mm().frames().address_of(page)));
    let on_the_stack = 0_u64;
    for wrong in [
        page_at,
        NonNull::from(&CONSTANT).cast(),
        NonNull::from(&on_the_stack).cast(),
    ] {
        // SAFETY: it is refused.
        unsafe { slabs().kfree(wrong) };
    }
    // SAFETY: the case's.
    unsafe { mm().free_pages(page, 0, Use::Pages) };
    Ok(())
}
