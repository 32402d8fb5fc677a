//! I/O APICs: where device interrupts come in. One line is used so far, the serial port's.

use kernel_base::acpi;

use super::{paging, power};

const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;
const ACTIVE_LOW: u64 = 1 << 13;
const LEVEL_TRIGGERED: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;

/// Masks the legacy interrupt controllers, after moving them off the exception vectors.
pub fn mask_legacy() {
    const PROGRAM: [(u16, u8); 10] = [
        (0x20, 0x11),
        (0xa0, 0x11),
        (0x21, super::interrupts::vector::LEGACY),
        (0xa1, super::interrupts::vector::LEGACY + 8),
        (0x21, 4),
        (0xa1, 2),
        (0x21, 1),
        (0xa1, 1),
        (0x21, 0xff),
        (0xa1, 0xff),
    ];
    for (port, value) in PROGRAM {
        power::out8(port, value);
    }
}

/// Sends the legacy interrupt line `isa_irq` to `vector` on the CPU with `apic_id`, as the
/// MADT's overrides say. `false` when no I/O APIC serves it.
pub fn route_isa(platform: &acpi::Platform, isa_irq: u8, vector: u8, apic_id: u32) -> bool {
    let line = platform.isa_interrupt(isa_irq);
    for io_apic in &platform.io_apics {
        let Ok(base) = paging::map_device(u64::from(io_apic.address), 0x20) else {
            continue;
        };
        let registers = Registers(base);
        let lines = ((registers.read(VERSION) >> 16) & 0xff) + 1;
        let Some(pin) = line.global_interrupt.checked_sub(io_apic.first_interrupt) else {
            continue;
        };
        if pin >= lines {
            continue;
        }
        let mut entry = u64::from(vector) | (u64::from(apic_id & 0xff) << 56);
        if line.active_low {
            entry |= ACTIVE_LOW;
        }
        if line.level_triggered {
            entry |= LEVEL_TRIGGERED;
        }
        registers.write_entry(pin, entry);
        return true;
    }
    false
}

struct Registers(u64);

impl Registers {
    fn read(&self, register: u32) -> u32 {
        // SAFETY: self.0 is the mapping of an I/O APIC: index register, data at +0x10.
        unsafe {
            (self.0 as *mut u32).write_volatile(register);
            ((self.0 + 0x10) as *const u32).read_volatile()
        }
    }

    fn write(&self, register: u32, value: u32) {
        // SAFETY: as in `read`.
        unsafe {
            (self.0 as *mut u32).write_volatile(register);
            ((self.0 + 0x10) as *mut u32).write_volatile(value);
        }
    }

    /// Masked while half of it is written.
    fn write_entry(&self, pin: u32, entry: u64) {
        self.write(REDIRECTION + 2 * pin, MASKED as u32);
        self.write(REDIRECTION + 2 * pin + 1, (entry >> 32) as u32);
        self.write(REDIRECTION + 2 * pin, entry as u32);
    }
}
