//! Amounts of memory as people write them.

use std::fmt;
use std::str::FromStr;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// An amount of memory: whole MiB, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// So many MiB.
    pub const fn mib(mib: u64) -> Self {
        Self(mib * MIB)
    }

    /// So many bytes. What is less than a MiB is kept: only parsing refuses it.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    /// `512M`, `8G`, `65536K`, `1T`, in either case; a bare number is in MiB, as
    /// for QEMU's `-m`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, unit) = match text.char_indices().last() {
            Some((at, letter)) if letter.is_ascii_alphabetic() => {
                (&text[..at], letter.to_ascii_uppercase())
            }
            _ => (text, 'M'),
        };
        let unit = match unit {
            'K' => KIB,
            'M' => MIB,
            'G' => MIB << 10,
            'T' => MIB << 20,
            other => return Err(format!("unknown unit `{other}`; use K, M, G or T")),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("a whole number with K, M, G or T is wanted, like 512M".into());
        }
        let bytes = digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(unit));
        let Some(bytes) = bytes.filter(|&bytes| bytes < 1 << 52) else {
            return Err("too much for any machine".into());
        };
        if bytes == 0 || bytes % MIB != 0 {
            return Err("memory comes in whole MiB, at least one".into());
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Size {
    /// In the form that QEMU and [`FromStr`] read, with the largest unit that fits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes % (MIB << 10) == 0 => write!(f, "{}G", bytes / (MIB << 10)),
            bytes if bytes % MIB == 0 => write!(f, "{}M", bytes / MIB),
            bytes => write!(f, "{}K", bytes / KIB),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse() {
        for (text, bytes) in [
            ("64M", 64 * MIB),
            ("64m", 64 * MIB),
            ("8G", 8 << 30),
            ("512", 512 * MIB),
            ("65536K", 64 * MIB),
            ("1T", 1 << 40),
        ] {
            assert_eq!(text.parse::<Size>().unwrap().bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "M",
            "0",
            "0G",
            "-1M",
            "1.5G",
            "12Q",
            "1023K",
            "5000T",
            "99999999999999999999G",
            "+5M",
            "5µ",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_parses_back() {
        for text in ["64M", "8G", "1536M"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("1T".parse::<Size>().unwrap().to_string(), "1024G");
    }
}
