//! What can be wrong with a command line.

use core::fmt;

use super::{Text, ValueType};

/// How many problems of one line are kept; the rest is counted.
pub const MAX_PROBLEMS: usize = 16;

/// One thing wrong with the command line, and where. Prints as one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem<'a> {
    /// Where the token starts, in bytes from the start of the line.
    pub position: usize,
    /// What is wrong.
    pub kind: ProblemKind<'a>,
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind<'a> {
    /// The key is none of [`KEYS`](super::KEYS). The token has no effect.
    UnknownKey {
        /// The key.
        key: &'a str,
    },
    /// The key needs a value and has none. The token has no effect.
    MissingValue {
        /// The key.
        key: &'a str,
        /// What the value should be.
        expected: ValueType,
    },
    /// The key is a flag but has a value. The token has no effect.
    UnexpectedValue {
        /// The key.
        key: &'a str,
    },
    /// The value is not what the key takes. The token has no effect.
    BadValue {
        /// The key.
        key: &'a str,
        /// The value.
        value: Text<'a>,
        /// What it should be.
        expected: ValueType,
    },
    /// The key came before. The later value holds.
    Duplicate {
        /// The key.
        key: &'a str,
    },
    /// The closing quote is missing: the value extends to the end of the line.
    UnterminatedQuote {
        /// The key.
        key: &'a str,
    },
    /// Something follows the closing quote without a blank. It is dropped.
    TextAfterQuote {
        /// The key.
        key: &'a str,
        /// What follows.
        text: &'a str,
    },
    /// The line is not UTF-8 from here on. The rest is dropped.
    NotUtf8,
}

impl fmt::Display for Problem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ProblemKind::UnknownKey { key } => write!(f, "unknown key `{key}`"),
            ProblemKind::MissingValue { key, expected } => {
                write!(f, "`{key}` needs a value: {expected}")
            }
            ProblemKind::UnexpectedValue { key } => write!(f, "`{key}` takes no value"),
            ProblemKind::BadValue {
                key,
                value,
                expected,
            } => {
                write!(f, "bad value `{value}` for `{key}`, expected {expected}")
            }
            ProblemKind::Duplicate { key } => {
                write!(f, "`{key}` given again, the last one holds")
            }
            ProblemKind::UnterminatedQuote { key } => {
                write!(f, "no closing quote in the value of `{key}`")
            }
            ProblemKind::TextAfterQuote { key, text } => {
                write!(f, "dropped `{text}` behind the quoted value of `{key}`")
            }
            ProblemKind::NotUtf8 => f.write_str("not UTF-8, dropped the rest"),
        }?;
        write!(f, " at byte {}", self.position)
    }
}
