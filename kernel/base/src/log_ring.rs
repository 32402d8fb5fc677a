//! The ring of log records that `dmesg` shows.
//!
//! A record is a header of fixed size and the text behind it, in a ring of
//! bytes; a new record takes the place of as many of the oldest as it needs.
//! The ring does no locking: who shares it locks. It needs none of its contents
//! to be right to stay within its bounds.

use core::fmt;

use log::Level;
use platform::CpuId;

/// Bytes before the text of a record: time, length, CPU, level.
const HEADER: usize = 8 + 2 + 1 + 1;

/// The longest text of a record in bytes; longer ones are cut.
pub const MAX_TEXT: usize = 1024;

/// What a record says besides its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Nanoseconds since boot.
    pub time_ns: u64,
    /// The CPU that logged it.
    pub cpu: CpuId,
    /// Its importance.
    pub level: Level,
}

impl fmt::Display for Meta {
    /// Writes what stands before the text of a line: `[    0.012345] cpu0 info: `.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let microseconds = self.time_ns / 1000;
        let (seconds, rest) = (microseconds / 1_000_000, microseconds % 1_000_000);
        let level = match self.level {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        };
        write!(f, "[{seconds:5}.{rest:06}] cpu{} {level}: ", self.cpu)
    }
}

/// A ring of `N` bytes that holds log records.
///
/// ```
/// use kernel_base::log_ring::{LogRing, Meta};
/// use platform::CpuId;
/// let mut ring = LogRing::<4096>::new();
/// ring.push(Meta { time_ns: 12_345_678, cpu: CpuId::BOOT, level: log::Level::Info }, "hello");
/// let record = ring.iter().next().unwrap();
/// assert_eq!(format!("{}{}", record.meta, record.text), "[    0.012345] cpu0 info: hello");
/// ```
///
/// # Invariants
/// `start < N` and `used <= N`; the `used` bytes from `start` on, round the
/// end, are whole records.
#[derive(Clone)]
pub struct LogRing<const N: usize> {
    bytes: [u8; N],
    start: usize,
    used: usize,
    records: usize,
    dropped: u64,
}

impl<const N: usize> Default for LogRing<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> LogRing<N> {
    /// An empty ring. `N` must have room for the longest record.
    pub const fn new() -> Self {
        const {
            assert!(
                N >= HEADER + MAX_TEXT,
                "the ring is smaller than one record"
            )
        };
        Self {
            bytes: [0; N],
            start: 0,
            used: 0,
            records: 0,
            dropped: 0,
        }
    }

    /// Adds a record, in place of the oldest where there is no room. Text
    /// beyond [`MAX_TEXT`] bytes is cut off.
    pub fn push(&mut self, meta: Meta, text: &str) {
        let text = &text[..text.floor_char_boundary(MAX_TEXT)];
        while N - self.used < HEADER + text.len() {
            self.drop_oldest();
        }
        self.append(&meta.time_ns.to_le_bytes());
        // Below `MAX_TEXT`, so it fits.
        self.append(&(text.len() as u16).to_le_bytes());
        self.append(&[meta.cpu.index() as u8, meta.level as u8]);
        self.append(text.as_bytes());
        self.records += 1;
    }

    /// Adds a record of formatted text.
    pub fn push_fmt(&mut self, meta: Meta, text: fmt::Arguments<'_>) {
        let mut buffer = arrayvec::ArrayString::<MAX_TEXT>::new();
        if let Some(text) = text.as_str() {
            return self.push(meta, text);
        }
        // An error means that the rest did not fit: what did is kept.
        let _ = fmt::write(&mut Cut(&mut buffer), text);
        self.push(meta, &buffer);
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// How many records have made room for others.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Removes all records; those do not count as dropped.
    pub fn clear(&mut self) {
        (self.start, self.used, self.records) = (0, 0, 0);
    }

    /// The records, oldest first.
    pub fn iter(&self) -> Records<'_, N> {
        Records { ring: self, at: 0 }
    }

    fn append(&mut self, bytes: &[u8]) {
        let at = (self.start + self.used) % N;
        let (first, second) = bytes.split_at(bytes.len().min(N - at));
        self.bytes[at..at + first.len()].copy_from_slice(first);
        self.bytes[..second.len()].copy_from_slice(second);
        self.used += bytes.len();
    }

