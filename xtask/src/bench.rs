//! `cargo xtask bench`: the workloads inside the kernel on a fixed set of machines, their
//! figures as lines and as JSON, and the comparison with a baseline.
//!
//! - [`BenchMachine`]: the machines, which are part of what a figure means
//! - [`Collector`]: what a guest's lines say; [`measure()`] runs the guest
//! - [`host`]: the same workloads without a guest
//! - [`Report`]: the figures in a file, with what they depend on
//! - [`compare`](fn@compare): what got worse
//!
//! [`cmd::bench`](crate::cmd::bench) is the command around it.

mod collect;
mod compare;
mod filter;
pub mod host;
mod machines;
mod measure;
mod report;

pub use collect::{Collector, Ran, Show};
pub use compare::{Finding, Rule, Verdict, compare};
pub use filter::Filter;
pub use machines::BenchMachine;
pub use measure::measure;
pub use report::{JsonFile, Key, Report, Row, Skipped};
