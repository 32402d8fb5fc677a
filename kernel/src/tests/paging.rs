//! The kernel's page tables: who may write and run what, by what the tables say and by
//! what the processor does about it.

use core::sync::atomic::{AtomicU64, Ordering};

use alloc::boxed::Box;
use alloc::vec::Vec;

use kernel_early::layout::{LOADER, PAGE_SIZE, VMALLOC_END, phys_to_virt};
use mm::{Gfp, Pages, Use};

use crate::arch::interrupts::vector;
use crate::arch::paging::{self, Access, MapError, Mapping};
use crate::arch::probe::{self, Fault};
use crate::arch::tlb;
use crate::kunit::{Ctx, Outcome, Stop, kassert, kassert_eq, kassert_ok, kfail, kunit_suite};
use crate::memory::mm;
use crate::smp;

kunit_suite! {
    name: "paging",
    cases: [
        text,
        rodata,
        data,
        heap_and_stack,
        image_is_never_writable_and_executable,
        write_to_text,
        write_to_rodata,
        every_cpu_refuses_a_write_to_text,
        execute_what_is_no_code => { over: NO_CODE },
        unmapped => { over: UNMAPPED },
        not_canonical,
        physical_map,
        harmless_probes,
        changes_reach_every_cpu,
        frames_are_mapped_one_by_one => { over: PAGES },
        what_is_mapped_stays_when_another_mapping_fails,
    ],
}

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __data_end: u8;
}

/// Page fault error code: the page is there, but not for this.
const PROTECTION: u64 = 1 << 0;
/// Page fault error code: it was a write.
const WRITE: u64 = 1 << 1;
/// Page fault error code: it was an instruction fetch.
const FETCH: u64 = 1 << 4;

static CONSTANT: u64 = 0x600d_c0de;
static VARIABLE: AtomicU64 = AtomicU64::new(1);

/// A function to look at and to call.
#[inline(never)]
extern "C" fn some_function() {
    VARIABLE.fetch_add(1, Ordering::Relaxed);
}

fn address_of<T>(place: &T) -> u64 {
    core::ptr::from_ref(place).addr() as u64
}

fn function_address() -> u64 {
    some_function as extern "C" fn() as usize as u64
}

fn mapping(address: u64) -> Result<Mapping, Stop> {
    Ok(kassert_ok!(
        paging::lookup(address),
        "{address:#x} is not mapped"
    ))
}

/// Checks all pages from `start` to `end`.
fn check_range(start: u64, end: u64, writable: bool, executable: bool) -> Outcome {
    kassert!(start < end);
    let mut address = start;
    while address < end {
        let page = mapping(address)?;
        kassert_eq!(page.writable, writable, "at {address:#x}");
        kassert_eq!(page.executable, executable, "at {address:#x}");
        kassert!(page.global, "at {address:#x}");
        address = (address & !(page.size - 1)) + page.size;
    }
    Ok(())
}

fn text(_: &mut Ctx) -> Outcome {
    let (start, end) = (&raw const __text_start as u64, &raw const __text_end as u64);
    kassert!((start..end).contains(&function_address()));
    check_range(start, end, false, true)
}

fn rodata(_: &mut Ctx) -> Outcome {
    let (start, end) = (
        &raw const __rodata_start as u64,
        &raw const __rodata_end as u64,
    );
    kassert!((start..end).contains(&address_of(&CONSTANT)));
    check_range(start, end, false, false)
}

fn data(_: &mut Ctx) -> Outcome {
    let (start, end) = (&raw const __data_start as u64, &raw const __data_end as u64);
    kassert!((start..end).contains(&address_of(&VARIABLE)));
    check_range(start, end, true, false)
}

fn heap_and_stack(_: &mut Ctx) -> Outcome {
    let boxed = Box::new(1u64);
    let local = core::hint::black_box(1u64);
    for address in [address_of(&*boxed), address_of(&local)] {
        let page = mapping(address)?;
        kassert!(page.writable && !page.executable, "{address:#x}: {page:?}");
    }
    Ok(())
}

