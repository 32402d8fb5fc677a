//! The serial console: formatted output under one lock, input by interrupt into a ring.
//!
//! `uart_16550` programs and tests the port and receives; sending is the bounded polled
//! writer that panics use too, so that a port that stops cannot stop the kernel.

use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use arrayvec::ArrayVec;
use kernel_early::serial::{COM1, RawSerial};
use platform::wait::WaitQueue;
use uart_16550::{Config, Uart16550, backend::PioBackend, spec::registers::IER};

use crate::{
    arch::{apic, interrupts::vector, ioapic},
    boot,
    machine::Kernel,
    sync::{Console, IrqLock, SerialPort, SerialRing},
    time,
};

/// Line of COM1 at the legacy interrupt controllers.
const COM1_IRQ: u8 = 4;
/// Bytes received and not yet read. Beyond them the port is not read: its own queue fills,
/// and the sender waits.
const RING: usize = 1024;

static OUT: IrqLock<RawSerial, Console> = IrqLock::new(RawSerial::new());
static PORT: IrqLock<Option<Uart16550<PioBackend>>, SerialPort> = IrqLock::new(None);
static RECEIVED: IrqLock<ArrayVec<u8, RING>, SerialRing> = IrqLock::new(ArrayVec::new_const());
/// The ring was full and the port may hold more, for which no interrupt will come.
static STALLED: AtomicBool = AtomicBool::new(false);
/// Who waits for input.
static TYPED: WaitQueue<Kernel> = WaitQueue::new();
/// Input comes by interrupt. Relaxed: a late reader only polls once more.
static BY_INTERRUPT: AtomicBool = AtomicBool::new(false);

/// Prints to the console without a newline. One call comes out in one piece. Task and
/// interrupt context.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::console::write(format_args!($($arg)*)) };
}

/// [`print!`] with a newline.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::console::write(format_args!("{}\n", format_args!($($arg)*))) };
}

/// What [`print!`] calls.
pub fn write(text: fmt::Arguments<'_>) {
    // RawSerial never fails; an error could only come from a Display implementation.
    let _ = OUT.lock().write_fmt(text);
}

/// [`write()`] for any context, with any locks held: without the lock, if it is taken.
pub fn write_without_waiting(text: fmt::Arguments<'_>) {
    let _ = match OUT.try_lock() {
        Some(mut out) => out.write_fmt(text),
        None => RawSerial::new().write_fmt(text),
    };
}

/// The console as a `fmt::Write`; every piece takes the lock by itself.
#[derive(Debug, Clone, Copy)]
pub struct Writer;

impl Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        OUT.lock().write_str(text)
    }
}

/// Programs and tests the port. Without one, the kernel runs mute.
pub fn init() {
    // SAFETY: COM1's registers; `RawSerial` only uses its data and status, never at the same
    // time as this start-up code.
    let Ok(mut port) = (unsafe { Uart16550::new_port(COM1) }) else {
        return;
    };
    if port.init(Config::default()).is_ok() && port.test_loopback().is_ok() {
        *PORT.lock() = Some(port);
    }
}

/// Routes the port's interrupt to this CPU. Where no I/O APIC serves it, input is polled.
pub fn enable_receive_interrupt() {
    ioapic::mask_legacy();
    if !ioapic::route_isa(boot::acpi(), COM1_IRQ, vector::SERIAL, apic::id()) {
        log::warn!("console: no I/O APIC for the serial port: input is polled");
        return;
    }
    if let Some(port) = PORT.lock().as_mut() {
        port.enable_interrupts(IER::DATA_READY);
        BY_INTERRUPT.store(true, Ordering::Relaxed);
    }
    receive();
}

/// Moves what the port received into the ring. The serial interrupt's handler.
pub fn receive() {
    if fill_ring() {
        TYPED.wake_all();
    }
}

/// Whether something was received.
fn fill_ring() -> bool {
    let mut port = PORT.lock();
    let Some(port) = port.as_mut() else {
        return false;
    };
    let mut ring = RECEIVED.lock();
    let before = ring.len();
    while !ring.is_full() {
        match port.try_receive_byte() {
            Ok(byte) => ring.push(byte),
            Err(_) => return ring.len() > before,
        }
    }
    STALLED.store(true, Ordering::Relaxed);
    true
}

/// The next byte that was typed, if there is one.
pub fn read_byte() -> Option<u8> {
    if !BY_INTERRUPT.load(Ordering::Relaxed) {
        receive();
    }
    let byte = RECEIVED.lock().pop_at(0);
    // Relaxed here and in `receive`: the ring's lock orders it.
    if byte.is_some() && STALLED.swap(false, Ordering::Relaxed) {
        receive();
    }
    byte
}

/// Waits for a byte. Task context; the thread sleeps meanwhile.
pub fn wait_byte() -> u8 {
    loop {
        if let Some(byte) = wait_byte_until(u64::MAX) {
            return byte;
        }
    }
}

/// [`wait_byte`] until a time, in [`time::now_ns`]; `None`: nothing came.
pub fn wait_byte_until(deadline_ns: u64) -> Option<u8> {
    /// How often a port without interrupts is looked at.
    const POLL_NS: u64 = 5_000_000;
    let mut byte = None;
    loop {
        let arrived = || {
            byte = read_byte();
            byte.is_some()
        };
        if BY_INTERRUPT.load(Ordering::Relaxed) && deadline_ns == u64::MAX {
            TYPED.wait_until(arrived);
        } else if BY_INTERRUPT.load(Ordering::Relaxed) {
            let _ = TYPED.wait_until_timeout(arrived, deadline_ns);
        } else {
            let poll = time::now_ns() + POLL_NS;
            let _ = TYPED.wait_until_timeout(arrived, poll.min(deadline_ns));
        }
        if byte.is_some() || time::now_ns() >= deadline_ns {
            return byte;
        }
    }
}

/// Takes the console's lock and calls `f`, for tests of what happens while it is taken.
pub fn with_lock_held<R>(f: impl FnOnce() -> R) -> R {
    let _held = OUT.lock();
    f()
}
