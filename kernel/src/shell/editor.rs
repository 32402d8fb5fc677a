//! The line editor: the crate `embedded-cli` behind keys and lines.
//!
//! The crate holds the line, the cursor and the history and draws them. It works
//! byte by byte and asks the terminal nothing, so it works through a pipe as well
//! as on a terminal. It offers no look at the line it holds, but it redraws it on
//! demand: with the output caught instead of shown, that is how line and cursor
//! are read here. This gives what the crate lacks: completion of arguments, Home,
//! End, Delete and the killing keys, and lines that are taken whole or not at all.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::convert::Infallible;

use embedded_cli::autocomplete::Autocompletion;
use embedded_cli::cli::{Cli, CliBuilder, CliHandle};
use embedded_cli::command::RawCommand;
use embedded_cli::service::{Autocomplete, CommandProcessor, Help, ProcessError};

use super::keys::Key;

/// Longest line that is taken, in bytes of UTF-8.
pub const LINE_MAX: usize = 1024;
/// Bytes of history kept, line ends included; the oldest lines go first.
const HISTORY: usize = 4096;
/// What the crate puts before its prompt when it redraws the line.
const REDRAW: &str = "\r\x1b[2K";

const BACKSPACE: &[u8] = b"\x08";
const RIGHT: &[u8] = b"\x1b[C";
const LEFT: &[u8] = b"\x1b[D";

/// Where the crate writes: shown, or caught.
struct Tap {
    out: fn(&str),
    shown: Cell<bool>,
    caught: RefCell<Vec<u8>>,
}

/// The crate's end of the [`Tap`].
struct Screen(Rc<Tap>);

impl embedded_io::ErrorType for Screen {
    type Error = Infallible;
}

impl embedded_io::Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        if !self.0.shown.get() {
            self.0.caught.borrow_mut().extend_from_slice(bytes);
        } else if let Ok(text) = core::str::from_utf8(bytes) {
            (self.0.out)(text);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// The crate's own handling of commands and help is not used, and of completion
/// only the part that merges candidates.
struct Unused;

impl Autocomplete for Unused {}

impl Help for Unused {}

impl CommandProcessor<Screen, Infallible> for Unused {
    fn process<'a>(
        &mut self,
        _: &mut CliHandle<'_, Screen, Infallible>,
        _: RawCommand<'a>,
    ) -> Result<(), ProcessError<'a, Infallible>> {
        Ok(())
    }
}

/// What came of a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The line goes on.
    Editing,
    /// A finished line.
    Line(String),
    /// A finished line of more than [`LINE_MAX`] bytes, which was cut.
    TooLong,
}

/// What could stand at the cursor.
pub struct Candidates {
    /// Bytes of the word that stand before the cursor already.
    pub prefix: usize,
    /// Whole words that start with that prefix.
    pub words: Vec<String>,
}

/// A line with a cursor, and the lines before it.
pub struct LineEditor {
    // Four bytes more than a line may have, so that a line which did not fit can
    // be told from one that just fits: no character has more than four.
    cli: Cli<Screen, Infallible, [u8; LINE_MAX + 4], [u8; HISTORY]>,
    tap: Rc<Tap>,
    prompt: &'static str,
    complete: fn(&str) -> Candidates,
}

impl LineEditor {
    /// An editor that draws with `out` and completes with `complete`, which is
    /// given the text before the cursor.
    pub fn new(prompt: &'static str, out: fn(&str), complete: fn(&str) -> Candidates) -> Self {
        let tap = Rc::new(Tap {
            out,
            shown: Cell::new(false),
            caught: RefCell::new(Vec::new()),
        });
        let Ok(cli) = CliBuilder::default()
            .writer(Screen(tap.clone()))
            .command_buffer([0; LINE_MAX + 4])
            .history_buffer([0; HISTORY])
            .prompt(prompt)
            .build();
        tap.shown.set(true);
        Self {
            cli,
            tap,
            prompt,
            complete,
        }
    }

    /// Draws the prompt and, if there is one, the unfinished line.
    pub fn draw(&mut self) {
        let (line, behind) = (self.line(), self.behind());
        self.show(self.prompt);
        self.show(&line);
        for _ in 0..behind {
            self.show("\x1b[D");
        }
    }

