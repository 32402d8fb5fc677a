//! The local APIC: identity, interrupts between CPUs, the one-shot timer. xAPIC (memory
//! registers) and x2APIC (MSRs) behind one interface.
//!
//! Sending from xAPIC mode takes two register writes; an NMI between them that sends too
//! would spoil the target. So nothing is sent from NMI context, but for a panic's end.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use ::x86_64::registers::model_specific::{ApicBase, ApicBaseFlags, Msr};

use super::{cpu, interrupts::vector, irq, paging};

const ID: u32 = 0x20;
const EOI: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const ERROR_STATUS: u32 = 0x280;
const ICR_LOW: u32 = 0x300;
const ICR_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;
const TASK_PRIORITY: u32 = 0x80;

const MASKED: u32 = 1 << 16;
const DELIVERY_NMI: u32 = 4 << 8;
const DELIVERY_INIT: u32 = 5 << 8;
const DELIVERY_START: u32 = 6 << 8;
const LEVEL_ASSERT: u32 = 1 << 14;
const SEND_PENDING: u32 = 1 << 12;
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// Divide by one.
const DIVIDE_1: u32 = 0b1011;

// Relaxed wherever these are used: plain numbers that the boot CPU sets before any other
// CPU runs, and the start of a CPU orders them before it.

/// Virtual address of the registers in xAPIC mode.
static BASE: AtomicU64 = AtomicU64::new(0);
static X2: AtomicBool = AtomicBool::new(false);
/// Timer counts in a millisecond, measured at boot.
static TIMER_PER_MS: AtomicU32 = AtomicU32::new(0);

/// Why there is no usable local APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoApic;

fn x2() -> bool {
    X2.load(Ordering::Relaxed)
}

/// The MSR that stands for a register in x2APIC mode.
fn msr(register: u32) -> Msr {
    Msr::new(0x800 + (register >> 4))
}

fn read(register: u32) -> u32 {
    if x2() {
        // SAFETY: these registers exist in x2APIC mode and reading has no side effect.
        unsafe { msr(register).read() as u32 }
    } else {
        let address = BASE.load(Ordering::Relaxed) + u64::from(register);
        // SAFETY: BASE is the mapping of this CPU's APIC page.
        unsafe { (address as *const u32).read_volatile() }
    }
}

fn write(register: u32, value: u32) {
    if x2() {
        // SAFETY: callers in this module write what the register is for.
        unsafe { msr(register).write(u64::from(value)) };
    } else {
        let address = BASE.load(Ordering::Relaxed) + u64::from(register);
        // SAFETY: BASE is the mapping of this CPU's APIC page.
        unsafe { (address as *mut u32).write_volatile(value) };
    }
}

/// Finds the local APIC (for xAPIC mode at the physical address that the MADT says, or else
/// the processor), and turns the boot CPU's on.
///
/// # Errors
///
/// [`NoApic`]: its registers could not be mapped.
pub fn init(xapic_phys: Option<u64>) -> Result<(), NoApic> {
    let x2 = cpu::has_x2apic();
    X2.store(x2, Ordering::Relaxed);
    if !x2 {
        let virt = paging::map_device(
            xapic_phys.unwrap_or_else(|| ApicBase::read().0.start_address().as_u64()),
            4096,
        )
        .map_err(|_| NoApic)?;
        BASE.store(virt, Ordering::Relaxed);
    }
    enable();
    Ok(())
}

/// Turns this CPU's APIC on.
pub fn enable() {
    let (frame, mut flags) = ApicBase::read();
    flags.insert(ApicBaseFlags::LAPIC_ENABLE);
    if x2() {
        flags.insert(ApicBaseFlags::X2APIC_ENABLE);
    }
    // SAFETY: enables the APIC at the address where it is; x2APIC mode exists if asked for.
    unsafe { ApicBase::write(frame, flags) };
    write(TASK_PRIORITY, 0);
    write(LVT_TIMER, MASKED);
    write(LVT_LINT0, MASKED);
    // LINT1 is where the chipset (and QEMU's monitor) raises NMIs.
    write(LVT_LINT1, DELIVERY_NMI);
    write(LVT_ERROR, u32::from(vector::APIC_ERROR));
    write(SPURIOUS, SOFTWARE_ENABLE | u32::from(vector::SPURIOUS));
    write(TIMER_DIVIDE, DIVIDE_1);
}

/// "x2APIC" or "xAPIC".
pub fn mode() -> &'static str {
    if x2() { "x2APIC" } else { "xAPIC" }
}

