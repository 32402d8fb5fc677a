//! A cache's name, which the cache has a copy of.

use core::fmt;

use arrayvec::ArrayString;

/// A name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name(ArrayString<{ Name::MAX }>);

impl Name {
    /// The most bytes of a name.
    pub const MAX: usize = 47;

    /// A name: not empty, not too long, without blanks and slashes (programs read lists of
    /// caches by words, and files are called so).
    pub fn new(name: &str) -> Option<Self> {
        let sound = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        if name.is_empty() || name == "." || name == ".." || !name.bytes().all(sound) {
            return None;
        }
        ArrayString::from(name).ok().map(Self)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
