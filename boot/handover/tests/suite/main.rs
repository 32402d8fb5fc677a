//! What the boot stub does, tried on the host with sound and with broken input.

mod common;
mod elf;
mod machine;
mod memory;
mod prepare;
mod ramdisk;
mod start_info;
