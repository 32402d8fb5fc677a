//! Parts of the kernel that need no machine: formats, parsers and plain data
//! structures, tested on the host.
//!
//! Nothing here allocates, locks or touches hardware; callers lock where they
//! share. Whatever reads bytes from outside (firmware tables, the ramdisk, the
//! command line) treats them as hostile: every access is bounds-checked, every
//! loop is bounded, and damage comes back as a value, never as a panic.
//!
//! - [`acpi`]: CPUs, nodes, interrupt controllers, clocks and power from the
//!   firmware's tables
//! - [`mod@bench`]: what a benchmark run prints, written and read
//! - [`cmdline`]: the kernel command line, typed
//! - [`glob`]: patterns for names of test cases
//! - [`ktap`]: writing test results
//! - [`log_ring`]: the records that `dmesg` shows
//! - [`ramdisk`]: the tar archive handed over by the boot loader
//! - [`rng`]: seeded pseudo-random numbers for tests
//! - [`symbols`]: the compact symbol table of backtraces
//!
//! The feature `std` adds the writers that `xtask` uses (today
//! `symbols::encode`).

#![no_std]

#[cfg(feature = "std")]
extern crate std;

pub mod acpi;
pub mod bench;
mod bytes;
pub mod cmdline;
pub mod glob;
pub mod ktap;
pub mod log_ring;
pub mod ramdisk;
pub mod rng;
pub mod symbols;
