//! Locks, generic over the [`Platform`](crate::Platform).

mod class;

pub use class::{Class, LockClass};
