//! From a line to commands and their words.
//!
//! Blanks separate words, `;` separates commands, `'...'` takes all inside
//! literally, `"..."` takes blanks and `;` literally, and a backslash takes the
//! next character literally, inside double quotes too. There are no variables,
//! pipes or conditions.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::mem::take;

/// Why a line is not understood. Nothing of such a line is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyntaxError {
    /// The quote that was opened with this character has no end.
    Unterminated(char),
    /// A backslash is the last character.
    TrailingBackslash,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unterminated(quote) => write!(f, "the quote {quote} is never closed"),
            Self::TrailingBackslash => f.write_str("nothing follows the last backslash"),
        }
    }
}

/// The words of one command; never empty.
pub type Words = Vec<String>;

/// The commands of `line`. Empty ones (`;;`) are left out.
pub fn commands(line: &str) -> Result<Vec<Words>, SyntaxError> {
    let mut commands = Vec::new();
    let mut words = Words::new();
    // `None` between words; `Some("")` in a word that is empty so far (`""`).
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\'' => quoted(&mut characters, '\'', word.get_or_insert_default())?,
            '"' => quoted(&mut characters, '"', word.get_or_insert_default())?,
            '\\' => {
                let next = characters.next().ok_or(SyntaxError::TrailingBackslash)?;
                word.get_or_insert_default().push(next);
            }
            ';' => {
                words.extend(word.take());
                if !words.is_empty() {
                    commands.push(take(&mut words));
                }
            }
            blank if blank.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    if !words.is_empty() {
        commands.push(words);
    }
    Ok(commands)
}

/// Takes the rest of a quoted part into `word`.
fn quoted(
    characters: &mut core::str::Chars<'_>,
    quote: char,
    word: &mut String,
) -> Result<(), SyntaxError> {
    while let Some(character) = characters.next() {
        match character {
            end if end == quote => return Ok(()),
            '\\' if quote == '"' => {
                let next = characters.next().ok_or(SyntaxError::Unterminated(quote))?;
                word.push(next);
            }
            other => word.push(other),
        }
    }
    Err(SyntaxError::Unterminated(quote))
}
