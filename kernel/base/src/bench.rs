//! What a benchmark run prints: written by the kernel, read back by `xtask`.
//!
//! ```text
//! # bench: release build, no debug checks; rounds=5 cpus=4
//! # run: pair/256
//! BENCH pair/256 cpus=1 ops=200000 ns_per_op=142.0 min=142.0 max=142.1 idle_ns=0
//! # SKIP remote_free/256: needs 2 CPUs, 1 is online
//! # bench: 1 measured, 1 skipped, 0 failed
//! ```
//!
//! [`Said`] is any of these lines; [`Figures`] is the one that begins with `BENCH`. Reading
//! is strict: a line of the run that is not exactly what the writer makes is an error, not
//! something to guess at, since a figure that was misread is worse than none.
//!
//! [`matches()`] says which workloads a pattern means, and [`median`] which round is reported.

mod figures;
mod number;
mod said;

pub use figures::{Figures, MAX_KEYS, is_name};
pub use number::{Tenths, Value};
pub use said::Said;

use core::fmt;

use crate::glob;

/// Why a line is none, or cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The name of a workload is not one.
    Name,
    /// This key is missing, or not where it belongs.
    Missing(&'static str),
    /// The value of this key is no number of the kind that is wanted.
    Number(&'static str),
    /// A further word is not `key=number` with a proper key.
    Word,
    /// A key comes twice.
    Twice,
    /// There are more than [`MAX_KEYS`] further keys.
    TooMany,
    /// The median is not between `min` and `max`.
    Range,
    /// A remark of the run (`# bench:`, `# run:`, `# SKIP`, `# FAIL`) is not understood.
    Remark,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("the workload's name is not one"),
            Self::Missing(key) => write!(f, "`{key}=` is not in its place"),
            Self::Number(key) => write!(f, "the value of `{key}` is no proper number"),
            Self::Word => f.write_str("a word is not key=number"),
            Self::Twice => f.write_str("a key comes twice"),
            Self::TooMany => write!(f, "there are more than {MAX_KEYS} further keys"),
            Self::Range => f.write_str("the figure is not between min and max"),
            Self::Remark => f.write_str("a remark that no run makes"),
        }
    }
}

impl core::error::Error for Malformed {}

/// Whether `pattern` means the workload `name`: as a glob over the whole name, or over the
/// part before the first slash (only a pattern without one can).
///
/// ```
/// use kernel_base::bench::matches;
/// assert!(matches("pair/*", "pair/256") && matches("pair", "pair/256"));
/// assert!(matches("rcu_read", "rcu_read") && !matches("256", "pair/256"));
/// ```
pub fn matches(pattern: &str, name: &str) -> bool {
    let group = name.split_once('/').map_or(name, |(group, _)| group);
    glob::matches(pattern, name) || glob::matches(pattern, group)
}

/// The round to report, with the lowest and the highest figure: `rounds` sorted by
/// `figure`, and the middle one (of an even number the lower of the two). `None` without
/// rounds.
pub fn median<T>(rounds: &mut [T], figure: impl Fn(&T) -> Tenths) -> Option<(&T, Tenths, Tenths)> {
    rounds.sort_unstable_by_key(&figure);
    let middle = rounds.get(rounds.len().checked_sub(1)? / 2)?;
    Some((middle, figure(rounds.first()?), figure(rounds.last()?)))
}
