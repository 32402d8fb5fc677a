//! Every way in which booting can fail, worded for the person at the console.

use core::fmt;
use tar_no_std::CorruptDataError;

/// Why the kernel cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// `hvm_start_info`, which the virtual machine monitor hands over, is unusable.
    StartInfo(&'static str),
    /// The firmware's memory map is unusable.
    MemoryMap(&'static str),
    /// The initial ramdisk is absent, or lies where it cannot be.
    Ramdisk(&'static str),
    /// The initial ramdisk is not a sound tar archive.
    Archive(CorruptDataError),
    /// The archive has no member `kernel`.
    NoKernel,
    /// The member `kernel` is not an ELF file that can be started.
    Elf(&'static str),
    /// One of the kernel's loadable segments is unsound.
    Segment {
        /// Its place among the loadable segments, from 0.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The kernel's section `.bootloader-config` is unusable.
    Config(&'static str),
    /// The kernel was built against another version of `bootloader_api`.
    ApiVersion {
        /// Major, minor and patch version the kernel names.
        kernel: [u16; 3],
        /// The same of this stub.
        stub: [u16; 3],
    },
    /// A mapping the kernel asks for cannot be made.
    Mapping {
        /// Which mapping.
        what: &'static str,
        /// Its virtual address.
        address: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No usable memory is left between 1 MiB and 4 GiB.
    OutOfMemory,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartInfo(problem) => write!(f, "start info: {problem}"),
            Self::MemoryMap(problem) => write!(f, "memory map: {problem}"),
            Self::Ramdisk(problem) => write!(f, "ramdisk: {problem}"),
            Self::Archive(problem) => write!(f, "ramdisk is not a sound tar archive: {problem}"),
            Self::NoKernel => f.write_str("ramdisk has no member named `kernel`"),
            Self::Elf(problem) => write!(f, "kernel ELF: {problem}"),
            Self::Segment { index, problem } => {
                write!(f, "kernel ELF: loadable segment {index}: {problem}")
            }
            Self::Config(problem) => write!(f, "kernel ELF: .bootloader-config: {problem}"),
            Self::ApiVersion { kernel, stub } => write!(
                f,
                "kernel was built for bootloader_api {}.{}.{}, this stub for {}.{}.{}",
                kernel[0], kernel[1], kernel[2], stub[0], stub[1], stub[2]
            ),
            Self::Mapping {
                what,
                address,
                problem,
            } => write!(f, "mapping of {what} at {address:#x}: {problem}"),
            Self::OutOfMemory => f.write_str("no usable memory left between 1 MiB and 4 GiB"),
        }
    }
}

impl core::error::Error for Error {}
