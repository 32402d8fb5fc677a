//! Read-copy-update: waiting for all readers that may still hold something.
//!
//! Today the parts that need no machine: the arithmetic that everything else counts with
//! ([`seq`]), and lists of callbacks by what they wait for ([`callbacks`]).

#![no_std]

pub mod callbacks;
pub mod seq;
