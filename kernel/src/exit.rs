//! How the machine ends. The values are a contract with `xtask`; see `docs/testing.md`.

use kernel_early::exit::{PANIC, available, debug_exit};

use crate::{
    arch::{cpu, power},
    boot,
};

/// `isa-debug-exit` value for success.
const SUCCESS: u8 = 0x10;
/// A command or a test case failed.
const FAILURE: u8 = 0x11;
/// Plus a status from 1 to 31: what `run=` ended with.
const STATUS: u8 = 0x20;

/// Ends the machine with success.
pub fn success() -> ! {
    end(SUCCESS)
}

/// Ends the machine with failure.
pub fn failure() -> ! {
    end(FAILURE)
}

/// Ends the machine with a status; 0 is success and more than 31 is 31.
pub fn status(status: u8) -> ! {
    match status {
        0 => success(),
        status => end(STATUS + status.min(31)),
    }
}

/// Turns the machine off.
pub fn poweroff() -> ! {
    success()
}

/// Restarts the machine.
pub fn reboot() -> ! {
    power::reset()
}

fn end(value: u8) -> ! {
    debug_exit(value);
    power::acpi_off();
    println!("granary: this machine cannot turn itself off; it is halted now");
    cpu::halt_forever()
}

/// Ends the machine after a panic, as `panic=` says. Takes no lock.
pub fn after_panic() -> ! {
    use kernel_base::cmdline::OnPanic;
    match boot::command_line().on_panic() {
        OnPanic::Exit if available() => debug_exit(PANIC),
        OnPanic::Reboot => power::reset(),
        OnPanic::Exit | OnPanic::Halt => {}
    }
    cpu::halt_forever()
}
