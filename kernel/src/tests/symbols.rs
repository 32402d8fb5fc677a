//! Names for addresses and addresses for names.

use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};

use platform::CpuId;

use crate::arch::interrupts::TrapFrame;
use crate::kunit::{
    Ctx, OnlineCpus, Outcome, Stop, kassert, kassert_eq, kassert_ok, kskip, kunit_suite,
};
use crate::{boot, smp, symbols};

kunit_suite! {
    name: "symbols",
    setup: needs_table,
    cases: [start, middle, there_and_back, outside, unknown_names, every_cpu => { over: OnlineCpus }],
}

/// A function with a name that cannot be mistaken, and room to point into.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn kunit_symbol_landmark(value: u64) -> u64 {
    core::hint::black_box(value).wrapping_mul(3)
}

const LANDMARK: &str = "kunit_symbol_landmark";

fn landmark() -> u64 {
    kunit_symbol_landmark as extern "C" fn(u64) -> u64 as usize as u64
}

fn needs_table(_: &mut Ctx) -> Outcome {
    if boot::ramdisk().is_none_or(|ramdisk| ramdisk.find("symbols").is_none()) {
        kskip!("the ramdisk has no symbol table");
    }
    Ok(())
}

/// Name and offset of `address` as they are printed.
fn printed(address: u64) -> Result<String, Stop> {
    let symbol = kassert_ok!(symbols::resolve(address), "{address:#x} has no name");
    Ok(format!("{symbol}"))
}

fn start(_: &mut Ctx) -> Outcome {
    kassert_eq!(printed(landmark())?, "kunit_symbol_landmark+0x0");
    Ok(())
}

fn middle(_: &mut Ctx) -> Outcome {
    kassert_eq!(kunit_symbol_landmark(2), 6);
    kassert_eq!(printed(landmark() + 3)?, "kunit_symbol_landmark+0x3");
    Ok(())
}

fn there_and_back(_: &mut Ctx) -> Outcome {
    kassert_eq!(symbols::lookup(LANDMARK), Some(landmark()));
    Ok(())
}

fn outside(_: &mut Ctx) -> Outcome {
    for address in [0, 1, 0x7fff_ffff_f000, 0xffff_8880_0000_0000, u64::MAX] {
        kassert!(symbols::resolve(address).is_none(), "{address:#x}");
    }
    Ok(())
}

fn unknown_names(_: &mut Ctx) -> Outcome {
    for name in [
        "",
        "kunit_symbol_landmar",
        "kunit_symbol_landmark2",
        "no such symbol",
        "\u{20ac}",
    ] {
        kassert_eq!(symbols::lookup(name), None, "{name:?}");
    }
    Ok(())
}

/// Where a CPU is running has a name on every CPU.
fn every_cpu(_: &mut Ctx, cpu: CpuId) -> Outcome {
    // Relaxed: the end of the call orders it before the read below.
    let rip = AtomicU64::new(0);
    smp::call_on(cpu, &|| {
        rip.store(TrapFrame::capture().rip, Ordering::Relaxed);
    });
    let name = printed(rip.load(Ordering::Relaxed))?;
    kassert!(
        name.contains("symbols"),
        "the code of this suite is called {name}"
    );
    Ok(())
}
