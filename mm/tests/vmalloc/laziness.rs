//! When there are flushes, and for what; frees from where nothing may sleep.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use mm::{
    Gfp,
    frame::PAGE_SIZE,
    hosted::Fault,
    reclaim::{Shrink, Wanted},
    vmalloc::{RangeState, Request, Vmalloc, lazy_limit},
};
use platform::{CpuId, Platform, Preempt, hosted::Hosted};

use crate::world::{Shape, claim_frames, run};

/// One flush for many areas, when the bound is passed.
#[test]
fn flushes_are_batched() {
    let shape = Shape {
        lazy_limit: 100,
        ..Shape::default()
    };
    run(shape, |world| {
        let vmalloc = &world.vmalloc;
        for _ in 0..1000 {
            let area = vmalloc.alloc(&Request::new(1, Gfp::KERNEL)).unwrap();
            claim_frames(&area, world);
            drop(area);
            assert!(vmalloc.stats().lazy <= 102);
        }
        // Each area is a page and its guard: 51 of them pass the bound.
        let stats = vmalloc.stats();
        assert_eq!(stats.flushes, 1000 / 51);
        assert_eq!(stats.flushed, stats.flushes * 51);
        assert_eq!(world.memory.take_flushes().len() as u64, stats.flushes);
    });
}

/// Until the flush neither the frames nor the addresses are used again, and the area can
/// still be looked up; after it, both are.
#[test]
fn nothing_is_used_again_before_a_flush() {
    let shape = Shape {
        lazy_limit: usize::MAX,
        ..Shape::default()
    };
    run(shape, |world| {
        let vmalloc = &world.vmalloc;
        let other = CpuId::new(1).unwrap();
        let request = Request::new(3 * PAGE_SIZE, Gfp::KERNEL);
        let area = vmalloc.alloc(&request).unwrap();
        let (memory, frames): (_, Vec<_>) = (area.memory(), area.frames().collect());
        assert_eq!(world.memory.access(other, memory.start), Ok(frames[0]));
        drop(area);
        assert_eq!((vmalloc.stats().lazy, vmalloc.stats().held), (4, 3));
        assert_eq!(
            vmalloc.find_area(memory.start).unwrap().state,
            RangeState::Lazy
        );
        let next = vmalloc.alloc(&request).unwrap();
        assert!(next.memory().start >= memory.end);
        assert!(next.frames().all(|pfn| !frames.contains(&pfn)));
        // A glance of reclaim is a purge, too.
        assert_eq!(vmalloc.count(), 3);
        let wanted = Wanted {
            frames: 1,
            gfp: Gfp::KERNEL,
        };
        assert_eq!(vmalloc.scan(wanted), 3);
        assert_eq!(world.memory.access(other, memory.start), Err(Fault));
        let again = vmalloc.alloc(&request).unwrap();
        assert_eq!(again.memory(), memory);
        // The CPU sees the new frames, not the old ones.
        let seen = world.memory.access(other, memory.start).unwrap();
        assert_eq!(Some(seen), again.frames().next());
    });
}

static KICKS: AtomicUsize = AtomicUsize::new(0);

/// Where nothing may sleep, areas are put aside; the next thread frees them.
#[test]
fn frees_from_atomic_context() {
    run(Shape::default(), |world| {
        let kick = || _ = KICKS.fetch_add(1, SeqCst);
        // A range of its own, with another `kick`; the first is empty.
        let vmalloc: Vmalloc<Hosted, _> =
            Vmalloc::new(world.memory.layout(), world.frames().mm, 64, kick).unwrap();
        let request = Request::new(2 * PAGE_SIZE, Gfp::KERNEL);
        let areas: Vec<_> = (0..6).map(|_| vmalloc.alloc(&request).unwrap()).collect();
        {
            let _pinned = Preempt::<Hosted>::disable();
            for (index, area) in areas.into_iter().enumerate() {
                if index % 2 == 0 {
                    drop(area);
                } else {
                    // SAFETY: nobody uses it any more.
                    unsafe { vmalloc.vfree(area.into_raw()) };
                }
            }
            assert_eq!(KICKS.load(SeqCst), 1, "once for all of them");
            assert_eq!(
                (vmalloc.stats().areas, world.memory.mapped_pages()),
                (6, 12)
            );
        }
        vmalloc.drain();
        let stats = vmalloc.stats();
        assert_eq!((stats.areas, stats.lazy), (0, 18));
        assert_eq!(world.memory.mapped_pages(), 0);
        drop(vmalloc);
    });
}

/// The same from interrupts and NMIs.
#[test]
fn frees_from_interrupts() {
    let shape = Shape {
        alone: false,
        ..Shape::default()
    };
    run(shape, |world| {
        let vmalloc = &world.vmalloc;
        let given: Mutex<Vec<usize>> = Mutex::new(Vec::new());
        let freed = AtomicUsize::new(0);
        // The handlers end before what they use does: `Injection` is dropped first, and an
        // NMI does not outlive the point it came at.
        let range: &'static crate::world::Range<'static> =
            // SAFETY: as said.
            unsafe { core::mem::transmute(vmalloc) };
        let list: &'static Mutex<Vec<usize>> =
            // SAFETY: as said.
            unsafe { core::mem::transmute(&given) };
        let count: &'static AtomicUsize =
            // SAFETY: as said.
            unsafe { core::mem::transmute(&freed) };
        let handler = move || {
            let taken = list.try_lock().ok().and_then(|mut list| list.pop());
            if let Some(address) = taken {
                count.fetch_add(1, SeqCst);
                let address = core::ptr::with_exposed_provenance_mut(address);
                // SAFETY: an area that was given away.
                unsafe { range.vfree(core::ptr::NonNull::new(address).unwrap()) };
            }
        };
        let irq = world.machine.on_interrupt(7, handler);
        let nmi = world.machine.on_nmi(11, handler);
        for _ in 0..500 {
            let address = vmalloc.vmalloc(PAGE_SIZE, Gfp::KERNEL).unwrap();
            given.lock().unwrap().push(address.addr().get());
            Hosted::yield_now();
        }
        drop((irq, nmi));
        assert!(freed.load(SeqCst) > 100);
        for address in given.lock().unwrap().drain(..) {
            let address = core::ptr::with_exposed_provenance_mut(address);
            // SAFETY: not freed by a handler.
            unsafe { vmalloc.vfree(core::ptr::NonNull::new(address).unwrap()) };
        }
    });
}

/// As Linux's bound, but no more than a share of memory.
#[test]
fn the_bound_of_laziness() {
    let gib = |gib: u64| gib << 18;
    assert_eq!(lazy_limit(1, gib(64)), (32 << 20) / PAGE_SIZE);
    assert_eq!(lazy_limit(4, gib(64)), 3 * (32 << 20) / PAGE_SIZE);
    assert_eq!(lazy_limit(8, gib(1) / 2), (8 << 20) / PAGE_SIZE);
}
