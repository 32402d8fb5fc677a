//! Turning the machine off and restarting it.

use ::x86_64::instructions::port::{PortReadOnly, PortWriteOnly};

use crate::boot;

const SLEEP_ENABLE: u16 = 1 << 13;

/// Writes a byte to an I/O port.
pub(super) fn out8(port: u16, value: u8) {
    // SAFETY: callers in this architecture's modules write to the device they drive.
    unsafe { PortWriteOnly::<u8>::new(port).write(value) };
}

/// Reads a double word from an I/O port (the ACPI timer).
pub(super) fn in32(port: u16) -> u32 {
    // SAFETY: callers in this architecture's modules read from the device they drive.
    unsafe { PortReadOnly::<u32>::new(port).read() }
}

/// Enters ACPI's soft-off state. Returns when the tables do not say how.
pub fn acpi_off() {
    let Some(off) = boot::soft_off() else {
        return;
    };
    let value = |sleep_type: u8| (u16::from(sleep_type) << 10) | SLEEP_ENABLE;
    // SAFETY: the FADT names this port as the PM1a control register.
    unsafe { PortWriteOnly::<u16>::new(off.port_a).write(value(off.types.pm1a)) };
    if let Some(port) = off.port_b {
        // SAFETY: the FADT names this port as the PM1b control register.
        unsafe { PortWriteOnly::<u16>::new(port).write(value(off.types.pm1b)) };
    }
}

/// Resets the machine: the chipset's reset register, then the keyboard controller, then a
/// triple fault.
pub fn reset() -> ! {
    out8(0xcf9, 0x02);
    out8(0xcf9, 0x06);
    out8(0x64, 0xfe);
    for _ in 0..1_000_000 {
        core::hint::spin_loop();
    }
    super::panic_tests::triple_fault()
}
