//! `cargo xtask`: build Granary, boot it in QEMU, test it, debug it.
//!
//! From the command line inwards:
//!
//! - [`cli`]: the options; [`cmd`]: one module a command; [`test`](mod@test): the command of that name
//! - [`mod@bench`]: figures, and comparing them
//! - [`machine`]: the shape of a guest; [`qemu`]: the command line that gives it
//! - [`guest`]: a running guest: its lines, its end, its deadline
//! - [`toolchain`]: a compiler for bare metal, found or installed; [`tools`]: QEMU and the like;
//!   [`packages`]: how these are installed
//! - [`build`]: kernel, boot stub, symbol table, ramdisk
//! - [`symbolize`]: files and lines for the addresses of a backtrace
//! - [`process`], [`signals`], [`terminal`], [`ui`], [`workspace`]: what these share
//!
//! It is a library with a small program around it, so that integration tests
//! reach every part.

pub mod bench;
pub mod build;
pub mod cli;
pub mod cmd;
pub mod guest;
pub mod machine;
pub mod packages;
pub mod process;
pub mod qemu;
pub mod signals;
pub mod status;
pub mod symbolize;
pub mod terminal;
pub mod test;
pub mod toolchain;
pub mod tools;
pub mod ui;
pub mod workspace;
