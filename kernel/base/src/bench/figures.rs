//! The line that carries a workload's figures.

use core::fmt;

use arrayvec::ArrayVec;

use super::number::whole_number;
use super::{Malformed, Tenths, Value};

/// How many keys a line may have beside those that every line can have.
pub const MAX_KEYS: usize = 8;

/// The keys with a place of their own.
const KNOWN: [&str; 6] = ["cpus", "ops", "ns_per_op", "min", "max", "idle_ns"];

/// What was measured of one workload; prints as its `BENCH` line, without newline.
///
/// Whoever has one has one that can be written and read back: the parts are checked when it
/// is made.
///
/// ```
/// use kernel_base::bench::Figures;
/// let line = "BENCH kfree_rcu/64 cpus=4 ops=400000 ns_per_op=1720.7 peak_kib=15960";
/// let figures = Figures::parse(line)?;
/// assert_eq!((figures.name(), figures.cpus(), figures.ns_per_op().get()), ("kfree_rcu/64", 4, 17207));
/// assert_eq!(figures.to_string(), line);
/// # Ok::<(), kernel_base::bench::Malformed>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures<'a> {
    name: &'a str,
    cpus: u32,
    ops: u64,
    ns_per_op: Tenths,
    range: Option<(Tenths, Tenths)>,
    idle_ns: Option<u64>,
    keys: ArrayVec<(&'a str, Value), MAX_KEYS>,
}

impl<'a> Figures<'a> {
    /// The figures of the workload `name`: the CPUs that did it at once, the operations of
    /// all of them in one round, and what one took.
    ///
    /// # Errors
    ///
    /// [`Malformed::Name`], or [`Malformed::Number`] if there are no CPUs or operations.
    pub fn new(name: &'a str, cpus: u32, ops: u64, ns_per_op: Tenths) -> Result<Self, Malformed> {
        if !is_name(name) {
            return Err(Malformed::Name);
        }
        if cpus == 0 {
            return Err(Malformed::Number("cpus"));
        }
        if ops == 0 {
            return Err(Malformed::Number("ops"));
        }
        Ok(Self {
            name,
            cpus,
            ops,
            ns_per_op,
            range: None,
            idle_ns: None,
            keys: ArrayVec::new(),
        })
    }

    /// Adds the figures of the best and the worst round.
    ///
    /// # Errors
    ///
    /// [`Malformed::Range`] if the reported one is not between them.
    pub fn with_range(mut self, min: Tenths, max: Tenths) -> Result<Self, Malformed> {
        if !(min..=max).contains(&self.ns_per_op) {
            return Err(Malformed::Range);
        }
        self.range = Some((min, max));
        Ok(self)
    }

    /// Adds the nanoseconds of the reported round in which the processor was halted.
    pub fn with_idle_ns(mut self, idle_ns: u64) -> Self {
        self.idle_ns = Some(idle_ns);
        self
    }

    /// Adds a further key.
    ///
    /// # Errors
    ///
    /// [`Malformed::Word`] if `key` is none (small letters, digits and `_`, a letter
    /// first), [`Malformed::Twice`], [`Malformed::TooMany`].
    pub fn with_key(mut self, key: &'a str, value: Value) -> Result<Self, Malformed> {
        if !is_key(key) {
            return Err(Malformed::Word);
        }
        if KNOWN.contains(&key) || self.keys.iter().any(|(other, _)| *other == key) {
            return Err(Malformed::Twice);
        }
        self.keys
            .try_push((key, value))
            .map_err(|_| Malformed::TooMany)?;
        Ok(self)
    }

    /// The workload.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The CPUs that did it at once.
    pub fn cpus(&self) -> u32 {
        self.cpus
    }

    /// The operations of all CPUs in one round.
    pub fn ops(&self) -> u64 {
        self.ops
    }

    /// Nanoseconds per operation in the median round.
    pub fn ns_per_op(&self) -> Tenths {
        self.ns_per_op
    }

    /// The figures of the best and the worst round, if given.
    pub fn range(&self) -> Option<(Tenths, Tenths)> {
        self.range
    }

