//! The numbers of a line: whole ones, and such with one decimal. No floating point, so the
//! kernel can make them and nothing is lost on the way.

use core::fmt;

/// A number with one decimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenths(u64);

impl Tenths {
    /// So many tenths.
    pub const fn new(tenths: u64) -> Self {
        Self(tenths)
    }

    /// In tenths.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Nanoseconds per operation: `ns` of wall time on `cpus` CPUs at once, in which they
    /// did `ops` operations together (0 counts as 1). Rounded to the nearest tenth.
    ///
    /// ```
    /// use kernel_base::bench::Tenths;
    /// assert_eq!(Tenths::per_op(1_139_600, 4, 8_000).to_string(), "569.8");
    /// ```
    pub fn per_op(ns: u64, cpus: u32, ops: u64) -> Self {
        let ops = u128::from(ops.max(1));
        let tenths = (u128::from(ns) * u128::from(cpus) * 10 + ops / 2) / ops;
        Self(u64::try_from(tenths).unwrap_or(u64::MAX))
    }

    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, tenth) = text.split_once('.')?;
        let tenth = tenth.as_bytes();
        if tenth.len() != 1 || !tenth[0].is_ascii_digit() {
            return None;
        }
        let tenth = u64::from(tenth[0] - b'0');
        whole_number(whole)?
            .checked_mul(10)?
            .checked_add(tenth)
            .map(Self)
    }
}

impl fmt::Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

/// The value of a further key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A whole number: `peak_kib=15960`.
    Whole(u64),
    /// A number with one decimal: `destroy_us=17831.9`.
    Tenths(Tenths),
}

impl Value {
    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        match whole_number(text) {
            Some(whole) => Some(Self::Whole(whole)),
            None => Tenths::parse(text).map(Self::Tenths),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(whole) => whole.fmt(f),
            Self::Tenths(tenths) => tenths.fmt(f),
        }
    }
}

/// Digits without a sign and without a zero to begin with, unless that is all.
pub(super) fn whole_number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok()
}
