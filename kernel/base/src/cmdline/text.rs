//! Values as they stand on the line, escapes and all.

use core::fmt;

/// A value; prints without its quotes and escapes.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    /// What stood between the quotes, or the bare word.
    raw: &'a str,
    /// Whether backslashes are escapes.
    quoted: bool,
}

impl<'a> Text<'a> {
    pub(super) const fn bare(raw: &'a str) -> Self {
        Self { raw, quoted: false }
    }

    pub(super) const fn quoted(raw: &'a str) -> Self {
        Self { raw, quoted: true }
    }

    /// The characters of the value.
    pub fn chars(self) -> Chars<'a> {
        Chars {
            rest: self.raw.chars(),
            quoted: self.quoted,
        }
    }

    /// The value where no escape stands in the way.
    pub fn as_plain(self) -> Option<&'a str> {
        (!self.quoted || !self.raw.contains('\\')).then_some(self.raw)
    }

    /// Whether the value is the empty string.
    pub fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// Copies the value into `buffer`; `None` if it is too long for it.
    pub fn copy_to(self, buffer: &mut [u8]) -> Option<&str> {
        let mut length = 0;
        for c in self.chars() {
            let end = length + c.len_utf8();
            c.encode_utf8(buffer.get_mut(length..end)?);
            length = end;
        }
        core::str::from_utf8(&buffer[..length]).ok()
    }
}

impl PartialEq<str> for Text<'_> {
    fn eq(&self, other: &str) -> bool {
        self.chars().eq(other.chars())
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.chars().eq(other.chars())
    }
}

impl Eq for Text<'_> {}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        self.chars().try_for_each(|c| f.write_char(c))
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.raw)
    }
}

/// The characters of a [`Text`].
#[derive(Clone, Debug)]
pub struct Chars<'a> {
    rest: core::str::Chars<'a>,
    quoted: bool,
}

impl Iterator for Chars<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if self.quoted && c == '\\' {
            let mut ahead = self.rest.clone();
            if let Some(escaped @ ('"' | '\\')) = ahead.next() {
                self.rest = ahead;
                return Some(escaped);
            }
        }
        Some(c)
    }
}
