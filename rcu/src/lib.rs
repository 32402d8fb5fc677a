//! Read-copy-update: waiting for all readers that may still hold something.
//!
//! Today the arithmetic that everything else counts with: [`seq`].

#![no_std]

pub mod seq;