/// Every page of the image and around it, whatever it belongs to.
fn image_is_never_writable_and_executable(_: &mut Ctx) -> Outcome {
    const AROUND: u64 = 2 << 20;
    let mut address = (&raw const __text_start as u64) - AROUND;
    let end = (&raw const __data_end as u64) + AROUND;
    let mut pages = 0;
    while address < end {
        let mut step = PAGE_SIZE;
        if let Some(page) = paging::lookup(address) {
            kassert!(
                !(page.writable && page.executable),
                "{address:#x}: {page:?}"
            );
            pages += 1;
            step = page.size;
        }
        address += step;
    }
    kassert!(pages > 0);
    Ok(())
}

/// The fault of an access that must not succeed.
fn must_fault(result: Result<(), Fault>) -> Result<Fault, Stop> {
    match result {
        Ok(()) => kfail!("the access succeeded"),
        Err(fault) => Ok(fault),
    }
}

/// Writes to `address` in vain: the fault names the address and the reason, and what is
/// there has not changed.
fn refused_write(address: u64) -> Outcome {
    let before = kassert_ok!(probe::read_u64(address as usize));
    let fault = must_fault(probe::write_u8(address as usize, !(before as u8)))?;
    kassert_eq!(fault.vector, vector::PAGE_FAULT);
    kassert_eq!(fault.address, address);
    kassert_eq!(fault.error_code, PROTECTION | WRITE);
    kassert_eq!(kassert_ok!(probe::read_u64(address as usize)), before);
    Ok(())
}

fn write_to_text(_: &mut Ctx) -> Outcome {
    refused_write(function_address())?;
    // Not the first byte of a page only.
    refused_write(function_address() + 1)
}

fn write_to_rodata(_: &mut Ctx) -> Outcome {
    refused_write(address_of(&CONSTANT))?;
    kassert_eq!(core::hint::black_box(CONSTANT), 0x600d_c0de);
    Ok(())
}

/// Write protection is a bit of a control register, and every CPU has its own.
fn every_cpu_refuses_a_write_to_text(_: &mut Ctx) -> Outcome {
    let address = function_address() as usize;
    // Relaxed: the end of the call orders it before the read below.
    let refused = AtomicU64::new(0);
    let byte = kassert_ok!(probe::read_u64(address)) as u8;
    smp::call_all(&|| {
        // The same byte, so that nothing breaks should it succeed.
        if probe::write_u8(address, byte).is_err() {
            refused.fetch_or(1 << smp::this_cpu().number(), Ordering::Relaxed);
        }
    });
    kassert_eq!(refused.load(Ordering::Relaxed), smp::online().bits());
    Ok(())
}

/// Finds an address.
type Find = fn() -> u64;

const NO_CODE: &[(&str, Find)] = &[
    ("data", || address_of(&VARIABLE)),
    ("rodata", || address_of(&CONSTANT)),
    ("stack", || {
        let local = core::hint::black_box(0xc3u8);
        address_of(&local)
    }),
    ("physical-map", || phys_to_virt(0x1000)),
    // The text itself, by its other address.
    ("text-in-physical-map", || {
        paging::lookup(function_address()).map_or(0, |page| phys_to_virt(page.phys))
    }),
];

fn execute_what_is_no_code(_: &mut Ctx, place: Find) -> Outcome {
    let address = place();
    // It is there, so that the fault can only be about executing.
    mapping(address)?;
    let fault = must_fault(probe::call(address as usize))?;
    kassert_eq!(fault.vector, vector::PAGE_FAULT);
    kassert_eq!(fault.address, address);
    kassert_eq!(fault.error_code, PROTECTION | FETCH);
    Ok(())
}

const UNMAPPED: &[(&str, u64)] = &[
    ("null", 0),
    ("null-page-end", 0xff8),
    ("low-memory", 0x10_0000),
    ("user-half", 0x7fff_ffff_f000),
    ("loader-range", LOADER),
    ("below-the-image", 0xffff_ffff_8000_0000),
    ("last-page", 0xffff_ffff_ffff_f000),
];

