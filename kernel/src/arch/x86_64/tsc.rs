//! The time stamp counter: reading it, and finding out how fast it counts.

use kernel_base::acpi;

use super::{apic, power};

/// Rate of the ACPI power management timer.
const PM_HZ: u64 = 3_579_545;
/// Rate of the programmable interval timer.
const PIT_HZ: u64 = 1_193_182;
/// How long the counters are watched: 1/100 s over two stretches keeps the error near 1e-4.
const WINDOW_US: u64 = 5_000;

/// Where a frequency comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The command line's `tsc_khz=`.
    CommandLine,
    /// A CPUID leaf.
    Cpuid,
    /// Measured against the ACPI timer.
    PmTimer,
    /// Measured against the interval timer.
    Pit,
}

/// The result of [`calibrate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// TSC counts in a millisecond.
    pub tsc_khz: u64,
    /// Where that comes from.
    pub source: Source,
    /// Local APIC timer counts in a millisecond.
    pub apic_per_ms: u32,
}

/// The counter. Not ordered against other memory accesses: fit for time, not for proofs.
#[inline(always)]
pub fn read() -> u64 {
    // SAFETY: reading the TSC is allowed in the kernel.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Finds the TSC's and the APIC timer's rates. The APIC timer is always measured; the TSC
/// only when neither `given` nor CPUID tells. `None` when no reference clock works.
pub fn calibrate(platform: &acpi::Platform, given: Option<u64>) -> Option<Rates> {
    let known = given
        .map(|khz| (khz, Source::CommandLine))
        .or_else(|| super::cpu::tsc_khz_from_cpuid().map(|khz| (khz, Source::Cpuid)));
    let (tsc, apic, us, source) = if let Some((khz, source)) = known {
        let (tsc, apic) = watch_tsc(khz);
        (tsc, apic, tsc * 1000 / khz, source)
    } else if let Some((tsc, apic, us)) = pm_timer_port(platform).and_then(watch_pm_timer) {
        (tsc, apic, us, Source::PmTimer)
    } else {
        let (tsc, apic, us) = watch_pit()?;
        (tsc, apic, us, Source::Pit)
    };
    let tsc_khz = known.map_or(tsc * 1000 / us, |(khz, _)| khz);
    let apic_per_ms = u32::try_from(u64::from(apic) * 1000 / us).ok()?;
    (tsc_khz > 0 && apic_per_ms > 0).then_some(Rates {
        tsc_khz,
        source,
        apic_per_ms,
    })
}

/// Runs the APIC timer for the window by a TSC of known rate: (TSC, APIC) counts.
fn watch_tsc(khz: u64) -> (u64, u32) {
    let counts = (khz * WINDOW_US / 1000).max(1);
    apic::start_free_timer();
    let start = read();
    let mut now = start;
    while now.wrapping_sub(start) < counts {
        core::hint::spin_loop();
        now = read();
    }
    (now - start, apic::free_timer_elapsed())
}

fn pm_timer_port(platform: &acpi::Platform) -> Option<u16> {
    platform.fixed?.pm_timer?.register.port()
}

/// Runs both for the window by the ACPI timer: (TSC counts, APIC counts, microseconds).
fn watch_pm_timer(port: u16) -> Option<(u64, u32, u64)> {
    const MASK: u32 = 0x00ff_ffff;
    /// Reads without any change after which the timer is taken for dead.
    const DEAD: u32 = 100_000;
    let read_timer = || power::in32(port) & MASK;
    let wanted = (PM_HZ * WINDOW_US / 1_000_000) as u32;
    apic::start_free_timer();
    let (first, start) = (read_timer(), read());
    let (mut last, mut same) = (first, 0);
    loop {
        let now = read_timer();
        let tsc = read();
        let elapsed = now.wrapping_sub(first) & MASK;
        if elapsed >= wanted {
            let us = u64::from(elapsed) * 1_000_000 / PM_HZ;
            return Some((tsc - start, apic::free_timer_elapsed(), us));
        }
        same = if now == last { same + 1 } else { 0 };
        if same > DEAD {
            return None;
        }
        last = now;
        core::hint::spin_loop();
    }
}

/// The same by channel 2 of the interval timer, whose output can be polled.
fn watch_pit() -> Option<(u64, u32, u64)> {
    const POLLS: u32 = 10_000_000;
    const OUTPUT: u8 = 1 << 5;
    let counts = (PIT_HZ * WINDOW_US / 1_000_000) as u16;
    let mut gate = ::x86_64::instructions::port::Port::<u8>::new(0x61);
    // SAFETY: port 0x61 gates channel 2 (bit 0) and the speaker (bit 1), nothing else here.
    unsafe {
        let value = gate.read();
        gate.write((value & !0b11) | 1);
    }
    power::out8(0x43, 0b1011_0000);
    power::out8(0x42, counts as u8);
    power::out8(0x42, (counts >> 8) as u8);
    apic::start_free_timer();
    let start = read();
    for _ in 0..POLLS {
        // SAFETY: reading the port has no effect.
        if unsafe { gate.read() } & OUTPUT != 0 {
            return Some((read() - start, apic::free_timer_elapsed(), WINDOW_US));
        }
        core::hint::spin_loop();
    }
    None
}
