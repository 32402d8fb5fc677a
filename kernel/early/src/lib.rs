//! What runs before anything else of the kernel can: the entry point, the check of the
//! loader's hand-over, the kernel's first own page tables, and the polled serial port and
//! exit that panics use.
//!
//! This is a crate of its own because it must never be instrumented: a build with the
//! address sanitizer checks every access against a shadow that this code has yet to map.
//! For the same reason it depends on nothing of the kernel, allocates nothing and takes no
//! lock. It contains no assembly; the one step that needs it, changing page tables and
//! stack at once, is given by the architecture code as [`entry::granary_switch`].
#![no_std]

pub mod entry;
pub mod exit;
pub mod frames;
pub mod handover;
pub mod layout;
pub mod serial;
pub mod tables;
