//! Typed pointers, lists and hash tables: against simple models, and read while they change,
//! with freed memory poisoned.

mod hash;
mod list;
mod memory;
mod pointer;
mod world;
