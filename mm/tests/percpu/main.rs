//! Dynamic per-CPU memory: against a model, without memory, from many threads.

mod failures;
mod memory;
mod model;
mod threads;
mod wrong;
