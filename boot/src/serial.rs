//! COM1, for the one message that says why the kernel was not started.

use core::fmt;
use x86_64::instructions::port::Port;

const BASE: u16 = 0x3f8;
/// How often to look whether the port takes another byte; with none behind it, it
/// never does.
const PATIENCE: u32 = 100_000;

/// The first serial port: 115200 baud, 8 data bits, no parity.
pub struct Serial(());

impl Serial {
    /// Sets the port up.
    pub fn new() -> Self {
        let mut serial = Self(());
        for (register, value) in [
            (1, 0x00), // no interrupts
            (3, 0x80), // divisor latch
            (0, 0x01),
            (1, 0x00),
            (3, 0x03), // 8N1
            (2, 0x07), // FIFOs on and empty
        ] {
            serial.write(register, value);
        }
        serial
    }

    fn write(&mut self, register: u16, value: u8) {
        // SAFETY: these are the registers of COM1, which nobody else drives now.
        unsafe { Port::new(BASE + register).write(value) };
    }

    fn send(&mut self, byte: u8) {
        let mut status = Port::<u8>::new(BASE + 5);
        for _ in 0..PATIENCE {
            // SAFETY: reading the line status has no effect that matters here.
            if unsafe { status.read() } & 0x20 != 0 {
                break;
            }
            core::hint::spin_loop();
        }
        self.write(0, byte);
    }
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.send(b'\r');
            }
            self.send(byte);
        }
        Ok(())
    }
}
