//! The kernel command line: `key=value` and `key`, separated by blanks.
//!
//! A value may stand in double quotes, and then contain blanks; within them
//! `\"` is a quote and `\\` a backslash (a backslash before anything else is
//! just a backslash). A quote further on in an unquoted value has no meaning.
//!
//! Nothing on the command line is fatal: what is unknown, malformed, given
//! twice or not closed is collected as a [`Problem`] with its position, for the
//! log. Where a key comes twice the last value holds.
//!
//! [`KEYS`] lists every key with its type, default and meaning; the shell's
//! `help` and the documentation print it.
//!
//! ```
//! use kernel_base::cmdline::CommandLine;
//! let line = CommandLine::parse(r#"run="cpus; mem" maxcpus=4 colour=red"#);
//! assert_eq!(line.run.unwrap().to_string(), "cpus; mem");
//! assert_eq!(line.maxcpus, Some(4));
//! assert_eq!(line.problems()[0].to_string(), "unknown key `colour` at byte 26");
//! ```

mod keys;
mod line;
mod problem;
mod text;
mod token;

pub use keys::{KEYS, Key, ValueType};
pub use line::{
    CommandLine, DEFAULT_CASE_TIMEOUT_MS, DEFAULT_ROUNDS, Faults, OnPanic, Rcu, Shuffle, Slab,
};
pub use problem::{MAX_PROBLEMS, Problem, ProblemKind};
pub use text::{Chars, Text};
pub use token::{Token, Tokens};
