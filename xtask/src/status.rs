//! What QEMU's exit status says about the guest.
//!
//! The guest writes a value to `isa-debug-exit`, and QEMU ends with twice that
//! value, plus one.

use std::fmt;

/// How the guest ended, by QEMU's exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// A reset, or power off by ACPI: QEMU's own 0.
    Reset,
    /// All went well.
    Success,
    /// A command or a test case failed.
    Failure,
    /// The kernel panicked.
    Panic,
    /// The commands of `run=` ended with this status, 1 to 31.
    Commands(u8),
    /// None of these: QEMU itself failed.
    Qemu(i32),
}

impl Status {
    /// The meaning of QEMU's exit status.
    pub fn from_code(code: i32) -> Self {
        match code {
            0 => Self::Reset,
            _ if code & 1 == 0 => Self::Qemu(code),
            _ => match code >> 1 {
                0x10 => Self::Success,
                0x11 => Self::Failure,
                0x12 => Self::Panic,
                value @ 0x21..=0x3f => Self::Commands((value - 0x20) as u8),
                _ => Self::Qemu(code),
            },
        }
    }

    /// The status that `cargo xtask run` ends with. With commands to run, a guest
    /// that went away without their status has failed.
    pub fn for_run(self, commands: bool) -> u8 {
        match self {
            Self::Success => 0,
            Self::Reset => u8::from(commands),
            Self::Commands(status) => status,
            Self::Failure | Self::Panic | Self::Qemu(_) => 1,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset => f.write_str("the guest was reset or powered off"),
            Self::Success => f.write_str("the guest ended with success"),
            Self::Failure => f.write_str("the guest ended with failure"),
            Self::Panic => f.write_str("the kernel panicked"),
            Self::Commands(status) => write!(f, "the commands ended with status {status}"),
            Self::Qemu(code) => write!(f, "QEMU failed with status {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_map() {
        for (code, status, run, commands) in [
            (0, Status::Reset, 0, 1),
            (1, Status::Qemu(1), 1, 1),
            (2, Status::Qemu(2), 1, 1),
            (33, Status::Success, 0, 0),
            (35, Status::Failure, 1, 1),
            (37, Status::Panic, 1, 1),
            (65, Status::Qemu(65), 1, 1),
            (67, Status::Commands(1), 1, 1),
            (127, Status::Commands(31), 31, 31),
            (129, Status::Qemu(129), 1, 1),
            (34, Status::Qemu(34), 1, 1),
        ] {
            assert_eq!(Status::from_code(code), status, "{code}");
            assert_eq!(status.for_run(false), run, "{code}");
            assert_eq!(status.for_run(true), commands, "{code}");
        }
    }
}
