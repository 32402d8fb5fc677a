//! The atomics that the protocols of this crate are written with. Their model tests include
//! the protocols' source with a module of this name that has the model checker's.

pub use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
