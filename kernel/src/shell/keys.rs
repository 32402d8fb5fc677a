//! From the bytes of a serial terminal to keys.
//!
//! The line editor takes neither invalid UTF-8 nor stray control bytes well, so
//! nothing reaches it that has not been understood here: a byte that belongs to
//! no key is dropped. The decoder holds at most one unfinished sequence and never
//! waits for its end: whatever comes next either completes it or replaces it.

/// One key press, as the line editor understands it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A printable character.
    Char(char),
    /// Carriage return, line feed, or the two in that order.
    Enter,
    /// Complete the word before the cursor.
    Tab,
    /// Delete the character before the cursor.
    Backspace,
    /// Delete the character under the cursor.
    Delete,
    /// Older line of the history.
    Up,
    /// Newer line of the history.
    Down,
    /// One character to the left.
    Left,
    /// One character to the right.
    Right,
    /// Start of the line.
    Home,
    /// End of the line.
    End,
    /// Ctrl-C: give the line up.
    Cancel,
    /// Ctrl-U: delete all before the cursor.
    KillBefore,
    /// Ctrl-K: delete all behind the cursor.
    KillAfter,
    /// Ctrl-W: delete the word before the cursor.
    KillWord,
    /// Ctrl-L: clear the screen.
    Clear,
}

/// Where in an escape sequence the decoder is.
#[derive(Clone, Copy)]
enum Escape {
    None,
    /// ESC has come.
    Started,
    /// ESC O has come: one more byte.
    Single,
    /// ESC [ has come, and this number so far.
    Control(u16),
}

/// Decodes bytes to [`Key`]s, one byte at a time.
pub struct Decoder {
    escape: Escape,
    utf8: [u8; 4],
    pending: usize,
    after_return: bool,
}

impl Decoder {
    /// A decoder that has seen nothing yet.
    pub const fn new() -> Self {
        Self {
            escape: Escape::None,
            utf8: [0; 4],
            pending: 0,
            after_return: false,
        }
    }

    /// Takes the next byte; gives the key that it completes.
    pub fn push(&mut self, byte: u8) -> Option<Key> {
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        match self.escape {
            Escape::None => {}
            Escape::Started => {
                self.escape = match byte {
                    b'[' => Escape::Control(0),
                    b'O' => Escape::Single,
                    // A second ESC starts anew; any other key ends it.
                    0x1b => Escape::Started,
                    _ => Escape::None,
                };
                return None;
            }
            Escape::Single => {
                self.escape = Escape::None;
                return final_byte(byte, 0);
            }
            Escape::Control(number) => return self.control(byte, number),
        }
        if byte >= 0x80 || self.pending > 0 {
            return self.utf8(byte, after_return);
        }
        self.single(byte, after_return)
    }

    /// A byte inside `ESC [ ...`.
    fn control(&mut self, byte: u8, number: u16) -> Option<Key> {
        match byte {
            b'0'..=b'9' => {
                let digit = u16::from(byte - b'0');
                self.escape = Escape::Control(number.saturating_mul(10).saturating_add(digit));
                None
            }
            // Other parameters and intermediates: the modifiers do not matter.
            0x20..=0x3f => None,
            0x40..=0x7e => {
                self.escape = Escape::None;
                final_byte(byte, number)
            }
            // Not part of a sequence: forget the sequence, take the byte.
            _ => {
                self.escape = Escape::None;
                self.push(byte)
            }
        }
    }

    /// A byte of a multi-byte character, or one that interrupts it.
    fn utf8(&mut self, byte: u8, after_return: bool) -> Option<Key> {
        self.utf8[self.pending] = byte;
        self.pending += 1;
        match core::str::from_utf8(&self.utf8[..self.pending]) {
            Ok(text) => {
                self.pending = 0;
                text.chars()
                    .next()
                    .filter(|c| !c.is_control())
                    .map(Key::Char)
            }
            // Only the start of a character so far. Four bytes are never that.
            Err(error) if error.error_len().is_none() => None,
            Err(_) => {
                let interrupted = self.pending > 1;
                self.pending = 0;
                match (interrupted, byte) {
                    (true, 0x80..) => self.utf8(byte, after_return),
                    (true, _) => self.single(byte, after_return),
                    (false, _) => None,
                }
            }
        }
    }

    /// An ASCII byte that stands for itself.
    fn single(&mut self, byte: u8, after_return: bool) -> Option<Key> {
        Some(match byte {
            b'\r' => Key::Enter,
            b'\n' if after_return => return None,
            b'\n' => Key::Enter,
            b'\t' => Key::Tab,
            0x08 | 0x7f => Key::Backspace,
            0x1b => {
                self.escape = Escape::Started;
                return None;
            }
            0x01 => Key::Home,
            0x02 => Key::Left,
            0x03 => Key::Cancel,
            0x04 => Key::Delete,
            0x05 => Key::End,
            0x06 => Key::Right,
            0x0b => Key::KillAfter,
            0x0c => Key::Clear,
            0x0e => Key::Down,
            0x10 => Key::Up,
            0x15 => Key::KillBefore,
            0x17 => Key::KillWord,
            0x20..=0x7e => Key::Char(char::from(byte)),
            _ => return None,
        })
    }
}

/// The key of a finished escape sequence.
fn final_byte(byte: u8, number: u16) -> Option<Key> {
    Some(match (byte, number) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', _) => Key::Right,
        (b'D', _) => Key::Left,
        (b'H', _) | (b'~', 1 | 7) => Key::Home,
        (b'F', _) | (b'~', 4 | 8) => Key::End,
        (b'~', 3) => Key::Delete,
        _ => return None,
    })
}
