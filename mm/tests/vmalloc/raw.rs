//! The functions by address, what is shown, and wrong frees.

use core::{ptr::NonNull, sync::atomic::Ordering::SeqCst};

use mm::{
    Gfp, Use,
    frame::PAGE_SIZE,
    hosted::Reports,
    machine::Access,
    report::Kind,
    vmalloc::{Request, Source},
};

use crate::world::{Shape, run};

fn at(address: usize) -> NonNull<u8> {
    NonNull::new(core::ptr::with_exposed_provenance_mut(address)).unwrap()
}

#[test]
fn kvmalloc_both_ways() {
    let shape = Shape {
        range_pages: 2048,
        ..Shape::default()
    };
    run(shape, |world| {
        let vmalloc = &world.vmalloc;
        for (size, direct) in [
            (1, true),
            (PAGE_SIZE, true),
            (PAGE_SIZE + 1, true),
            (100 * PAGE_SIZE, true),
            (1024 * PAGE_SIZE, true),
            (1024 * PAGE_SIZE + 1, false),
        ] {
            let address = vmalloc.kvmalloc(size, Gfp::KERNEL).unwrap();
            assert_eq!(vmalloc.is_vmalloc(address.addr().get()), !direct, "{size}");
            // SAFETY: just allocated; used as large as asked for.
            unsafe {
                address.write_bytes(0x5a, size);
                vmalloc.kvfree(address);
            }
        }
        // No block is to be had: pages do, where that may sleep.
        world.frames().no_blocks.store(true, SeqCst);
        let address = vmalloc.kvmalloc(17 * PAGE_SIZE, Gfp::KERNEL).unwrap();
        assert!(vmalloc.is_vmalloc(address.addr().get()));
        // SAFETY: allocated above.
        unsafe { vmalloc.kvfree(address) };
        assert_eq!(vmalloc.kvmalloc(17 * PAGE_SIZE, Gfp::NOWAIT), None);
    });
}

#[test]
fn zeroed_memory_is_zeroed() {
    run(Shape::default(), |world| {
        let vmalloc = &world.vmalloc;
        for turn in 0..8 {
            let size = 20 * PAGE_SIZE;
            let address = vmalloc.vzalloc(size, Gfp::KERNEL).unwrap();
            // SAFETY: just allocated.
            let bytes = unsafe { core::slice::from_raw_parts_mut(address.as_ptr(), size) };
            assert!(bytes.iter().all(|byte| *byte == 0), "{turn}");
            bytes.fill(0xff);
            // SAFETY: allocated above.
            unsafe { vmalloc.vfree(address) };
            vmalloc.purge();
        }
    });
}

#[test]
fn wrong_frees_are_reported() {
    run(Shape::default(), |world| {
        let vmalloc = &world.vmalloc;
        let reports = Reports::of(world.machine);
        let said = |needle: &str| {
            let said = reports.expect(Kind::BadVmallocAddress);
            assert!(said.text.contains(needle), "{said}");
            assert!(said.text.contains("raw.rs"), "the culprit: {said}");
        };
        let address = vmalloc.vmalloc(2 * PAGE_SIZE, Gfp::KERNEL).unwrap();
        let number = address.addr().get();
        let frames = world.frames().mm.alloc_pages(Gfp::KERNEL, 0, Use::Pages);
        let frame = frames.unwrap();
        // SAFETY: wrong, and found to be wrong, each of them; the areas are freed once.
        unsafe {
            let shown = vmalloc.vmap(&[frame], Access::Read).unwrap();
            vmalloc.vfree(at(number + PAGE_SIZE));
            said("inside an area");
            vmalloc.vfree(at(number + 8));
            said("inside an area");
            vmalloc.vfree(at(number + 2 * PAGE_SIZE));
            said("inside an area");
            vmalloc.vfree(at(number + 100 * PAGE_SIZE));
            said("no area");
            vmalloc.vfree(at(0x1000));
            said("not in the vmalloc range");
            vmalloc.vfree(shown);
            said("of the other kind");
            vmalloc.vunmap(address);
            said("of the other kind");
            vmalloc.kvfree(NonNull::new(world.frames().address_of(frame)).unwrap());
            said("nothing that kvmalloc gave");
            vmalloc.vunmap(shown);
            vmalloc.vfree(address);
            vmalloc.vfree(address);
            said("freed already");
            vmalloc.purge();
            vmalloc.vfree(address);
            said("no area");
            world.frames().mm.free_pages(frame, 0, Use::Pages);
        }
        let pinned = platform::Preempt::<platform::hosted::Hosted>::disable();
        // SAFETY: refused.
        unsafe { vmalloc.vfree(at(number + 8)) };
        said("not the beginning of an area");
        drop(pinned);
    });
}

#[test]
fn what_is_shown() {
    let shape = Shape {
        lazy_limit: usize::MAX,
        ..Shape::default()
    };
    run(shape, |world| {
        let vmalloc = &world.vmalloc;
        let first = vmalloc.alloc(&Request::new(5000, Gfp::KERNEL)).unwrap();
        let stack = Request::new(4 * PAGE_SIZE, Gfp::KERNEL)
            .guarded(1, 0)
            .used_for(Use::Stack);
        let stack = vmalloc.alloc(&stack).unwrap();
        let gone = vmalloc.alloc(&Request::new(1, Gfp::KERNEL)).unwrap();
        drop(gone);
        let mut text = String::new();
        vmalloc.write_info(&mut text).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let range = first.range();
        let begin = format!("{:#018x}-{:#018x}   12288 ", range.start, range.end);
        assert!(lines[0].starts_with(&begin), "{text}");
        assert!(
            lines[0].contains("raw.rs:") && lines[0].ends_with(" pages=2 vmalloc"),
            "{text}"
        );
        assert!(lines[1].ends_with(" pages=4 stack"), "{text}");
        assert!(lines[2].ends_with(" pages=1 vmalloc (unpurged)"), "{text}");
        assert_eq!(lines.len(), 3);
        let meminfo = vmalloc.stats().to_string();
        assert_eq!(
            meminfo,
            "VmallocTotal:       4096 kB\nVmallocUsed:          24 kB\nVmallocChunk:          0 kB\n"
        );
        // Guards belong to their area; the frames know where they are mapped.
        let below = vmalloc.find_area(stack.memory().start - 1).unwrap();
        assert_eq!((below.memory, below.usage), (stack.memory(), Use::Stack));
        for pfn in stack.frames() {
            let owner = &world.frames().frame(pfn).unwrap().owner;
            assert_eq!(owner.load(SeqCst), stack.memory().start);
        }
        assert!(vmalloc.try_find_area(stack.range().start).is_some());
        assert!(vmalloc.find_area(0).is_none());
    });
}
