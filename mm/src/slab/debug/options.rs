//! `slub_debug=`: which caches are debug caches, as on Linux's command line.
//!
//! Blocks with `;` between. A block is letters, then perhaps names, each after a comma. A
//! name may end with `*`. Without names a block is for all caches that no block names; of several the
//! last one holds. Of several that name a cache the first one holds. No letters at all are all of
//! them (`FZPU`).
//!
//! | letter | flag |
//! |---|---|
//! | `F` | [`Flags::CONSISTENCY_CHECKS`] |
//! | `Z` | [`Flags::RED_ZONE`] |
//! | `P` | [`Flags::POISON`] |
//! | `U` | [`Flags::STORE_USER`] |
//! | `-` | none |

use core::fmt;

use super::super::Flags;

/// What is wrong with a `slub_debug=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadOption<'a> {
    /// There is no such letter.
    Letter(char),
    /// The name of a cache is empty, or has a `*` before its end.
    Name(&'a str),
}

impl fmt::Display for BadOption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Letter(letter) => {
                let letter = letter.escape_debug();
                write!(f, "`{letter}` is none of the letters F, Z, P, U and -")
            }
            Self::Name(name) => write!(
                f,
                "`{}` is no name of a cache, or the beginning of one with a `*` behind",
                name.escape_debug()
            ),
        }
    }
}

impl core::error::Error for BadOption<'_> {}

/// A block: its flags and its names.
fn block(block: &str) -> Result<(Flags, impl Iterator<Item = &str> + Clone), BadOption<'_>> {
    let mut parts = block.split(',');
    let letters = parts.next().unwrap_or_default().trim();
    let mut flags = if letters.is_empty() {
        Flags::DEBUG
    } else {
        Flags::empty()
    };
    for letter in letters.chars() {
        flags |= match letter.to_ascii_uppercase() {
            'F' => Flags::CONSISTENCY_CHECKS,
            'Z' => Flags::RED_ZONE,
            'P' => Flags::POISON,
            'U' => Flags::STORE_USER,
            '-' => Flags::empty(),
            _ => return Err(BadOption::Letter(letter)),
        };
    }
    Ok((flags, parts.map(str::trim)))
}

/// Looks at all of it.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn check(text: &str) -> Result<(), BadOption<'_>> {
    for text in text.split(';') {
        let (_, mut names) = block(text)?;
        let wrong = |name: &&str| {
            let plain = name.strip_suffix('*').unwrap_or(name);
            name.is_empty() || plain.contains('*')
        };
        if let Some(name) = names.find(wrong) {
            return Err(BadOption::Name(name));
        }
    }
    Ok(())
}

/// The flags that a text, which is [sound](check), has for the cache `name`.
pub(crate) fn flags_for(text: &str, name: &str) -> Flags {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    let mut for_all = Flags::empty();
    for (flags, mut names) in text.split(';').filter_map(|text| block(text).ok()) {
        if names.clone().next().is_none() {
            for_all = flags;
        } else if names.any(matches) {
            return flags;
        }
    }
    for_all
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Flags = Flags::CONSISTENCY_CHECKS;
    const Z: Flags = Flags::RED_ZONE;
    const P: Flags = Flags::POISON;
    const U: Flags = Flags::STORE_USER;
    const NONE: Flags = Flags::empty();

    #[test]
    fn letters_and_names() {
        let table: &[(&str, &[(&str, Flags)])] = &[
            ("", &[("a", Flags::DEBUG)]),
            ("-", &[("a", NONE)]),
            ("P", &[("a", P), ("b", P)]),
            ("fzPu", &[("a", Flags::DEBUG)]),
            (",a", &[("a", Flags::DEBUG), ("ab", NONE)]),
            ("Z,a,b", &[("a", Z), ("b", Z), ("c", NONE)]),
            (
                "U,kmalloc-*",
                &[("kmalloc-8", U), ("kmalloc-", U), ("kmalloc", NONE)],
            ),
            ("F;Z,a", &[("a", Z), ("b", F)]),
            ("Z,a;F", &[("a", Z), ("b", F)]),
            ("F;P", &[("a", P)]),
            ("F,a*;P,ab", &[("ab", F), ("a", F), ("b", NONE)]),
            ("-,a;FU", &[("a", NONE), ("b", F.union(U))]),
            ("Z,*", &[("anything", Z)]),
        ];
        for (text, caches) in table {
            assert_eq!(check(text), Ok(()), "{text}");
            for (name, flags) in *caches {
                assert_eq!(flags_for(text, name), *flags, "{text}: {name}");
            }
        }
    }

    #[test]
    fn what_is_wrong() {
        for (text, error) in [
            ("X", BadOption::Letter('X')),
            ("FZ;PT,a", BadOption::Letter('T')),
            ("F,", BadOption::Name("")),
            ("F,a,,b", BadOption::Name("")),
            ("F,a*b", BadOption::Name("a*b")),
            ("F,a**", BadOption::Name("a**")),
        ] {
            assert_eq!(check(text), Err(error), "{text}");
        }
    }
}
