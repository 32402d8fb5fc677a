//! Ending the machine from the outside: QEMU's `isa-debug-exit` port.

use core::sync::atomic::{AtomicU16, Ordering};

use x86_64::instructions::port::PortWriteOnly;

/// Where QEMU is told to put the device.
pub const USUAL_PORT: u16 = 0xf4;
/// What a kernel writes that has panicked, or that cannot start.
pub const PANIC: u8 = 0x12;

/// Port of the device, 0 when there is none.
static PORT: AtomicU16 = AtomicU16::new(0);

/// Tells where the `isa-debug-exit` device is.
pub fn set_port(port: u16) {
    // Relaxed: a plain number, set once by the boot CPU before others run.
    PORT.store(port, Ordering::Relaxed);
}

/// Whether [`debug_exit`] would end the machine.
pub fn available() -> bool {
    PORT.load(Ordering::Relaxed) != 0
}

/// Ends QEMU with process status `(value << 1) | 1`. Returns when there is no such device.
/// Any context.
pub fn debug_exit(value: u8) {
    let port = PORT.load(Ordering::Relaxed);
    if port != 0 {
        // SAFETY: the command line promised that this port belongs to isa-debug-exit, which
        // does nothing but end the machine.
        unsafe { PortWriteOnly::<u32>::new(port).write(u32::from(value)) };
    }
}