fn unmapped(_: &mut Ctx, address: u64) -> Outcome {
    kassert_eq!(paging::lookup(address), None);
    let fault = must_fault(probe::read_u64(address as usize).map(|_| ()))?;
    kassert_eq!(fault.vector, vector::PAGE_FAULT);
    kassert_eq!((fault.address, fault.error_code), (address, 0));
    let fault = must_fault(probe::write_u8(address as usize, 0))?;
    kassert_eq!((fault.address, fault.error_code), (address, WRITE));
    let fault = must_fault(probe::call(address as usize))?;
    kassert_eq!((fault.address, fault.error_code & PROTECTION), (address, 0));
    Ok(())
}

/// Not a page fault: such an address is in no page.
fn not_canonical(_: &mut Ctx) -> Outcome {
    let fault = must_fault(probe::read_u64(0x8000_0000_0000_0000).map(|_| ()))?;
    kassert_eq!(
        (fault.vector, fault.error_code),
        (vector::GENERAL_PROTECTION, 0)
    );
    Ok(())
}

/// The same memory by its two addresses.
fn physical_map(_: &mut Ctx) -> Outcome {
    let boxed = Box::new(AtomicU64::new(5));
    let page = mapping(address_of(&*boxed))?;
    let other = phys_to_virt(page.phys);
    let there = mapping(other)?;
    kassert!(there.writable && !there.executable, "{there:?}");
    kassert_eq!(there.phys, page.phys);
    kassert_eq!(probe::read_u64(other as usize), Ok(5));
    boxed.store(6, Ordering::Relaxed);
    kassert_eq!(probe::read_u64(other as usize), Ok(6));
    Ok(())
}

/// Else "it faulted" would prove nothing.
fn harmless_probes(_: &mut Ctx) -> Outcome {
    let value = AtomicU64::new(0x1111);
    let address = address_of(&value) as usize;
    kassert_eq!(probe::read_u64(address), Ok(0x1111));
    kassert_eq!(probe::write_u8(address, 0x22), Ok(()));
    kassert_eq!(value.load(Ordering::Relaxed), 0x1122);
    let before = VARIABLE.load(Ordering::Relaxed);
    kassert_eq!(probe::call(function_address() as usize), Ok(()));
    kassert_eq!(VARIABLE.load(Ordering::Relaxed), before + 1);
    Ok(())
}

/// A page, so that nothing else lies in it.
#[repr(align(4096))]
struct Page([u8; 4096]);

/// Permissions taken away are gone on all CPUs when the call returns: no CPU goes on
/// with what its TLB remembers.
fn changes_reach_every_cpu(_: &mut Ctx) -> Outcome {
    /// In no range, so nothing is there.
    const PLACE: u64 = VMALLOC_END;
    let page = Box::new(Page([0; 4096]));
    let phys = mapping(address_of(&page.0))?.phys;
    let place = PLACE as usize;
    // Relaxed: the end of a call orders it before the read that follows.
    let done = AtomicU64::new(0);
    let on_all = |what: &(dyn Fn() -> bool + Sync)| {
        done.store(0, Ordering::Relaxed);
        smp::call_all(&|| {
            if what() {
                done.fetch_or(1 << smp::this_cpu().number(), Ordering::Relaxed);
            }
        });
        done.load(Ordering::Relaxed)
    };
    let all = smp::online().bits();

    kassert_ok!(paging::map_memory(PLACE, phys, PAGE_SIZE));
    let wrote = on_all(&|| probe::write_u8(place, 1).is_ok());
    let protected = paging::protect(PLACE, PAGE_SIZE, Access::Read);
    let refused = on_all(&|| probe::write_u8(place, 2).is_err());
    let read = on_all(&|| probe::read_u64(place) == Ok(1));
    let removed = paging::unmap(PLACE, PAGE_SIZE);
    let gone = on_all(&|| probe::read_u64(place).is_err());

    kassert_eq!(wrote, all);
    kassert_eq!(protected, Ok(()));
    kassert_eq!(refused, all);
    kassert_eq!(read, all);
    kassert_eq!(removed, Ok(()));
    kassert_eq!(gone, all);
    kassert_eq!(page.0[0], 1);
    Ok(())
}

