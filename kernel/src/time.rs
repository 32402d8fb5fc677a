//! Monotonic time from the TSC.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{
    arch::{apic, tsc},
    boot,
};

/// Fraction bits of [`NS_PER_COUNT`].
const SHIFT: u32 = 32;

// Relaxed wherever these are used: plain numbers that the boot CPU sets before any other
// CPU runs; each is whole by itself.

/// TSC at the kernel's entry.
static ENTRY: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds a TSC count, fixed point; 0 until the rate is known, when time stands still.
static NS_PER_COUNT: AtomicU64 = AtomicU64::new(0);

/// Sets time zero; with a rate on the command line time runs from here on.
pub fn note_entry(counts: u64) {
    ENTRY.store(counts, Ordering::Relaxed);
    if let Some(khz) = boot::command_line().tsc_khz {
        set_rate(khz);
    }
}

fn set_rate(khz: u64) {
    let ns_per_count = (1_000_000_u128 << SHIFT) / u128::from(khz.max(1));
    NS_PER_COUNT.store(ns_per_count as u64, Ordering::Relaxed);
}

fn to_ns(counts: u64) -> u64 {
    let rate = NS_PER_COUNT.load(Ordering::Relaxed);
    ((u128::from(counts) * u128::from(rate)) >> SHIFT) as u64
}

/// Finds the clock rates.
pub fn init() {
    let Some(rates) = tsc::calibrate(boot::acpi(), boot::command_line().tsc_khz) else {
        panic!("no clock to measure the TSC against; give tsc_khz= on the command line");
    };
    set_rate(rates.tsc_khz);
    apic::set_timer_rate(rates.apic_per_ms);
    log::info!(
        "time: TSC {}.{:03} MHz ({:?}), APIC timer {} counts/ms",
        rates.tsc_khz / 1000,
        rates.tsc_khz % 1000,
        rates.source,
        rates.apic_per_ms
    );
}

/// Nanoseconds since the kernel was entered; monotonic on each CPU. Any context.
#[inline]
pub fn now_ns() -> u64 {
    // Saturating: another CPU's counter may be a little behind.
    to_ns(tsc::read().saturating_sub(ENTRY.load(Ordering::Relaxed)))
}

/// Nanoseconds since the TSC started, which is when the machine did.
pub fn since_power_on_ns() -> u64 {
    to_ns(tsc::read())
}

/// Whether time counts instructions: the command line says that the TSC runs at 1 GHz, as
/// on the exact machines.
pub fn is_exact() -> bool {
    boot::command_line().tsc_khz == Some(1_000_000)
}

/// Waits, busily. Any context.
pub fn spin_ns(ns: u64) {
    let start = now_ns();
    while now_ns() - start < ns {
        core::hint::spin_loop();
    }
}
