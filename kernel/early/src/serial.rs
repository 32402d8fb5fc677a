//! Polled writer to the first serial port, for where no lock may be taken and nothing may
//! be trusted: before the console exists, and in a panic.

use core::fmt;

use x86_64::instructions::port::Port;

/// I/O port of COM1.
pub const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
/// "Transmitter holding register empty", and with the FIFO on "FIFO empty".
const THR_EMPTY: u8 = 1 << 5;
/// Bytes that fit into the transmit FIFO once it is empty.
const FIFO: usize = 16;
/// Polls before a byte is given up; a port that is absent reads as 0xff, i.e. ready.
const POLLS: u32 = 200_000;

/// Writes straight to the port. `\n` becomes `\r\n`. Any context; two writers interleave.
#[derive(Debug, Default)]
pub struct RawSerial {
    room: usize,
}

impl RawSerial {
    /// A writer; the port must have been programmed (the firmware or [`init`] did).
    pub const fn new() -> Self {
        Self { room: 0 }
    }

    /// Sends one byte as it is, waiting a bounded time for room.
    pub fn send(&mut self, byte: u8) {
        if self.room == 0 {
            let mut status = Port::<u8>::new(LINE_STATUS);
            for _ in 0..POLLS {
                // SAFETY: reading COM1's line status has no effect beyond clearing error bits.
                if unsafe { status.read() } & THR_EMPTY != 0 {
                    break;
                }
                core::hint::spin_loop();
            }
            self.room = FIFO;
        }
        self.room -= 1;
        // SAFETY: writing COM1's data port sends a byte.
        unsafe { Port::<u8>::new(COM1).write(byte) };
    }
}

impl fmt::Write for RawSerial {
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

/// Programs the port for 115200 8N1 with FIFOs on and interrupts off, so that the very
/// first messages come out whatever the loader left.
pub fn init() {
    let program: [(u16, u8); 7] = [
        (1, 0x00), // interrupts off
        (3, 0x80), // divisor latch
        (0, 0x01), // 115200
        (1, 0x00),
        (3, 0x03), // 8N1
        (2, 0x07), // FIFO on and cleared, receive trigger at one byte
        (4, 0x0b), // DTR, RTS, OUT2 (interrupt gate)
    ];
    for (register, value) in program {
        // SAFETY: these are COM1's registers; nothing else drives the port yet.
        unsafe { Port::<u8>::new(COM1 + register).write(value) };
    }
}