/// Fewer than a table has, more, and so many that a flush drops everything.
const PAGES: &[(&str, u64)] = &[("3", 3), ("32", 32), ("700", 700)];

/// Frames in any order at adjacent addresses; gone on all CPUs after a flush, and by as many
/// instructions as that takes.
fn frames_are_mapped_one_by_one(_: &mut Ctx, pages: u64) -> Outcome {
    /// In no range, and not at the begin of a table.
    const PLACE: u64 = VMALLOC_END + 500 * PAGE_SIZE;
    let mut frames = Vec::with_capacity(pages as usize);
    for _ in 0..pages {
        frames.push(kassert_ok!(Pages::alloc(mm(), Gfp::KERNEL, 0, Use::Pages)));
    }
    for (index, frame) in frames.iter().enumerate() {
        // SAFETY: our page.
        unsafe { frame.as_ptr().cast::<u64>().write(index as u64) };
    }
    let page = |index: u64| (PLACE + index * PAGE_SIZE) as usize;
    let mut physical = frames.iter().map(|frame| frame.pfn().phys());
    kassert_eq!(
        paging::map_frames(PLACE, &mut physical, Access::ReadWrite),
        Ok(())
    );
    let right = AtomicU64::new(0);
    smp::call_all(&|| {
        let all = (0..pages).all(|index| probe::read_u64(page(index)) == Ok(index));
        right.fetch_add(u64::from(all), Ordering::Relaxed);
    });
    let last = paging::lookup(page(pages - 1) as u64);
    let behind = paging::lookup(page(pages) as u64);
    let before: Vec<_> = smp::online().iter().map(tlb::flushes).collect();
    paging::clear(PLACE, pages * PAGE_SIZE);
    smp::flush_tlb(PLACE, pages * PAGE_SIZE);
    let after: Vec<_> = smp::online().iter().map(tlb::flushes).collect();
    let gone = AtomicU64::new(0);
    smp::call_all(&|| {
        let all = (0..pages).all(|index| probe::read_u64(page(index)).is_err());
        gone.fetch_add(u64::from(all), Ordering::Relaxed);
    });
    let cpus = smp::online().count() as u64;
    kassert_eq!(right.load(Ordering::Relaxed), cpus);
    kassert_eq!(gone.load(Ordering::Relaxed), cpus);
    let last = kassert_ok!(last);
    kassert!(last.writable && !last.executable && last.global, "{last:?}");
    kassert_eq!(behind, None);
    for (before, after) in before.iter().zip(&after) {
        if pages <= tlb::SINGLE {
            kassert_eq!(after.pages - before.pages, pages);
            kassert_eq!(after.all, before.all);
        } else {
            kassert_eq!(after.pages, before.pages);
            kassert_eq!(after.all - before.all, 1);
        }
    }
    Ok(())
}

/// A mapping that runs into another one leaves nothing of itself, and the other as it was.
fn what_is_mapped_stays_when_another_mapping_fails(_: &mut Ctx) -> Outcome {
    const PLACE: u64 = VMALLOC_END + (1 << 30);
    let page = kassert_ok!(Pages::alloc(mm(), Gfp::KERNEL, 0, Use::Pages));
    let phys = page.pfn().phys();
    let map =
        |at, count| paging::map_frames(at, &mut core::iter::repeat_n(phys, count), Access::Read);
    let taken = PLACE + 600 * PAGE_SIZE;
    let first = map(taken, 1);
    let second = map(PLACE, 1000);
    let left = (0..1000)
        .map(|index| PLACE + index * PAGE_SIZE)
        .filter(|at| paging::lookup(*at).is_some())
        .collect::<Vec<_>>();
    paging::clear(taken, PAGE_SIZE);
    smp::flush_tlb(taken, PAGE_SIZE);
    kassert_eq!(first, Ok(()));
    kassert_eq!(second, Err(MapError::Occupied(taken)));
    kassert_eq!((left.len(), left.first().copied()), (1, Some(taken)));
    Ok(())
}
