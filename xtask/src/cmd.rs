//! The commands, one module each. (`test` is large enough to live on its own.)

pub mod bench;
pub mod check;
pub mod doctor;
pub mod gdb;
pub mod image;
pub mod run;