/// This CPU's APIC id.
pub fn id() -> u32 {
    if x2() { read(ID) } else { read(ID) >> 24 }
}

/// Ends the interrupt in service.
pub fn end_of_interrupt() {
    write(EOI, 0);
}

/// Reads and clears the error register.
pub fn take_errors() -> u32 {
    write(ERROR_STATUS, 0);
    read(ERROR_STATUS)
}

fn send(apic_id: u32, command: u32) {
    if x2() {
        let value = (u64::from(apic_id) << 32) | u64::from(command);
        // SAFETY: the x2APIC's interrupt command register.
        unsafe { msr(ICR_LOW).write(value) };
        return;
    }
    // Two writes: an interrupt handler between them that sends would change the target.
    let _irqs_off = irq::disable();
    while read(ICR_LOW) & SEND_PENDING != 0 {
        core::hint::spin_loop();
    }
    write(ICR_HIGH, apic_id << 24);
    write(ICR_LOW, command);
}

/// Raises `vector` on the CPU with this APIC id. Not from NMI context.
pub fn send_vector(apic_id: u32, vector: u8) {
    send(apic_id, LEVEL_ASSERT | u32::from(vector));
}

/// Raises an NMI on the CPU with this APIC id. Not from NMI context, but for a panic.
pub fn send_nmi(apic_id: u32) {
    send(apic_id, LEVEL_ASSERT | DELIVERY_NMI);
}

/// Resets the CPU with this APIC id into its waiting state.
pub fn send_init(apic_id: u32) {
    send(apic_id, LEVEL_ASSERT | DELIVERY_INIT);
}

/// Starts a CPU that waits after INIT, in real mode at `page << 12`.
pub fn send_start_up(apic_id: u32, page: u8) {
    send(apic_id, LEVEL_ASSERT | DELIVERY_START | u32::from(page));
}

/// The timer's rate in counts a millisecond.
pub fn set_timer_rate(per_ms: u32) {
    TIMER_PER_MS.store(per_ms, Ordering::Relaxed);
}

/// The timer's rate in counts a millisecond; 0 before it was measured.
pub fn timer_rate() -> u32 {
    TIMER_PER_MS.load(Ordering::Relaxed)
}

/// Starts the timer at its highest count, without interrupt, to measure its rate.
pub fn start_free_timer() {
    write(LVT_TIMER, MASKED);
    write(TIMER_INITIAL, u32::MAX);
}

/// Counts since [`start_free_timer`].
pub fn free_timer_elapsed() -> u32 {
    u32::MAX - read(TIMER_CURRENT)
}

/// What the timer raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerVector {
    /// The kernel's timer interrupt.
    Timer,
    /// The interrupt sweep's.
    Sweep,
    /// An NMI. Emulators do that; what a real local APIC's timer does is not specified.
    Nmi,
}

/// Raises the timer vector on this CPU once, `ns` nanoseconds from now or later: never
/// early; at most about 4 s (longer waits are armed again by who looks at the time).
pub fn arm_timer(ns: u64) {
    let per_ms = u64::from(timer_rate());
    // Round up, plus one for the count that is under way.
    let counts = ns
        .saturating_mul(per_ms)
        .div_ceil(1_000_000)
        .saturating_add(1)
        .clamp(1, u64::from(u32::MAX));
    start_timer(counts as u32, TimerVector::Timer);
}

/// Starts the timer for exactly `counts` of its counts: on the `icount` machine, nanoseconds.
pub fn start_timer(counts: u32, raise: TimerVector) {
    let entry = match raise {
        TimerVector::Timer => u32::from(vector::TIMER),
        TimerVector::Sweep => u32::from(vector::SWEEP),
        TimerVector::Nmi => DELIVERY_NMI,
    };
    write(LVT_TIMER, entry);
    write(TIMER_INITIAL, counts);
}

/// Stops the timer.
pub fn disarm_timer() {
    write(TIMER_INITIAL, 0);
}

/// Raises `vector` on this CPU. Any context, NMI too: it is one write, and what an
/// interrupted [`send_vector`] has written of its own is left as it is.
pub fn send_self(vector: u8) {
    const SHORTHAND_SELF: u32 = 1 << 18;
    let command = SHORTHAND_SELF | LEVEL_ASSERT | u32::from(vector);
    if x2() {
        // SAFETY: the x2APIC's interrupt command register.
        unsafe { msr(ICR_LOW).write(u64::from(command)) };
    } else {
        write(ICR_LOW, command);
    }
}
