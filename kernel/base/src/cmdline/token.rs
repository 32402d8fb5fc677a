//! Cutting the line into keys and values.

use super::{ProblemKind, Text};

/// One `key` or `key=value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// Where it starts, in bytes from the start of the line.
    pub position: usize,
    /// What stands before the `=`.
    pub key: &'a str,
    /// What stands behind the `=`; `None` without one.
    pub value: Option<Text<'a>>,
    /// What is wrong with its quotes, if anything.
    pub problem: Option<ProblemKind<'a>>,
}

/// The tokens of a line, first to last. Covers the whole line, whatever is in it.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    line: &'a str,
    position: usize,
}

impl<'a> Tokens<'a> {
    /// The tokens of `line`.
    pub fn new(line: &'a str) -> Self {
        Self { line, position: 0 }
    }

    /// Takes everything up to the next blank.
    fn take_word(&mut self) -> &'a str {
        let rest = &self.line[self.position..];
        let word = &rest[..rest.find(is_blank).unwrap_or(rest.len())];
        self.position += word.len();
        word
    }

    /// Takes a quoted value, starting behind the opening quote. Without a
    /// closing one it extends to the end of the line.
    fn take_quoted(&mut self, key: &'a str) -> (Text<'a>, Option<ProblemKind<'a>>) {
        let rest = &self.line[self.position..];
        let mut escaped = false;
        for (at, byte) in rest.bytes().enumerate() {
            match byte {
                b'"' if !escaped => {
                    self.position += at + 1;
                    let behind = self.take_word();
                    let problem = (!behind.is_empty())
                        .then_some(ProblemKind::TextAfterQuote { key, text: behind });
                    return (Text::quoted(&rest[..at]), problem);
                }
                b'\\' => escaped = !escaped,
                _ => escaped = false,
            }
        }
        self.position = self.line.len();
        (
            Text::quoted(rest),
            Some(ProblemKind::UnterminatedQuote { key }),
        )
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let rest = &self.line[self.position..];
        let blanks = rest.find(|c| !is_blank(c))?;
        self.position += blanks;
        let position = self.position;
        let rest = &rest[blanks..];
        let end = rest.find(|c| c == '=' || is_blank(c)).unwrap_or(rest.len());
        let key = &rest[..end];
        self.position += end;
        let (mut value, mut problem) = (None, None);
        if rest[end..].starts_with('=') {
            self.position += 1;
            if rest[end + 1..].starts_with('"') {
                self.position += 1;
                let (text, wrong) = self.take_quoted(key);
                (value, problem) = (Some(text), wrong);
            } else {
                value = Some(Text::bare(self.take_word()));
            }
        }
        Some(Token {
            position,
            key,
            value,
            problem,
        })
    }
}

/// Blanks separate tokens; a file may end in a newline, fw_cfg in a NUL.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\0')
}
