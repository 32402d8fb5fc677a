//! What the boot stub does between finding itself in long mode and jumping to
//! the kernel, apart from touching the machine: reading `hvm_start_info`, the
//! firmware's memory map, the ramdisk and the kernel's ELF file, and building
//! the address space and the numbers that [`bootloader_api::BootInfo`] promises.
//!
//! Everything here also runs on the host, where `tests/` feeds it broken input
//! and walks the page tables it makes. The one thing it asks of the machine is
//! that physical memory is visible at a fixed offset ([`Machine::physical_offset`]).
#![no_std]

mod address_space;
mod elf;
mod error;
mod frames;
mod memory;
mod prepare;
mod ramdisk;
mod slots;
mod start_info;

pub use elf::{KernelImage, Segment};
pub use error::Error;
pub use memory::{MAX_FIRMWARE_REGIONS, RawRegion, Regions, merge};
pub use prepare::{Handover, Machine, check_ramdisk, prepare};
pub use ramdisk::find_kernel;
pub use start_info::{Module, StartInfo};

/// Size in bytes of the smallest page and of a frame.
pub const PAGE: u64 = 4096;

/// What the stub can reach, and so the end of the memory it takes frames from:
/// it runs on an identity map of the first 4 GiB.
pub const REACH: u64 = 1 << 32;