    /// Takes a key.
    pub fn press(&mut self, key: Key) -> Event {
        match key {
            Key::Char(character) => self.insert(character),
            Key::Backspace => self.feed(BACKSPACE),
            Key::Up => self.feed(b"\x1b[A"),
            Key::Down => self.feed(b"\x1b[B"),
            Key::Right => self.feed(RIGHT),
            Key::Left => self.feed(LEFT),
            Key::Home => {
                let before = self.cursor();
                self.repeat(before, LEFT);
            }
            Key::End => self.move_to_end(),
            Key::Delete => {
                if self.behind() > 0 {
                    self.feed(RIGHT);
                    self.feed(BACKSPACE);
                }
            }
            Key::KillBefore => {
                let before = self.cursor();
                self.repeat(before, BACKSPACE);
            }
            Key::KillAfter => {
                let behind = self.behind();
                self.move_to_end();
                self.repeat(behind, BACKSPACE);
            }
            Key::KillWord => self.kill_word(),
            Key::Tab => self.tab(),
            Key::Enter => return self.enter(),
            Key::Cancel => {
                self.muted(Self::clear);
                self.show("^C\n");
                self.draw();
            }
            Key::Clear => {
                self.show("\x1b[2J\x1b[H");
                self.draw();
            }
        }
        Event::Editing
    }

    /// Ends the line.
    fn enter(&mut self) -> Event {
        let line = self.line();
        let fits = line.len() <= LINE_MAX;
        self.muted(|editor| {
            if !fits {
                // Otherwise the cut line would go into the history.
                editor.clear();
            }
            editor.feed(b"\r");
        });
        self.show("\n");
        if fits {
            Event::Line(line)
        } else {
            Event::TooLong
        }
    }

    /// Completes the word before the cursor as far as all candidates agree, and
    /// lists them if there are several and nothing can be added.
    fn tab(&mut self) {
        let before = self.before_cursor();
        let candidates = (self.complete)(&before);
        let mut buffer = [0; LINE_MAX];
        let mut completion = Autocompletion::new(&mut buffer);
        for word in &candidates.words {
            completion.merge_autocompletion(word.get(candidates.prefix..).unwrap_or(""));
        }
        let Some(added) = completion.autocompleted() else {
            return self.show("\x07");
        };
        for character in added.chars() {
            self.insert(character);
        }
        if !completion.is_partial() {
            // Behind a folder comes what is in it.
            if !candidates.words.iter().all(|word| word.ends_with('/')) {
                self.insert(' ');
            }
        } else if added.is_empty() {
            self.show("\n");
            for word in &candidates.words {
                self.show("  ");
                self.show(word);
            }
            self.show("\n");
            self.draw();
        }
    }

    /// Deletes back to the start of the word, and the blanks behind it.
    fn kill_word(&mut self) {
        let before = self.before_cursor();
        let end = before.trim_end();
        let start = end.rfind(' ').map_or(0, |blank| blank + 1);
        self.repeat(before[start..].chars().count(), BACKSPACE);
    }

    fn insert(&mut self, character: char) {
        let mut bytes = [0; 4];
        let text: &str = character.encode_utf8(&mut bytes);
        self.feed(text.as_bytes());
    }

    fn move_to_end(&mut self) {
        let behind = self.behind();
        self.repeat(behind, RIGHT);
    }

    fn clear(&mut self) {
        self.move_to_end();
        let length = self.line().chars().count();
        self.repeat(length, BACKSPACE);
    }

    /// The line as it is.
    fn line(&mut self) -> String {
        let drawn = self.muted(|editor| {
            let Ok(()) = editor.cli.write(|_| Ok(()));
        });
        let line = drawn.strip_prefix(REDRAW).unwrap_or(&drawn);
        String::from(line.strip_prefix(self.prompt).unwrap_or(line))
    }

    /// Characters before the cursor: as many as it can go to the left.
    fn cursor(&mut self) -> usize {
        let mut before = 0;
        self.muted(|editor| {
            while editor.moves(LEFT) {
                before += 1;
            }
            editor.repeat(before, RIGHT);
        });
        before
    }

    /// Characters behind the cursor.
    fn behind(&mut self) -> usize {
        let length = self.line().chars().count();
        length.saturating_sub(self.cursor())
    }

    fn before_cursor(&mut self) -> String {
        let cursor = self.cursor();
        self.line().chars().take(cursor).collect()
    }

    /// Whether a cursor key had an effect: the crate then writes something.
    fn moves(&mut self, key: &[u8]) -> bool {
        !self.muted(|editor| editor.feed(key)).is_empty()
    }

    /// Runs `action` with the crate's output caught, and returns that output.
    fn muted(&mut self, action: impl FnOnce(&mut Self)) -> String {
        let shown = self.tap.shown.replace(false);
        self.tap.caught.borrow_mut().clear();
        action(self);
        self.tap.shown.set(shown);
        String::from_utf8_lossy(&self.tap.caught.borrow()).into_owned()
    }

    /// Gives the crate `bytes`: one whole key or character.
    fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let Ok(()) = self.cli.process_byte::<Unused, _>(byte, &mut Unused);
        }
    }

    fn repeat(&mut self, times: usize, bytes: &[u8]) {
        for _ in 0..times {
            self.feed(bytes);
        }
    }

    fn show(&self, text: &str) {
        (self.tap.out)(text);
    }
}
