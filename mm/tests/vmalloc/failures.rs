//! Every allocation fails once at every point; and requests that cannot be met.

use std::sync::atomic::Ordering::SeqCst;

use mm::{
    Gfp, Use,
    frame::PAGE_SIZE,
    hosted::Reports,
    machine::Access,
    report::Kind,
    vmalloc::{Error, Request, Source},
};

use crate::world::{Shape, World, run};

const QUIET: Gfp = Gfp::KERNEL.union(Gfp::NOWARN);

/// A sequence that needs frames, descriptors and tables. How many areas could be had.
fn sequence(world: &World<'_>) -> usize {
    let vmalloc = &world.vmalloc;
    let mut areas = Vec::new();
    for index in 0..50usize {
        let request = Request::new((index % 5 + 1) * PAGE_SIZE, QUIET);
        areas.extend(vmalloc.alloc(&request));
        if index % 3 == 0 {
            areas.pop();
        }
    }
    let had = areas.len();
    let block = vmalloc.kvmalloc(5 * PAGE_SIZE, QUIET);
    if let Some(block) = block {
        // SAFETY: just allocated.
        unsafe { vmalloc.kvfree(block) };
    }
    had
}

/// The n-th frame is refused, for every n: one allocation fails, nothing leaks.
#[test]
fn every_frame_is_refused_once() {
    let mut all = 0;
    run(Shape::default(), |world| {
        world.frames().fail_in.store(1_000_000, SeqCst);
        all = sequence(world);
        let used = 1_000_000 - world.frames().fail_in.load(SeqCst);
        world.frames().fail_in.store(u64::MAX, SeqCst);
        assert!(used > 100, "{used}");
        let mut failed = 0;
        for nth in 0..used {
            world.assert_empty();
            world.frames().fail_in.store(nth, SeqCst);
            failed += usize::from(sequence(world) < all);
            world.frames().fail_in.store(u64::MAX, SeqCst);
        }
        assert!(failed > 0, "no refusal was felt");
    });
}

/// The n-th mapping is refused, for every n.
#[test]
fn every_mapping_is_refused_once() {
    run(Shape::default(), |world| {
        for nth in 0..52 {
            world.assert_empty();
            world.memory.fail_map(nth);
            sequence(world);
        }
        // The rest of what was asked for.
        let spent: Vec<_> = (0..100)
            .map(|_| world.vmalloc.alloc(&Request::new(1, QUIET)))
            .collect();
        drop(spent);
    });
}

/// A range that was mapped in part is flushed before it is used again, and frames that
/// somebody has lent come back flushed even then.
#[test]
fn a_refused_mapping_is_flushed() {
    run(Shape::default(), |world| {
        let flushes = world.vmalloc.stats().flushes;
        let lent = world.frames().mm.alloc_pages(Gfp::KERNEL, 0, Use::Pages);
        let lent = lent.unwrap();
        world.memory.fail_map(0);
        // SAFETY: the test's frame. It fails once, is flushed, and tried again.
        let area = unsafe { world.vmalloc.map(&[lent], Access::Read) };
        assert!(world.vmalloc.stats().flushes > flushes);
        drop(area);
        // SAFETY: allocated above.
        unsafe { world.frames().mm.free_pages(lent, 0, Use::Pages) };
    });
}

/// What can never be is refused at once, with nothing taken for it.
#[test]
fn huge_requests_fail_at_once() {
    let shape = Shape {
        pages: 2048,
        range_pages: 4096,
        ..Shape::default()
    };
    run(shape, |world| {
        let (vmalloc, frames) = (&world.vmalloc, world.frames());
        let total = frames.total() as usize * PAGE_SIZE;
        frames.fail_in.store(1_000_000, SeqCst);
        for size in [usize::MAX, usize::MAX - PAGE_SIZE + 1, 1 << 40, total + 1] {
            let refused = vmalloc.alloc(&Request::new(size, QUIET)).unwrap_err();
            assert_eq!(refused, Error::TooLarge, "{size:#x}");
            assert_eq!(vmalloc.kvmalloc(size, QUIET), None);
        }
        for (request, error) in [
            (Request::new(0, QUIET), Error::BadRequest),
            (Request::new(1, Gfp::NOLOCK), Error::BadRequest),
            (Request::new(1, QUIET).aligned(3), Error::BadRequest),
            (Request::new(1, QUIET).aligned(0), Error::BadRequest),
            (
                Request::new(1, QUIET).guarded(u32::MAX, u32::MAX),
                Error::TooLarge,
            ),
            (Request::new(1, QUIET).guarded(4096, 0), Error::TooLarge),
            (Request::new(1, QUIET).aligned(1 << 63), Error::TooLarge),
        ] {
            assert_eq!(vmalloc.alloc(&request).unwrap_err(), error, "{request:?}");
        }
        assert_eq!(
            frames.fail_in.swap(u64::MAX, SeqCst),
            1_000_000,
            "frames were taken"
        );
        assert_eq!(vmalloc.kvmalloc(0, QUIET), None);
        // As much as there is, but not free: all that was taken comes back, and it says so.
        let refused = vmalloc
            .alloc(&Request::new(total, Gfp::KERNEL))
            .unwrap_err();
        assert_eq!(refused, Error::NoMemory);
        let said = Reports::of(world.machine).expect(Kind::OutOfMemory);
        assert!(said.text.contains("no free pages"), "{said}");
        assert!(said.text.contains("failures.rs"), "{said}");
    });
}

/// Memory or addresses that only wait for a flush are no reason to fail.
#[test]
fn lazy_ranges_are_purged_before_failure() {
    let shape = Shape {
        pages: 1024,
        range_pages: 4096,
        lazy_limit: usize::MAX,
        ..Shape::default()
    };
    run(shape, |world| {
        let most = Request::new(600 * PAGE_SIZE, Gfp::KERNEL);
        for _ in 0..5 {
            drop(world.vmalloc.alloc(&most).unwrap());
            assert_eq!(world.vmalloc.stats().held, 600);
        }
    });
    let shape = Shape {
        range_pages: 256,
        lazy_limit: usize::MAX,
        ..Shape::default()
    };
    run(shape, |world| {
        let most = Request::new(200 * PAGE_SIZE, Gfp::KERNEL);
        for _ in 0..5 {
            drop(world.vmalloc.alloc(&most).unwrap());
        }
        assert_eq!(world.vmalloc.stats().flushes, 4);
    });
}
