//! Where the guest's serial port and its debugger's stub go.

use std::path::PathBuf;

use super::double_commas;

/// Where the guest's serial port goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Console {
    /// Standard input and output, with QEMU's own keys (Ctrl-A x ends it): for
    /// someone who types the command line.
    ByHand,
    /// Standard input and output, all bytes to the guest, and QMP on an inherited
    /// socket: for xtask.
    Piped {
        /// The socket's number in QEMU.
        qmp: i32,
    },
    /// A pseudo-terminal with a copy of all output in a file, and QMP on an
    /// inherited socket.
    Apart {
        /// The socket's number in QEMU.
        qmp: i32,
        /// The file.
        log: PathBuf,
    },
}

impl Console {
    pub(super) fn arguments(&self) -> Vec<String> {
        let (device, qmp) = match self {
            Self::ByHand => return vec!["-serial".into(), "mon:stdio".into()],
            Self::Piped { qmp } => ("stdio,id=serial,signal=off".into(), qmp),
            Self::Apart { qmp, log } => (
                format!(
                    "pty,id=serial,logfile={}",
                    double_commas(&log.to_string_lossy())
                ),
                qmp,
            ),
        };
        vec![
            "-chardev".into(),
            device,
            "-serial".into(),
            "chardev:serial".into(),
            "-chardev".into(),
            format!("socket,id=qmp,fd={qmp}"),
            "-mon".into(),
            "chardev=qmp,mode=control".into(),
        ]
    }
}

/// A stub that GDB can attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Debugger {
    /// On a socket in the file system; the machine waits for `continue`.
    Paused(PathBuf),
    /// On a TCP port of this machine only; the machine runs.
    Port(u16),
}

impl Debugger {
    pub(super) fn arguments(&self) -> Vec<String> {
        match self {
            Self::Paused(socket) => vec![
                "-S".into(),
                "-chardev".into(),
                format!(
                    "socket,id=gdb,server=on,wait=off,path={}",
                    double_commas(&socket.to_string_lossy())
                ),
                "-gdb".into(),
                "chardev:gdb".into(),
            ],
            Self::Port(port) => vec!["-gdb".into(), format!("tcp:127.0.0.1:{port}")],
        }
    }
}
