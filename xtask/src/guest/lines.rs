//! Cutting bytes into lines.

use std::collections::VecDeque;

/// A line without an end is cut here, so that a guest that prints rubbish does
/// not fill the memory.
const LONGEST: usize = 64 << 10;

/// Bytes on one side, lines on the other.
#[derive(Debug, Default)]
pub struct Lines {
    ready: VecDeque<String>,
    rest: Vec<u8>,
}

impl Lines {
    /// Takes in bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.rest.len() >= LONGEST {
                let line = std::mem::take(&mut self.rest);
                self.ready.push_back(text(&line));
            }
        }
    }

    /// Gives out a complete line.
    pub fn next(&mut self) -> Option<String> {
        self.ready.pop_front()
    }

    /// What there is of an incomplete line.
    pub fn partial(&self) -> Option<String> {
        (!self.rest.is_empty()).then(|| text(&self.rest))
    }

    /// Gives out the last line, which nothing will complete.
    pub fn finish(&mut self) -> Option<String> {
        (!self.rest.is_empty()).then(|| text(&std::mem::take(&mut self.rest)))
    }
}

/// Without carriage returns: the serial port ends lines with `\r\n`.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end_matches(['\r', '\n']).replace('\r', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&str]) -> (Vec<String>, Option<String>) {
        let mut lines = Lines::default();
        for piece in pieces {
            lines.push(piece.as_bytes());
        }
        (
            std::iter::from_fn(|| lines.next()).collect(),
            lines.partial(),
        )
    }

    #[test]
    fn lines_are_put_together() {
        assert_eq!(
            cut(&["a\r\nb", "c\r", "\nd"]),
            (vec!["a".into(), "bc".into()], Some("d".into()))
        );
        assert_eq!(cut(&["\r\n\n"]), (vec![String::new(), String::new()], None));
        assert_eq!(cut(&["granary> "]), (vec![], Some("granary> ".into())));
    }

    #[test]
    fn endless_lines_are_cut() {
        let (lines, _) = cut(&["x".repeat(LONGEST).as_str(), "y"]);
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn bytes_that_are_not_text_do_no_harm() {
        let mut lines = Lines::default();
        lines.push(b"\xff\x00ok\n");
        assert_eq!(lines.next().unwrap(), "\u{fffd}\0ok");
    }
}
