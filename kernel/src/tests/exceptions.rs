//! Exceptions that the kernel survives, and interrupts that nobody asked for. (Those that
//! it does not survive are `xtask`'s to test, one boot each.)

use core::sync::atomic::{AtomicU64, Ordering};

use platform::CpuId;

use crate::arch::interrupts::vector;
use crate::arch::probe::{self, Fault};
use crate::arch::{apic, irq};
use crate::kunit::{Ctx, OnlineCpus, Outcome, kassert_eq, kunit_suite};
use crate::report::Kind;
use crate::smp;

kunit_suite! {
    name: "exceptions",
    cases: [
        breakpoint => { over: OnlineCpus },
        faults_on_each_cpu => { over: OnlineCpus },
        many_faults,
        interrupted_computation,
        stray_interrupt => { expects: [Kind::StrayInterrupt] },
        several_reports => { expects: [Kind::StrayInterrupt, Kind::StrayInterrupt] },
    ],
}

/// Not mapped, and not canonical.
const UNMAPPED: u64 = 0xffff_a000_0000_0000;
const NOT_CANONICAL: u64 = 0x8000_0000_0000_0000;
/// The processor's number for it.
const BREAKPOINT: u64 = 3;
/// A vector that nothing uses.
const NOBODYS: u8 = 0x55;

/// Execution goes on behind it.
fn breakpoint(_: &mut Ctx, cpu: CpuId) -> Outcome {
    // Relaxed: the end of the call orders it before the read below.
    let seen = AtomicU64::new(0);
    smp::call_on(cpu, &|| {
        let vector = probe::breakpoint().map_or(u64::MAX, |fault| u64::from(fault.vector));
        seen.store(vector, Ordering::Relaxed);
    });
    kassert_eq!(seen.load(Ordering::Relaxed), BREAKPOINT);
    Ok(())
}

fn faults_on_each_cpu(_: &mut Ctx, cpu: CpuId) -> Outcome {
    let seen = AtomicU64::new(0);
    smp::call_on(cpu, &|| {
        let vector_of = |result: Result<u64, Fault>| match result {
            Ok(_) => 0,
            Err(fault) => u64::from(fault.vector),
        };
        let page = vector_of(probe::read_u64(UNMAPPED as usize));
        let general = vector_of(probe::read_u64(NOT_CANONICAL as usize));
        seen.store(page << 8 | general, Ordering::Relaxed);
    });
    let expected = u64::from(vector::PAGE_FAULT) << 8 | u64::from(vector::GENERAL_PROTECTION);
    kassert_eq!(seen.load(Ordering::Relaxed), expected);
    Ok(())
}

/// Nothing is used up by a fault: not the stack, not a nesting count.
fn many_faults(_: &mut Ctx) -> Outcome {
    for step in 0..20_000u64 {
        let address = UNMAPPED + step * 8;
        match probe::read_u64(address as usize) {
            Err(fault) => kassert_eq!(fault.address, address),
            Ok(value) => kassert_eq!(None, Some(value)),
        }
    }
    Ok(())
}

/// Interrupts leave the registers of what they interrupt alone.
fn interrupted_computation(_: &mut Ctx) -> Outcome {
    /// Keeps many values in registers.
    fn compute() -> u64 {
        let mut lanes = [1u64, 2, 3, 4, 5, 6, 7, 8];
        for step in 0..20_000u64 {
            for (index, lane) in lanes.iter_mut().enumerate() {
                *lane =
                    lane.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (step + index as u64);
            }
        }
        lanes
            .iter()
            .fold(0, |sum, lane| sum.wrapping_mul(31).wrapping_add(*lane))
    }
    let undisturbed = {
        let _irqs_off = irq::disable();
        compute()
    };
    let before = smp::ipi_counts(smp::this_cpu()).timer;
    let mut rounds = 0u64;
    // At least this many interruptions; the timer rings at another place each time.
    while smp::ipi_counts(smp::this_cpu()).timer < before + 20 {
        apic::arm_timer(1 + rounds % 97 * 500);
        kassert_eq!(compute(), undisturbed, "in round {rounds}");
        rounds += 1;
    }
    Ok(())
}

/// Raises an interrupt that nobody handles, on this CPU, and waits until it has come.
fn raise_stray() {
    apic::send_vector(apic::id(), NOBODYS);
    let before = smp::ipi_counts(smp::this_cpu()).reschedule;
    // Of lower priority, so it comes last: then the other one has been dealt with.
    apic::send_vector(apic::id(), vector::RESCHEDULE);
    while smp::ipi_counts(smp::this_cpu()).reschedule == before {
        core::hint::spin_loop();
    }
}

fn stray_interrupt(_: &mut Ctx) -> Outcome {
    raise_stray();
    Ok(())
}

fn several_reports(_: &mut Ctx) -> Outcome {
    raise_stray();
    raise_stray();
    Ok(())
}