    fn drop_oldest(&mut self) {
        match self.header_at(0) {
            Some((_, length)) => {
                // INVARIANT: the record is removed as a whole.
                self.start = (self.start + HEADER + length) % N;
                self.used -= HEADER + length;
                self.records -= 1;
            }
            // Nobody writes what cannot be read; should memory be damaged, an
            // empty ring is better than a loop.
            None => self.clear(),
        }
        self.dropped += 1;
    }

    /// Meta data and text length of the record `at` bytes from the start.
    fn header_at(&self, at: usize) -> Option<(Meta, usize)> {
        if self.used < at + HEADER {
            return None;
        }
        let mut header = [0; HEADER];
        let (first, second) = self.slices(at, HEADER);
        header[..first.len()].copy_from_slice(first);
        header[first.len()..].copy_from_slice(second);
        let [time @ .., l0, l1, cpu, level] = header;
        let length = usize::from(u16::from_le_bytes([l0, l1]));
        if self.used - at - HEADER < length {
            return None;
        }
        let level = Level::iter().find(|&known| known as u8 == level)?;
        let cpu = CpuId::new(u32::from(cpu))?;
        Some((
            Meta {
                time_ns: u64::from_le_bytes(time),
                cpu,
                level,
            },
            length,
        ))
    }

    /// The `length` bytes that start `at` bytes from the start, in up to two
    /// pieces; `at + length` is at most `used`.
    fn slices(&self, at: usize, length: usize) -> (&[u8], &[u8]) {
        let at = (self.start + at) % N;
        let first = length.min(N - at);
        (&self.bytes[at..at + first], &self.bytes[..length - first])
    }
}

impl<const N: usize> fmt::Debug for LogRing<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogRing")
            .field("records", &self.records)
            .field("used", &self.used)
            .field("dropped", &self.dropped)
            .finish_non_exhaustive()
    }
}

/// Takes what fits and drops the rest.
struct Cut<'a>(&'a mut arrayvec::ArrayString<MAX_TEXT>);

impl fmt::Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.floor_char_boundary(self.0.remaining_capacity());
        self.0.push_str(&text[..fits]);
        if fits == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

/// A record of a [`LogRing`].
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When, where, how important.
    pub meta: Meta,
    /// What.
    pub text: Text<'a>,
}

impl fmt::Display for Record<'_> {
    /// Writes the record as a line of the log, without a newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.meta, self.text)
    }
}

/// The text of a [`Record`], which may lie around the end of the ring.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    first: &'a [u8],
    second: &'a [u8],
}

impl Text<'_> {
    /// Its length in bytes.
    pub fn len(self) -> usize {
        self.first.len() + self.second.len()
    }

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, second } = *self;
        // The end of the ring may cut a character in two: put it together.
        let whole = match core::str::from_utf8(first) {
            Ok(_) => first.len(),
            Err(error) => error.valid_up_to(),
        };
        let rest = second
            .iter()
            .take_while(|&&byte| byte & 0xc0 == 0x80)
            .count();
        let (second_start, cut) = if whole < first.len() {
            (rest, &first[whole..])
        } else {
            (0, &[][..])
        };
        write_utf8(f, &first[..whole])?;
        if !cut.is_empty() {
            let mut character = [0; 8];
            let length = (cut.len() + rest).min(character.len());
            let bytes = cut.iter().chain(&second[..rest]);
            character
                .iter_mut()
                .zip(bytes)
                .for_each(|(to, from)| *to = *from);
            write_utf8(f, &character[..length])?;
        }
        write_utf8(f, &second[second_start..])
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Writes bytes that should be UTF-8; a mark for what is not.
fn write_utf8(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        f.write_str(chunk.valid())?;
        if !chunk.invalid().is_empty() {
            f.write_str("\u{fffd}")?;
        }
    }
    Ok(())
}

/// The records of a [`LogRing`], oldest first.
#[derive(Clone, Debug)]
pub struct Records<'a, const N: usize> {
    ring: &'a LogRing<N>,
    at: usize,
}

impl<'a, const N: usize> Iterator for Records<'a, N> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (meta, length) = self.ring.header_at(self.at)?;
        let (first, second) = self.ring.slices(self.at + HEADER, length);
        self.at += HEADER + length;
        Some(Record {
            meta,
            text: Text { first, second },
        })
    }
}