    /// Nanoseconds of the reported round in which the processor was halted, if given.
    pub fn idle_ns(&self) -> Option<u64> {
        self.idle_ns
    }

    /// The further keys in their order.
    pub fn keys(&self) -> &[(&'a str, Value)] {
        &self.keys
    }

    /// Whether `line` begins as such a line does, and so must be one.
    pub fn is_meant_by(line: &str) -> bool {
        line == "BENCH" || line.starts_with("BENCH ")
    }

    /// Reads a line, without its newline. The optional keys may come in any order, but one
    /// blank must separate the words, and numbers must be as they are written here.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(line: &'a str) -> Result<Self, Malformed> {
        let rest = line.strip_prefix("BENCH ").ok_or(Malformed::Name)?;
        let mut words = rest.split(' ');
        let name = words
            .next()
            .filter(|name| is_name(name))
            .ok_or(Malformed::Name)?;
        let cpus = whole("cpus", words.next())?;
        let cpus = u32::try_from(cpus).map_err(|_| Malformed::Number("cpus"))?;
        let ops = whole("ops", words.next())?;
        let ns_per_op = tenths("ns_per_op", value("ns_per_op", words.next())?)?;
        let mut figures = Self::new(name, cpus, ops, ns_per_op)?;
        let (mut min, mut max) = (None, None);
        for word in words {
            let (key, value) = word.split_once('=').ok_or(Malformed::Word)?;
            match key {
                "min" => once(&mut min, tenths("min", value)?)?,
                "max" => once(&mut max, tenths("max", value)?)?,
                "idle_ns" => {
                    let number = whole_number(value).ok_or(Malformed::Number("idle_ns"))?;
                    once(&mut figures.idle_ns, number)?;
                }
                _ => {
                    let value = Value::parse(value).ok_or(Malformed::Word)?;
                    figures = figures.with_key(key, value)?;
                }
            }
        }
        match (min, max) {
            (Some(min), Some(max)) => figures.with_range(min, max),
            (None, None) => Ok(figures),
            (Some(_), None) => Err(Malformed::Missing("max")),
            (None, Some(_)) => Err(Malformed::Missing("min")),
        }
    }
}

impl fmt::Display for Figures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, cpus, ops) = (self.name, self.cpus, self.ops);
        write!(
            f,
            "BENCH {name} cpus={cpus} ops={ops} ns_per_op={}",
            self.ns_per_op
        )?;
        if let Some((min, max)) = self.range {
            write!(f, " min={min} max={max}")?;
        }
        if let Some(idle_ns) = self.idle_ns {
            write!(f, " idle_ns={idle_ns}")?;
        }
        self.keys
            .iter()
            .try_for_each(|(key, value)| write!(f, " {key}={value}"))
    }
}

/// Whether `text` can be a workload's name: small letters, digits, `_`, `-`, and `/`
/// between parts that are not empty; a letter first.
pub const fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut index = 0;
    let mut before = b'/';
    while index < bytes.len() {
        let fits = match bytes[index] {
            b'a'..=b'z' => true,
            b'0'..=b'9' | b'_' | b'-' => index > 0,
            b'/' => before != b'/',
            _ => false,
        };
        if !fits {
            return false;
        }
        before = bytes[index];
        index += 1;
    }
    before != b'/'
}

fn is_key(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// The value in `key=value`, the word that has to come next.
fn value<'a>(key: &'static str, word: Option<&'a str>) -> Result<&'a str, Malformed> {
    word.and_then(|word| word.strip_prefix(key)?.strip_prefix('='))
        .ok_or(Malformed::Missing(key))
}

fn whole(key: &'static str, word: Option<&str>) -> Result<u64, Malformed> {
    whole_number(value(key, word)?).ok_or(Malformed::Number(key))
}

fn tenths(key: &'static str, value: &str) -> Result<Tenths, Malformed> {
    Tenths::parse(value).ok_or(Malformed::Number(key))
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match place.replace(value) {
        Some(_) => Err(Malformed::Twice),
        None => Ok(()),
    }
}
